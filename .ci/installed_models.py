"""The models of the repository by an installed wheel: `from_pretrained`, and the pipelines of transformers.

Usage: python installed_models.py DEPTH SEGMENTATION
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image
from transformers import pipeline

from m33d_hf import M33DForDepthEstimation, M33DForSemanticSegmentation


def main(depth_folder: str, segmentation_folder: str) -> int | str:
    """Both models see one picture of noise; returns 0, or what is wrong with what they say of it."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    M33DForDepthEstimation.from_pretrained(depth_folder)
    model = M33DForSemanticSegmentation.from_pretrained(segmentation_folder)
    metres = np.asarray(pipeline("depth-estimation", model=depth_folder)(picture)["predicted_depth"])
    if metres.shape != (48, 64) or not np.isfinite(metres).all() or metres.min() <= 0:
        return f"installed_models.py: depth is {metres.shape}, from {metres.min()} to {metres.max()}"
    found = pipeline("image-segmentation", model=segmentation_folder)(picture)
    covered = sum(np.asarray(each["mask"]) > 0 for each in found)
    if not {each["label"] for each in found} <= set(model.config.id2label.values()) or not (covered == 1).all():
        return "installed_models.py: the masks of the segmentation do not cover the picture once"
    print(f"depth {metres.min():.2f} to {metres.max():.2f} m; {[each['label'] for each in found]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

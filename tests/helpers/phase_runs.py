"""Runs on folders of annotated videos, as small as a clip model can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m33d_hf.training.recipe.arguments import RunArguments

TINY: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 2,
    "tubelet_size": 2,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def phase_arguments(folder: Path, root: Path, steps: int, **options: Any) -> RunArguments:
    """Arguments of a classification of clips of `root` by the source `phases`, written to `folder`."""
    args = RunArguments(task="video_classification", output_dir=str(folder), cpu=True)
    args.model = dict(TINY)
    args.data.source, args.data.root, args.data.num_workers = "phases", str(root), 0
    args.data.frame_stride, args.data.options = 1, options
    args.transforms.eval_crop = "resize"
    args.train.batch_size, args.train.max_steps = 4, steps
    args.logging.trackers, args.logging.progress, args.logging.pictures = [], False, False
    return args

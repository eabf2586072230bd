"""How much of a patch's depth is the sensor's noise, which normalised depth (m33d_normed) would learn for shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.shared_data import shared
from m33d_hf.data.sources import build_source

KINECTS = {  # folder: pattern, units per metre
    "research_only/7scenes_seq": ("*0.depth.png", 1000),
    "research_only/nyuv2_labelled_drsleep": ("depth_gt_*.png", 5000),
    "rgbd_pairs/slambook_ch7_tum": ("*_depth.png", 5000),
}


def _square(depth: np.ndarray, side: int, share: float) -> np.ndarray:
    """The middle, `share` of the area of the largest square, nearest pixels of `side` x `side`."""
    length = int(min(depth.shape) * share**0.5)
    top, left = ((whole - length) // 2 for whole in depth.shape)
    rows = ((np.arange(side) + 0.5) * length / side).astype(int)
    return depth[top + rows[:, None], left + rows[None]]


def _patches(depth: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Known values of each patch of which at least half is known."""
    for top in range(0, depth.shape[0], size):
        for left in range(0, depth.shape[1], size):
            known = depth[top : top + size, left : left + size]
            known = known[np.isfinite(known)]
            if len(known) >= size * size / 2:
                yield known


def _noisy(patch: np.ndarray) -> bool:
    """Whether a Kinect's errors have more than half of the variance (Khoshelham and Elberink 2012, eq. 10: standard
    deviation 1.425 mm z^2, z in metres; and its steps of 2.85 mm z^2)."""
    squared = float(np.median(patch)) ** 4
    return (1.425e-3**2 + 2.85e-3**2 / 12) * squared > 0.5 * patch.var()


@pytest.mark.slow
def test_shares_of_noisy_patches_that_the_documents_state(repository: Path) -> None:
    found = []
    for share in (1.0, 0.4):  # the smallest crop of own/pretrain
        noisy: list[bool] = []
        for folder, (pattern, scale) in KINECTS.items():
            for path in sorted(shared(folder).glob(pattern)):
                depth = np.asarray(Image.open(path)).astype(np.float64)
                depth[(depth == 0) | (depth == 65535)] = np.nan
                noisy += [_noisy(patch) for patch in _patches(_square(depth / scale, 224, share), 16)]
        assert len(noisy) > 3000
        found.append(np.mean(noisy))
    kinds = [build_source("rooms", split="train", num_frames=128, depth=kind) for kind in ("sensor", "clean")]
    of_noise: list[bool] = []
    for index in range(128):
        measured, exact = (np.asarray(kind[index].read([0]).depth, np.float64).squeeze() for kind in kinds)
        error = np.where(np.isfinite(measured), measured - exact, np.nan)
        pairs = zip(_patches(measured, 8), _patches(error, 8), strict=True)
        of_noise += [float(wrong.var()) > 0.5 * float(patch.var()) for patch, wrong in pairs]
    found.append(np.mean(of_noise))
    text = (repository / "docs/pretraining.md").read_text(encoding="utf-8")
    place = text[text.index("**A noisy depth camera.**") :].split("\n- ")[0]
    assert re.findall(r"(\d+(?:\.\d)?) % of", place) == [f"{100 * value:.1f}" for value in found]

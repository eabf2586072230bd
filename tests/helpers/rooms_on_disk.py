"""Rendered rooms as a folder of recordings: a sequence per room, colour and depth in millimetres, labels if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from m33d_hf.data.sources import build_source


def write_rooms(root: Path, rooms: int, frames: int = 8, labels: bool = False) -> Path:
    """Write `rooms` sequences of `frames` frames of 96 x 128 pixels; returns the root."""
    size = [96, 128]
    source = build_source("rooms", split="train", unit="clips", num_clips=rooms, clip_length=frames, image_size=size)
    for number in range(rooms):
        sample = source[number].read(range(frames))
        assert sample.rgb is not None and sample.depth is not None and sample.segmentation is not None
        for frame in range(frames):
            maps = {
                "color": sample.rgb[frame].permute(1, 2, 0).numpy(),
                "depth": (sample.depth[frame, 0].nan_to_num(0.0).numpy() * 1000).round().astype(np.uint16),
            }
            if labels:
                maps["label"] = sample.segmentation[frame].numpy()
            for name, array in maps.items():
                path = root / f"room{number:03d}" / name / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root

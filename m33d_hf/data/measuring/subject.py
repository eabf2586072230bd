"""What is measured: a split of a data set, and what the run that reads it needs of it."""

from __future__ import annotations

from dataclasses import dataclass

from m33d_hf.data.source import Source


@dataclass(frozen=True)
class Subject:
    """A split.

    Attributes:
        name: "train" or "evaluation".
        source: as the run reads it.
        total: samples of the split.
        clip_frames: source frames that a clip of the model covers; 1 for images.
        least_side: pixels that a frame must have, the model's patch.
    """

    name: str
    source: Source
    total: int
    clip_frames: int
    least_side: int

"""What the sizing rule and a depth head need to know of the training data: how much, how large, how far."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import torch

from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.sources import Source
from m33d_hf.data.sources.frames.splits import AS_STRETCHES
from m33d_hf.errors import DataError

_PICTURES, _MAPS = 3, 48


@dataclass(frozen=True)
class DataFacts:
    """Facts about the training data of a run.

    Attributes:
        samples: in use.
        height, width: of the pictures, in pixels (the median of some).
        notes: sentences about how the split was made.
    """

    samples: int
    height: int
    width: int
    notes: tuple[str, ...] = field(default=())


def look_at(source: Source, rows: list[int] | None, evaluation: Source | None = None) -> DataFacts:
    """Count the samples, and look at the size of some pictures; `evaluation` is only asked how it was split off.

    Raises:
        DataError: none of them can be read.
    """
    chosen = list(range(len(source))) if rows is None else rows
    shapes = [shape for row in evenly_spaced(chosen, _PICTURES) if (shape := _shape(source, row)) is not None]
    if not shapes:
        raise DataError(
            f"None of {min(_PICTURES, len(chosen))} samples of {source.name} can be read; look at them with "
            "scripts/check_data.py."
        )
    height, width = (int(statistics.median_low(sides)) for sides in zip(*shapes, strict=True))
    return DataFacts(len(chosen), height, width, tuple(_split_notes(source, evaluation)))


def _split_notes(source: Source, evaluation: Source | None) -> list[str]:
    """How the splits were made; that of one recording cut in two says what its figures are worth."""
    notes = [getattr(each, "split_note", None) for each in (source, evaluation)]
    if evaluation is not None and notes[1] and notes[1].endswith(AS_STRETCHES):
        notes.append(
            "these frames are from the recordings that are trained on, and look like their neighbours: the figures "
            "flatter, and say little about other places (three recordings or more are held out whole)"
        )
    return [note for note in notes if note]


def _shape(source: Source, row: int) -> tuple[int, int] | None:
    try:
        sample = source[row].read([0])
    except (DataError, OSError):
        return None
    found = sample.rgb if sample.rgb is not None else sample.depth
    return None if found is None else (int(found.shape[-2]), int(found.shape[-1]))


@dataclass(frozen=True)
class DepthFacts:
    """Mean and standard deviation of the training depth, and the farthest that is plausible, in metres."""

    mean: float
    std: float
    farthest: float


def look_at_depth(source: Source, rows: list[int] | None) -> DepthFacts:
    """Statistics over some frames, evenly spread.

    Raises:
        DataError: no frame with depth can be read.
    """
    chosen = list(range(len(source))) if rows is None else rows
    found = []
    for row in evenly_spaced(chosen, _MAPS):
        try:
            depth = source[row].read([0]).depth
        except (DataError, OSError):
            continue
        if depth is not None:
            valid = depth[torch.isfinite(depth) & (depth > 0)].double()
            found.append(valid[:: max(1, valid.numel() // 20_000)])
    metres = torch.cat(found) if found else torch.zeros(0)
    if not metres.numel():
        raise DataError(f"No sample of {source.name} has depth; a depth model cannot be trained on them.")
    farthest = 1.25 * float(metres.max())
    return DepthFacts(round(float(metres.mean()), 4), round(max(float(metres.std()), 0.01), 4), round(farthest, 2))

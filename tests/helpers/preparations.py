"""Prepared data sets for tests, and comparisons with the sources that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.source import Source
from m33d_hf.inference.preparation.preparing import PreparationOptions, PreparationSummary, prepare_data
from m33d_hf.inference.sharding import Place

ALONE = Place(0, 1, 0)


def prepared(source: Source, output: Path, place: Place = ALONE, **options: Any) -> PreparationSummary:
    """Prepare a source in this process, in parts of a few frames."""
    lines: list[str] = []
    return prepare_data(
        PreparationOptions(**{"output": str(output), "shard_mb": 0.02} | options), source, place, lines.append
    )


def file_bytes(root: Path) -> dict[str, bytes]:
    """Name -> content of the files of frames below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("file-*"))}


def assert_same_items(first: Source, second: Source, clips: bool = False) -> None:
    """Every item of two sources is the same to the last bit, keys and labels included."""
    assert len(first) == len(second) > 0
    assert first.class_names == second.class_names and first.action_names == second.action_names
    assert first.depth_spec == second.depth_spec
    for index in range(len(first)):
        one, other = first[index], second[index]
        assert one.key == other.key and one.length == other.length
        frames = range(one.length) if clips else [0]
        assert_same_sample(one.read(list(frames)), other.read(list(frames)))


def assert_same_sample(one: RGBDSample, other: RGBDSample) -> None:
    """Maps of one type, size and value; NaN equals NaN."""
    for name in ("rgb", "depth", "segmentation"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and a.shape == b.shape, name
            assert torch.equal(a.nan_to_num(-1.0) if a.is_floating_point() else a,
                               b.nan_to_num(-1.0) if b.is_floating_point() else b), name  # fmt: skip
    assert one.label == other.label


def keys_of(source: Source, rows: Sequence[int] | None = None) -> list[str]:
    """Keys of some items, of all by default."""
    return [source[row].key for row in (range(len(source)) if rows is None else rows)]

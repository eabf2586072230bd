"""Depth that no name gives away is found by its bits, and the options that are named do pair it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import rgb_array, save, write_frames
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import DataError


def _hinted(root: Path) -> dict[str, str]:
    """Options that the error names."""
    with pytest.raises(DataError) as caught:
        FolderSource(root)
    words = shlex.split(next(line for line in str(caught.value).splitlines() if line.startswith("  --data.options")))
    return {key.removeprefix("--data.options."): value for key, value in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.parametrize(
    ("rgb", "depth"),
    [
        ("color/{i}.jpg", "depth/d_{i}.png"),
        ("color/{i}.jpg", "z16/{i}.png"),
        ("color/{i}.png", "zmap/{i}.png"),
        ("{i}.jpg", "{i}_z.png"),
        ("{i}.jpg", "{i}_raw16.png"),
        ("img2_{i}.png", "z2_{i}.tif"),
    ],
)
def test_the_named_options_pair_all_frames(tmp_path: Path, rgb: str, depth: str) -> None:
    for scene in ("one", "two"):
        write_frames(tmp_path / scene, rgb=rgb, depth=depth)
    source = FolderSource(tmp_path, **_hinted(tmp_path))  # type: ignore[arg-type]
    assert len(source) == 6 and not source.unpaired
    sample = source[0].read([0])
    assert sample.depth is not None and sample.rgb is not None and 1 < float(sample.depth.nanmedian()) < 3


def test_the_error_says_how_many_there_are_once(tmp_path: Path) -> None:
    write_frames(tmp_path, count=40, depth="z16/{i}.png")
    with pytest.raises(DataError, match=r"40 files such as z16/0\.png have 16 bits") as caught:
        FolderSource(tmp_path)
    assert len(re.findall("z16", str(caught.value))) < 5


def test_nothing_is_named_where_the_files_leave_doubts(tmp_path: Path) -> None:
    write_frames(tmp_path, rgb="a{i}.png", depth="b{i}.png")
    save(tmp_path / "c0.png", np.zeros((24, 32), np.uint16))  # two kinds of 16 bits: which is depth?
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path)
    assert "Expected, for example" in str(caught.value) and "16 bits" not in str(caught.value)
    only = tmp_path / "only"
    save(only / "a" / "0.png", rgb_array())
    with pytest.raises(DataError, match="Expected, for example"):
        FolderSource(only)

"""Patterns without a folder: files pair side by side, and across the folders that tell modalities apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.frames_on_disk import write_frames
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import DataError

PATTERNS = {"rgb": "*_left.png", "depth": "*_disp.png", "depth_unit": "millimetre"}


@pytest.mark.parametrize(
    ("rgb", "depth"),
    [
        ("{i}_left.png", "{i}_disp.png"),
        ("left/{i}_left.png", "disp/{i}_disp.png"),
        ("view/left/{i}_left.png", "disp/{i}_disp.png"),
        ("{i}_left.png", "disp/{i}_disp.png"),
    ],
)
def test_one_sequence_in_any_arrangement(tmp_path: Path, rgb: str, depth: str) -> None:
    source = FolderSource(write_frames(tmp_path, 3, rgb, depth), **PATTERNS)
    assert [source[index].key for index in range(len(source))] == ["0", "1", "2"]
    assert not source.unpaired and all(source[i].read([0]).depth is not None for i in range(3))


def test_sequences_stay_sequences(tmp_path: Path) -> None:
    for scene, count in (("a", 2), ("b", 3)):
        write_frames(tmp_path, count, f"{scene}/left/{{i}}_left.png", f"{scene}/disp/{{i}}_disp.png")
    source = FolderSource(tmp_path, unit="clips", **PATTERNS)
    assert [(source[index].key, source[index].length) for index in range(len(source))] == [("a", 2), ("b", 3)]


def test_files_that_share_a_folder_pair_there_alone(tmp_path: Path) -> None:
    write_frames(tmp_path, 2, "a/{i}_left.png", "a/{i}_disp.png")
    write_frames(tmp_path, 2, "b/{i}_left.png", "c/{i}_disp.png")
    source = FolderSource(tmp_path, **PATTERNS)
    assert [source[index].key for index in range(len(source))] == ["a/0", "a/1"]
    assert len(source.unpaired) == 4


def test_nothing_that_pairs_says_how_patterns_work(tmp_path: Path) -> None:
    write_frames(tmp_path, 2, "left/{i}_left.png", None)
    write_frames(tmp_path, 2, "left/{i}.png", "disp/x{i}_disp.png")
    with pytest.raises(
        DataError, match=r"in one folder or in a folder per modality; with a folder, rgb='left/\*\.png'"
    ):
        FolderSource(tmp_path, **PATTERNS)

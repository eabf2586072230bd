"""Hundreds of skipped files are said in a line per reason, with a glob that leaves depth maps aside."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.inference.skipped_words import skipped_lines

DEPTH = "is not an 8-bit picture (uint16); is it a depth map?"


def _files(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (("s1/color/1.jpg", "s2/color/1.jpg"), ("s1/z/1.png", "s2/z/1.png")),
        (("s1/color/1.png", "s2/color/1.png"), ("s1/z/1.png", "s2/z/1.png")),
        (("1.jpg", "2.jpg"), ("1_z.png", "2_z.png")),
    ],
)
def test_the_glob_finds_the_pictures_and_nothing_else(
    tmp_path: Path, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    pictures, maps = _files(tmp_path, *good), _files(tmp_path, *bad)
    told, hint, where = skipped_lines([SkippedFile(str(path), DEPTH, "") for path in maps], pictures)
    assert told == f"skipped 2 files, the first {maps[0]}: {DEPTH}" and where.startswith("skipped files are listed in")
    pattern = hint.split("'")[1]
    assert {Path(found) for found in glob.glob(pattern, recursive=True)} == set(pictures)


def test_no_glob_is_made_up_where_none_is_simple(tmp_path: Path) -> None:
    pictures, maps = _files(tmp_path, "s/1.png", "s/2.png"), _files(tmp_path, "s/1_z.png")
    assert len(skipped_lines([SkippedFile(str(maps[0]), DEPTH, "")], pictures)) == 2
    assert skipped_lines([], pictures) == []


def test_reasons_are_sorted_by_their_files_and_the_rest_is_counted() -> None:
    skipped = [
        SkippedFile(f"{reason}/{n}.png", f"reason {reason}", "") for reason in range(7) for n in range(reason + 1)
    ]
    lines = skipped_lines(skipped, [])
    assert lines[0] == "skipped 7 files, the first 6/0.png: reason 6" and len(lines) == 6
    assert lines[-1].startswith(".. and 3 more, for other reasons; ")

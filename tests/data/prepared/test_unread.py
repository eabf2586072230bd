"""Looking again at what could not be read: no more than needed, wherever the data lies, and never too little."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from helpers.preparations import ALONE, file_bytes, prepared
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.prepared.encoding import Encoder
from m33d_hf.data.source import Source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.inference.preparation.preparing import PreparationOptions, prepare_data

LENGTH = 40


def clips(root: str | Path) -> Source:
    return FolderSource(root, depth_unit="mm", unit="clips")


def images(root: str | Path) -> Source:
    return FolderSource(root, depth_unit="mm")


def mixed(root: str | Path) -> Source:
    return MixtureSource({"first": clips(f"{root}/one"), "second": clips(f"{root}/two")}, [1, 1])


def torn(path: Path) -> bytes:
    """Cut a file short, to as many bytes, as a copy that did not end; returns what it held."""
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2] + bytes(len(before) - len(before) // 2))
    return before


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[int] | None]:
    """The frames that were asked for to be encoded; None for all of an item."""
    found: list[list[int] | None] = []
    rows = Encoder.rows

    def noted(self: Encoder, handle: Any, sequence: str, indices: Sequence[int] | None = None, *rest: Any) -> Any:
        found.append(None if indices is None else list(indices))
        return rows(self, handle, sequence, indices, *rest)

    monkeypatch.setattr(Encoder, "rows", noted)
    return found


def test_nothing_is_read_where_no_file_changed_and_else_where_it_failed(
    tmp_path: Path, reads: list[list[int] | None]
) -> None:
    root, output = write_frames(tmp_path / "in", LENGTH), tmp_path / "out"
    prepared(clips(root), tmp_path / "expected")
    whole = torn(root / "color/29.png")
    first = prepared(clips(root), output)
    assert first.rows == 24 and [Path(file.path).name for file in first.skipped] == ["29.png"]
    before = file_bytes(output)
    reads.clear()
    again = prepared(clips(root), output)
    assert (again.written, again.skipped, reads) == (0, first.skipped, [])
    os.utime(root / "color/29.png")
    again = prepared(clips(root), output)
    assert (again.written, again.skipped, reads) == (0, first.skipped, [list(range(24, 32))])
    assert file_bytes(output) == before
    known = (root / "color/29.png").stat()
    (root / "color/29.png").write_bytes(whole)  # of the same size, with the time that it had: as from a backup
    os.utime(root / "color/29.png", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert prepared(clips(root), output).written == 1 and file_bytes(output) == file_bytes(tmp_path / "expected")


def test_the_last_frames_and_another_file_of_those_that_failed(tmp_path: Path, reads: list[list[int] | None]) -> None:
    root, output = write_frames(tmp_path / "in", LENGTH + 3), tmp_path / "out"
    whole = torn(root / "color/41.png")
    torn(root / "color/42.png")
    prepared(clips(root), output)
    (root / "color/41.png").write_bytes(whole)
    reads.clear()
    again = prepared(clips(root), output)
    assert reads[0] == [40, 41, 42] and again.written == 1
    assert [Path(file.path).name for file in again.skipped] == ["42.png"]


def test_depth_that_is_damaged_alone_is_looked_at_alone(tmp_path: Path, reads: list[list[int] | None]) -> None:
    root, output = write_frames(tmp_path / "in", LENGTH), tmp_path / "out"
    prepared(clips(root), tmp_path / "expected")
    whole = {number: torn(root / f"depth/{number}.png") for number in (3, *range(16, 24))}
    assert prepared(clips(root), output).rows == LENGTH
    torn(root / "color/20.png")  # the part has it
    reads.clear()
    assert prepared(clips(root), output).written == 0 and reads == []
    shutil.copyfile(tmp_path / "in/color/19.png", root / "color/20.png")
    for number in (3, 17):
        (root / f"depth/{number}.png").write_bytes(whole[number])
        assert prepared(clips(root), output).written == 1


@pytest.mark.parametrize("build", [clips, images, mixed])
def test_the_same_data_elsewhere_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[[str | Path], Source]
) -> None:
    """By a relative path, and copied, which leaves no time of change as it was."""
    root = tmp_path / "data"
    for name in ("one", "two") if build is mixed else (".",):
        write_frames(root / name, LENGTH)
    broken = "two/color/29.png" if build is mixed else "color/29.png"
    torn(root / broken)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    first = prepared(build("data"), output)
    assert first.written and [file.path for file in first.skipped] == [f"data/{broken}"]
    here = prepared(build(root), output)
    assert here.written == 0 and [file.path for file in here.skipped] == [str(root / broken)]
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(root)
    there = prepared(build(tmp_path / "copy"), output)
    assert there.written == 0 and [file.path for file in there.skipped] == [str(tmp_path / "copy" / broken)]
    assert {Path(file.path).name for file in read_skipped(output / "skipped_files.csv")} == {"29.png"}


def test_a_failing_disk_leaves_files_as_they_were_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, output = write_frames(tmp_path / "in", LENGTH), tmp_path / "out"
    prepared(images(root), tmp_path / "expected")
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "29.png":
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert len(prepared(images(root), output).skipped) == 1
    assert prepared(images(root), output).written == 0
    monkeypatch.undo()
    assert prepared(images(root), output).written == 1 and file_bytes(output) == file_bytes(tmp_path / "expected")


def test_a_picture_that_is_whole_is_read_again_for_what_lies_beside_it(tmp_path: Path) -> None:
    """Its depth has another aspect ratio; turning that leaves the picture, and all sizes, as they were."""
    root, output = tmp_path / "in", tmp_path / "out"
    for number in range(LENGTH):
        save(root / f"color/{number}.png", rgb_array(number, (24, 32)))
        save(root / f"depth/{number}.npy", depth_array(number, (24, 32)))
    prepared(images(root), tmp_path / "expected")
    save(root / "depth/29.npy", np.ascontiguousarray(depth_array(29, (24, 32)).T))
    assert len(prepared(images(root), output).skipped) == 1
    assert prepared(images(root), output).written == 0
    save(root / "depth/29.npy", depth_array(29, (24, 32)))
    assert prepared(images(root), output).written == 1 and file_bytes(output) == file_bytes(tmp_path / "expected")


def test_what_takes_a_while_is_said_first(tmp_path: Path, reads: list[list[int] | None]) -> None:
    root, said = write_frames(tmp_path / "in", LENGTH), list[str]()
    torn(root / "color/29.png")
    options = PreparationOptions(output=str(tmp_path / "out"))
    prepare_data(options, clips(root), ALONE, said.append)
    assert not any("comparing" in line for line in said)
    os.utime(root / "color/29.png")
    reads.clear()
    before: list[tuple[str, int]] = []
    prepare_data(options, clips(root), ALONE, lambda line: before.append((line, len(reads))))
    assert before[0] == ("1 complete part: comparing what could not be read", 0) and before[1][1] == 1

"""Names in split lists: what a list may call a frame is what pathlib says; listed sequences need no names of frames."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath

import pytest

from m33d_hf.data.sources.frames import splits
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import missing_entries, select_split
from m33d_hf.errors import DataError

NAMES = ("a", "x.y", "k.tar.gz", ".hidden", "tail.", "two words", "é", "e\u0301", "s.sens#depth-3")


def by_pathlib(key: str, frame: Frame) -> set[str]:
    files = [PurePosixPath(file) for file in (frame.rgb, frame.depth) if file is not None]
    names = {frame.key, PurePosixPath(frame.key).name, *map(str, files), *(file.name for file in files)}
    names |= {str(file.with_suffix("")) for file in files}
    names |= {str(folder) for folder in (PurePosixPath(key), *PurePosixPath(key).parents)} - {"."}
    return {splits.composed(name) for name in names}


def test_names_are_those_of_pathlib() -> None:
    for key, name, other in itertools.product(("s", "train/s", "é/x.y"), NAMES, NAMES):
        for rgb, depth in ((f"{key}/color/{name}", f"{key}/{other}"), (name, None), (None, f"deep/{other}")):
            frame = Frame(f"{key}/{name}", rgb, depth)
            assert splits._sequence_names(key) | splits._frame_names(frame) == by_pathlib(key, frame)


def test_lists_of_sequences_need_no_names_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = {
        f"scene{i:04d}_00": [Frame(f"scene{i:04d}_00/{n}", f"c/{i}/{n}.jpg") for n in range(50)] for i in range(8)
    }
    (tmp_path / "train.txt").write_text("".join(f"scene{i:04d}_00\n" for i in range(6)))
    asked: list[str] = []
    names = splits._frame_names
    monkeypatch.setattr(splits, "_frame_names", lambda frame: (asked.append(frame.key), names(frame))[1])
    kept, how = select_split(tmp_path, sequences, "train")
    assert list(kept) == list(sequences)[:6] and "as listed in train.txt" in how
    assert not asked
    assert missing_entries(tmp_path, sequences, "train") == []
    (tmp_path / "train.txt").write_text("scene0001_00\nscene0007_00/3\nc/2/9\nscene0099_00\n")
    kept, _ = select_split(tmp_path, sequences, "train")
    assert {key: len(frames) for key, frames in kept.items()} == {
        "scene0001_00": 50,
        "scene0002_00": 1,
        "scene0007_00": 1,
    }
    assert missing_entries(tmp_path, sequences, "train") == ["scene0099_00"]


def test_a_listed_sequence_is_no_frame_of_that_name(tmp_path: Path) -> None:
    sequences = {
        str(i): [Frame(f"{i}/{n}", f"{i}/color/{n}.png", f"{i}/depth/{n}.png") for n in range(1, 8)]
        for i in range(1, 6)
    }
    (tmp_path / "train.txt").write_text("1\n2\n3\n")
    (tmp_path / "val.txt").write_text("4\n5\n")
    assert select_split(tmp_path, sequences, "train")[0] == {key: sequences[key] for key in "123"}
    assert select_split(tmp_path, sequences, "val")[0] == {key: sequences[key] for key in "45"}
    (tmp_path / "val.txt").write_text("4\n5/2\n7\n")  # 7 is a frame of every sequence, 4 is none
    with pytest.raises(DataError, match="3 of 3 sequences are in"):
        select_split(tmp_path, sequences, "train")
    (tmp_path / "train.txt").unlink()
    kept, _ = select_split(tmp_path, sequences, "val")
    assert {key: [frame.key for frame in frames] for key, frames in kept.items()} == {
        "1": ["1/7"], "2": ["2/7"], "3": ["3/7"], "4": [frame.key for frame in sequences["4"]], "5": ["5/2", "5/7"],
    }  # fmt: skip


def test_lists_share_a_sequence_only_where_they_share_frames(tmp_path: Path) -> None:
    sequences = {"1": [Frame(f"1/{n}") for n in range(4)], "2": [Frame(f"2/{n}") for n in range(4)]}
    (tmp_path / "train.txt").write_text("1/0\n1/1\n2\n")
    (tmp_path / "val.txt").write_text("1/2\n1/3\n")
    assert {key: len(frames) for key, frames in select_split(tmp_path, sequences, "train")[0].items()} == {
        "1": 2, "2": 4,
    }  # fmt: skip
    (tmp_path / "val.txt").write_text("1\n")
    with pytest.raises(DataError, match="1 of 2 sequences are in"):
        select_split(tmp_path, sequences, "train")

"""Class folders without lists: what is a class, what is held out, and where lists are still asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from m33d_hf.data.sources.actions.ucf101 import Ucf101Source
from m33d_hf.errors import DataError

FOLDERS = {"wave": 10, "clap": 7, "point": 1}


def write(base: Path, folders: dict[str, int], name: str = "clip{}.mp4") -> Path:
    for folder, count in folders.items():
        (base / folder).mkdir(parents=True)
        for number in range(count):
            (base / folder / name.format(number)).touch()
    return base


def keys(source: Ucf101Source) -> list[str]:
    return [source[row].key for row in range(len(source))]


@pytest.mark.parametrize("below", [".", "videos"])
def test_the_folders_are_the_classes_and_a_fifth_is_held_out(tmp_path: Path, below: str) -> None:
    write(tmp_path / below, FOLDERS)
    (tmp_path / below / "notes").mkdir()
    (tmp_path / below / "notes" / "list.txt").touch()
    train, test = Ucf101Source(tmp_path, "train"), Ucf101Source(tmp_path, "validation")
    assert train.action_names == test.action_names == ["clap", "point", "wave"]
    assert Counter(key.split("/")[0] for key in keys(test)) == {"wave": 2, "clap": 1}  # 2 of 10, 1.4 of 7, none of 1
    assert not set(keys(train)) & set(keys(test)) and len(train) + len(test) == 18
    assert keys(Ucf101Source(tmp_path, "test")) == keys(test)
    assert sorted(keys(Ucf101Source(tmp_path, "all"))) == sorted([*keys(train), *keys(test)])
    assert train.labels() == [["clap", "point", "wave"].index(key.split("/")[0]) for key in keys(train)]
    assert any("20% of each folder's videos" in note for note in train.notes)


def test_a_folder_of_depth_videos_is_no_class(tmp_path: Path) -> None:
    write(tmp_path, {"clap": 3, "wave": 3, "depth": 6})
    source = Ucf101Source(tmp_path, "all")
    assert source.action_names == ["clap", "wave"] and len(source) == 6
    told = [(entry.path, entry.reason) for entry in source.unpaired]
    assert told == [("depth", "depth is read from pictures and arrays, not from videos")]


def test_a_validation_share_comes_out_of_the_rest(tmp_path: Path) -> None:
    write(tmp_path, {"a": 10, "b": 10})
    splits = ("train", "validation", "test")
    parts = [set(keys(Ucf101Source(tmp_path, split, validation_fraction=0.25))) for split in splits]
    assert [len(part) for part in parts] == [12, 4, 4] and len(set.union(*parts)) == 20


def test_a_new_clip_moves_few_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"a": 50, "b": 50})
    before = set(keys(Ucf101Source(tmp_path, "test")))
    (tmp_path / "a" / "another.mp4").touch()
    assert len(before ^ set(keys(Ucf101Source(tmp_path, "test")))) <= 2


def test_ucf101_itself_still_needs_its_lists(tmp_path: Path) -> None:
    write(tmp_path, {"Archery": 3, "YoYo": 3}, "v_Clip_g0{}_c01.avi")
    with pytest.raises(DataError, match=r"no classInd\.txt"):
        Ucf101Source(tmp_path)


@pytest.mark.parametrize(("official", "read"), [(0, True), (1, True), (5, True), (6, False), (10, False)])
def test_names_of_ucf101_count_by_majority(tmp_path: Path, official: int, read: bool) -> None:
    """Own folders may hold some clips of UCF-101; where most are, they are UCF-101, whose groups the lists keep apart.

    What the folders are called plays no part: "Archery" may be anybody's.
    """
    for folder in ("Archery", "YoYo"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        name = f"v_Clip_g{number:02d}_c01.avi" if number < official else f"my clip {number}.avi"
        (tmp_path / ("Archery", "YoYo")[number % 2] / name).touch()
    if read:
        train = Ucf101Source(tmp_path)
        assert train.action_names == ["Archery", "YoYo"] and len(train) == 8
    else:
        with pytest.raises(DataError, match=r"no classInd\.txt"):
            Ucf101Source(tmp_path)


def test_where_lists_were_named_or_one_folder_is_all(tmp_path: Path) -> None:
    write(tmp_path / "two", {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"no classInd\.txt"):
        Ucf101Source(tmp_path / "two", lists="elsewhere")
    write(tmp_path / "one", {"a": 5})
    with pytest.raises(DataError, match="at least two folders of videos"):
        Ucf101Source(tmp_path / "one")


def test_nothing_to_hold_out(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "b": 1})
    assert len(Ucf101Source(tmp_path, "train")) == 2
    with pytest.raises(DataError, match=r"no class folder of .* has more than one video"):
        Ucf101Source(tmp_path, "validation")

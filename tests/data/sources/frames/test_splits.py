from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.frames_on_disk import save, write_frames
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.splits import select_split
from m33d_hf.data.sources.frames.tum import TumSource
from m33d_hf.errors import ConfigError, DataError, MissingSplitError

SPLITS = ("train", "validation", "test")


def frame_keys(root: Path, split: str | None, **options: object) -> list[str]:
    source = FolderSource(root, split=split, **options)
    return [source[i].key for i in range(len(source))]


def test_one_sequence_is_cut_into_stretches(tmp_path: Path):
    write_frames(tmp_path, 20)
    parts = [frame_keys(tmp_path, split) for split in SPLITS]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert parts[0] + parts[1] + parts[2] == [str(i) for i in range(20)]
    assert frame_keys(tmp_path, None) == frame_keys(tmp_path, "all") == [str(i) for i in range(20)]
    assert frame_keys(tmp_path, "val") == parts[1]


def test_many_sequences_stay_whole(tmp_path: Path):
    for scene in range(10):
        write_frames(tmp_path, 2, f"s{scene}/rgb/{{i}}.png", f"s{scene}/depth/{{i}}.png")
    scenes = [{key.split("/")[0] for key in frame_keys(tmp_path, split)} for split in SPLITS]
    assert [len(part) for part in scenes] == [8, 1, 1]
    assert len(set.union(*scenes)) == 10


@pytest.mark.parametrize("count", range(3, 30))
def test_every_number_of_sequences_has_a_validation_split(count: int) -> None:
    sequences: dict[str, list[Any]] = {f"s{number}": [] for number in range(count)}
    parts = {name: _selected(sequences, name) for name in SPLITS}
    assert parts["train"] and parts["validation"]
    assert sorted(key for part in parts.values() for key in part) == sorted(sequences), "each in one split"
    stated = {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert parts["train"] == _selected(sequences, "train", stated), "what is trained on is the share, as ever"
    if count not in (6, 7):
        assert parts["validation"] == _selected(sequences, "validation", stated)


def _selected(sequences: dict[str, list[Any]], name: str, fractions: dict[str, float] | None = None) -> list[str]:
    try:
        return list(select_split(Path("nowhere"), sequences, name, None, fractions, whole=True)[0])
    except MissingSplitError:
        return []


def write_sequences(root: Path, **lengths: int) -> Path:
    for name, length in lengths.items():
        write_frames(root, length, f"{name}/rgb/{{i}}.png", f"{name}/depth/{{i}}.png")
    return root


@pytest.mark.parametrize(
    ("lengths", "held"),
    [
        ({"a": 4, "b": 4, "c": 4}, "a"),
        ({"a": 6, "b": 5, "c": 9, "d": 4}, "d"),
        ({"a": 1, "b": 30, "c": 9}, "c"),  # one frame would judge nothing
        ({"long": 9, "short": 2}, "short"),
    ],
)
def test_one_of_few_sequences_is_held_out_whole(tmp_path: Path, lengths: dict[str, int], held: str):
    write_sequences(tmp_path, **lengths)
    train, validation = (frame_keys(tmp_path, split) for split in ("train", "validation"))
    assert {key.split("/")[0] for key in validation} == {held} and len(validation) == lengths[held]
    assert {key.split("/")[0] for key in train} == set(lengths) - {held}
    assert len(train) == sum(lengths.values()) - lengths[held]
    said = FolderSource(tmp_path, split="validation").split_note
    assert said == f"split validation: 1 of {len(lengths)} sequences ({held})"
    with pytest.raises(MissingSplitError, match=f"{held} is the validation split.*split_fractions"):
        frame_keys(tmp_path, "test")
    # Shares that are stated are kept to: they cut stretches from few sequences.
    halves = {"train": 0.5, "validation": 0.5}
    assert len({key.split("/")[0] for key in frame_keys(tmp_path, "validation", split_fractions=halves)}) > 1


@pytest.mark.parametrize("lengths", [{"a": 10, "b": 10}, {"a": 20, "b": 20, "c": 1}, {"a": 40, "b": 1}])
def test_sequences_of_which_none_can_be_spared_are_cut(tmp_path: Path, lengths: dict[str, int]):
    write_sequences(tmp_path, **lengths)
    assert FolderSource(tmp_path, split="validation").split_note.endswith("as one stretch of frames")
    parts = [set(frame_keys(tmp_path, split)) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == sum(lengths.values())


def test_fractions_are_an_option(tmp_path: Path):
    write_frames(tmp_path, 10)
    assert len(frame_keys(tmp_path, "train", split_fractions={"train": 0.5, "test": 0.5})) == 5
    with pytest.raises(MissingSplitError, match="no share"):
        frame_keys(tmp_path, "validation", split_fractions={"train": 0.5, "test": 0.5})
    with pytest.raises(ConfigError, match="at most 1"):
        frame_keys(tmp_path, "train", split_fractions={"train": 0.9, "test": 0.5})


@pytest.mark.parametrize(
    "layout", ["{split}/rgb/{i}.png {split}/depth/{i}.png", "rgb/{split}/{i}.png depth/{split}/{i}.png"]
)
def test_folders_named_after_splits(tmp_path: Path, layout: str):
    for split, count in (("train", 3), ("val", 2)):
        rgb, depth = (part.replace("{split}", split) for part in layout.split())
        write_frames(tmp_path, count, rgb, depth)
    assert frame_keys(tmp_path, "train") == ["train/0", "train/1", "train/2"]
    assert frame_keys(tmp_path, "validation") == ["val/0", "val/1"]
    with pytest.raises(DataError, match="none for the split 'test'"):
        frame_keys(tmp_path, "test")


def test_list_files_name_sequences_frames_or_files(tmp_path: Path):
    for scene in ("kitchen", "office"):
        write_frames(tmp_path, 3, f"{scene}/rgb/{{i}}.png", f"{scene}/depth/{{i}}.png")
    (tmp_path / "train.txt").write_text("kitchen\noffice/2\n")
    assert frame_keys(tmp_path, "train") == ["kitchen/0", "kitchen/1", "kitchen/2", "office/2"]
    (tmp_path / "mine.txt").write_text("office/rgb/0.png\n")
    assert frame_keys(tmp_path, "test", split_list={"test": "mine.txt"}) == ["office/0"]
    (tmp_path / "odd.txt").write_text("garage\n")
    with pytest.raises(DataError, match=r"nothing in it \(1 entry,"):
        frame_keys(tmp_path, "train", split_list="odd.txt")
    with pytest.raises(DataError, match=r"neither under .* nor in the current folder"):
        frame_keys(tmp_path, "train", split_list="nowhere.txt")


def test_unknown_and_empty_splits(tmp_path: Path):
    write_frames(tmp_path, 1)
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        frame_keys(tmp_path, "trian")
    with pytest.raises(DataError, match=r"'test' is empty.*--data\.options\.split_list"):
        frame_keys(tmp_path, "test")


def test_every_split_reads_depth_in_the_same_unit(tmp_path: Path):
    # The last frames alone (near walls at 1/5000 m) would pass for millimetres.
    write_frames(tmp_path, 16, scale=5000)
    write_frames(tmp_path, 4, scale=1400, start=16)
    for path in (tmp_path / "depth").iterdir():  # as Kinect's whole millimetres are stored
        save(path, np.asarray(Image.open(path)).astype(np.uint16) // 5 * 5)
    units = {FolderSource(tmp_path, split=split).depth_spec.unit for split in (*SPLITS, None)}
    assert units == {"tum"}


def test_fractions_are_a_share_per_split(tmp_path: Path) -> None:
    write_frames(tmp_path, 4)
    with pytest.raises(ConfigError, match="a share per split"):
        frame_keys(tmp_path, "train", split_fractions=[0.5, 0.5])


def test_names_with_blanks_and_hashes(tmp_path: Path):
    """A line names what its whole text names, before its first word does."""
    for name in ("my room", "room #2", "my"):
        write_frames(tmp_path, 1, f"{name}/rgb/{{i}}.png", f"{name}/depth/{{i}}.png")
    (tmp_path / "train.txt").write_text("my room\nroom #2\n")
    assert frame_keys(tmp_path, "train")[-2:] == ["my room/0", "room #2/0"]
    (tmp_path / "train.txt").write_text("my,1.0,a comment\n")
    assert frame_keys(tmp_path, "train") == ["my/0"]


def test_training_and_evaluation_lists_share_nothing(tmp_path: Path):
    for scene in ("attic", "cellar", "hall"):
        write_frames(tmp_path, 2, f"{scene}/rgb/{{i}}.png", f"{scene}/depth/{{i}}.png")
    (tmp_path / "train.txt").write_text("attic\ncellar\n")
    (tmp_path / "val.txt").write_text("hall\ncellar/1\n")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"1 of 2 sequences are in .*txt and in .*txt, the first is 'cellar'"):
            frame_keys(tmp_path, split)
    (tmp_path / "val.txt").write_text("hall\n")
    (tmp_path / "test.txt").write_text("hall\n")
    assert frame_keys(tmp_path, "test") == frame_keys(tmp_path, "validation") == ["hall/0", "hall/1"]


@pytest.mark.parametrize("source", [FolderSource, TumSource])
def test_entries_of_a_list_that_match_nothing_are_told(tmp_path: Path, source: type) -> None:
    for scene in ("scene1", "scene2", "scene3"):
        write_frames(tmp_path / scene, 2, "rgb/{i}.png")
        for kind in ("rgb", "depth"):
            lines = "".join(f"{i}.0 {kind}/{i}.png\n" for i in range(2))
            (tmp_path / scene / f"{kind}.txt").write_text(lines)
    (tmp_path / "train.txt").write_text("scene_2\nscene1\n3\n")
    found = source(tmp_path, split="train", depth_unit="mm")
    told = "split train as listed in train.txt; 2 entries of the list match nothing that is used, the first: 3"
    assert found.split_note == told and told in found.notes
    (tmp_path / "train.txt").write_text("scene2\nscene1/1\n")
    found = source(tmp_path, split="train", depth_unit="mm")
    assert found.split_note == "split train as listed in train.txt"

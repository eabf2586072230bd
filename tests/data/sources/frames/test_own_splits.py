"""Splits in one line, overlapping windows, short sequences by name, and classes that are not learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import label_array, save, write_frames
from m33d_hf.data.labels.labels import build_label_rules, without_classes
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.splits import SplitChoice
from m33d_hf.data.sources.frames.validation import split_by_validation
from m33d_hf.errors import ConfigError, DataError

LENGTHS = {"scene1": 5, "scene2": 6, "house/scene3": 7, "house/scene4": 11, "7": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for name, count in LENGTHS.items():
        write_frames(folder / name, count, labels="label/{i}.png", size=(8, 8))
    return folder


def folder(root: Path, **options: Any) -> FolderSource:
    return FolderSource(root, depth_unit="millimetre", **options)


def sequences(source: FolderSource) -> set[str]:
    return set(source.groups() or [source[0].key.rpartition("/")[0]])


@pytest.mark.parametrize(
    ("stated", "held"),
    [
        ("scene1, scene2", {"scene1", "scene2"}),
        (["house"], {"house/scene3", "house/scene4"}),
        ("scene*", {"scene1", "scene2"}),
        (7, {"7"}),
    ],
)
def test_named_sequences_are_held_out_and_the_rest_is_for_training(root: Path, stated: Any, held: set[str]) -> None:
    found = {split: folder(root, split=split, validation=stated) for split in ("train", "validation")}
    assert sequences(found["validation"]) == held
    assert sequences(found["train"]) == set(LENGTHS) - held
    assert sum(map(len, found.values())) == sum(LENGTHS.values())
    assert any("validation is" in note for note in found["train"].notes)
    assert len(folder(root, split="all", validation=stated)) == sum(LENGTHS.values())


def test_a_share_takes_whole_sequences_by_a_seed(root: Path) -> None:
    chosen = set()
    for seed in range(8):
        train, held = (folder(root, split=split, validation=0.4, seed=seed) for split in ("train", "val"))
        assert sequences(train) | sequences(held) == set(LENGTHS) and not sequences(train) & sequences(held)
        assert len(sequences(held)) == 2
        assert sequences(folder(root, split="val", validation=0.4, seed=seed)) == sequences(held)
        chosen.add(frozenset(sequences(held)))
    assert len(chosen) > 1
    assert len(sequences(folder(root, split="val", validation=0.01))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": "scene9"}, "names 'scene9', but no sequence is called so.*Did you mean 'scene"),
        ({"validation": 1.5}, "names '1.5'"),
        ({"validation": "scene1", "split": "test"}, "there is no split 'test'"),
        ({"validation": "scene1", "split_fractions": {"train": 0.5}}, "one of validation, split_list"),
    ],
)
def test_what_cannot_be_split_is_said(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folder(root, **{"split": "train", **options})


def test_an_empty_side_is_refused() -> None:
    one = {"scene": []}
    with pytest.raises(DataError, match=r"'train' is empty: 50% of the sequences.*of 1 sequences \(scene\)"):
        split_by_validation(Path("data"), one, SplitChoice("train", validation=0.5))
    with pytest.raises(DataError, match="'train' is empty"):
        split_by_validation(Path("data"), one, SplitChoice("validation", validation="scene"))


def test_windows_with_a_stride_overlap_and_reach_the_end(root: Path) -> None:
    source = folder(root, unit="clips", clip_length=4, clip_stride=3)
    found = {source[row].key: [Path(str(frame.rgb)).stem for frame in source[row].frames] for row in range(len(source))}
    assert found["house/scene4@0"] == ["0", "1", "2", "3"] and found["house/scene4@7"] == ["7", "8", "9", "10"]
    starts = {key: sorted(int(k.partition("@")[2]) for k in found if k.startswith(f"{key}@")) for key in LENGTHS}
    assert starts["house/scene4"] == [0, 3, 6, 7] and starts["scene1"] == [0, 1] and "7" in found
    assert all(len(frames) == 4 for frames in found.values())
    assert set(source.groups() or []) == set(LENGTHS)
    assert any("3 from one to the next" in note for note in source.notes)
    with pytest.raises(ConfigError, match="not both"):
        folder(root, unit="clips", clip_length=4, clip_stride=3, windows=2)
    with pytest.raises(ConfigError, match="requires clip_length"):
        folder(root, unit="clips", clip_stride=3)


def test_sequences_that_are_too_short_are_named(root: Path) -> None:
    source = folder(root, unit="clips", clip_length=6)
    note = next(note for note in source.notes if "too short" in note)
    assert note.startswith("left out as too short (a clip covers 6")
    assert "7 (4)" in note and "scene1 (5)" in note and "scene2" not in note
    assert {entry.path for entry in source.unpaired} >= {"7", "scene1"}


def test_ignored_classes_become_unlabelled_and_the_rest_is_numbered_anew(root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("wall\nfloor\nchair\nlamp\n", encoding="utf-8")
    names = str(tmp_path / "names.txt")
    whole = folder(root, class_names=names)
    source = folder(root, class_names=names, ignore_classes="floor,3")
    assert whole.class_names == ["wall", "floor", "chair", "lamp"] and source.class_names == ["wall", "chair"]
    before, after = (np.asarray(each[0].read([0]).segmentation) for each in (whole, source))
    assert np.array_equal(after, np.choose(before, [0, 255, 1, 255]))
    assert whole.digest() != source.digest()


@pytest.mark.parametrize("offset", [0, 1])
def test_ignored_classes_go_with_offsets_maps_and_void(offset: int, tmp_path: Path) -> None:
    rules = without_classes(build_label_rules(tmp_path, 4, label_offset=offset, label_ignore=[9]), [1])
    assert rules is not None and rules.num_classes == 3
    stored = np.array(
        [
            [
                0,
                1,
                2,
                3,
            ]
        ],
        np.uint8,
    ) + np.uint8(offset)
    assert rules.apply(stored, "here").tolist() == [[0, 255, 1, 2]]
    assert rules.apply(np.array([[9, 255]], np.uint8), "here").tolist() == [[255, 255]]
    mapped = without_classes(build_label_rules(tmp_path, label_map={10: 0, 20: 1, 30: 2}), "0")
    assert mapped is not None and mapped.apply(np.array([[10, 20, 30]], np.uint8), "here").tolist() == [[255, 0, 1]]


def test_void_of_a_file_of_names_may_be_ignored_once_more(root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0 void\n1 floor\n2 chair\n3 lamp\n", encoding="utf-8")
    names = str(tmp_path / "names.txt")
    before, after = folder(root, class_names=names), folder(root, class_names=names, ignore_classes="Void, lamp")
    assert before.class_names == ["floor", "chair", "lamp"] and after.class_names == ["floor", "chair"]
    unlabelled, whole = (np.asarray(each[0].read([0]).segmentation) for each in (after, before))
    assert np.array_equal(unlabelled, np.where(whole == 2, 255, whole))
    named = build_label_rules(tmp_path, class_names=["unknown", "floor"])
    kept = without_classes(named, "unknown")
    assert kept is not None and kept.names == ["floor"], "a class of that name in a plain list is one"


def test_ignored_classes_that_are_none_are_said(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "label.png", label_array())
    with pytest.raises(ConfigError, match=r"names 'flor'.*Did you mean 'floor'"):
        folder(root, class_names=["wall", "floor", "chair", "lamp"], ignore_classes="flor")
    with pytest.raises(ConfigError, match="all 4 classes"):
        folder(root, num_classes=4, ignore_classes=[0, 1, 2, 3])
    with pytest.raises(ConfigError, match="needs one of num_classes"):
        folder(root, ignore_classes=[0])
    assert without_classes(None, None) is None

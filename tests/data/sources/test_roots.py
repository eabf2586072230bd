"""Several folders as one source: names, splits, digests, lists of skipped files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import save, write_frames
from m33d_hf.data.files.skips import SkippedFile, append_skipped
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.roots import RootsSource, held_out, name_roots
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.run_data import build_dataset, build_run_source
from m33d_hf.training.run.seen_videos import video_groups

SCENES = {"a": 4, "b": 5, "c": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with three scenes each, of the same names, and one with a single recording."""
    folder = tmp_path_factory.mktemp("data")
    for number, root in enumerate(("first", "second")):
        for scene, count in SCENES.items():
            write_frames(folder / root / scene, count, labels="label/{i}.png", size=(16, 16), start=10 * number)
    write_frames(folder / "single", 7, labels="label/{i}.png", size=(16, 16))
    return folder


def source(*roots: Path, train: bool = True, frames: int = 1, **options: Any) -> RootsSource:
    """What a run reads."""
    words = ["--data.source", "folder", "--data.root", f"[{', '.join(map(str, roots))}]", "--train.epochs", "1"]
    options = {"options.depth_unit": "millimetre", "options.num_classes": 4} | options
    words += [word for key, value in options.items() for word in (f"--data.{key}", str(value))]
    args = parse_arguments(words, "pretraining")
    built = build_run_source(args, M33DConfig(image_size=16, num_frames=frames, tubelet_size=frames), train)
    assert isinstance(built, RootsSource)
    return built


def test_every_item_occurs_once_under_the_name_of_its_folder(data: Path) -> None:
    found = source(data / "first", data / "second", data / "single", train_split="all")
    keys = [found[row].key for row in range(len(found))]
    assert len(keys) == len(set(keys)) == 2 * sum(SCENES.values()) + 7
    assert keys[0] == "first/a/0" and "second/c/15" in keys and keys[-1] == "single/6"
    scenes = {f"{root}/{scene}" for root in ("first", "second") for scene in SCENES}
    assert set(found.groups() or []) == scenes | {"single/frames"}
    alone = FolderSource(data / "second", depth_unit="millimetre", num_classes=4)
    sample = found[keys.index("second/a/10")].read([0])
    expected = alone[0].read([0])
    assert sample.key == "second/a/10" and sample.rgb is not None and (sample.rgb == expected.rgb).all()
    assert found.notes[0] == "3 folders: first (15 items), second (15 items), single (7 items)"
    maps = found.label_maps([0, 15])
    assert maps is not None and len(maps) == 2


def test_the_digest_knows_contents_and_names_and_not_the_place(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "moved")
    roots = ("first", "second")
    here, there = (source(*(place / root for root in roots)).digest() for place in (data, tmp_path / "moved"))
    assert here == there
    assert source(data / "second", data / "first").digest() != here
    (tmp_path / "moved" / "first" / "a" / "color" / "0.png").write_bytes(b"another")
    changed = source(*(tmp_path / "moved" / root for root in roots), **{"options.validation": "second"})
    assert changed.digest() != source(data / "first", data / "second", **{"options.validation": "second"}).digest()


def test_each_folder_is_split_by_itself(data: Path) -> None:
    roots = (data / "first", data / "second")
    options = {"options.validation": "0.34", "options.seed": "3", "eval_split": "validation"}
    train, held = source(*roots, **options), source(*roots, train=False, **options)
    groups = [set(each.groups() or []) for each in (train, held)]
    assert not groups[0] & groups[1] and len(groups[0] | groups[1]) == 6
    assert {group.split("/")[0] for group in groups[1]} == {"first", "second"}


def test_whole_folders_and_scenes_of_them_are_held_out_by_name(data: Path) -> None:
    roots = (data / "first", data / "second", data / "single")
    options = {"options.validation": "single,second/b"}
    train, held = source(*roots, **options), source(*roots, train=False, **options)
    assert {row.key.rpartition("/")[0] for row in map(held.__getitem__, range(len(held)))} == {"single", "second/b"}
    assert len(train) + len(held) == 37 and set(train.members) == {"first", "second"}
    assert len(source(*roots, train_split="all", **options)) == 37
    with pytest.raises(ConfigError, match=r"names 'thrid/a'.*one of first, second, single"):
        source(*roots, **{"options.validation": "thrid/a"})
    with pytest.raises(ConfigError, match="no split 'test'"):
        source(*roots, train_split="test", **options)
    with pytest.raises(DataError, match="'validation' is empty"):
        source(*roots, train=False, **{"options.validation": ","})
    assert held_out(["a/x", "a", "b/y"], {"a": Path(), "b": Path(), "c": Path()}) == {"a": None, "b": ["y"], "c": []}


def test_a_list_for_several_folders_names_in_vain_what_none_of_them_has(data: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "third" / "d", 3, labels="label/{i}.png", size=(16, 16))
    write_frames(tmp_path / "third" / "e", 3, labels="label/{i}.png", size=(16, 16))
    listed = tmp_path / "train.txt"
    listed.write_text("a\nd\nb\n")
    roots = (data / "first", tmp_path / "third")
    found = source(*roots, **{"options.split_list": listed})
    assert set(found.groups() or []) == {"first/a", "first/b", "third/d"}
    assert not any("match" in note for note in found.notes)
    assert any(note == "third: split train as listed in train.txt" for note in found.notes)
    listed.write_text("a\nd\nx\ny\n")
    told = [note for note in source(*roots, **{"options.split_list": listed}).notes if "match" in note]
    assert told == ["train.txt: 2 entries of the list match nothing in any folder, the first: x"]
    (tmp_path / "third" / "train.txt").write_text("d\nb\n")  # a folder's own list
    told = [note for note in source(*roots).notes if "match" in note]
    assert told == [
        "third: split train as listed in train.txt; 1 entry of the list matches nothing that is used, the first: b"
    ]


def test_clips_windows_and_short_sequences_go_with_several_folders(data: Path) -> None:
    found = source(data / "first", data / "single", frames=5, train_split="all", **{"options.clip_stride": "1"})
    keys = [found[row].key for row in range(len(found))]
    assert keys == ["first/b", "first/c@0", "first/c@1", "single/frames@0", "single/frames@1", "single/frames@2"]
    assert [entry.path for entry in found.unpaired] == [str(data / "first" / "a")]
    assert any(note.startswith("first: left out as too short") and "a (4)" in note for note in found.notes)


def test_what_is_damaged_stays_damaged(data: Path) -> None:
    """The check of data has a problem with it, and a note on what is only unpaired."""
    members = {name: FolderSource(data / name, depth_unit="mm", num_classes=4) for name in ("first", "second")}
    members["first"].unpaired = [Unpaired("a.sens", "truncated", damaged=True), Unpaired("b.png", "it has no depth")]
    found = RootsSource(members)
    assert found.unpaired == [
        Unpaired(str(data / "first" / "a.sens"), "truncated", damaged=True),
        Unpaired(str(data / "first" / "b.png"), "it has no depth", damaged=False),
    ]


def test_skip_lists_name_the_folder(data: Path, tmp_path: Path) -> None:
    found = source(data / "first", data / "second", train_split="all")
    append_skipped(
        tmp_path / "skipped_files.csv",
        [
            SkippedFile(str(data / "second" / "a" / "depth" / "10.png"), "broken", "a/10"),
            SkippedFile("", "bad", "first/b/2"),
        ],
    )
    rows = SkipList(tmp_path / "skipped_files.csv").rows(found, None)
    left_out = {found[row].key for row in set(range(len(found))) - set(rows)}
    assert left_out == {"second/a/10", "first/b/2"}


def test_videos_that_were_seen_are_known_by_folder(data: Path) -> None:
    words = ["--data.source", "folder", "--data.root", str(data / "first"), str(data / "second"), "--train.epochs", "1"]
    args = parse_arguments([*words, "--data.train_split", "all"], "pretraining")
    dataset = build_dataset(args, M33DConfig(image_size=16), True)
    assert isinstance(dataset.source, RootsSource) and not isinstance(dataset.source, FrameSource)
    assert len(video_groups(dataset)) >= 2


def test_names_tell_folders_apart(tmp_path: Path) -> None:
    x, y = tmp_path / "x" / "frames", tmp_path / "y" / "frames"
    assert list(name_roots([x, y, tmp_path / "z"])) == ["x_frames", "y_frames", "z"]
    with pytest.raises(ConfigError, match="twice"):
        name_roots([x, str(x) + "/"])
    with pytest.raises(ConfigError, match="empty list"):
        name_roots([])


def test_no_two_folders_share_a_name(tmp_path: Path) -> None:
    """Names are parts of paths joined by `_`, which parts hold, too."""
    kitchen, office, other = (tmp_path / name for name in ("x/kitchen/rgbd", "x/office/rgbd", "y/kitchen_rgbd"))
    found = name_roots([kitchen, office, other])
    assert found == {"x_kitchen_rgbd": kitchen, "office_rgbd": office, "y_kitchen_rgbd": other}
    again = name_roots([*found.values(), tmp_path / "z/x/kitchen_rgbd"])  # a longer name that is taken itself
    assert list(again.values()) == [*found.values(), tmp_path / "z/x/kitchen_rgbd"]
    with pytest.raises(ConfigError, match=r"'/a_b/c' and '/a/b_c', which both would be called 'a_b_c'"):
        name_roots(["/a_b/c", "/a/b_c", "/d/c", "/d/b_c"])


def test_a_folder_inside_of_another_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"first/a', which is a folder inside '.*first': its items would occur twice"):
        source(data / "first", data / "second", data / "first" / "a")
    (tmp_path / "link").symlink_to(data / "first" / "a")
    with pytest.raises(ConfigError, match=r"link', which is a folder inside '.*first'"):
        name_roots([tmp_path / "link", data / "first"])
    with pytest.raises(ConfigError, match=r"link', which is the same folder as '.*a'"):
        name_roots([tmp_path / "link", data / "first" / "a"])
    assert list(name_roots([tmp_path / "ab", tmp_path / "a"])) == ["ab", "a"]


def test_folders_that_do_not_go_together_are_refused(data: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "bare", 3, depth=None, size=(16, 16))
    with pytest.raises(
        DataError, match=r"the folders first and bare of data.root differ in|has RGB or depth|has .*depth"
    ):
        source(data / "first", tmp_path / "bare", train_split="all")


def in_units(root: Path, **scales: int) -> Path:
    """Scenes whose depth of 1 to 3 m is stored in units of their own."""
    for scene, scale in scales.items():
        for number in range(6):
            rng = np.random.default_rng(number)
            save(root / scene / "color" / f"{number}.png", rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            metres = rng.uniform(1, 3, (16, 16))
            save(root / scene / "depth" / f"{number}.png", np.rint(metres * scale).astype(np.uint16))
    return root


def metres_of(found: Source) -> dict[str, float]:
    """Key -> median depth."""
    samples = [found[row].read([0]) for row in range(len(found))]
    return {
        sample.key.rpartition("/")[0]: float(sample.depth.median()) for sample in samples if sample.depth is not None
    }


def test_a_unit_of_a_sequence_reaches_the_folder_that_has_it(tmp_path: Path) -> None:
    first, second = in_units(tmp_path / "A", s1=1000, s2=5000), in_units(tmp_path / "B", t1=1000, t2=2000)
    third = in_units(tmp_path / "C", u1=1000)
    words = {"options.depth_unit": "{s2: tum, s1: millimetre, t1: millimetre, u1: millimetre}", "train_split": "all"}
    words["options.labels"] = "none"
    scales = {"options.depth_scale": "{t2: 2000}"}
    found = metres_of(source(first, second, third, **words, **scales))
    assert set(found) == {"A/s1", "A/s2", "B/t1", "B/t2", "C/u1"} and all(1.8 < each < 2.2 for each in found.values())
    held = {**words, **scales, "train_split": "train", "options.validation": "B,C"}
    assert set(metres_of(source(first, second, third, **held))) == {"A/s1", "A/s2"}
    assert set(metres_of(source(first, second, third, train=False, eval_split="validation", **held))) == {
        "B/t1",
        "B/t2",
        "C/u1",
    }
    for each in (words, held):
        wrong = {**each, **scales, "options.depth_unit": "{s2: tum, s3: tum}"}
        with pytest.raises(ConfigError, match=r"depth_unit contains 's3'.*the sequences are: A/s1, A/s2"):
            source(first, second, third, **wrong)


@pytest.mark.parametrize("several", [False, True])
def test_a_unit_of_a_sequence_reaches_data_for_evaluation(tmp_path: Path, several: bool) -> None:
    first, second = in_units(tmp_path / "A", s1=1000, s2=5000), in_units(tmp_path / "B", t1=1000, t2=5000)
    args = parse_arguments(["--data.source", "folder", "--data.root", str(first), "--train.epochs", "1"], "pretraining")
    args.data.eval_root = [str(second)] if several else str(second)
    args.data.options = {"depth_unit": {"s2": "tum", "t2": "tum", "*": "millimetre"}}
    config = M33DConfig(image_size=16)
    for train, names in ((True, {"s1", "s2"}), (False, {"B/t1", "B/t2"} if several else {"t1", "t2"})):
        found = metres_of(build_run_source(args, config, train))
        assert set(found) == names and all(1.8 < each < 2.2 for each in found.values())
    args.data.options = {"depth_unit": {"s2": "tum", "x2": "tum", "t2": "tum", "*": "millimetre"}}
    for train in (True, False):
        with pytest.raises(ConfigError, match="depth_unit contains 'x2'"):
            build_run_source(args, config, train)
    args.data.options, args.data.eval_options = {"depth_unit": {"t2": "tum"}}, {"depth_unit": {"t2": "tum"}}
    with pytest.raises(ConfigError, match="depth_unit contains 't2'"):
        build_run_source(args, config, True)  # the other folder has its own statement

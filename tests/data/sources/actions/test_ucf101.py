"""UCF-101's folders and lists as they lie on disks, and every way in which they disagree."""

from __future__ import annotations

import json
import pickle
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from helpers.shared_data import shared
from m33d_hf.data.loader.subsets import label_subset
from m33d_hf.data.sources import Source, build_source
from m33d_hf.data.sources.actions.ucf101 import Ucf101Source
from m33d_hf.data.sources.actions.ucf101_lists import read_classes, read_list
from m33d_hf.errors import ConfigError, CorruptFileError, DataError

CLASSES = ("Archery", "HandstandPushups", "YoYo")


def names_of(label: str, groups: range, clips: int = 2) -> list[str]:
    return [f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi" for group in groups for clip in range(1, clips + 1)]


TRAIN = [name for label in CLASSES for name in names_of(label, range(3, 8))]
TEST = [name for label in CLASSES for name in names_of(label, range(1, 3))]


def numbered(names: list[str]) -> list[str]:
    return [f"{name} {CLASSES.index(name.split('/')[0]) + 1}" for name in names]


def write_lists(folder: Path, train: list[str], test: list[str], ends: str = "\n", index: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    classes = [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    for file, lines in (
        ("classInd.txt", classes),
        (f"trainlist{index:02d}.txt", train),
        (f"testlist{index:02d}.txt", test),
    ):
        (folder / file).write_bytes("".join(line + ends for line in lines).encode())


def touch(base: Path, names: list[str]) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Empty videos, official-looking lists: labels in the training list, none in the test list."""
    touch(tmp_path, [*TRAIN, *TEST])
    write_lists(tmp_path, numbered(TRAIN), TEST)
    return tmp_path


def keys(source: Ucf101Source) -> list[str]:
    return [source[row].key for row in range(len(source))]


def test_a_source_like_the_others(root: Path) -> None:
    source = build_source("ucf101", root=root)
    assert isinstance(source, Source) and isinstance(source, Ucf101Source)
    assert (len(source), source.action_names, source.class_names, source.depth_spec) == (30, list(CLASSES), None, None)
    assert keys(source) == [name.removesuffix(".avi") for name in TRAIN] == source.groups()
    assert source.labels() == [0] * 10 + [1] * 10 + [2] * 10
    assert source[0].label == 0 and source[-1].file == root / TRAIN[-1]
    with pytest.raises(IndexError):
        source[30]
    assert pickle.loads(pickle.dumps(source)).labels() == source.labels()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("ends", ["\n", "\r\n", " \t\r\n\r\n"])
def test_labels_and_line_ends(root: Path, labelled: bool, ends: str) -> None:
    lines = (numbered(TRAIN), numbered(TEST)) if labelled else (TRAIN, TEST)
    write_lists(root, *lines, ends=ends)
    assert Ucf101Source(root).labels() == [0] * 10 + [1] * 10 + [2] * 10
    test = Ucf101Source(root, split="test")
    assert test.labels() == [0] * 4 + [1] * 4 + [2] * 4
    assert keys(test)[0] == "Archery/v_Archery_g01_c01"


def test_a_byte_order_mark_and_windows_separators(root: Path) -> None:
    text = "\r\n".join(numbered(TRAIN)).replace("/", "\\")
    (root / "trainlist01.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert keys(Ucf101Source(root)) == [name.removesuffix(".avi") for name in TRAIN]


@pytest.mark.parametrize("where", ["inside", "beside", "named", "named under the root"])
def test_where_lists_and_videos_may_lie(tmp_path: Path, where: str) -> None:
    base = tmp_path / "UCF-101"
    touch(base, [*TRAIN, *TEST])
    lists = tmp_path / ("my_lists" if where.startswith("named") else "ucfTrainTestlist")
    write_lists(lists, TRAIN, TEST)
    option = {"named": str(lists), "named under the root": "my_lists"}.get(where)
    source = Ucf101Source(base if where == "beside" else tmp_path, lists=option)
    assert len(source) == 30 and source[0].file == base / TRAIN[0]


def test_splits(root: Path) -> None:
    write_lists(root, TEST, TRAIN, index=2)
    assert len(Ucf101Source(root, split="train", split_index=2)) == 12
    test, validation = Ucf101Source(root, split="test"), Ucf101Source(root, split="validation")
    assert keys(test) == keys(validation)
    assert any("no validation part" in note for note in validation.notes)
    for everything in (None, "all"):
        assert len(Ucf101Source(root, split=everything)) == 42
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        Ucf101Source(root, split="trian")
    with pytest.raises(ConfigError, match="splits 1, 2 and 3"):
        Ucf101Source(root, split_index=0)
    with pytest.raises(DataError, match=r"no trainlist03\.txt.*split_index"):
        Ucf101Source(root, split_index=3)


def test_validation_takes_whole_groups_of_the_training_list(root: Path) -> None:
    train = Ucf101Source(root, split="train", validation_fraction=0.2)
    validation = Ucf101Source(root, split="validation", validation_fraction=0.2)
    assert Counter(validation.labels()) == {0: 2, 1: 2, 2: 2}  # one of five groups per class, two clips each
    held = {key.rsplit("_", 1)[0] for key in keys(validation)}
    assert not held & {key.rsplit("_", 1)[0] for key in keys(train)}
    assert sorted(keys(train) + keys(validation)) == sorted(keys(Ucf101Source(root)))
    assert keys(Ucf101Source(root, split="test", validation_fraction=0.2)) == keys(Ucf101Source(root, split="test"))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Ucf101Source(root, validation_fraction=1.0)


def test_low_label_shares_of_it(root: Path) -> None:
    source = Ucf101Source(root)
    rows = label_subset(source.labels(), source.groups(), source.action_names, 0.2, seed=0)
    assert Counter(source.labels()[row] for row in rows) == {0: 2, 1: 2, 2: 2}


def test_a_list_that_names_a_missing_video(root: Path) -> None:
    (root / TRAIN[3]).unlink()
    (root / TRAIN[7]).unlink()
    with pytest.raises(DataError) as caught:
        Ucf101Source(root)
    message = str(caught.value)
    assert f"{root / 'trainlist01.txt'}, line 4: the video {TRAIN[3]} is not under {root}" in message
    assert "(2 of 30 listed videos are missing)" in message and "--data.options.missing skip" in message
    assert len(Ucf101Source(root, split="test")) == 12
    skipping = Ucf101Source(root, missing="skip")
    assert len(skipping) == 28
    assert [(entry.path, entry.reason) for entry in skipping.unpaired] == [
        (TRAIN[3], "trainlist01.txt, line 4: listed, but missing"),
        (TRAIN[7], "trainlist01.txt, line 8: listed, but missing"),
    ]
    assert "2 missing" in " ".join(skipping.notes)
    with pytest.raises(ConfigError, match="error, skip"):
        Ucf101Source(root, missing="ignore")


def test_other_suffixes_cases_and_frame_folders(root: Path) -> None:
    """HandstandPushups is spelled in two ways between archive and lists; people convert videos to .mp4 or frames."""
    (root / "HandstandPushups").rename(root / "moved")
    (root / "moved").rename(root / "HandStandPushups")
    (root / TRAIN[0]).rename((root / TRAIN[0]).with_suffix(".MP4"))
    (root / TRAIN[1]).unlink()
    (root / TRAIN[1]).with_suffix("").mkdir()
    source = Ucf101Source(root)
    assert keys(source) == [name.removesuffix(".avi") for name in TRAIN]  # keys as listed, wherever it runs
    assert source[0].file.suffix == ".MP4" and source[1].file.is_dir()
    assert "12 videos are spelled differently" in " ".join(source.notes)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_stored(tmp_path: Path, stored: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if stored == "NFC" else "NFC"
    listed = [unicodedata.normalize(other, name) for name in ("Coupé/v_Coupé_g01_c01.avi", "Läuft/v_Läuft_g01_c01.avi")]
    touch(tmp_path, [unicodedata.normalize(stored, name) for name in listed])
    (tmp_path / "classInd.txt").write_text("1 Coupé\n2 Läuft\n", encoding="utf-8")
    (tmp_path / "trainlist01.txt").write_text("\n".join(listed), encoding="utf-8")
    assert keys(Ucf101Source(tmp_path)) == [name.removesuffix(".avi") for name in listed]


def test_two_files_for_one_video(root: Path) -> None:
    touch(root, [TRAIN[0].replace(".avi", ".mp4")])
    assert Ucf101Source(root)[0].file.suffix == ".avi"  # the one that the list names
    (root / TRAIN[0]).rename((root / TRAIN[0]).with_suffix(".mkv"))
    with pytest.raises(DataError, match=r"line 1: .*g03_c01\.avi could be .*\.mkv or .*\.mp4"):
        Ucf101Source(root)


def test_a_class_folder_that_no_class_is_named_after(root: Path) -> None:
    touch(root, ["Yo-Yo/v_a_g01_c01.avi"])
    (entry,) = Ucf101Source(root).unpaired
    assert entry.path == "Yo-Yo" and "Did you mean 'YoYo'" in entry.reason
    (root / "YoYo").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"There is no folder YoYo\. Did you mean 'Yo-Yo'"):
        Ucf101Source(root)


def test_two_class_folders_with_one_name(root: Path) -> None:
    touch(root, ["yoyo/v_a_g01_c01.avi"])
    with pytest.raises(DataError, match="'YoYo' and 'yoyo' are two class folders whose names differ only in case"):
        Ucf101Source(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Archery\n2 YoYo\n3 archery\n", r"lines 1 and 3 name the same class \('Archery' and 'archery'\)"),
        ("1 Archery\n1 YoYo\n", "line 2: the number 1 already belongs to 'Archery'"),
        ("1 Archery\n3 YoYo\n", "numbered 1 to 2, found the number 3"),
        ("0 Archery\n1 YoYo\n", "numbered 1 to 2, found the number 0"),
        ("Archery\n2 YoYo\n", "line 2: .* number all lines or none"),
        ("\r\n\n", "no class found"),
    ],
)
def test_broken_class_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classInd.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classInd.txt")


def test_class_files_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Archery\r\nHandstand Pushups\r\n\r\n")
    assert read_classes(tmp_path / "names.txt") == ["Archery", "Handstand Pushups"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("YoYo/v_YoYo_g01_c01.avi 1", r"line 2: the label 1 is 'Archery' in .*, but the folder says 'YoYo' \(3\)"),
        ("YoYo/v_YoYo_g01_c01.avi 2", "label 2 is 'HandstandPushups'.*Do its labels start at 0"),
        ("YoYo/v_YoYo_g01_c01.avi 4", r"label 4 is not a class \(there are 1 to 3\)"),
        ("YoYos/v_YoYo_g01_c01.avi", r"line 2: the class 'YoYos' is not in classInd\.txt\. Did you mean 'YoYo'"),
        ("v_YoYo_g01_c01.avi 3", "line 2: .*is not Class/video"),
        ("../YoYo/v_YoYo_g01_c01.avi 3", "line 2: .*is not Class/video"),
        ("Archery/v_Archery_g03_c01.avi", "lines 1 and 2 list the same video"),
        ("archery/v_archery_g03_c01.avi 1", "lines 1 and 2 list the same video"),
    ],
)
def test_broken_lists(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trainlist01.txt"
    path.write_text(f"Archery/v_Archery_g03_c01.avi 1\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_list(path, CLASSES)
    assert str(path) in str(caught.value)


def test_lists_that_are_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "trainlist01.txt"
    path.write_text("\n \r\n")
    with pytest.raises(DataError, match="no video found"):
        read_list(path, CLASSES)
    path.write_bytes(b"A\x00\x01")
    with pytest.raises(CorruptFileError, match="not a readable text file"):
        read_list(path, CLASSES)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_lists_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "classInd.txt").write_bytes("1 Bücken\n2 Gehen\n".encode(encoding))
    (tmp_path / "trainlist01.txt").write_bytes("Bücken/v_Bücken_g01_c01.avi 1\n".encode(encoding))
    names = read_classes(tmp_path / "classInd.txt")
    (entry,) = read_list(tmp_path / "trainlist01.txt", names)
    assert names == ["Bücken", "Gehen"] and entry.key == "Bücken/v_Bücken_g01_c01" and entry.label == 0


def test_a_video_in_both_lists(root: Path) -> None:
    write_lists(root, TRAIN, [*TEST, TRAIN[2]])
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"1 video is in both lists.*trainlist01\.txt, line 3.*testlist01\.txt"):
            Ucf101Source(root, split=split)


def test_clips_of_one_video_in_both_lists_are_told(root: Path) -> None:
    """Clips of a group look alike; the official lists keep them apart."""
    assert "WARNING" not in " ".join(Ucf101Source(root).notes)
    write_lists(root, TRAIN[1:], [*TEST, TRAIN[0]])
    assert "WARNING: 1 group (Archery/g03 ...)" in " ".join(Ucf101Source(root, split="test").notes)


def test_nothing_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder.*--data\.root"):
        Ucf101Source(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no classInd\.txt in .*--data\.options\.lists"):
        Ucf101Source(tmp_path)
    write_lists(tmp_path, TRAIN, TEST)
    touch(tmp_path, ["Archer/v.avi"])
    with pytest.raises(DataError, match=r"no class folder under .*Folders there: Archer\. Did you mean 'Archery'"):
        Ucf101Source(tmp_path)
    (tmp_path / "Archery").mkdir()
    with pytest.raises(DataError, match="none of the 30 videos"):
        Ucf101Source(tmp_path, missing="skip")


def test_the_digest_follows_the_data_alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("copy") / "UCF-101"
    touch(other, [*TRAIN, *TEST])
    write_lists(other.parent, TRAIN, TEST, ends="\r\n")
    digest = Ucf101Source(root).digest()
    assert Ucf101Source(other.parent).digest() == digest
    assert Ucf101Source(root, split="test").digest() != digest
    (other / TRAIN[5]).write_bytes(b"longer")
    assert Ucf101Source(other.parent).digest() != digest


def write_depth(folder: Path, names: list[str], frames: int = 2) -> None:
    for name in names:
        path = (folder / name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((frames, 4, 6), 0.5, np.float32))
    (folder / "depth_spec.json").write_text(json.dumps({"kind": "inverse"}))


def test_depth_beside_the_videos(root: Path) -> None:
    assert Ucf101Source(root, depth="auto").depth_spec is None  # nothing there, and the notes say so
    assert any("no depth" in note for note in Ucf101Source(root, depth="auto").notes)
    write_depth(root / "depth", TRAIN)
    source = Ucf101Source(root, depth="auto")
    assert source.depth_spec is not None and source.depth_spec.kind == "inverse"
    assert source[0].depth.length == 2
    assert Ucf101Source(root).depth_spec is None and Ucf101Source(root)[0].depth is None
    assert Ucf101Source(root).digest() != source.digest()
    assert Ucf101Source(root, depth=str(root / "depth"))[0].depth == source[0].depth
    assert Ucf101Source(root, depth="none").depth_spec is None


def test_depth_extracted_from_the_folder_above(tmp_path: Path) -> None:
    touch(tmp_path / "UCF-101", [*TRAIN, *TEST])
    write_lists(tmp_path, TRAIN, TEST)
    write_depth(tmp_path / "maps" / "UCF-101", TRAIN)
    (tmp_path / "maps" / "UCF-101" / "depth_spec.json").rename(tmp_path / "maps" / "depth_spec.json")
    assert all(video.depth is not None for video in Ucf101Source(tmp_path, depth="maps"))  # type: ignore[attr-defined]


def test_depth_that_is_not_complete(root: Path) -> None:
    write_depth(root / "depth", TRAIN[:25])
    with pytest.raises(DataError) as caught:
        Ucf101Source(root, depth="auto")
    for words in ("5 of 30 videos have no depth", TRAIN[25].removesuffix(".avi"), "require_depth false", "extract_d"):
        assert words in str(caught.value)
    source = Ucf101Source(root, depth="auto", missing="skip")
    assert len(source) == len(source.labels()) == 25 and len(source.unpaired) == 5
    mixed = Ucf101Source(root, depth="auto", require_depth=False)
    assert [mixed[row].depth is None for row in range(30)] == [False] * 25 + [True] * 5
    with pytest.raises(DataError, match="12 of 12 videos have no depth"):
        Ucf101Source(root, split="test", depth="auto", missing="skip")


def test_depth_that_nobody_explains(root: Path) -> None:
    write_depth(root / "depth", TRAIN)
    (root / "depth" / "depth_spec.json").unlink()
    with pytest.raises(ConfigError, match="depth_kind"):
        Ucf101Source(root, depth="auto")
    assert Ucf101Source(root, depth="auto", depth_kind="inverse").depth_spec.kind == "inverse"
    with pytest.raises(ConfigError, match="not a folder"):
        Ucf101Source(root, depth="dpeth")


@pytest.mark.parametrize(("index", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734)])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_official_lists(tmp_path: Path, index: int, train: int, test: int, labelled: bool) -> None:
    official = shared("lists/ucfTrainTestlist")
    names = read_classes(official / "classInd.txt")
    assert len(names) == 101 and (names[0], names[36], names[100]) == ("ApplyEyeMakeup", "HandStandPushups", "YoYo")
    for part, count in (("train", train), ("test", test)):
        file = official / f"{part}list{index:02d}.txt"
        if not labelled:
            bare = [line.split()[0] for line in file.read_text().splitlines()]
            file = tmp_path / file.name
            file.write_text("\n".join(bare))
        entries = read_list(file, names)
        assert len(entries) == count
        assert len({entry.label for entry in entries}) == 101
        assert all(entry.group.split("_")[0].split("/")[1].startswith("g") for entry in entries)
    assert {entry.group for entry in entries}.isdisjoint(
        entry.group for entry in read_list(official / f"trainlist{index:02d}.txt", names)
    )


def test_the_official_lists_over_a_whole_tree(tmp_path: Path) -> None:
    """9,537 and 3,783 empty files; the archive's own spelling of the 37th class differs from these lists."""
    official = shared("lists/ucfTrainTestlist")
    names = read_classes(official / "classInd.txt")
    entries = [e for part in ("train", "test") for e in read_list(official / f"{part}list01.txt", names)]
    base = tmp_path / "UCF-101"
    touch(base, [entry.path.replace("HandStandPushups/", "HandstandPushups/") for entry in entries])
    source = Ucf101Source(tmp_path, lists=str(official))
    assert len(source) == 9537 and len(Ucf101Source(tmp_path, split="test", lists=str(official))) == 3783
    counts = Counter(source.labels())
    for fraction in (0.05, 0.1, 0.2):
        rows = label_subset(source.labels(), source.groups(), source.action_names, fraction, seed=0)
        drawn = Counter(source.labels()[row] for row in rows)
        assert all(abs(drawn[label] - fraction * counts[label]) <= 0.5 for label in range(101))


def test_real_videos() -> None:
    """A real UCF-101 clip is read through the source; one named after no class is left out, with its folder."""
    videos, official = shared("videos/ucf101"), shared("lists/ucfTrainTestlist")
    source = Ucf101Source(videos, lists=str(official), missing="skip")
    assert keys(source) == ["SoccerJuggling/v_SoccerJuggling_g23_c01"]
    assert "unverified_name" in [entry.path for entry in source.unpaired]
    video = source[0]
    assert (video.length, round(video.fps, 2)) == (240, 29.97)
    sample = video.read([0, 4, 239])
    assert sample.rgb.shape == (3, 3, 240, 320) and sample.depth is None
    assert sample.label == source.action_names.index("SoccerJuggling") == source.labels()[0]
    assert sample.key.startswith("SoccerJuggling/v_SoccerJuggling_g23_c01")
    assert 20 < sample.rgb.float().mean() < 235 and not (sample.rgb[0] == sample.rgb[2]).all()


def test_real_videos_with_depth(tmp_path: Path) -> None:
    """Frame i of the depth is frame i of the video, at the video's size; depth of another length is refused."""
    videos, official = shared("videos/ucf101"), shared("lists/ucfTrainTestlist")
    name = "SoccerJuggling/v_SoccerJuggling_g23_c01"
    write_depth(tmp_path, [f"{name}.avi"])
    ramp = np.arange(1, 241, dtype=np.float32)[:, None, None] * np.ones((1, 6, 8), np.float32)
    np.save(tmp_path / f"{name}.npy", ramp)
    source = Ucf101Source(videos, lists=str(official), missing="skip", depth=str(tmp_path))
    sample = source[0].read([0, 10, 239])
    assert sample.depth.shape == (3, 1, 240, 320)
    assert sample.depth.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1.0, 11.0, 240.0])
    np.save(tmp_path / f"{name}.npy", ramp[:239])
    with pytest.raises(DataError, match=r"240 frames.* 239"):
        source[0].read([0])

"""Videos that a model was trained on are known again by digests, never by names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.frames_on_disk import write_frames
from helpers.fuzzing import bit_flips
from helpers.phase_runs import phase_arguments
from helpers.preparations import prepared
from helpers.shared_data import shared
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.errors import CheckpointError, DataError
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run import seen_videos
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.seen_videos import SEEN, read_seen, seen_again, write_seen
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

PATIENTS = ("müller", "schmidt", "meier")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three folders of frames named after people; the first two train, the last one validates."""
    root = tmp_path / "data"
    (root / "phase_annotations").mkdir(parents=True)
    for name in PATIENTS:
        (root / "videos" / name).mkdir(parents=True)
        for frame in range(4):
            Image.new("RGB", (16, 16), (60 * frame, 9, 99)).save(root / "videos" / name / f"{frame:03}.png")
        text = "Frame\tPhase\n0\tcut\n1\tcut\n2\tsew\n3\tsew\n"
        (root / "phase_annotations" / f"{name}-phase.txt").write_text(text)
    (root / "train.txt").write_text("müller\nschmidt\n", encoding="utf-8")
    (root / "validation.txt").write_text("meier\n", encoding="utf-8")
    return root


def arguments(folder: Path, root: Path, **options: Any) -> RunArguments:
    return phase_arguments(folder, root, 1, **options)


def judging(folder: Path, root: Path, init_from: Path, split: str) -> RunArguments:
    args = arguments(folder, root)
    args.eval_only, args.init_from, args.model, args.data.eval_split = True, str(init_from), {}, split
    return args


def test_an_evaluation_on_training_videos_is_told(
    tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(arguments(tmp_path / "run", root), VideoClassificationTask())
    written = (tmp_path / "run" / SEEN).read_text()
    assert not any(name in written or name.encode("unicode-escape").decode() in written for name in PATIENTS)
    (record,) = json.loads(written)["trained"]
    assert record["videos"] == 2 and len(record["digests"]) == 2 and len(record["salt"]) == 32
    train(arguments(tmp_path / "other", root), VideoClassificationTask())
    (other,) = json.loads((tmp_path / "other" / SEEN).read_text())["trained"]
    assert other["salt"] != record["salt"] and not set(other["digests"]) & set(record["digests"])

    capfd.readouterr()
    evaluate_run(judging(tmp_path / "fair", root, tmp_path / "run", "validation"), VideoClassificationTask())
    assert "WARNING" not in capfd.readouterr().err
    assert json.loads((tmp_path / "fair" / "eval_results.json").read_text())["warnings"] == []
    told = "WARNING: 2 of 2 evaluation videos were used for training, judging by their names (video_classification of"
    unfair = judging(tmp_path / "unfair", root, tmp_path / "run" / "checkpoints" / "best", "train")
    assert told in dry_run(unfair, VideoClassificationTask())
    evaluate_run(unfair, VideoClassificationTask())
    shown = capfd.readouterr().err
    assert told in shown and not any(name in shown for name in PATIENTS)
    assert told in json.loads((tmp_path / "unfair" / "eval_results.json").read_text())["warnings"][0]
    mixed = judging(tmp_path / "mixed", root, tmp_path / "run", "all")
    assert "WARNING: 2 of 3 evaluation videos" in dry_run(mixed, VideoClassificationTask())


def test_one_video_in_two_lists(tmp_path: Path, root: Path) -> None:
    (root / "validation.txt").write_text("meier\nschmidt\n", encoding="utf-8")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"are in .*\.txt and in .*\.txt, the first is 'schmidt'.*proves nothing"):
            build_source("phases", root=root, split=split)
    stated = {"train": "train.txt", "val": "validation.txt"}
    with pytest.raises(DataError, match="the first is 'schmidt'"):
        build_source("phases", root=root, split="train", split_list=stated)
    # Each list stated for itself: only the run sees both.
    args = arguments(tmp_path / "run", root, split_list="train.txt")
    args.data.eval_options = {"split_list": "validation.txt"}
    with pytest.raises(DataError, match=r"1 of 2 evaluation videos.*, because the splits 'train' and"):
        train(args, VideoClassificationTask())
    args.data.eval_options = {}  # one list for both
    with pytest.raises(DataError, match="2 of 2 evaluation videos are also training videos of this run"):
        dry_run(args, VideoClassificationTask())
    (root / "validation.txt").write_text("meier\n", encoding="utf-8")
    (root / "test.txt").write_text("meier\n", encoding="utf-8")  # validation and test may be one
    assert len(build_source("phases", root=root, split="validation")) == 1


def test_whoever_asks_for_the_same_split_is_warned(
    tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = arguments(tmp_path / "run", root)
    args.data.eval_split = "train"
    told = "WARNING: 2 of 2 evaluation videos are also training videos of this run"
    assert told in dry_run(args, VideoClassificationTask())
    capfd.readouterr()
    train(args, VideoClassificationTask())  # whoever wants no progress wants warnings nevertheless
    assert told in capfd.readouterr().err
    args.data.eval_split, args.data.eval_root = "validation", str(root)
    args.output_dir = str(tmp_path / "other")  # other training data, so that the first run cannot be continued
    assert "WARNING: 3 of 3 evaluation videos" in dry_run(args, VideoClassificationTask())


def test_a_video_that_was_moved_is_known_by_name_and_size(tmp_path: Path) -> None:
    clip = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    for place in ("a/films/first.avi", "b/first.avi", "c/second.avi"):
        (tmp_path / place).parent.mkdir(parents=True)
        shutil.copy(clip, tmp_path / place)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "first.avi").write_bytes(clip.read_bytes() + b"\0")  # another film of that name
    sets = {
        name: SampleDataset(build_source("phases", root=tmp_path / name, unit="videos"), num_frames=2)
        for name in "abcd"
    }
    (tmp_path / "model").mkdir()
    write_seen(tmp_path / "model", "pretraining", sets["a"], None)
    model = str(tmp_path / "model")
    assert "1 of 1" in seen_again(model, sets["a"])[0] and "1 of 1" in seen_again(model, sets["b"])[0]
    assert seen_again(model, sets["c"]) == [] and seen_again(model, sets["d"]) == []


def test_a_second_training_remembers_the_first(tmp_path: Path, root: Path) -> None:
    """What a model's starting point has seen, the model has seen too."""
    sets = {
        split: SampleDataset(build_source("phases", root=root, split=split, unit="videos"), num_frames=2)
        for split in ("train", "validation")
    }
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    write_seen(tmp_path / "first", "pretraining", sets["train"], None)
    write_seen(tmp_path / "second", "action_detection", sets["validation"], str(tmp_path / "first"))
    assert [each["task"] for each in read_seen(str(tmp_path / "second"))] == ["pretraining", "action_detection"]
    (line,) = seen_again(str(tmp_path / "second"), sets["train"])
    assert "(pretraining of" in line
    whole = (tmp_path / "second" / SEEN).read_text()
    digest = json.loads(whole)["trained"][0]["digests"][0]
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    for damage in (whole.replace(digest, other), "{", '{"trained": 3}', '{"trained": [{"salt": 1}]}', "[]", "null"):
        (tmp_path / "second" / SEEN).write_text(damage)
        with pytest.raises(CheckpointError, match=r"seen_videos\.json cannot be read"):
            seen_again(str(tmp_path / "second"), sets["train"])
    for what, flipped in bit_flips((tmp_path / "first" / SEEN).read_bytes(), 0, 100):
        (tmp_path / "second" / SEEN).write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"seen_videos\.json cannot be read"):
            pytest.fail(f"{what}: {read_seen(str(tmp_path / 'second'))}")


def test_frames_count_by_name_and_size(tmp_path: Path) -> None:
    """Frames are called 000.png everywhere: the name alone says nothing."""
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            noise = rng.integers(0, 256, (16, 20 if folder == "a" else 24, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / folder / f"{number:03}.png")
    (tmp_path / "model").mkdir()
    first, second = (SampleDataset(build_source("folder", root=tmp_path / name, depth=None)) for name in "ab")
    write_seen(tmp_path / "model", "pretraining", first, None)
    assert "6 of 6" in seen_again(str(tmp_path / "model"), first)[0]
    assert seen_again(str(tmp_path / "model"), second) == []


def test_few_stills_of_a_folder_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record does not grow with the frames, few files are looked at, and stretches of one folder are told apart."""
    for folder in ("data/one", "data/two"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(500):
            Image.new("RGB", (16, 16), (number % 256, number // 256, 9)).save(tmp_path / folder / f"{number:03}.png")
    sets = {split: SampleDataset(build_source("folder", root=tmp_path / "data", depth=None, split=split))
            for split in ("train", "validation", "all")}  # fmt: skip
    assert [len(part.indices) for part in sets.values()] == [800, 100, 1000]  # two stretches each
    looked_at: list[Path] = []
    size = seen_videos._size
    monkeypatch.setattr(seen_videos, "_size", lambda path: looked_at.append(path) or size(path))
    model = tmp_path / "model"
    model.mkdir()
    write_seen(model, "pretraining", sets["train"], None)
    (record,) = json.loads((model / SEEN).read_text())["trained"]
    assert record["videos"] == 800 and len(record["digests"]) == len(looked_at) == 64
    assert "WARNING: 800 of 800 evaluation videos" in seen_again(str(model), sets["train"])[0]
    assert seen_again(str(model), sets["validation"]) == []
    (line,) = seen_again(str(model), sets["all"])
    assert 650 <= int(line.split()[1]) <= 950 and "of 1000 evaluation videos" in line  # 800, estimated by 64
    part = SampleDataset(build_source("folder", root=tmp_path / "data", depth=None, split="train", every=3))
    count = int(seen_again(str(model), part)[0].split()[1])
    assert 0 < count <= len(part.indices)


def test_ucf101(tmp_path: Path) -> None:
    """The first list of one copy of the data holds what the second list of another copy tests on."""
    clip = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    lines = [f"Juggling/v_Juggling_g0{number}_c01.avi 1" for number in (1, 2, 3)]
    for name, train_list, test_list in (("a", lines[:2], lines[2:]), ("b", lines[:1], lines[1:])):
        (tmp_path / name / "Juggling").mkdir(parents=True)
        for line in lines:
            shutil.copy(clip, tmp_path / name / line.split()[0])
        (tmp_path / name / "classInd.txt").write_text("1 Juggling\n")
        (tmp_path / name / "trainlist01.txt").write_text("\n".join(train_list))
        (tmp_path / name / "testlist01.txt").write_text("\n".join(test_list))
    (tmp_path / "model").mkdir()
    write_seen(
        tmp_path / "model", "video_classification", SampleDataset(build_source("ucf101", root=tmp_path / "a")), None
    )
    tests = {name: SampleDataset(build_source("ucf101", root=tmp_path / name, split="test")) for name in ("a", "b")}
    assert seen_again(str(tmp_path / "model"), tests["a"]) == []
    assert "1 of 2 evaluation videos" in seen_again(str(tmp_path / "model"), tests["b"])[0]


def test_copies_in_folders_of_two_splits_are_warned_of(tmp_path: Path) -> None:
    clip = shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi")
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "data" / split / "one.avi")
        stamps = "Time\tPhase\n00:00:00.00\tjuggle\n00:00:01.00\trest\n"
        (tmp_path / "data" / split / "one-timestamp.txt").write_text(stamps)
    told = "WARNING: 1 of 1 evaluation videos are also training videos of this run, judging by their names"
    assert told in dry_run(arguments(tmp_path / "run", tmp_path / "data"), VideoClassificationTask())


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames called 0, 1, .. of two folders, prepared as Parquet and as shards."""
    place = tmp_path_factory.mktemp("tables")
    for name, shape in {"a": (24, 32), "b": (20, 30)}.items():
        source = build_source("folder", root=write_frames(place / f"in-{name}", 12, size=shape), depth_unit="mm")
        for form in ("parquet", "shards"):
            prepared(source, place / f"{name}-{form}", format=form)
    return place


def table(place: Path, name: str, form: str, **options: Any) -> SampleDataset:
    source = build_source("hub" if form == "parquet" else "shards", root=place / f"{name}-{form}")
    return SampleDataset(source, **options)


def test_frames_of_tables_count_by_name_and_size(tables: Path, tmp_path: Path) -> None:
    write_seen(tmp_path, "pretraining", table(tables, "a", "parquet"), None)
    for form in ("parquet", "shards"):  # the same pictures, stored in another way
        assert "12 of 12" in seen_again(str(tmp_path), table(tables, "a", form))[0]
        assert seen_again(str(tmp_path), table(tables, "b", form)) == []  # also called 0, 1, ..
    assert "3 of 3" in seen_again(str(tmp_path), table(tables, "a", "shards", indices=[2, 3, 11]))[0]


def test_members_of_a_mixture_are_looked_into(tables: Path, tmp_path: Path) -> None:
    members = {"x": table(tables, "a", "parquet").source, "y": table(tables, "b", "shards").source}
    mixture = SampleDataset(MixtureSource(members, [1, 3]))
    write_seen(tmp_path, "pretraining", mixture, None)
    assert "12 of 12" in seen_again(str(tmp_path), table(tables, "a", "shards"))[0]
    assert "12 of 12" in seen_again(str(tmp_path), table(tables, "b", "parquet"))[0]
    (record,) = json.loads((tmp_path / SEEN).read_text())["trained"]
    assert record["videos"] == 24 and len(record["digests"]) == 24  # each once, however often it is repeated


def test_names_of_a_table_are_read_at_once(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_videos, "_MOST_READ", 4)
    dataset = table(tables, "a", "parquet")
    asked: list[list[str]] = []
    read = dataset.source.rows.read
    monkeypatch.setattr(dataset.source.rows, "read", lambda rows, names: (asked.append(names), read(rows, names))[1])
    (group,) = seen_videos.video_groups(dataset)
    assert group.items == 12 and len(group.names) == 4
    assert asked == [["rgb"]] * 4
    nameless = table(tables, "b", "parquet")
    nameless.source.keys = lambda: None  # type: ignore[method-assign]
    assert seen_videos.video_groups(nameless) == []  # "row 3" is the name of nothing

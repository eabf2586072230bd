"""Data sets of a run: what the arguments hand through, and which rows are trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from helpers.frames_on_disk import write_frames
from helpers.tiny import CLIP, tiny_config
from helpers.videos import write_video
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources import SOURCES, Source
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.training.recipe import run_data
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments

LABELS = [0, 1, 2, 255] * 10


class Video:
    fps = 25.0
    length = 40

    def __init__(self, index: int) -> None:
        self.key = f"video{index}"
        self.label = LABELS[index]

    def read(self, indices: Sequence[int]) -> RGBDSample:
        frames = torch.tensor(list(indices), dtype=torch.uint8).view(-1, 1, 1, 1)
        return RGBDSample(self.key, rgb=frames.repeat(1, 3, 32, 48), label=self.label)


class Labelled:
    """Forty videos of three classes, some without a label."""

    name = "labelled"
    class_names = None
    depth_spec = None

    def __init__(self, split: str = "train") -> None:
        self.action_names = ["a", "b", "c"]

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> Video:
        return Video(index)

    def labels(self) -> list[int]:
        return LABELS

    def groups(self) -> list[str]:
        return [f"video{index}" for index in range(len(LABELS))]

    def digest(self) -> str:
        return "0"


class FourthClass(Labelled):
    """The same with a class that no video shows."""

    def __init__(self, split: str = "train") -> None:
        self.action_names = ["a", "b", "c", "never"]


class Silent(Labelled):
    """The same without telling labels beforehand."""

    def labels(self) -> None:
        return None


@pytest.fixture
def args(monkeypatch) -> RunArguments:
    made = {"labelled": Labelled, "fourth": FourthClass, "silent": Silent}
    monkeypatch.setattr(run_data, "build_source", lambda name, **options: made[name](**options))
    monkeypatch.setattr(run_data, "source_options", lambda name: {"split": "train"})
    assert not set(made) & set(SOURCES)
    args = RunArguments()
    args.data.source = "labelled"
    return args


def config():
    return tiny_config(**CLIP)


def test_sampling_and_views_are_handed_through(args):
    args.data.clip_sampling, args.data.num_views, args.data.frame_stride = "span", 2, 4
    args.evaluation.num_segments, args.evaluation.num_crops = 5, 3
    train, held_out = run_data.build_run_datasets(args, config(), labelled=True, multi_view=True)
    assert (train.clip_sampling, train.num_views, train.multi_view) == ("span", 2, False)
    assert len(train[(0, 0)]) == 2
    views = held_out[(0, 0)]
    assert len(views) == 15 and views[14].meta["segment"] == 4 and views[14].meta["crop"] == 2
    assert views[0].rgb.shape == (4, 3, 32, 32)


def test_other_tasks_evaluate_one_view_whatever_the_arguments_say(args):
    args.evaluation.num_segments, args.evaluation.num_crops = 5, 3
    _, held_out = run_data.build_run_datasets(args, config())
    assert isinstance(held_out[(0, 0)], RGBDSample) and len(held_out) == 40


def test_unlabelled_samples_are_left_out_of_labelled_training_only(args):
    train, held_out = run_data.build_run_datasets(args, config(), labelled=True)
    assert train.indices == [row for row in range(40) if LABELS[row] != 255] and len(held_out) == 40
    assert len(run_data.build_dataset(args, config(), True)) == 40


def test_a_share_of_the_labels_is_drawn_per_class_and_nested(args):
    chosen = {}
    for fraction in (0.2, 0.5):
        args.data.label_fraction = fraction
        chosen[fraction] = run_data.build_dataset(args, config(), True, labelled=True).indices
        assert Counter(LABELS[row] for row in chosen[fraction]) == dict.fromkeys(range(3), int(10 * fraction))
    assert set(chosen[0.2]) < set(chosen[0.5])
    args.data.max_train_samples = 4
    fewer = run_data.build_dataset(args, config(), True, labelled=True).indices
    assert len(fewer) == 4 and set(fewer) < set(chosen[0.5])
    assert len(run_data.build_dataset(args, config(), False)) == 40


def test_a_class_without_a_sample_is_named(args):
    args.data.source = "fourth"
    with pytest.raises(DataError, match="never"):
        run_data.build_dataset(args, config(), True, labelled=True)
    args.data.allow_missing_classes = True
    assert len(run_data.build_dataset(args, config(), True, labelled=True)) == 30


def test_a_source_that_does_not_tell_its_labels(args):
    args.data.source = "silent"
    assert len(run_data.build_dataset(args, config(), True, labelled=True)) == 40
    args.data.label_fraction = 0.5
    with pytest.raises(ConfigError, match=r"'silent' does not know the labels.*label_fraction = 0.5"):
        run_data.build_dataset(args, config(), True, labelled=True)


def test_an_error_of_the_evaluation_data_is_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in ("it ends without a full stop", "it ends with one."):

        def refuse(*_: object, told: str = told, **__: object) -> None:
            raise DataError(told)

        monkeypatch.setattr(run_data, "build_source", refuse)
        with pytest.raises(DataError, match=rf"^Evaluation data: {told.rstrip('.')}\. To train without"):
            run_data.build_run_source(RunArguments(), tiny_config(), train=False)


def _recording(folder: Path, lengths: dict[str, int], **changes: object) -> RunArguments:
    for name, length in lengths.items():
        write_frames(folder / "data", length, f"{name}/color/{{i}}.png", f"{name}/depth/{{i}}.png")
    args = RunArguments(output_dir=str(folder / "out"))
    args.data.source, args.data.root, args.data.train_split = "folder", str(folder / "data"), "all"
    args.data.options, args.data.frame_stride, args.data.eval_split = {"depth_unit": "millimetre", **changes}, 2, None
    return args


def test_a_recording_gives_a_window_per_clip_and_a_short_sequence_no_still_video(tmp_path: Path) -> None:
    """A clip covers 4 frames x stride 2 = 8 source frames."""
    args = _recording(tmp_path, {"long": 35, "short": 3, "once": 15})
    dataset = run_data.build_dataset(args, config(), True)
    source = dataset.source
    assert [source[row].key for row in range(len(source))] == ["long@0", "long@8", "long@17", "long@26", "once"]
    assert [source[row].length for row in range(len(source))] == [8, 9, 9, 9, 15]
    assert [entry.path for entry in source.unpaired] == ["short"] and "a clip covers 8" in source.unpaired[0].reason
    assert any("2 sequences are cut into 5 windows of at least the 8 frames" in note for note in source.notes)
    for row in range(len(dataset)):
        frames = dataset[0, row].meta["frames"]
        assert len(set(frames)) == 4  # no frame twice
    assert dataset[0, 1].meta["frames"][0].startswith("long/")
    seen = {frame for row in range(4) for frame in source[row].read(range(source[row].length)).meta["frames"]}
    assert seen == {f"long/{number}" for number in range(35)}


def test_sequences_stay_whole_and_short_ones_repeat_when_asked(tmp_path: Path) -> None:
    args = _recording(tmp_path, {"long": 35, "short": 3}, windows=1, min_frames=1)
    source = run_data.build_dataset(args, config(), True).source
    assert [(source[row].key, source[row].length) for row in range(len(source))] == [("long", 35), ("short", 3)]
    assert any("1 sequence has fewer frames than the 8 of a clip" in note for note in source.notes)
    args = _recording(tmp_path / "b", {"short": 3})
    with pytest.raises(DataError, match=r"a clip covers 8, num_frames x frame_stride.*longest has 3.*min_frames"):
        run_data.build_dataset(args, config(), True)


def test_a_number_that_only_a_recipe_states_is_a_maximum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "data", 12)
    given = ["--recipe", "rooms/depth", "--data.source", "folder", "--data.root", str(tmp_path / "data")]
    given += ["--output_dir", str(tmp_path / "out"), "--data.train_split", "all", "--data.eval_split", "null"]
    given += ["--data.options", "{depth_unit: millimetre}"]
    args = parse_arguments(given, "depth_estimation")
    assert args.data.max_train_samples == 200 and json.dumps(args.data.max_train_samples) == "200"
    assert len(run_data.build_dataset(args, tiny_config(), True)) == 12
    assert "takes up to 200 training samples; the data has 12, so all are used" in capsys.readouterr().out
    asked = parse_arguments([*given, "--data.max_train_samples", "200"], "depth_estimation")
    with pytest.raises(ConfigError, match="200 samples are requested"):
        run_data.build_dataset(asked, tiny_config(), True)


def test_pretraining_takes_every_video_and_reads_no_label(tmp_path: Path) -> None:
    """Of three videos one is annotated, by more frames than it has: no concern of who learns no labels."""
    for number in range(3):
        write_video(tmp_path / f"videos/v{number}.mp4", 8)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/v0.txt").write_text("Frame\tPhase\n" + "".join(f"{n}\tcut\n" for n in range(50)))
    words = ["--data.source", "phases", "--data.root", str(tmp_path), "--data.train_split", "all"]
    words += ["--data.eval_split", "null", "--data.options.clip_span", "4", "--train.max_steps", "2"]

    def source(task: str, *more: str) -> Source:
        args = parse_arguments([*words, *more], task)
        return run_data.build_run_source(args, tiny_config(num_frames=2, tubelet_size=2), train=True)

    every = source("pretraining")
    assert every.groups() == [f"v{number}" for number in range(3) for _ in range(2)] and every.action_names is None
    for task, more in (
        ("video_classification", ()),
        ("pretraining", ("--data.options.require_annotations", "true")),
        ("pretraining", ("--data.options.drop_unlabelled", "true")),
        ("pretraining", ("--data.label_fraction", "0.5")),
    ):
        with pytest.raises(DataError, match=r"v0\.txt.*longer than the video"):
            source(task, *more)
    fitting = ("--data.options.length_tolerance", "50")
    assert source("video_classification", *fitting).groups() == ["v0", "v0"]
    stated = source("pretraining", *fitting, "--data.options.annotations", "annotations")
    assert stated.labels() == [0, 0, 255, 255, 255, 255], "what a command states is read, and still asked of no video"

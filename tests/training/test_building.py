"""Data sets of a run: what the arguments hand through, and which rows are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from helpers.tiny import CLIP, tiny_config
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources import SOURCES
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.training.arguments import RunArguments
from m33d_hf.training.tasks import building

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

    labels = None


@pytest.fixture
def args(monkeypatch) -> RunArguments:
    made = {"labelled": Labelled, "fourth": FourthClass, "silent": Silent}
    monkeypatch.setattr(building, "build_source", lambda name, **options: made[name](**options))
    monkeypatch.setattr(building, "source_options", lambda name: ("split",))
    assert not set(made) & set(SOURCES)
    args = RunArguments()
    args.data.source = "labelled"
    return args


def config():
    return tiny_config(**CLIP)


def test_sampling_and_views_are_handed_through(args):
    args.data.clip_sampling, args.data.num_views, args.data.frame_stride = "span", 2, 4
    args.evaluation.num_segments, args.evaluation.num_crops = 5, 3
    train, held_out = building.build_run_datasets(args, config(), labelled=True, multi_view=True)
    assert (train.clip_sampling, train.num_views, train.multi_view) == ("span", 2, False)
    assert len(train[(0, 0)]) == 2
    views = held_out[(0, 0)]
    assert len(views) == 15 and views[14].meta["segment"] == 4 and views[14].meta["crop"] == 2
    assert views[0].rgb.shape == (4, 3, 32, 32)


def test_other_tasks_evaluate_one_view_whatever_the_arguments_say(args):
    args.evaluation.num_segments, args.evaluation.num_crops = 5, 3
    _, held_out = building.build_run_datasets(args, config())
    assert isinstance(held_out[(0, 0)], RGBDSample) and len(held_out) == 40


def test_unlabelled_samples_are_left_out_of_labelled_training_only(args):
    train, held_out = building.build_run_datasets(args, config(), labelled=True)
    assert train.indices == [row for row in range(40) if LABELS[row] != 255] and len(held_out) == 40
    assert len(building.build_dataset(args, config(), True)) == 40


def test_a_share_of_the_labels_is_drawn_per_class_and_nested(args):
    chosen = {}
    for fraction in (0.2, 0.5):
        args.data.label_fraction = fraction
        chosen[fraction] = building.build_dataset(args, config(), True, labelled=True).indices
        assert Counter(LABELS[row] for row in chosen[fraction]) == dict.fromkeys(range(3), int(10 * fraction))
    assert set(chosen[0.2]) < set(chosen[0.5])
    args.data.max_train_samples = 4
    fewer = building.build_dataset(args, config(), True, labelled=True).indices
    assert len(fewer) == 4 and set(fewer) < set(chosen[0.5])
    assert len(building.build_dataset(args, config(), False)) == 40


def test_a_class_without_a_sample_is_named(args):
    args.data.source = "fourth"
    with pytest.raises(DataError, match="never"):
        building.build_dataset(args, config(), True, labelled=True)
    args.data.allow_missing_classes = True
    assert len(building.build_dataset(args, config(), True, labelled=True)) == 30


def test_a_source_that_does_not_tell_its_labels(args):
    args.data.source = "silent"
    assert len(building.build_dataset(args, config(), True, labelled=True)) == 40
    args.data.label_fraction = 0.5
    with pytest.raises(ConfigError, match=r"'silent' does not tell the labels.*label_fraction = 0.5"):
        building.build_dataset(args, config(), True, labelled=True)


def test_an_error_of_the_evaluation_data_is_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in ("it ends without a full stop", "it ends with one."):

        def refuse(*_: object, told: str = told, **__: object) -> None:
            raise DataError(told)

        monkeypatch.setattr(building, "build_source", refuse)
        with pytest.raises(DataError, match=rf"^Evaluation data: {told.rstrip('.')}\. To train without"):
            building.build_run_source(RunArguments(), tiny_config(), train=False)

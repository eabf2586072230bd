"""Unequal classes: weights and draws against their definitions, and in real runs; off by default, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.phases_in_memory import MODEL, NAMES, arguments, first_stage, register
from m33d_hf.errors import ConfigError, LabelError, ResumeError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.class_balance import (
    class_counts,
    class_weights,
    describe_balance,
    draw_weights,
    drawn_shares,
)
from m33d_hf.training.tasks.detection.task import ActionDetectionTask

LABELS = [np.array([0, 0, 0, 255, 1]), np.array([0, 0, 0]), np.array([2, 255]), np.array([255])]


def _args(**train_options: Any) -> RunArguments:
    args = RunArguments(task="action_detection")
    for name, value in train_options.items():
        setattr(args.train, name, value)
    return args


def test_balanced_weights_are_inverse_counts_with_mean_one() -> None:
    counts = class_counts(LABELS, 4)
    assert counts.tolist() == [6, 1, 1, 0]
    weights = class_weights(_args(class_weights="balanced"), counts, list("abcd"))
    assert weights is not None
    # n / (classes that occur * n of the class): what scikit-learn calls balanced
    np.testing.assert_allclose(weights, [8 / (3 * 6), 8 / 3, 8 / 3, 0])
    assert class_weights(_args(), counts, list("abcd")) is None


def test_weights_of_a_file_keep_their_relations(tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    path.write_text("b\t2\n\na\t1\nc\t 0.5\n", encoding="utf-8")
    weights = class_weights(_args(class_weights=str(path)), np.array([6, 1, 1]), list("abc"))
    assert weights is not None
    np.testing.assert_allclose(weights / weights[0], [1, 2, 0.5])
    assert (weights * [6, 1, 1]).sum() / 8 == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\t1\nb\t2\n", "no weight for c; every class needs one"),
        ("a\t1\na\t2\n", "line 2: the class 'a' has a weight already"),
        ("a\t1\nbb\t2\n", "line 2: 'bb' is none of the classes"),
        ("a\t1\nb\t-2\n", "line 2: the weight '-2' is not a number from 0 on"),
        ("a\tnan\n", "line 1: the weight 'nan' is not a number from 0 on"),
        ("a 1\n", "line 1: 'a 1' is not 'name<TAB>weight'"),
        ("a\t0\nb\t0\nc\t0\n", "every class that has training clips has weight 0"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "weights.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError, match=words):
        class_weights(_args(class_weights=str(path)), np.array([6, 1, 1]), list("abc"))


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'balnced', which is neither none, balanced nor a file"):
        class_weights(_args(class_weights="balnced"), np.array([6, 1]), list("ab"))


def test_single_clips_are_drawn_so_that_classes_come_alike() -> None:
    labels = [np.array([n]) for n in (0, 0, 0, 0, 1, 2, 2, 255)]
    weights = draw_weights(labels, class_counts(labels, 3))
    np.testing.assert_allclose(weights, [0.25] * 4 + [1, 0.5, 0.5, 0])
    np.testing.assert_allclose(drawn_shares(labels, weights, 3), [1 / 3] * 3)
    videos = draw_weights(LABELS, class_counts(LABELS, 3))  # the mean of 1 / clips of the class over a video's clips
    np.testing.assert_allclose(videos, [(3 / 6 + 1) / 4, 1 / 6, 1, 0])


def test_both_are_told_and_both_at_once_are_doubted() -> None:
    (line,) = describe_balance(_args(class_weights="balanced"), LABELS, list("abc"))
    assert line == "class weights (balanced): a 0.444, b 2.67, c 2.67; a clip counts 1 on average"
    (line,) = describe_balance(_args(sampling="balanced"), LABELS[2:3] * 3 + LABELS[1:2], list("abc"))
    assert "a 50.0 % (of all 50.0 %)" in line and "b 0.0 % (of all 0.0 %)" in line
    assert "WARNING" in describe_balance(_args(class_weights="balanced", sampling="balanced"), LABELS, list("abc"))[-1]
    assert describe_balance(_args(), LABELS, list("abc")) == []


@pytest.mark.parametrize("soft", [False, True], ids=["ids", "soft targets"])
def test_the_loss_is_the_weighted_one_in_training_alone(soft: bool) -> None:
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    model = M33DForVideoClassification(M33DConfig(**{**MODEL, **labels})).train()
    pixels, ids = torch.randn(5, 2, 3, 16, 16), torch.tensor([0, 1, 2, 255, 1])
    targets = torch.rand(5, 3).softmax(-1) if soft else ids
    plain = model(pixel_values=pixels, labels=targets)
    weights = torch.tensor([0.5, 2.0, 0.0])
    model.weigh_classes(weights)
    weighed = model(pixel_values=pixels, labels=targets)
    logs = weighed.logits.double().log_softmax(-1)
    if soft:
        wanted = -(targets.double() * weights * logs).sum() / 5
    else:
        wanted = -sum(weights[c] * logs[row, c] for row, c in enumerate(ids.tolist()) if c != 255) / 4
    assert weighed.loss.item() == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert abs(weighed.loss.item() - plain.loss.item()) > 1e-3
    assert weighed.loss_counts["cross_entropy"] == plain.loss_counts["cross_entropy"]
    model.eval()
    judged = model(pixel_values=pixels, labels=targets)
    model.weigh_classes(None)
    assert torch.equal(judged.loss, model(pixel_values=pixels, labels=targets).loss)
    model.weigh_classes(weights)
    assert "class_weights" not in model.state_dict() and model.double().class_weights.dtype == torch.float64
    with pytest.raises(ConfigError, match="expected 3 finite numbers"):
        model.weigh_classes(torch.ones(2))


def test_runs_say_and_do_it(tmp_path: Path) -> None:
    register()
    stage = first_stage(tmp_path / "one")
    losses: dict[str, list[float]] = {}
    for name, options in {
        "plain": {},
        "ones": {"class_weights": str(tmp_path / "ones.txt")},
        "weighed": {"class_weights": "balanced"},
        "drawn": {"sampling": "balanced"},
    }.items():
        (tmp_path / "ones.txt").write_text("".join(f"{each}\t3\n" for each in NAMES), encoding="utf-8")
        args = arguments(tmp_path / name, stage)
        args.features.dir, args.data.eval_split = str(tmp_path / "features"), None
        for option, value in options.items():
            setattr(args.train, option, value)
        args.logging.pictures = "balanced" in options.values()  # and with them the report
        result = train(args, ActionDetectionTask())
        losses[name] = [row["loss"] for row in result.history if "loss" in row]
    assert losses["plain"] == losses["ones"] and losses["weighed"] != losses["plain"] != losses["drawn"]
    told = (tmp_path / "weighed" / "report.html").read_text(encoding="utf-8")
    assert "class weights (balanced): rest" in told
    assert "balanced sampling, with replacement" in (tmp_path / "drawn" / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "drawn" / "train_config.json").read_text())["args"]["train"]["sampling"] == "balanced"


def test_a_resumed_run_has_the_weights_that_it_began_with(tmp_path: Path) -> None:
    register()
    file = tmp_path / "weights.txt"
    file.write_text("".join(f"{name}\t1\n" for name in NAMES), encoding="utf-8")
    args = arguments(tmp_path / "run", None)  # type: ignore[arg-type]
    args.task, args.model = "video_classification", dict(MODEL)
    args.train.class_weights, args.train.epochs, args.train.max_steps = str(file), None, 1
    train(args, build_task("video_classification"))
    assert train(args, build_task("video_classification")).step == 1, "the same file"
    file.write_text(file.read_text(encoding="utf-8").replace("\t1", "\t5", 1), encoding="utf-8")
    with pytest.raises(ResumeError, match=r"content of the file of train\.class_weights: \w+ -> \w+"):
        train(args, build_task("video_classification"))


def test_clips_are_balanced_in_the_first_stage(tmp_path: Path) -> None:
    register()
    args = arguments(tmp_path, None)  # type: ignore[arg-type]
    args.task, args.model, args.train.batch_size = "video_classification", dict(MODEL), 6
    args.train.sampling = args.train.class_weights = "balanced"
    task = build_task("video_classification")
    model = build_model(args, task)
    train_set, _ = task.build_datasets(args, model)
    labels, weights = np.array(train_set.source.labels()), task.sample_weights(args, train_set)
    assert weights is not None and len(set(np.bincount(labels))) > 1
    masses = np.bincount(labels, weights)
    np.testing.assert_allclose(masses / masses.sum(), [1 / 3] * 3)
    np.testing.assert_allclose(model.class_weights * np.bincount(labels), [len(labels) / 3] * 3, rtol=1e-6)
    assert "33.3 %" in "".join(task.describe(args, model, train_set))
    args.train.sampling = "shuffled"
    assert task.sample_weights(args, train_set) is None


def test_a_task_without_classes_of_clips_refuses() -> None:
    args = RunArguments(task="pretraining")
    args.train.sampling = "balanced"
    with pytest.raises(ConfigError, match="pretraining has no classes of clips to balance; leave both out"):
        build_model(args, build_task("pretraining"))

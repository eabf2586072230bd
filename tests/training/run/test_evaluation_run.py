"""--eval_only: every task, every weight from the checkpoint, any number of processes, what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from helpers.clips_in_memory import NAMES
from helpers.ranks import ForkedRanks
from m33d_hf.data.sources import SOURCES
from m33d_hf.data.sources.rooms.constants import MOTION_NAMES
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.evaluation_run import as_trained, evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import Task, build_task
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

IMAGE: dict[str, Any] = {
    "image_size": 24,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 16,
    "segmentation_head_width": 8,
    "segmentation_head_depth": 1,
    "segmentation_head_upscale": 2,
    "depth_head_width": 16,
}
CLIP = IMAGE | {"num_frames": 4, "tubelet_size": 2, "num_hidden_layers": 2}
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "clips", ("helpers.clips_in_memory", "ClipSource"))


def arguments(folder: Path, task: str = "video_classification", source: str = "clips", **init: Any) -> RunArguments:
    args = RunArguments(task=task, output_dir=str(folder), cpu=True, eval_only=True, **init)
    args.data.source, args.data.num_workers = source, 0
    args.train.batch_size = 4
    args.logging.trackers, args.logging.progress, args.logging.pictures = [], False, False
    args.validate()  # no length of training is asked for
    return args


def trained(folder: Path, **labels: Any) -> M33DForVideoClassification:
    """A classifier whose head is not zero."""
    torch.manual_seed(0)
    model = M33DForVideoClassification(M33DConfig(**CLIP, **(labels or LABELS)))
    with torch.no_grad():
        model.classifier.weight.normal_()
    model.save_pretrained(folder)
    return model


def test_what_training_measured_is_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments(tmp_path / "run")
    args.eval_only, args.model = False, dict(CLIP)
    args.train.max_steps, args.optim.learning_rate, args.optim.scale_lr = 6, 3e-3, False
    measured = train(args, VideoClassificationTask()).metrics
    again = arguments(tmp_path / "judged", init_from=str(tmp_path / "run"))
    found = evaluate_run(again, VideoClassificationTask())
    assert {f"eval/{name}": value for name, value in found.items()} == pytest.approx(measured)
    results = json.loads((tmp_path / "judged" / "eval_results.json").read_text())
    assert results["metrics"] == found and results["samples"] == 12
    assert (results["task"], results["split"]) == ("video_classification", "validation")
    assert results["init_from"] == str(tmp_path / "run") and "torch" in results["versions"]
    assert f"top1: {found['top1']:.4f}" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "judged").iterdir() if not p.name.startswith(".")) == [
        "confusion.csv", "confusion_matrix.png", "eval_results.json", "predictions.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["pretraining", "semantic_segmentation", "depth_estimation"])
def test_every_task_is_judged(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    kinds = {
        "pretraining": M33DForPreTraining,
        "semantic_segmentation": M33DForSemanticSegmentation,
        "depth_estimation": M33DForDepthEstimation,
    }
    labels = {"num_labels": 10} if name == "semantic_segmentation" else {}
    kinds[name](M33DConfig(**IMAGE, **labels)).save_pretrained(tmp_path / "model")
    args = arguments(tmp_path / "out", name, "rooms", init_from=str(tmp_path / "model"))
    args.data.options = {"num_frames": 6}
    args.transforms.eval_crop = "resize"
    task = build_task(name)
    metrics = evaluate_run(args, task)
    assert task.metric in metrics
    written = json.loads((tmp_path / "out" / "eval_results.json").read_text())["metrics"]
    assert written == {name: value if value == value else None for name, value in metrics.items()}


def test_a_head_that_nobody_trained_is_never_judged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    M33DForPreTraining(M33DConfig(**CLIP)).save_pretrained(tmp_path / "pre")
    args = arguments(tmp_path / "out", init_from=str(tmp_path / "pre"))
    with pytest.raises(CheckpointError, match=r"lacks 4 weights .*fc_norm: .*classifier: the classifier is not in the"):
        evaluate_run(args, VideoClassificationTask())
    assert not (tmp_path / "out" / "eval_results.json").exists()
    M33DForDepthEstimation(M33DConfig(**IMAGE)).save_pretrained(tmp_path / "depth")
    args = arguments(tmp_path / "out", "semantic_segmentation", "rooms", init_from=str(tmp_path / "depth"))
    args.model = {"num_labels": 10}
    with pytest.raises(CheckpointError, match="segmentation_head: the segmentation head is not in the checkpoint"):
        evaluate_run(args, build_task("semantic_segmentation"))


def test_a_model_of_other_classes_than_the_data(tmp_path: Path) -> None:
    names = ["cut", "tie", "rest"]
    trained(tmp_path / "m", id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    with pytest.raises(ConfigError, match="class 1: 'knot' in the data, 'tie' in the model"):
        evaluate_run(arguments(tmp_path / "out", init_from=str(tmp_path / "m")), VideoClassificationTask())


def test_a_model_without_names_takes_those_of_the_source(tmp_path: Path) -> None:
    trained(tmp_path / "m", num_labels=3)
    assert (
        evaluate_run(arguments(tmp_path / "out", init_from=str(tmp_path / "m")), VideoClassificationTask())["top1"] >= 0
    )
    trained(tmp_path / "five", num_labels=5)
    with pytest.raises(ConfigError, match="num_labels is 5, but the source 'clips' has 3 classes"):
        evaluate_run(arguments(tmp_path / "out", init_from=str(tmp_path / "five")), VideoClassificationTask())


def test_only_evaluation_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "m")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("training data were asked for")

    monkeypatch.setattr("m33d_hf.training.tasks.video_classification.build_run_datasets", refuse)
    args = arguments(tmp_path / "out", init_from=str(tmp_path / "m"))
    args.data.eval_split = "test"
    evaluate_run(args, VideoClassificationTask())
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {row["key"].split("/")[0] for row in csv.DictReader(file)} == {"test"}


def test_what_differs_from_training_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "m")
    args = arguments(tmp_path / "out", init_from=str(tmp_path / "m"))
    args.model = {"image_size": [32, 32], "patch_size": [8, 8], "num_labels": 3}
    evaluate_run(args, VideoClassificationTask())
    said = capsys.readouterr().err
    assert "note: model.image_size is [32, 32] here but 24 in" in said and "patch_size" not in said
    (tmp_path / "m" / "train_config.json").write_text(
        json.dumps({"args": {"data": {"frame_stride": 4, "source": "clips"}, "transforms": {"eval_crop": "resize"}}})
    )
    _, notes = as_trained(arguments(tmp_path / "out", init_from=str(tmp_path / "m")))
    assert notes == [
        "data.frame_stride is 1 here but was 4 in training",
        "transforms.eval_crop is 'center' here but was 'resize' in training",
    ]
    args.model = {"num_labels": 4}
    with pytest.raises(ConfigError, match=r"num_labels is 4, but the model of .* has 3 classes"):
        as_trained(args)


def test_a_fine_tuned_videomae_is_judged_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {key: CLIP[key] for key in CLIP if not key.startswith(("decoder_", "segmentation_", "depth_"))}
    theirs = VideoMAEForVideoClassification(VideoMAEConfig(**shape, layer_norm_eps=1e-6, **LABELS)).eval()
    torch.nn.init.normal_(theirs.classifier.weight)
    theirs.save_pretrained(tmp_path / "theirs")
    task = VideoClassificationTask()
    metrics = evaluate_run(arguments(tmp_path / "out", init_from=str(tmp_path / "theirs")), task)
    assert task.load_report is not None and not task.load_report.new
    args, _ = as_trained(arguments(tmp_path / "out", init_from=str(tmp_path / "theirs")))
    eval_set = task.build_eval_dataset(args, model := task.build_model(args).eval())
    batch = task.build_collator(args, model, train=False)([eval_set[0, i] for i in range(12)])
    with torch.no_grad():
        hits = theirs(batch["pixel_values"]).logits.argmax(1) == batch["labels"]
    assert metrics["top1"] == pytest.approx(hits.double().mean().item())


def test_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "m")
    words = ["--eval_only", "--data.source", "clips", "--data.num_workers", "0", "--output_dir", str(tmp_path / "o"),
             "--cpu", "true", "--logging.trackers", "[]"]  # fmt: skip
    assert main("video_classification", [*words, "--init_from", str(tmp_path / "m")]) == 0
    assert "results are in" in capsys.readouterr().out
    assert main("video_classification", words) == 2
    assert "pass the output folder of a trained model" in capsys.readouterr().err
    assert main("video_classification", [*words, "--init_from", str(tmp_path / "m"), "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "== evaluation data" in shown and "classifier: 51" in shown and "training data" not in shown
    code = main("video_classification", [*words, "--init_from", str(tmp_path / "m"), "--data.eval_split", "null"])
    assert code == 2 and "pass --data.eval_split" in capsys.readouterr().err


def test_a_task_that_loads_nothing_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "m")

    class Idle(Task):
        def build_model(self, args: RunArguments) -> torch.nn.Module:
            return torch.nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match="nothing was loaded"):
        evaluate_run(arguments(tmp_path / "out", init_from=str(tmp_path / "m")), Idle())


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    """Eleven videos on two ranks: six and five of them, in batches of four and of two."""
    cache = tmp_path / "cache"
    words = ["--eval_only", "--init_from", str(tmp_path / "m"), "--data.source", "rooms", "--data.num_workers", "0",
             "--data.options.num_clips", "16", "--data.max_eval_samples", "11", "--data.cache_dir", str(cache),
             "--evaluation.num_segments", "2", "--evaluation.num_crops", "3", "--transforms.eval_crop", "center",
             "--logging.trackers", "[]", "--data.options.clip_length", "8"]  # fmt: skip
    names = list(MOTION_NAMES)
    trained(tmp_path / "m", id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [*words, "--output_dir", str(one), "--cpu", "true", "--train.batch_size", "4"]
    assert main("video_classification", alone) == 0
    both = [*words, "--output_dir", str(two), "--train.batch_size", "2"]
    ranks = ForkedRanks(main, "video_classification", both, log=tmp_path / "output.txt", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()[-3000:]
    found = [json.loads((folder / "eval_results.json").read_text()) for folder in (one, two)]
    assert [entry["num_processes"] for entry in found] == [1, 2]
    assert found[0]["metrics"] == pytest.approx(found[1]["metrics"], abs=1e-6)
    assert found[0]["metrics"]["samples"] == 11
    tables = []
    for folder in (one, two):
        with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            tables.append([(row["key"], row["predicted"], row["views"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1] and len(tables[0]) == 11
    assert ranks.output().count("results are in") == 1

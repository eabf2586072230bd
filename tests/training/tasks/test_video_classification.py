"""Clip classification through the real loop on made-up clips: files, classes, views, phases, shares, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from helpers.clips_in_memory import NAMES, ClipSource, PhasesInMemory
from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.sources import SOURCES
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.evaluation.detection_metrics import mean_average_precision
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.processes.optimization import parameter_groups
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

SIDE = 16
MODEL: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 16,
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "clips", ("helpers.clips_in_memory", "ClipSource"))
    monkeypatch.setitem(SOURCES, "phased", ("helpers.clips_in_memory", "PhasesInMemory"))


def arguments(folder: Path, source: str = "clips", **changes: Any) -> RunArguments:
    args = RunArguments(task="video_classification", output_dir=str(folder), cpu=True)
    args.model = dict(MODEL)
    args.data.source, args.data.num_workers = source, 0
    args.optim.learning_rate, args.optim.scale_lr, args.optim.layer_decay = 3e-3, False, 0.7
    args.train.max_steps, args.train.batch_size = 2, 4
    args.logging.every_steps, args.logging.trackers, args.logging.progress = 1, [], False
    args.logging.pictures = False
    for key, value in changes.items():
        section, name = key.split("__")
        setattr(getattr(args, section), name, value)
    return args


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_from_a_pretraining_leaves_everything(tmp_path: Path) -> None:
    torch.manual_seed(0)
    M33DForPreTraining(M33DConfig(**MODEL)).save_pretrained(tmp_path / "pre")
    args = arguments(
        tmp_path / "out", data__num_views=2, mixing__mixup=0.8, mixing__cutmix=1.0, mixing__label_smoothing=0.1,
        transforms__erasing=0.5, transforms__randaugment_ops=2, evaluation__num_segments=2, evaluation__num_crops=3,
        data__clip_sampling="span", data__frame_stride=3,
    )  # fmt: skip
    args.init_from = str(tmp_path / "pre")
    result = train(args, VideoClassificationTask())
    report = json.loads((tmp_path / "out" / "initialisation.json").read_text())
    assert set(report["new"]) == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    model = M33DForVideoClassification.from_pretrained(tmp_path / "out")
    assert [model.config.id2label[i] for i in range(3)] == list(NAMES)
    assert model.config.label2id == {name: i for i, name in enumerate(NAMES)}
    assert model.config.temporal_frame_stride == 3
    assert (tmp_path / "out" / "video_preprocessor_config.json").exists()
    rows = table(tmp_path / "out")
    assert len(rows) == 12 == result.metrics["eval/samples"]
    assert {row["views"] for row in rows} == {"6"} and {row["label"] for row in rows} == set(NAMES)
    assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(result.metrics["eval/top1"])
    assert result.metrics["eval/top5"] == 1.0 and "eval/map" not in result.metrics
    with (tmp_path / "out" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        counts = np.array([line[1:] for line in list(csv.reader(file))[1:]], dtype=int)
    assert counts.sum(axis=1).tolist() == [4, 4, 4]
    assert np.trace(counts) / 12 == pytest.approx(result.metrics["eval/top1"])
    assert (tmp_path / "out" / "confusion_matrix.png").read_bytes()[:4] == b"\x89PNG"
    facts = json.loads((tmp_path / "out" / "train_config.json").read_text())["data"]
    assert facts["classes"] == {"cut": 4, "knot": 4, "rest": 4} and facts["videos"] == 12


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    args = arguments(tmp_path, train__max_steps=30, train__batch_size=12)
    assert train(args, VideoClassificationTask()).metrics["eval/top1"] >= 0.9


def test_accumulation_gives_the_weights_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for word, batch, accumulation in (("whole", 4, 1), ("parts", 2, 2)):
        sizes = {"train__batch_size": batch, "train__accumulation": accumulation, "data__eval_split": None}
        args = arguments(tmp_path / word, **sizes, data__num_views=2, mixing__label_smoothing=0.1)
        result = train(args, VideoClassificationTask())
        weights.append(M33DForVideoClassification.from_pretrained(result.output_dir).state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_views_are_averaged_and_passes_are_no_larger_than_asked(tmp_path: Path) -> None:
    args = arguments(tmp_path, evaluation__num_segments=3, evaluation__num_crops=3, evaluation__batch_size=5)
    args.data.options = {"per_class": 2, "lengths": [12, 30]}
    task = VideoClassificationTask()
    model = task.build_model(args).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    _, eval_set = task.build_datasets(args, model)
    collator = task.build_collator(args, model, train=False)
    batch = collator([eval_set[0, index] for index in range(6)])
    assert batch["pixel_values"].shape == (54, 4, 3, SIDE, SIDE)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kw: sizes.append(len(kw["pixel_values"])), with_kwargs=True)
    with torch.no_grad():
        found = task.evaluate(model, [batch, collator([eval_set[0, 0]]), {"meta": {"keys": []}}], Accelerator(cpu=True))
        assert max(sizes) == 5 and sum(sizes) == 63
        mean = model(pixel_values=batch["pixel_values"]).logits.double().softmax(-1).reshape(6, 9, 3).mean(1)
    labels = batch["labels"].reshape(6, 9)[:, 0]
    assert found["top1"] == pytest.approx((mean.argmax(1) == labels).double().mean().item())
    written = [float(row["label_probability"]) for row in table(tmp_path)]
    assert written == pytest.approx(mean[torch.arange(6), labels].tolist(), abs=2e-6)


def test_videos_of_one_frame_train_and_are_evaluated(tmp_path: Path) -> None:
    args = arguments(tmp_path, evaluation__num_segments=2, evaluation__num_crops=2, data__clip_sampling="span")
    args.data.options = {"lengths": [1], "per_class": 2}
    args.data.frame_stride = 4
    result = train(args, VideoClassificationTask())
    assert result.metrics["eval/samples"] == 6


def test_an_image_model_classifies_single_frames(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.model |= {"num_frames": 1, "tubelet_size": 1}
    result = train(args, VideoClassificationTask())
    assert result.metrics["eval/samples"] == 12
    assert (tmp_path / "preprocessor_config.json").exists()


@pytest.mark.parametrize(("crop", "mode"), [("center", "bilinear"), ("resize", "bicubic")])
def test_the_saved_processor_prepares_as_the_evaluation_did(tmp_path: Path, crop: str, mode: str) -> None:
    args = arguments(tmp_path, data__frame_stride=2, transforms__eval_crop=crop, transforms__resize_mode=mode)
    args.train.max_steps, args.evaluation.at_end = 1, False
    task = VideoClassificationTask()
    train(args, task)
    processor = M33DVideoProcessor.from_pretrained(tmp_path)
    _, eval_set = task.build_datasets(args, model := task.build_model(args))
    expected = task.build_collator(args, model, train=False)([eval_set[0, 3]])["pixel_values"]
    clip = eval_set.source[3]
    frames = clip.read(range(clip.length)).rgb.permute(0, 2, 3, 1).numpy()
    found = processor(list(frames), do_sample_frames=True, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_phases_are_judged_by_clip_with_average_precision(tmp_path: Path) -> None:
    args = arguments(tmp_path, "phased", data__frame_stride=1)
    task = VideoClassificationTask()
    model = task.build_model(args)
    train_set, eval_set = task.build_datasets(args, model)
    assert train_set.source.clip_span == 4  # what the model reads
    assert train_set.source.given_names is None and eval_set.source.given_names == ClassTable(tuple(NAMES))
    assert len(train_set) == len(eval_set) == 14  # the unlabelled tail is left out
    result = train(args, VideoClassificationTask())
    rows = table(tmp_path)
    assert [row["key"] for row in rows[:2]] == ["validation/0@0-4", "validation/0@4-8"]
    scores = np.zeros((14, 3))
    for place, row in enumerate(rows):
        for entry in row["top5"].split(" | "):
            name, value = entry.rsplit(":", 1)
            scores[place, NAMES.index(name)] = float(value)
    expected, per_phase = mean_average_precision(scores, [NAMES.index(row["label"]) for row in rows])
    assert result.metrics["eval/map"] == pytest.approx(expected, abs=0.02)
    assert result.metrics["eval/ap/cut"] == pytest.approx(per_phase[0], abs=0.05)


def test_a_share_of_the_labels_says_how_much_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = arguments(tmp_path, data__label_fraction=0.05, logging__progress=True)
    args.data.options = {"per_class": 20}
    result = train(args, VideoClassificationTask())
    assert (
        "labels: 3 of 60 videos (data.label_fraction 0.05), 3 clips of 3 classes, 1 clip per class"
        in capfd.readouterr().err
    )
    facts = json.loads((tmp_path / "train_config.json").read_text())["data"]
    assert (facts["samples"], facts["videos"], facts["videos_in_source"]) == (3, 3, 60)
    assert result.metrics["eval/samples"] == 60  # all labels of the evaluation data


def test_a_class_without_a_sample_at_the_share(tmp_path: Path) -> None:
    args = arguments(tmp_path, data__label_fraction=0.05)
    args.data.options = {"per_class": 4}
    task = VideoClassificationTask()
    model = task.build_model(args)
    with pytest.raises(DataError, match=r"2 of 3 classes have no sample at data\.label_fraction 0\.05"):
        task.build_datasets(args, model)
    args.data.allow_missing_classes = True
    train_set, _ = task.build_datasets(args, model)
    lines = "\n".join(task.describe(args, model, train_set))
    assert "classes without a training sample: " in lines and "labels: 1 of 12 videos" in lines


def test_a_class_without_a_sample_at_all(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.data.options = {"skip": [1]}
    args.data.eval_options = {"skip": []}
    task = VideoClassificationTask()
    with pytest.raises(DataError, match="no training sample at all: knot"):
        task.build_datasets(args, task.build_model(args))
    args.data.options, args.data.max_train_samples = {}, 1
    with pytest.raises(DataError, match="2 of 3 classes have no sample among the 1 training samples"):
        task.build_datasets(args, task.build_model(args))
    args.data.allow_missing_classes = True
    assert len(task.build_datasets(args, task.build_model(args))[0]) == 1


def test_classes_that_cannot_be_told_apart(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.data.options = {"names": ["cut", "knot", "cut "]}
    with pytest.raises(DataError, match="classes 0 and 2 are both called 'cut'"):
        VideoClassificationTask().build_model(args)


def test_evaluation_data_of_other_classes(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.data.eval_options = {"names": ["cut", "knot", "tie"]}
    task = VideoClassificationTask()
    with pytest.raises(
        ConfigError, match=r"evaluation data has other classes .*class 2: 'tie' in the data, 'rest' in the model"
    ):
        task.build_datasets(args, task.build_model(args))
    args.data.eval_options = {"names": ["cut", "knot"]}
    with pytest.raises(ConfigError, match=r"2 in the data \(cut, knot\), 3 in the model \(cut, knot, rest\)"):
        task.build_datasets(args, task.build_model(args))


def test_sources_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(tmp_path, "phased")
    args.data.options = {"unit": "videos"}
    task = VideoClassificationTask()
    with pytest.raises(ConfigError, match="have no labels in this unit"):
        task.build_datasets(args, task.build_model(args))

    class Nameless(ClipSource):
        def __init__(self, split: str = "train") -> None:
            super().__init__(split)
            self.action_names = None

    monkeypatch.setattr("helpers.clips_in_memory.ClipSource", Nameless)
    with pytest.raises(ConfigError, match="has no clip labels to learn"):
        task.build_model(arguments(tmp_path))


def test_another_number_of_classes_than_the_source_has(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.model["num_labels"] = 5
    with pytest.raises(ConfigError, match=r"model\.num_labels is 5, but the source 'clips' has 3 classes"):
        VideoClassificationTask().build_model(args)
    args.model["num_labels"] = 3
    assert VideoClassificationTask().build_model(args).config.id2label == dict(enumerate(NAMES))


def test_dry_run_shows_views_and_mixing(tmp_path: Path) -> None:
    args = arguments(tmp_path / "dry", data__num_views=2, mixing__mixup=0.8, mixing__label_smoothing=0.1)
    args.evaluation.num_segments, args.evaluation.num_crops = 2, 3
    text = dry_run(args, VideoClassificationTask())
    assert "3 classes: cut, knot, rest" in text
    assert "batch: 4 clips x 2 views = 8 rows; mixup 0.8 with probability 1; label smoothing 0.1" in text
    assert "evaluation of 2 segments x 3 crops" in text
    assert "pixel_values (4, 4, 3, 16, 16), labels (4, 3)" in text  # two videos, two views each
    assert "pixel_values (12, 4, 3, 16, 16), labels (12,)" in text
    assert "first keys: train/0, train/1" in text and "classifier: 51" in text
    assert not (tmp_path / "dry").exists()


def test_clips_that_are_longer_than_what_the_model_reads_are_said_to_be(tmp_path: Path) -> None:
    args = arguments(tmp_path / "dry", "phased")
    args.data.options = {"clip_span": 8}
    assert "clips are 8 source frames long, but the model reads 4" in dry_run(args, VideoClassificationTask())
    args.data.options = {"clip_span": None}  # what the model reads
    text = dry_run(args, VideoClassificationTask())
    assert "stretches of" not in text and "train/0@0-4" in text


def test_layer_decay_and_weight_decay_of_the_head() -> None:
    model = M33DForVideoClassification(M33DConfig(**MODEL, num_labels=3))
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, 0.05, 0.5)
        for parameter in group["params"]
    }
    assert groups["classifier.weight"] == (1.0, 0.05)
    assert groups["classifier.bias"] == groups["fc_norm.weight"] == groups["fc_norm.bias"] == (1.0, 0.0)
    assert groups["m33d.embeddings.rgb.projection.weight"] == (0.125, 0.05)  # decay ** (layers + 1 - 0)
    assert groups["m33d.encoders.rgb.layers.1.mlp.fc1.weight"] == (0.5, 0.05)
    assert groups["m33d.encoders.rgb.layers.0.layernorm_before.weight"] == (0.25, 0.0)
    assert all(decay == 0 for name, (_, decay) in groups.items() if "norm" in name or name.endswith("bias"))
    assert set(groups) == {name for name, _ in model.named_parameters()}


def test_phases_in_memory_have_an_unlabelled_tail() -> None:
    assert PhasesInMemory(clip_span=4).labels()[-4:] == [255] * 4


def test_a_run_ends_with_the_floor_of_its_training_clips(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The floor is counted again from the labels of the two splits, with nothing but numpy."""
    args = arguments(tmp_path / "out", evaluation__floor=True, logging__progress=True)
    result = train(args, VideoClassificationTask())
    trained, judged = (np.array(ClipSource(split).labels()) for split in ("train", "validation"))
    commonest = np.bincount(trained).argmax()
    assert result.metrics["eval/floor/top1"] == pytest.approx(float((judged == commonest).mean()))
    assert result.metrics["eval/floor/mean_class_accuracy"] == pytest.approx(1 / len(set(judged.tolist())))
    said = capfd.readouterr().err
    assert "commonest class of the training clips (" in said and "uniform chance among" in said
    again = arguments(tmp_path / "judged", evaluation__floor=True)
    again.init_from, again.eval_only = str(tmp_path / "out"), True
    found = evaluate_run(again, VideoClassificationTask())
    assert found["floor/top1"] == pytest.approx(result.metrics["eval/floor/top1"])

"""Fine-tuning tasks through the real loop on tiny rooms: from a pre-training, with accumulation, and their metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from helpers.berhu_ranks import share_the_berhu_threshold
from helpers.frames_on_disk import write_frames
from helpers.normals_head import NormalsTask
from helpers.ranks import ForkedRanks
from m33d_hf.data.sources.rooms.constants import CLASS_NAMES
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.metrics import DepthMetrics
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.settling.settle import settle
from m33d_hf.training.tasks.base import Task, build_task
from m33d_hf.training.tasks.dense import DenseTask
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

SIDE = 24
MODEL: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "segmentation_head_width": 8,
    "segmentation_head_depth": 1,
    "segmentation_head_upscale": 2,
    "depth_head_width": 16,
}


def _arguments(task: str, folder: Path, **changes: Any) -> RunArguments:
    args = RunArguments(task=task, output_dir=str(folder), cpu=True)
    args.model = dict(MODEL)
    args.data.options = {"num_frames": 12}
    args.data.num_workers = 0
    args.transforms.train_crop = args.transforms.eval_crop = "resize"
    args.optim.learning_rate, args.optim.scale_lr, args.optim.layer_decay = 1e-3, False, 0.65
    args.train.max_steps, args.train.batch_size = 2, 4
    args.logging.every_steps, args.logging.trackers, args.logging.progress = 1, [], False
    args.logging.pictures = False
    for key, value in changes.items():
        section, name = key.split("__")
        setattr(getattr(args, section), name, value)
    return args


@pytest.mark.parametrize("name", ["semantic_segmentation", "depth_estimation"])
def test_a_run_from_a_pretraining_leaves_a_usable_folder(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    source = M33DForPreTraining(M33DConfig(**MODEL))
    source.save_pretrained(tmp_path / "pre")
    segmentation = name == "semantic_segmentation"
    task: Task = SemanticSegmentationTask() if segmentation else DepthEstimationTask()
    args = _arguments(name, tmp_path / "out")
    args.init_from = str(tmp_path / "pre")
    result = train(args, task)
    assert result.step == 2
    head = "segmentation_head." if segmentation else "depth_head."
    report = json.loads((tmp_path / "out" / "initialisation.json").read_text())
    assert report["new"] and all(key.startswith(head) for key in report["new"])
    assert f"eval/{task.metric}" in result.metrics
    assert M33DImageProcessor.from_pretrained(tmp_path / "out").size == {"height": SIDE, "width": SIDE}
    if segmentation:
        model = M33DForSemanticSegmentation.from_pretrained(tmp_path / "out")
        assert [model.config.id2label[i] for i in range(model.config.num_labels)] == list(CLASS_NAMES)
        assert any(key.startswith("eval/iou/") for key in result.metrics)
        assert 0 <= result.metrics["eval/pixel_accuracy"] <= 1
    else:
        model = M33DForDepthEstimation.from_pretrained(tmp_path / "out")
        assert {"eval/rmse", "eval/abs_rel", "eval/per_image/delta1", "eval/loss"} <= set(result.metrics)
    moved = model.state_dict()["m33d.encoders.rgb.layers.3.mlp.fc1.weight"]
    assert not torch.equal(moved, source.state_dict()["m33d.encoders.rgb.layers.3.mlp.fc1.weight"])


@pytest.mark.parametrize("loss", ["berhu", "silog"])
def test_accumulation_gives_the_weights_of_the_whole_batch(tmp_path: Path, loss: str) -> None:
    """berHu's threshold is the maximum over the whole step; counts are too."""
    weights = []
    for word, batch, accumulation in (("whole", 4, 1), ("parts", 1, 4)):
        sizes = {"train__batch_size": batch, "train__accumulation": accumulation}
        args = _arguments("depth_estimation", tmp_path / word, **sizes)
        args.model["depth_loss"] = loss
        args.data.eval_split = None
        result = train(args, DepthEstimationTask())
        weights.append(M33DForDepthEstimation.from_pretrained(result.output_dir).state_dict())
        weights[-1]["loss"] = torch.tensor([row["loss"] for row in result.history if "loss" in row])
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=2e-5, rtol=1e-4, msg=key)


def test_the_threshold_of_a_step_is_the_maximum_over_its_parts() -> None:
    torch.manual_seed(0)
    model = M33DForDepthEstimation(M33DConfig(**MODEL, drop_path_rate=0.5))
    generator = torch.Generator().manual_seed(1)
    batches = [
        {"pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": torch.rand(2, SIDE, SIDE, generator=generator) * far}
        for far in (2.0, 8.0)
    ]
    task = DepthEstimationTask()
    model.train()
    before = torch.get_rng_state()
    (threshold,) = task.prepare_step(model, batches).values()
    assert torch.equal(torch.get_rng_state(), before)
    own = []
    for batch in batches:  # drop path draws here what it drew in prepare_step
        output = model(**batch)
        own.append(model.berhu_threshold(output.standardized_depth, batch["labels"]))
    assert threshold == max(own)
    (function,) = task.prepare_step(model, batches[:1]).values()
    assert function(own[0]) == own[0]
    model.eval()
    given = model(**batches[0], berhu_threshold=lambda found: found * 3).loss
    torch.testing.assert_close(given, model(**batches[0], berhu_threshold=_own(model, batches[0]) * 3).loss)
    model.config.depth_loss = "l1"
    assert task.prepare_step(model, batches) == {}


def _own(model: M33DForDepthEstimation, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.berhu_threshold(model(batch["pixel_values"]).standardized_depth, batch["labels"])


def test_depth_evaluation_pools_pixels_and_passes_over_empty_batches() -> None:
    torch.manual_seed(0)
    model = M33DForDepthEstimation(M33DConfig(**MODEL)).eval()
    labels = torch.rand(3, SIDE, SIDE) * 4
    labels[0, :10] = float("nan")
    pixels = torch.randn(3, 3, SIDE, SIDE)
    loader = [
        {"pixel_values": pixels[:2], "labels": labels[:2], "meta": {"keys": ["a", "b"]}},
        {"meta": {"keys": []}},
        {"pixel_values": pixels[2:], "labels": labels[2:], "meta": {"keys": ["c"]}},
    ]
    with torch.no_grad():
        found = DepthEstimationTask().evaluate(model, loader, Accelerator(cpu=True))
        expected = DepthMetrics()
        expected.update(model(pixels).predicted_depth, labels)
    for key, value in expected.compute().items():
        assert found[key] == pytest.approx(value)


def test_impossible_runs_are_refused(tmp_path: Path) -> None:
    args = _arguments("depth_estimation", tmp_path)
    args.model |= {"num_frames": 4, "tubelet_size": 2}
    with pytest.raises(ConfigError, match="works on images"):
        DepthEstimationTask().build_model(args)


def test_classes_come_from_the_arguments_when_given(tmp_path: Path) -> None:
    args = _arguments("semantic_segmentation", tmp_path)
    args.model["num_labels"] = 3
    args.data.source, args.data.options = "folder", {}
    assert SemanticSegmentationTask().build_model(args).config.num_labels == 3


def test_two_ranks_share_the_berhu_threshold(tmp_path: Path) -> None:
    ranks = ForkedRanks(share_the_berhu_threshold, log=tmp_path / "output.txt", processes=2)
    assert ranks.wait() == [0, 0], ranks.output()


@pytest.mark.parametrize("task", [DepthEstimationTask(), NormalsTask()], ids=["depth_estimation", "NormalsTask"])
def test_labels_made_of_depth_are_refused_where_it_is_no_distance(tmp_path: Path, task: DenseTask) -> None:
    """Metrics and `predicted_depth` are metres, and inverse depth would be trained and judged as if it were."""
    write_frames(tmp_path / "frames", 10)
    args = _arguments("depth_estimation", tmp_path / "out")
    args.data.source, args.data.root = "folder", str(tmp_path / "frames")
    args.data.options = {"depth_kind": "inverse"}
    model = task.build_model(args)
    with pytest.raises(ConfigError, match=f"is inverse, but {task.name} requires metres"):
        task.build_datasets(args, model)
    args.eval_only, args.data.eval_root = True, args.data.root
    with pytest.raises(ConfigError, match=f"is inverse, but {task.name} requires metres"):
        task.build_eval_dataset(args, model)


def test_relative_depth_trains_a_task_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NormalsTask, "metric_depth", False)
    write_frames(tmp_path / "frames", 10)
    args, task = _arguments("depth_estimation", tmp_path / "out"), NormalsTask()
    args.data.source, args.data.root = "folder", str(tmp_path / "frames")
    args.data.options = {"depth_kind": "inverse"}
    train_set, _ = task.build_datasets(args, task.build_model(args))
    assert len(train_set) > 0


def test_weights_are_as_readable_as_their_configuration(tmp_path: Path) -> None:
    model = M33DForDepthEstimation(M33DConfig(**MODEL))
    Task().save(model, RunArguments(output_dir=str(tmp_path)))
    modes = {(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_evaluation_labels_with_the_classes_in_another_order(tmp_path: Path) -> None:
    """Ids mean what the order of the names says: the same names in another order would be a silent permutation."""
    write_frames(tmp_path / "data", 10, labels="labels/{i}.png")
    args = _arguments("semantic_segmentation", tmp_path / "out")
    args.data.source, args.data.root = "folder", str(tmp_path / "data")
    args.data.options = {"class_names": ["wall", "floor", "door", "rest"], "depth": "none"}
    task = SemanticSegmentationTask()
    model = task.build_model(args)
    assert task.build_datasets(args, model)[1] is not None
    args.data.eval_options = {"class_names": ["floor", "wall", "door", "rest"]}
    for build in (task.build_datasets, task.build_eval_dataset):
        with pytest.raises(ConfigError, match=r"has the same classes as the model, in another order: class 0 is"):
            build(args, model)
    args.data.eval_options = {"class_names": ["wall", "floor", "door", "roof"]}
    with pytest.raises(ConfigError, match=r"other classes than the model: class 3 is 'roof' in the data and 'rest'"):
        task.build_eval_dataset(args, model)


def test_evaluation_alone_finds_the_floor_of_rooms_too(tmp_path: Path) -> None:
    """Rooms have no folder, yet training data: their floor is that of the run, in eval_results.json as well."""
    args = _arguments("depth_estimation", tmp_path / "out", evaluation__floor=True)
    trained = train(args, DepthEstimationTask()).metrics
    args = _arguments("depth_estimation", tmp_path / "judged", evaluation__floor=True)
    args.init_from, args.eval_only = str(tmp_path / "out"), True
    task = DepthEstimationTask()
    found = evaluate_run(args, task)
    written = json.loads((tmp_path / "judged" / "eval_results.json").read_text())
    for name in ("floor/delta1", "floor/abs_rel", "floor/rmse", "delta1"):
        assert found[name] == pytest.approx(trained[f"eval/{name}"], abs=1e-6)
        assert f'"{name}"' in json.dumps(written)
    assert "per-position mean of the training frames" in "".join(task.closing_lines(found))


def test_the_floor_takes_no_room_from_the_training(tmp_path: Path) -> None:
    """Its maps are read once; kept, they would keep training frames from being kept."""
    args = _arguments("depth_estimation", tmp_path / "out", evaluation__floor=True)
    args.data.keep_decoded_gb = 0.1
    task = DepthEstimationTask()
    train_set, _ = task.build_datasets(args, task.build_model(args))
    assert task._floor is not None and train_set._kept is not None and train_set._kept.held == 0
    train_set[(0, 0)]
    assert train_set._kept.held > 0


def test_without_training_data_the_lacking_floor_is_told(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 4)
    M33DForDepthEstimation(M33DConfig(**MODEL)).save_pretrained(tmp_path / "model")
    args = _arguments("depth_estimation", tmp_path / "judged", evaluation__floor=True)
    args.init_from, args.eval_only = str(tmp_path / "model"), True
    args.data.source, args.data.options, args.data.eval_root = "folder", {}, str(tmp_path / "data")
    task = DepthEstimationTask()
    found = evaluate_run(args, task)
    assert not any(name.startswith("floor/") for name in found)
    assert task.closing_lines(found) == ["no trivial floor (evaluation.floor): it needs the training data, --data.root"]


def test_segmentation_without_classes_is_told_the_options_that_define_them(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "data", 12, labels="label/{i}.png")
    words = ["--recipe", "own/semseg", "--data.root", str(root), "--model.image_size", "24x32"]
    args = settle(resolve(words, "semantic_segmentation")).args
    with pytest.raises(ConfigError, match=r"class_names \(a list or a file\) or --data\.options\.num_classes N"):
        build_task("semantic_segmentation").config_overrides(args)


@pytest.mark.parametrize("name", ["semantic_segmentation", "depth_estimation"])
def test_a_dead_head_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """All pictures answered alike: the run says so and what to do; a living head says nothing."""
    segmentation = name == "semantic_segmentation"
    model_class = M33DForSemanticSegmentation if segmentation else M33DForDepthEstimation
    torch.manual_seed(0)
    # A width of 16 leaves two channels before the last layer, which can be dead from the start.
    fields = {**MODEL, "depth_head_width": 64, "num_labels": len(CLASS_NAMES) if segmentation else 2}
    model = model_class(M33DConfig(**fields))
    for alive in (True, False):
        if not alive:
            last = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            torch.nn.init.zeros_(last.weight)
        model.save_pretrained(tmp_path / "model")
        args = _arguments(name, tmp_path / "out")
        args.model, args.init_from = dict(fields), str(tmp_path / "model")
        caplog.clear()
        evaluate_run(args, SemanticSegmentationTask() if segmentation else DepthEstimationTask())
        assert ("lower optim.learning_rate" in caplog.text) is not alive

"""The pre-training task on rooms: every method takes steps, stage 2 starts from stage 1, evaluation adds up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.frames_on_disk import label_array, save, write_frames
from helpers.rooms_runs import words
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.data.loader.loading import build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.run_data import build_run_datasets, subset
from m33d_hf.training.run.dry_run import dry_run
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.settling.settle import run_arguments
from m33d_hf.training.tasks import pretraining
from m33d_hf.training.tasks.pretraining import PretrainingTask

RUNS = [
    ("rooms/pretrain", "mae", {"rgb"}),
    ("rooms/pretrain", "rgbd_mae", {"rgb", "depth"}),
    ("rooms/pretrain", "mask3d", {"depth"}),
    ("rooms/pretrain", "rgb_to_depth", {"depth"}),
    ("rooms/pretrain", "m33d_hidden", {"rgb", "depth"}),
    ("rooms/pretrain", "m33d_normed", {"rgb", "depth"}),
    ("rooms/pretrain_stage1", "m33d", {"contrastive"}),
    ("rooms/pretrain_stage1", "m33d_followup", {"contrastive"}),
    ("rooms/pretrain_stage2", "m33d_plus", {"rgb", "depth"}),
    ("rooms/pretrain_stage1", "m33d_hidden", {"contrastive"}),
    ("rooms/pretrain_stage2", "m33d_hidden", {"rgb", "depth"}),
    ("rooms/pretrain_clips", "m33d", {"rgb", "depth", "contrastive", "matching"}),
    ("rooms/pretrain_clips", "m33d_plus", {"rgb", "depth", "contrastive", "matching"}),
    ("rooms/pretrain_clips", "m33d_hidden", {"rgb", "depth"}),
    ("rooms/pretrain_clips", "videomae", {"rgb"}),
]


def parse(recipe: str, output_dir: Path, **changes: str | None) -> RunArguments:
    return parse_arguments(words(recipe, output_dir, **changes), "pretraining")


@pytest.mark.parametrize(("recipe", "method", "terms"), RUNS)
def test_every_method_trains_and_is_loadable(recipe: str, method: str, terms: set[str], tmp_path: Path) -> None:
    result = train(parse(recipe, tmp_path, method=method), PretrainingTask())
    assert result.step == 2
    assert {name.removeprefix("eval/loss/") for name in result.metrics if name.startswith("eval/loss/")} == terms
    assert all(math.isfinite(value) for value in result.metrics.values())
    model = M33DForPreTraining.from_pretrained(tmp_path)
    assert set(model.loss_weights) == terms
    M33DModel.from_pretrained(tmp_path)
    assert (tmp_path / "preprocessor_config.json").exists() == ("clips" not in recipe)


def test_diagnostics_are_reported(tmp_path: Path) -> None:
    metrics = train(parse("rooms/pretrain_clips", tmp_path), PretrainingTask()).metrics
    expected = {"retrieval_accuracy_depth", "retrieval_accuracy_mismatched_depth", "matching_accuracy_depth"}
    expected |= {"depth_loss_hidden", "depth_loss_visible", "position_share_rgb", "position_share_depth"}
    assert {f"eval/{name}" for name in expected} <= set(metrics)
    assert all(value <= 1 for name, value in metrics.items() if "position_share" in name)
    assert all(0 <= value <= 1 for name, value in metrics.items() if "accuracy" in name)


def test_stage_2_and_a_task_start_from_stage_1(tmp_path: Path) -> None:
    train(parse("rooms/pretrain_stage1", tmp_path / "1"), PretrainingTask())
    train(parse("rooms/pretrain_stage2", tmp_path / "2", init_from=str(tmp_path / "1")), PretrainingTask())
    report = json.loads((tmp_path / "2" / "initialisation.json").read_text())
    assert report["ignored"] == {}
    assert all(name.startswith("decoder.") for name in report["new"])
    config = M33DForPreTraining.from_pretrained(tmp_path / "2").config
    loaded, info = M33DForDepthEstimation.from_pretrained(tmp_path / "2", config=config, output_loading_info=True)
    assert all(name.startswith("depth_head.") for name in info["missing_keys"])
    weights = M33DForPreTraining.from_pretrained(tmp_path / "2").state_dict()
    name = "m33d.encoders.rgb.layers.0.mlp.fc1.weight"
    assert torch.equal(loaded.state_dict()[name], weights[name])


class NoFloat64(TorchDispatchMode):
    """As Apple's mps: no tensor of float64 is made."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype is torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return made


def test_an_evaluation_needs_no_float64_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = parse("rooms/pretrain", tmp_path, method="rgbd_mae")
    task = PretrainingTask()
    model = task.build_model(args).eval()
    _, eval_set = task.build_datasets(args, model)
    assert eval_set is not None
    batches = [task.build_collator(args, model, train=False)([eval_set[0, row] for row in range(4)])]
    with torch.no_grad():
        exact = task.evaluate(model, batches, Accelerator(cpu=True))
        monkeypatch.setattr(pretraining, "accumulator_dtype", lambda _: torch.float32)
        with NoFloat64():
            found = task.evaluate(model, batches, Accelerator(cpu=True))
    assert found == pytest.approx(exact, rel=1e-5)


def test_evaluation_does_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    args = parse("rooms/pretrain", tmp_path, method="rgbd_mae")
    task = PretrainingTask()
    model = task.build_model(args).eval()
    _, eval_set = task.build_datasets(args, model)
    assert eval_set is not None
    collator = task.build_collator(args, model, train=False)
    found = []
    for batch_size in (3, 12):
        loader = build_loader(eval_set, collator, EvaluationSampler(len(eval_set), batch_size))
        with torch.no_grad():
            found.append(task.evaluate(model, loader, Accelerator(cpu=True)))
    for name in ("loss", "loss/rgb", "loss/depth"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5)
    assert found[0]["loss"] == pytest.approx(found[0]["loss/rgb"] + found[0]["loss/depth"], rel=1e-6)


@pytest.mark.parametrize("negatives", ["roll", "shuffle"])
def test_evaluation_does_not_depend_on_the_number_of_processes(tmp_path: Path, negatives: str) -> None:
    """Losses and diagnostics alike, those with another sample's depth, mismatched pairs and negatives of the batch too.

    The processes' batches one after the other are what `accelerator.reduce` adds up.
    """
    batch = {"model__contrastive_negatives": "batch", "model__share_mask": "false", "data__max_eval_samples": "11"}
    args = parse("rooms/pretrain_clips", tmp_path, model__matching_negatives=negatives, **batch)
    task = PretrainingTask()
    model = task.build_model(args).eval()
    _, eval_set = task.build_datasets(args, model)
    assert eval_set is not None and task.compares_samples
    collator = task.build_collator(args, model, train=False)
    found = []
    for world in (1, 2, 3):
        samplers = [EvaluationSampler(len(eval_set), 3, rank, world, task.compares_samples) for rank in range(world)]
        batches = [batch for sampler in samplers for batch in build_loader(eval_set, collator, sampler)]
        torch.manual_seed(world)  # what a process has drawn before must not matter
        with torch.no_grad():
            found.append(task.evaluate(model, batches, Accelerator(cpu=True)))
    assert {"retrieval_accuracy_mismatched_depth", "matching_accuracy_depth", "loss/contrastive"} <= set(found[0])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_without_diagnostics_the_losses_are_the_same_and_nothing_else_is_measured(tmp_path: Path) -> None:
    found, said = {}, {}
    for wanted in ("true", "false"):
        args = parse(
            "rooms/pretrain", tmp_path, method="rgbd_mae", evaluation__diagnostics=wanted, data__max_eval_samples="5"
        )
        task = PretrainingTask()
        model = build_model(args, task).eval()
        _, eval_set = task.build_datasets(args, model)
        assert eval_set is not None
        batches = list(
            build_loader(eval_set, task.build_collator(args, model, train=False), EvaluationSampler(5, 5, 0, 1))
        )
        with torch.no_grad():
            found[wanted] = task.evaluate(model, batches, Accelerator(cpu=True))
        assert set(found[wanted]) <= set(task.metric_names(args, model))
        said[wanted] = task.estimates(args, model)
    assert found["true"].keys() - found["false"].keys() >= {"retrieval_accuracy_depth", "depth_loss_hidden"}
    assert found["false"] == {name: value for name, value in found["true"].items() if name.startswith("loss")}
    assert said["true"][0].startswith("evaluation: retrieval") and "retrieval" not in "".join(said["false"])


def test_one_total_batch_on_several_processes_gives_the_same_diagnostics(tmp_path: Path) -> None:
    """Nothing is said of the evaluation; train.batch_size is divided by the number of processes, as people do."""
    found = []
    for world in (1, 2, 4):
        changes = {
            "evaluation__batch_size": "null",
            "data__max_eval_samples": "70",
            "data__eval_options": "{num_frames: 70}",
        }
        args = parse("rooms/pretrain_stage1", tmp_path, **changes)
        task = PretrainingTask()
        model = build_model(args, task).eval()
        _, eval_set = task.build_datasets(args, model)
        assert eval_set is not None and len(eval_set) == 70
        collator = task.build_collator(args, model, train=False)
        ranks = [
            EvaluationSampler(70, task.evaluation_batch(args), rank, world, task.compares_samples)
            for rank in range(world)
        ]
        batches = [batch for rank in ranks for batch in build_loader(eval_set, collator, rank)]
        with torch.no_grad():
            found.append(task.evaluate(model, batches, Accelerator(cpu=True)))
    names = {"retrieval_accuracy_depth", "retrieval_accuracy_mismatched_depth", "loss/contrastive"}
    assert names <= set(found[0])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_figures_that_depend_on_the_batch_are_called_estimates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = parse("rooms/pretrain_stage1", tmp_path / "run", train__max_steps="1", evaluation__batch_size="null")
    train(args, PretrainingTask())
    said = "estimates for batches of 32 (--evaluation.batch_size); they do not depend on the number of processes"
    assert said in dry_run(args, PretrainingTask())
    args.eval_only, args.init_from, args.output_dir = True, str(tmp_path / "run"), str(tmp_path / "judged")
    args.evaluation.batch_size = 3
    evaluate_run(args, PretrainingTask())
    assert "estimates for batches of 3 (" in capsys.readouterr().err
    assert read_sealed_json(tmp_path / "judged" / "eval_results.json")["batch_size"] == 3
    args.data.eval_split = None
    assert PretrainingTask().describe(args, build_model(args, PretrainingTask()), []) == []  # type: ignore[arg-type]


def test_evaluation_passes_over_batches_without_samples(tmp_path: Path) -> None:
    task = PretrainingTask()
    model = task.build_model(parse("rooms/pretrain", tmp_path)).eval()
    metrics = task.evaluate(model, [{"meta": {"keys": []}}, None], Accelerator(cpu=True))  # type: ignore[list-item]
    assert metrics == {"loss": 0.0}  # a term that counted nothing is left out


def test_no_evaluation_on_request(tmp_path: Path) -> None:
    args = parse("rooms/pretrain", tmp_path, data__eval_split="null")
    assert build_run_datasets(args, PretrainingTask().build_model(args).config)[1] is None


def test_subsets_are_nested_and_refuse_too_many() -> None:
    small, large = subset(100, 10, 3), subset(100, 50, 3)
    assert small is not None and large is not None
    assert set(small) < set(large) and small == sorted(small)
    assert subset(100, 10, 4) != small
    assert subset(100, None, 3) is None
    assert subset(10, 4, None) == [0, 2, 5, 7]
    with pytest.raises(ConfigError, match="11 samples"):
        subset(10, 11, 0)


def test_a_root_for_a_source_without_files_is_refused(tmp_path: Path) -> None:
    args = parse("rooms/pretrain", tmp_path, data__root=str(tmp_path))
    with pytest.raises(ConfigError, match="reads no folder"):
        build_run_datasets(args, PretrainingTask().build_model(args).config)


def test_a_root_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    args = parse(
        "rooms/pretrain", tmp_path, data__source="folder", data__root=str(tmp_path / "empty"), data__options=None
    )
    with pytest.raises(DataError, match="empty"):
        build_run_datasets(args, PretrainingTask().build_model(args).config)


def test_normed_is_hidden_depth_normalised_per_patch(tmp_path: Path) -> None:
    """As the plans confirmed it by an option of m33d_hidden: the same losses to the bit; and not those without it."""
    ways = {
        "named": {"method": "m33d_normed"},
        "by option": {"method": "m33d_hidden", "modalities__depth__target_norm": "pooled"},
        "without": {"method": "m33d_hidden"},
    }
    losses = {}
    for name, given in ways.items():
        found = train(parse("rooms/pretrain_stage2", tmp_path / name, **given), PretrainingTask()).metrics
        losses[name] = {key: value for key, value in found.items() if "loss" in key}
    assert losses["named"] == losses["by option"] and losses["named"].keys() == losses["without"].keys()
    assert losses["named"]["eval/loss/depth"] != losses["without"]["eval/loss/depth"]


def test_labels_are_no_part_of_the_data_unless_they_draw_them(tmp_path: Path) -> None:
    """A corrected mask keeps no pre-training from being resumed, nor its evaluations from being compared. The digests
    that earlier versions stored, which had the labels, are known."""
    root = write_frames(tmp_path / "data", 4, labels="label/{i}.png", size=(32, 32))
    given = {"recipe": "own/pretrain", "data.source": "folder", "data.root": str(root), "data.options.num_classes": "4"}
    fraction = {"data.label_fraction": "0.5"}
    digests, judged, earlier = {}, {}, set()
    for when in ("before", "after"):
        for name, more in (("all", {}), ("drawn", fraction)):
            found = {**given, "train.max_steps": "1", "data.eval_split": "null", **more}
            args = run_arguments([word for key, value in found.items() for word in (f"--{key}", value)], "pretraining")
            task = PretrainingTask()
            train_set, _ = task.build_datasets(args, build_model(args, task))
            digests[when, name] = task.data_digest(train_set)
            judged[when] = task.eval_digest(train_set)
            former = task.former_digest(train_set)
            assert former == (train_set.source.digest() if name == "all" else None)
            earlier.add(former)
        save(root / "label/1.png", label_array(9, (32, 32)) % 2)
    assert digests["before", "all"] == digests["after", "all"] == judged["before"] == judged["after"]
    assert len(earlier) == 3, "None, and one for the masks as they were and are"
    assert digests["before", "drawn"] != digests["after", "drawn"]

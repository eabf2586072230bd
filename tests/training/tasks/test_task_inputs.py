"""Segmentation and clip classification from RGB and depth through the real loop, judged with every input set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.ranks import ForkedRanks
from m33d_hf.data.source import Source
from m33d_hf.data.sources import SOURCES
from m33d_hf.errors import CheckpointError, ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_eval_dataset
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import SourceTask, build_task
from m33d_hf.training.tasks.task_inputs import check_depth_is_there, inputs_in_words, judged_inputs

MODEL: dict[str, Any] = {
    "image_size": 24, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32, "segmentation_head_width": 8,
    "segmentation_head_depth": 1, "segmentation_head_upscale": 2,
}  # fmt: skip
RGBD = {"task_inputs": ["rgb", "depth"]}
TASK = "semantic_segmentation"


def arguments(folder: Path, task: str = TASK, **model: Any) -> RunArguments:
    args = RunArguments(task=task, output_dir=str(folder), cpu=True)
    clips = task == "video_classification"
    args.model = {**MODEL, **({"num_frames": 4, "tubelet_size": 2} if clips else {}), **model}
    args.data.options = {"num_clips": 6, "unit": "clips"} if clips else {"num_frames": 8}
    args.data.num_workers, args.data.allow_missing_classes = 0, True
    args.transforms.train_crop = args.transforms.eval_crop = "resize"
    args.optim.learning_rate, args.optim.scale_lr = 3e-3, False
    args.train.max_steps, args.train.batch_size = 3, 4
    args.logging.every_steps, args.logging.trackers, args.logging.progress = 1, [], False
    args.logging.pictures = False
    return args


def judging(args: RunArguments, folder: Path, trained: Path, **evaluation: Any) -> RunArguments:
    args = arguments(folder, args.task)
    args.model, args.init_from, args.eval_only = {}, str(trained), True
    for name, value in evaluation.items():
        setattr(args.evaluation, name, value)
    return args


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pre")
    M33DForPreTraining(M33DConfig(**MODEL)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    folder = tmp_path_factory.mktemp("rgbd")
    args = arguments(folder, **RGBD, task_fusion="concatenation")
    args.init_from = str(pretrained)
    train(args, build_task(TASK))
    return folder


def test_a_run_takes_the_depth_encoder_and_accounts_for_every_weight(trained: Path, pretrained: Path) -> None:
    report = json.loads((trained / "initialisation.json").read_text())
    assert {name.split(".")[0] for name in report["new"]} == {"segmentation_head", "task_fusion"}
    assert any(name.startswith("m33d.encoders.depth.") for name in report["loaded"])
    model = M33DForSemanticSegmentation.from_pretrained(trained)
    assert set(report["loaded"]) | set(report["new"]) == set(model.state_dict())
    before = M33DForPreTraining.from_pretrained(pretrained).state_dict()
    moved = "m33d.encoders.depth.layers.0.mlp.fc1.weight"
    assert not torch.equal(model.state_dict()[moved], before[moved]), "it is trained"
    processor = M33DImageProcessorPil.from_pretrained(trained)
    assert processor.depth_spec["unit"] == "metre", "users read depth as the run did"


def test_each_input_set_has_its_row(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [["rgb"], ["rgb", "depth"], ["depth"]]
    args = judging(arguments(tmp_path), tmp_path / "all", trained, inputs=sets, floor=True)
    found = evaluate_run(args, build_task(TASK))
    results = json.loads((tmp_path / "all" / "eval_results.json").read_text())
    rows = {tuple(row["inputs"]): row["metrics"] for row in results["by_inputs"]}
    assert list(rows) == [tuple(each) for each in sets]
    assert found == results["metrics"] == rows["rgb", "depth"]
    said = capsys.readouterr().out
    assert f"RGB and depth  {found['miou']:.4f}" in said and f"RGB            {rows['rgb',]['miou']:.4f}" in said
    # The second way: one evaluation for each, and the loss of the model itself on the same batch.
    plain = evaluate_run(judging(args, tmp_path / "plain", trained, floor=True), build_task(TASK))
    assert plain == found
    assert len({row["floor/miou"] for row in rows.values()}) == 1, "what looks at nothing sees no inputs"
    alone = judging(args, tmp_path / "alone", trained, floor=True)
    alone.model = {"task_inputs": ["rgb"]}
    assert evaluate_run(alone, build_task(TASK)) == rows["rgb",]
    model, losses = M33DForSemanticSegmentation.from_pretrained(trained).eval(), {}
    task = build_task(TASK)
    assert isinstance(task, SourceTask)
    data = build_eval_dataset(args, model.config, maps=("rgb", "depth", "segmentation"))
    assert data is not None
    batch = task.build_collator(args, model, train=False)([data[(0, row)] for row in range(len(data))])
    for names in rows:
        kept = {"rgb": ["pixel_values"], "depth": ["depth_values", "depth_mask"]}
        given = {key: batch[key] for name in names for key in kept[name]}
        with torch.no_grad():
            losses[names] = float(model(**given, labels=batch["labels"]).loss)
        assert rows[names]["loss"] == pytest.approx(losses[names], rel=1e-5), names
    assert len({round(loss, 6) for loss in losses.values()}) == 3


def test_two_ranks_judge_every_set_as_one_does(trained: Path, tmp_path: Path) -> None:
    """Seven pictures: four and three of them, in batches of four and of two."""
    words = ["--eval_only", "--init_from", str(trained), "--data.num_workers", "0", "--data.cache_dir",
             str(tmp_path / "cache"), "--data.options", "{num_frames: 8}", "--data.max_eval_samples", "7",
             "--evaluation.inputs", "[[rgb], [rgb, depth], [depth]]", "--transforms.eval_crop", "resize",
             "--data.allow_missing_classes", "true", "--logging.trackers", "[]"]  # fmt: skip
    found = {}
    for processes, batch in ((1, "4"), (2, "2")):
        folder = tmp_path / str(processes)
        given = [*words, "--output_dir", str(folder), "--evaluation.batch_size", batch]
        ranks = ForkedRanks(main, TASK, given, log=tmp_path / f"{processes}.txt", processes=processes)
        assert ranks.wait() == [0] * processes, ranks.output()[-3000:]
        results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
        found[processes] = {tuple(row["inputs"]): row["metrics"] for row in results["by_inputs"]}
    assert list(found[1]) == list(found[2]) == [("rgb",), ("rgb", "depth"), ("depth",)]
    assert len({row["loss"] for row in found[1].values()}) == 3
    assert all(found[2][names] == pytest.approx(row, abs=1e-6) for names, row in found[1].items())


def test_clips_with_depth(tmp_path: Path) -> None:
    task = "video_classification"
    args = arguments(tmp_path / "run", task, **RGBD)
    args.mixing.cutmix = 1.0
    train(args, build_task(task))
    model = M33DForVideoClassification.from_pretrained(tmp_path / "run")
    assert model.config.task_input_names == ("rgb", "depth") and model.task_fusion is not None
    assert bool((model.task_fusion.scale != 0).any())
    judge = judging(args, tmp_path / "judged", tmp_path / "run", inputs=[["rgb"], ["rgb", "depth"]])
    evaluate_run(judge, build_task(task))
    rows = json.loads((tmp_path / "judged" / "eval_results.json").read_text())["by_inputs"]
    assert rows[0]["metrics"]["loss"] != rows[1]["metrics"]["loss"]
    assert (tmp_path / "judged" / "predictions.csv").is_file()


@pytest.mark.parametrize("model", [{"encoder_sharing": "shared"}, {"task_inputs": ["depth"]}], ids=["shared", "depth"])
def test_a_shared_encoder_and_depth_alone_learn(model: dict[str, Any], tmp_path: Path) -> None:
    args = arguments(tmp_path, **{**RGBD, **model})
    args.logging.pictures = True
    args.train.max_steps = 12
    result = train(args, build_task(TASK))
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert sum(losses[-3:]) < sum(losses[:3]) and (tmp_path / "pictures").is_dir()


def test_an_rgb_run_is_refused_with_depth(tmp_path: Path) -> None:
    torch.manual_seed(0)
    M33DForSemanticSegmentation(M33DConfig(**MODEL, num_labels=10)).save_pretrained(tmp_path / "rgb")
    args = judging(arguments(tmp_path), tmp_path / "out", tmp_path / "rgb")
    args.model = {"task_inputs": ["rgb", "depth"]}
    with pytest.raises(CheckpointError, match=r"was trained with \['rgb'\] and has no depth encoder"):
        evaluate_run(args, build_task(TASK))


def test_a_checkpoint_that_never_saw_depth_gives_its_rgb_encoder_and_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    M33DForPreTraining(M33DConfig(**MODEL, modalities=[rgb_modality()])).save_pretrained(tmp_path / "mae")
    args = arguments(tmp_path / "out", **RGBD)
    args.init_from, args.train.max_steps = str(tmp_path / "mae"), 1
    train(args, build_task(TASK))
    loaded = json.loads((tmp_path / "out" / "initialisation.json").read_text())["loaded"]
    name = "m33d.encoders.depth.layers.0.mlp.fc1.weight"
    assert loaded[name] == f"copied from {name.replace('depth', 'rgb')}"


class Colours(Source):
    """A source without depth."""

    name = "colours"
    class_names = ["a", "b"]  # noqa: RUF012

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("nothing is read")

    def digest(self) -> str:
        return "colours"


def test_data_without_depth_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "colours", (__name__, "Colours"))
    args = arguments(tmp_path, **RGBD)
    args.data.source, args.data.options = "colours", {}
    with pytest.raises(ConfigError, match=r"task_inputs has depth, but the training data \(source 'colours'\) has no"):
        train(args, build_task(TASK))
    source = Colours()
    with pytest.raises(ConfigError, match=r"or --evaluation.inputs '\[\[rgb\]\]'"):
        check_depth_is_there(args, ("rgb", "depth"), source, "evaluation")
    check_depth_is_there(args, ("rgb",), source, "training")


def test_randaugment_would_move_rgb_away_from_depth(tmp_path: Path) -> None:
    args = arguments(tmp_path, "video_classification", **RGBD)
    args.transforms.randaugment_ops = 2
    with pytest.raises(ConfigError, match="RandAugment shifts and turns RGB alone"):
        train(args, build_task(args.task))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([["rgb", "thermal"]], "each set must have other inputs"),
        ([["rgb"], ["rgb"]], "each set must have other inputs"),
        ([[]], "each set must have other inputs"),
        ([["depth"]], "RGB asks the questions"),
    ],
)
def test_input_sets_that_cannot_be_judged(inputs: list[list[str]], message: str, tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.evaluation.inputs = inputs
    config = M33DConfig(**MODEL, **RGBD, task_fusion="cross_attention", num_labels=3)
    with pytest.raises(ConfigError, match=message):
        judged_inputs(args, build_task(TASK), M33DForSemanticSegmentation(config))


def test_input_sets_are_for_judging_and_for_models_that_have_them(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.evaluation.inputs = [["rgb"]]
    with pytest.raises(ConfigError, match="it needs --eval_only true"):
        args.validate()
    model = M33DForSemanticSegmentation(M33DConfig(**MODEL, num_labels=3))
    with pytest.raises(ConfigError, match="depth_estimation has no choice of"):
        judged_inputs(args, build_task("depth_estimation"), model)
    with pytest.raises(ConfigError, match="depth is what depth estimation predicts"):
        train(arguments(tmp_path, "depth_estimation", **RGBD), build_task("depth_estimation"))
    assert [inputs_in_words(each) for each in (["rgb"], ["depth"], ["rgb", "depth"])] == [
        "RGB", "depth", "RGB and depth",
    ]  # fmt: skip

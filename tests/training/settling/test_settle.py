"""What a run takes from its checkpoint, what it decides by its data, and what nothing but the user decides."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.foreign import SIZES, tiny_videomae, tiny_vitmae
from helpers.frames_on_disk import write_frames
from helpers.tiny import CLIP, SMALL
from m33d_hf.errors import CheckpointError, ConfigError, ConversionError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe.parsing import parse_arguments, resolve
from m33d_hf.training.run.evaluation_run import as_trained
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.plan import plan_run
from m33d_hf.training.settling.machine import Machine
from m33d_hf.training.settling.settle import Settled, settle
from m33d_hf.training.tasks.base import build_task

ENCODER = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
# The paper's recipes, whose values are those of a ViT-B.
FINE_TUNED = {
    "depth_estimation": "nyuv2_depth",
    "semantic_segmentation": "scannet_semseg",
    "video_classification": "ucf101_finetune",
    "pretraining": "scannet_stage2",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "pretrained"
    M33DForPreTraining(M33DConfig(**SMALL, hidden_act="relu")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "clips"
    labels = {0: "one", 1: "two"}
    M33DForVideoClassification(M33DConfig(**SMALL, **CLIP, id2label=labels)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames"), count=20, size=(48, 64))


def settled(task: str, *words: str) -> Settled:
    return settle(resolve(list(words), task))


@pytest.mark.parametrize("task", FINE_TUNED)
def test_a_run_has_the_encoder_that_it_starts_from(task: str, pictures: Path, clips: Path) -> None:
    start = clips if task == "video_classification" else pictures
    found = settled(task, "--recipe", FINE_TUNED[task], "--init_from", str(start))
    assert {name: found.args.model[name] for name in ENCODER} == {name: SMALL[name] for name in ENCODER}
    assert found.args.model.get("hidden_act", "gelu") == ("gelu" if start == clips else "relu")
    assert found.decided["model.hidden_size"] == f"checkpoint {start}" == found.origins["model.hidden_size"]
    assert found.lines and "hidden_size 32" in found.lines[0]
    # A protocol's size of pictures is the recipe's: the same weights take any.
    recipe = parse_arguments(["--recipe", FINE_TUNED[task]], task)
    assert found.args.model["image_size"] == recipe.model["image_size"]


def test_a_run_without_a_size_has_that_of_its_start(pictures: Path, clips: Path) -> None:
    found = settled("depth_estimation", "--init_from", str(pictures), "--train.max_steps", "1").args
    assert found.model["image_size"] == 32 and found.model.get("num_frames") is None
    found = settled("video_classification", "--init_from", str(clips), "--train.max_steps", "1").args
    assert (found.model["num_frames"], found.model["tubelet_size"]) == (4, 2)
    still = settled("depth_estimation", "--init_from", str(clips), "--train.max_steps", "1").args
    assert "num_frames" not in still.model and "tubelet_size" not in still.model


def test_the_paper_from_the_weights_of_the_paper_is_what_it_was(tmp_path: Path) -> None:
    vit_b = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = M33DConfig(**vit_b, image_size=224)
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()  # read by no one here
    for task in ("pretraining", "depth_estimation", "semantic_segmentation"):
        words = ["--recipe", FINE_TUNED[task], "--init_from", str(tmp_path)]
        assert {**vit_b, "patch_size": 16}.items() <= settled(task, *words).args.model.items()
        before, after = parse_arguments(words, task).to_dict(), settled(task, *words).args.to_dict()
        before, after = before.pop("model"), after.pop("model")
        assert {name: value for name, value in M33DConfig(**before).to_dict().items()} == M33DConfig(**after).to_dict()


def test_a_flag_contradicts_and_the_error_lists_it(pictures: Path) -> None:
    words = ["--recipe", "nyuv2_depth", "--init_from", str(pictures), "--model.hidden_size", "64"]
    found = settled("depth_estimation", *words).args
    assert found.model["hidden_size"] == 64
    with pytest.raises(CheckpointError, match=r"hidden_size is 32 in the checkpoint and 64 .* --model.hidden_size 32"):
        build_task("depth_estimation").build_model(found)


def test_a_recipe_file_of_ones_own_contradicts_like_a_flag(pictures: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("extends: nyuv2_depth\nmodel: {num_hidden_layers: 3}\n")
    found = settled("depth_estimation", "--recipe", str(own), "--init_from", str(pictures)).args
    assert (found.model["num_hidden_layers"], found.model["hidden_size"]) == (3, 32)
    with pytest.raises(CheckpointError, match="num_hidden_layers is 2 in the checkpoint and 3 in this model"):
        build_task("depth_estimation").build_model(found)


def test_weights_of_others_say_what_their_files_state(tmp_path: Path) -> None:
    tiny_vitmae().save_pretrained(tmp_path / "mae")
    found = settled("depth_estimation", "--recipe", "nyuv2_depth", "--init_from", str(tmp_path / "mae"))
    assert {name: found.args.model[name] for name in ENCODER} == {name: SIZES[name] for name in ENCODER}
    assert found.args.model["image_size"] == 256, "what the recipe says of what any weights allow"
    model = build_task("depth_estimation").build_model(found.args)
    assert model.config.hidden_size == SIZES["hidden_size"]
    tiny_videomae().save_pretrained(tmp_path / "videomae")
    found = settled("pretraining", "--recipe", "ucf101_pretrain", "--init_from", str(tmp_path / "videomae"))
    assert (found.args.model["hidden_size"], found.args.model["num_frames"]) == (SIZES["hidden_size"], 16)


def test_heads_that_no_file_states_are_asked_for(tmp_path: Path) -> None:
    tiny_vitmae().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    words = ["--recipe", "nyuv2_depth", "--init_from", str(tmp_path / "model.safetensors")]
    with pytest.raises((CheckpointError, ConversionError), match=r"--model.num_attention_heads N"):
        settled("depth_estimation", *words)
    found = settled("depth_estimation", *words, "--model.num_attention_heads", "4").args
    assert (found.model["num_attention_heads"], found.model["hidden_size"]) == (4, SIZES["hidden_size"])


def test_an_evaluation_is_of_the_model_as_it_was_trained(tmp_path: Path) -> None:
    M33DForDepthEstimation(M33DConfig(**SMALL, depth_head_width=8, depth_mean=1.5)).save_pretrained(tmp_path)
    words = ["--recipe", "nyuv2_depth", "--eval_only", "--init_from", str(tmp_path)]
    args, notes = as_trained(settled("depth_estimation", *words).args)
    assert (args.model["depth_head_width"], args.model["depth_mean"], args.model["hidden_size"]) == (8, 1.5, 32)
    assert not notes
    own = ["--recipe", "own/depth", "--data.root", "nowhere", "--eval_only", "--init_from", str(tmp_path)]
    evaluated = settled("depth_estimation", *own)
    assert evaluated.args.model == {"depth_loss": "berhu"} or not evaluated.args.model, "no look at data, nothing sized"
    stated = settled("depth_estimation", *words, "--model.image_size", "48x64").args
    args, notes = as_trained(stated)
    assert args.model["image_size"] == [48, 64] and "model.image_size is [48, 64] here but 32 in" in notes[0]


def test_the_second_stage_of_detection_is_what_the_first_was(clips: Path) -> None:
    found = settled("action_detection", "--recipe", "rooms/phases_temporal", "--init_from", str(clips)).args
    model = build_task("action_detection").build_model(found)
    assert (model.config.num_frames, model.config.hidden_size) == (4, 32)
    with pytest.raises(ConfigError, match=r"remove model\.num_frames"):
        words = ["--recipe", "rooms/phases_temporal", "--init_from", str(clips), "--model.num_frames", "8"]
        build_task("action_detection").build_model(settled("action_detection", *words).args)
    own = settled("action_detection", "--recipe", "own/phases", "--data.root", "videos", "--init_from", str(clips)).args
    assert own.model["temporal_hidden_size"] == 32
    words = ["--recipe", "own/phases", "--data.root", "videos", "--init_from", str(clips)]
    words += ["--model.temporal_model", "transformer", "--model.temporal_num_attention_heads", "5"]
    assert settled("action_detection", *words).args.model["temporal_hidden_size"] == 30, "heads divide it"


OWN = ("--train.batch_size", "2", "--cpu", "--data.num_workers", "0", "--logging.trackers", "[]")


def test_own_values_that_are_stated_are_kept(frames: Path) -> None:
    words = ["--recipe", "own/depth", "--data.root", str(frames), *OWN]
    found = settled("depth_estimation", *words, "--train.epochs", "3", "--model.image_size", "240x320")
    assert found.args.model["image_size"] == [240, 320] and found.args.train.epochs == 3
    assert found.args.train.max_steps is None and found.args.train.batch_size == 2
    assert found.args.optim.warmup_steps == 2, "a tenth of 3 epochs of 8 steps"
    assert found.args.model["depth_mean"] == pytest.approx(2.0, abs=0.05), "frames are 1 to 3 m, evenly"
    assert any(line.startswith("16 frames, ") and "240x320, batch 2" in line for line in found.lines)


def test_the_log_names_what_is_trained_and_evaluated_on(frames: Path, tmp_path: Path) -> None:
    said = settled("depth_estimation", "--recipe", "own/depth", "--data.root", str(frames), *OWN).lines
    assert [line for line in said if line.startswith("split train: 80% of each")]
    assert [line for line in said if line.startswith("split validation: 10% of each")] and "flatter" in said[-1]
    for name in "abc":
        write_frames(tmp_path, 3, f"{name}/rgb/{{i}}.png", f"{name}/depth/{{i}}.png", size=(48, 64))
    said = settled("depth_estimation", "--recipe", "own/depth", "--data.root", str(tmp_path), *OWN).lines
    assert said[-2:] == ["split train: 2 of 3 sequences (b, c)", "split validation: 1 of 3 sequences (a)"]


def test_auto_is_for_what_the_rule_decides() -> None:
    with pytest.raises(ConfigError, match="learning_rate must be a number, not 'auto'"):
        resolve(["--recipe", "rooms/depth", "--optim.learning_rate", "auto"], "depth_estimation")
    with pytest.raises(ConfigError, match=r"train.max_steps.* are auto.*run_arguments"):
        parse_arguments(["--recipe", "own/pretrain"], "pretraining")
    opened = resolve(["--recipe", "nyuv2_depth", "--train.max_steps", "auto"], "depth_estimation")
    assert opened.open_keys == {"train.max_steps"} and opened.args.train.epochs is None


def test_what_nothing_decides_is_refused(clips: Path, frames: Path) -> None:
    """A stand-in was trained with instead: one step for the recipe's thirty epochs."""
    words = ["--recipe", "own/phases", "--data.root", "videos", "--init_from", str(clips)]
    both = ["--train.max_steps", "auto", "--train.batch_size", "auto"]
    with pytest.raises(ConfigError, match=r"train.batch_size auto \(command line\), train.max_steps auto .* them for"):
        settled("action_detection", *words, *both)
    with pytest.raises(ConfigError, match="frame_stride must be an integer, not 'auto'"):
        settled("action_detection", *words, "--data.frame_stride", "auto")
    assert settled("action_detection", *words, *both, "--eval_only").args.eval_only, "nothing is trained"
    unused = ["--recipe", "own/depth", "--data.root", str(frames), *OWN, "--model.temporal_hidden_size", "auto"]
    assert "temporal_hidden_size" not in settled("depth_estimation", *unused).args.model


@pytest.mark.parametrize("more", [(), ("--eval_only",)])
def test_what_the_machine_alone_decides_may_be_open_for_detection(
    more: tuple[str, ...], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The precision of an evaluation, too, which is that of the features that the training extracted."""
    monkeypatch.setattr("m33d_hf.training.settling.settle.find_machine", lambda _: Machine("gpu", cores=4))
    keys = ("data.num_workers", "data.keep_decoded_gb", "train.precision", "logging.every_steps")
    keys = (*keys, "evaluation.batch_size")
    words = ["--recipe", "own/phases", "--data.root", "videos", "--init_from", str(clips), *more]
    found = settled("action_detection", *words, *(word for key in keys for word in (f"--{key}", "auto")))
    args = found.args
    assert (args.data.num_workers, args.data.keep_decoded_gb, args.train.precision) == (3, 0.0, "bf16")
    assert (args.logging.every_steps, args.evaluation.batch_size) == (10, 32 if more else 4)
    assert {found.origins[key] for key in keys} == {"the data and the machine"}
    for key in ("optim.warmup_steps", "evaluation.every_steps", "checkpoint.every_steps"):
        if not more:
            with pytest.raises(ConfigError, match=rf"{key} auto .* nothing decides it for action_detection"):
                settled("action_detection", *words, f"--{key}", "auto")


def test_epochs_are_planned_with_the_batch_that_is_decided(frames: Path) -> None:
    words = ["--recipe", "own/depth", "--data.root", str(frames), "--cpu", "--train.epochs", "40"]
    args = settled("depth_estimation", *words, "--train.batch_size", "auto").args
    steps = plan_run(args, 16, world_size=1).total_steps
    assert args.train.batch_size == 8 and steps == 80, "half of the 16 frames, twice an epoch"
    assert args.optim.warmup_steps == steps // 10
    assert args.checkpoint.every_steps is not None and steps / 4 <= args.checkpoint.every_steps <= steps
    stated = settled("depth_estimation", *words, "--train.batch_size", "8").args
    assert stated.to_dict() == args.to_dict(), "as if it had been stated"


@pytest.mark.parametrize(("recipe", "method"), [("rooms/pretrain", "mae"), ("rooms/pretrain_stage1", "m33d")])
def test_a_method_for_images_does_not_train_the_clips_of_its_start(recipe: str, method: str, clips: Path) -> None:
    """`mae` has no section for clips, and a stage is of images alone; nobody looked again at either."""
    words = ["--recipe", recipe, "--method", method, "--init_from", str(clips)]
    with pytest.raises(ConfigError, match=r"trained on clips of 4 frames, but the method .* --model.num_frames 1"):
        settled("pretraining", *words)
    with pytest.raises(ConfigError, match=r"does not support clips|set stage to null"):
        settled("pretraining", *words, "--model.num_frames", "4")
    images = settled("pretraining", *words, "--model.num_frames", "1").args
    assert M33DConfig(**images.model).num_frames == 1
    build_task("pretraining").build_model(images)
    own = ["--recipe", "rooms/pretrain_clips", "--method", "videomae", "--init_from", str(clips)]
    assert settled("pretraining", *own).args.model["num_frames"] == 8
    opened = [*own, "--model.num_frames", "auto"]
    assert settled("pretraining", *opened).args.model["num_frames"] == 4, "the recipe's method, for the start's clips"
    with pytest.raises(ConfigError, match=r"num_frames auto \(command line\) is 1"):
        settled("pretraining", *own[:4], "--model.num_frames", "auto")


def test_a_run_starts_from_a_run_and_goes_on_as_it_was(frames: Path, tmp_path: Path) -> None:
    small = ["--model.hidden_size", "32", "--model.num_hidden_layers", "2", "--model.image_size", "32x48"]
    first = ["--recipe", "own/pretrain", "--data.root", str(frames), *OWN, *small, "--train.max_steps", "2"]
    args = settled("pretraining", *first, "--output_dir", str(tmp_path / "pretrain")).args
    train(args, build_task("pretraining"))
    words = ["--recipe", "own/depth", "--data.root", str(frames), *OWN, "--train.max_steps", "2"]
    words += ["--init_from", str(tmp_path / "pretrain"), "--output_dir", str(tmp_path / "depth")]
    found = settled("depth_estimation", *words)
    assert (found.args.model["hidden_size"], found.args.model["image_size"]) == (32, [32, 48])
    decided = copy.deepcopy(found.args.to_dict())
    result = train(found.args, build_task("depth_estimation"), found.decided)
    assert 0 <= result.metrics["eval/floor/delta1"] <= 1
    written: dict[str, Any] = json.loads((tmp_path / "depth" / "train_config.json").read_text())
    assert written["decided_by"]["model.hidden_size"] == f"checkpoint {tmp_path / 'pretrain'}"
    assert written["decided_by"]["model.depth_mean"] == "the data and the machine"
    again = settled("depth_estimation", *words)
    assert again.args.to_dict() == decided, "resumed with what it had decided"
    assert set(again.decided.values()) == {f"resumed from {tmp_path / 'depth' / 'checkpoints' / 'step_00000002'}"}

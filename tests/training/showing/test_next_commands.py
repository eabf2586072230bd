"""What to type next can be typed: every command goes through the parser of its script, and some are executed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.rooms_runs import words
from m33d_hf.data.depth.unit_guess import DepthOptions, detect_depth_spec
from m33d_hf.data.files.markers import mark_complete
from m33d_hf.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DepthUnitError,
    NonFiniteLossError,
    ResumeError,
    WorkerLostError,
    WorkerStartError,
)
from m33d_hf.inspection.request import read_request
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.scripts import visualize
from m33d_hf.scripts._main import main
from m33d_hf.scripts.check_data import _parser
from m33d_hf.scripts.run_probe import _own_options
from m33d_hf.training.recipe.parsing import parse_arguments, resolve
from m33d_hf.training.recipe.task_names import TASKS
from m33d_hf.training.showing.command_words import Command, started_as, words_from
from m33d_hf.training.showing.next_commands import (
    VIDEOS,
    NextCommand,
    after_dry_run,
    after_error,
    after_evaluation,
    after_run,
    to_continue,
    told,
    unused,
)
from m33d_hf.training.tasks.detection.first_stage import load_first_stage

ROOT = Path(__file__).parents[3]
TASK_OF = {"run_pretrain.py": "pretraining"} | {f"run_{task}.py": task for task in list(TASKS)[1:]}
SOURCE: Any = SimpleNamespace(depth_spec=DepthSpec(scale=1.0), class_names=["wall", "floor"], action_names=None)
METRIC_FREE: Any = SimpleNamespace(depth_spec=None, class_names=None, action_names=None)
ACTIONS: Any = SimpleNamespace(depth_spec=DepthSpec(scale=1.0), class_names=None, action_names=["wave"])


def check(commands: list[NextCommand]) -> dict[str, list[str]]:
    """Script -> its words, each read by the script's own parser."""
    found = {}
    for each in commands:
        start, script, *rest = shlex.split(each.line)
        name = Path(script).name
        assert start == "python" and script.startswith("scripts/")
        if name in TASK_OF:
            resolve(rest, TASK_OF[name])
        elif name == "run_probe.py":
            own, others = _own_options(rest)
            resolve(others, "semantic_segmentation" if own.dense else "video_classification")
        elif (ROOT / script).is_file():  # argparse: the flags are in its text
            text = (ROOT / script).read_text(encoding="utf-8")
            if name == "check_data.py":
                read_request(rest, _parser())
            else:
                assert [flag for flag in rest if flag.startswith("--") and f'"{flag}"' not in text] == [], name
        else:
            assert name == "predict.py" and rest[::2] == ["--model", "--input", "--output"]
        found[name] = rest
    return found


def following(task: str, argv: list[str], source: Any = SOURCE, clips: bool = False) -> dict[str, list[str]]:
    args = parse_arguments(argv, task)
    return check(after_run(args, Command(("python", f"scripts/{_script(task)}"), tuple(argv)), source, clips))


def _script(task: str) -> str:
    return next(name for name, known in TASK_OF.items() if known == task)


def value(argv: list[str], key: str) -> str:
    return argv[argv.index(f"--{key}") + 1]


def test_after_pre_training_of_images() -> None:
    given = ["--recipe", "rooms/pretrain", "--method", "rgbd_mae", "--data.options", "{num_frames: 9}",
             "--output_dir", "outputs/it's #1", "--model.hidden_size", "32"]  # fmt: skip
    found = following("pretraining", given)
    assert list(found) == ["visualize.py", "run_depth_estimation.py", "run_semantic_segmentation.py"]
    for name, recipe in (("run_depth_estimation.py", "rooms/depth"), ("run_semantic_segmentation.py", "rooms/semseg")):
        mine = found[name]
        assert value(mine, "recipe") == recipe and value(mine, "init_from") == "outputs/it's #1"
        assert value(mine, "data.options") == "{num_frames: 9}" and value(mine, "model.hidden_size") == "32"
        assert "--method" not in found[name] and value(found[name], "output_dir") != "outputs/it's #1"


def test_the_encoder_is_left_to_the_checkpoint() -> None:
    for recipe, task in (("own/pretrain", "depth_estimation"), ("own/pretrain_clips", "video_classification")):
        args = resolve(["--recipe", recipe, "--data.root", "frames"], "pretraining").args
        args.model.update(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96)
        clips = recipe.endswith("clips")
        command = Command(("python", "scripts/run_pretrain.py"), ("--recipe", recipe, "--data.root", "frames"))
        words = check(after_run(args, command, SOURCE, clips))[f"run_{task}.py"]
        assert not [word for word in words if word.startswith("--model.")], words
    said = ["--recipe", "ucf101_pretrain", "--model.num_frames", "8", "--data.root", "videos"]
    words = following("pretraining", said, clips=True)["run_video_classification.py"]
    assert value(words, "model.num_frames") == "8", "the frames of a clip are the recipe's, unless something is said"


def test_after_pre_training_of_clips_and_of_a_first_stage() -> None:
    given = ["--recipe", "rooms/pretrain_clips", "--output_dir", "outputs/c"]
    clips = following("pretraining", given, ACTIONS, clips=True)
    assert list(clips) == ["visualize.py", "run_video_classification.py"]
    assert value(clips["run_video_classification.py"], "recipe") == "rooms/actions"
    first = following("pretraining", ["--recipe", "rooms/pretrain_stage1", "--seed", "3", "--output_dir", "outputs/s"])
    second = first["run_pretrain.py"]
    assert value(second, "recipe") == "rooms/pretrain_stage2"
    assert value(second, "init_from") == "outputs/s" and value(second, "seed") == "3"
    other = following("pretraining", ["--recipe", "scannet_stage1", "--data.root", "/scans", "--method", "m33d"])
    assert value(other["run_pretrain.py"], "recipe") == "scannet_stage2"


def test_clips_without_classes_are_fine_tuned_on_other_videos() -> None:
    given = ["--recipe", "own/pretrain_clips", "--data.root", "frames", "--data.source", "folder", "--cpu", "true"]
    args = resolve(given, "pretraining").args
    command = Command(("python", "scripts/run_pretrain.py"), tuple(given))
    found = after_run(args, command, METRIC_FREE, True)
    words = check(found)["run_video_classification.py"]
    read = resolve(words, "video_classification").args
    assert (read.data.source, read.data.root, read.cpu) == ("ucf101", VIDEOS, True)
    assert value(words, "recipe") == "own/video_classification", "not that of phases, which reads other videos"
    assert f"for {VIDEOS}" in found[-1].purpose and "frames" not in words


def test_own_frames_keep_their_flags(tmp_path: Path) -> None:
    given = ["--recipe", "scannet_stage2", "--method", "mae", "--data.source", "folder", "--data.root", "my frames",
             "--data.options.depth", "d*.png", "--data.eval_split", "null"]  # fmt: skip
    found = following("pretraining", given)
    for name in ("run_depth_estimation.py", "run_semantic_segmentation.py"):
        assert value(found[name], "data.root") == "my frames" and value(found[name], "data.options.depth") == "d*.png"
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: scannet_stage2\nmethod: mae\ndata: {source: folder, root: frames}\n", encoding="utf-8")
    said = following("pretraining", ["--recipe", str(recipe)])["run_depth_estimation.py"]
    data = resolve(said, "depth_estimation").args.data  # the proposed recipe may say it, or a flag
    assert data.source == "folder" and data.root == "frames"


def test_after_fine_tuning() -> None:
    given = ["--recipe", "rooms/semseg", "--init_from", "outputs/pre", "--output_dir", "out", "--init.init_decoder",
             "false"]  # fmt: skip
    found = following("semantic_segmentation", given)
    assert list(found) == ["run_semantic_segmentation.py", "predict.py", "visualize.py", "run_probe.py"]
    judged = resolve(found["run_semantic_segmentation.py"], "semantic_segmentation").args
    assert judged.eval_only and judged.init_from == "out" and judged.output_dir == "out/evaluation"
    assert value(found["run_probe.py"], "init_from") == "outputs/pre" and "--dense" in found["run_probe.py"]
    phases = following("video_classification", ["--recipe", "rooms/phases_finetune", "--output_dir", "o"], clips=True)
    assert list(phases) == ["run_video_classification.py", "predict.py", "run_action_detection.py"]
    assert value(phases["run_action_detection.py"], "init_from") == "o"
    temporal = following("action_detection", ["--recipe", "rooms/phases_temporal", "--init_from", "o"], clips=True)
    assert list(temporal) == ["run_action_detection.py", "predict.py"]


def test_after_a_stop_a_dry_run_and_an_evaluation() -> None:
    given = ["--recipe", "rooms/depth", "--output_dir", "out", "--dry_run"]
    command = Command(("python", "scripts/run_depth_estimation.py"), tuple(given))
    assert check(after_dry_run(command)) == {"run_depth_estimation.py": given[:-1]}
    args = parse_arguments([*given[:4], "--init_from", "m", "--eval_only", "--data.source", "folder",
                            "--data.root", "photos"], "depth_estimation")  # fmt: skip
    assert value(check(after_evaluation(args, command))["predict.py"], "input") == "photos"
    clips = parse_arguments(["--recipe", "rooms/actions", "--init_from", "m", "--eval_only"], "video_classification")
    clips.model.pop("num_frames")  # as the checkpoint has it
    assert value(check(after_evaluation(clips, command))["predict.py"], "input") == "VIDEOS"
    assert told([]) == []


@pytest.mark.parametrize("start", ["none", "outputs/other"])
def test_a_stopped_run_goes_on_from_its_own_checkpoints_once_it_has_some(tmp_path: Path, start: str) -> None:
    """Before, it would begin at step 0 without the checkpoint that it came from; after, --resume would bring it back
    there or be refused."""
    given = ["--recipe", "rooms/depth", "--output_dir", str(tmp_path)]
    args = parse_arguments([*given, "--resume", start], "depth_estimation")
    command = Command(("python", "scripts/run_depth_estimation.py"), (*given, "--resume", start))
    lost = [WorkerLostError("gone"), WorkerStartError("no")]
    for found in (to_continue(args, command), *(after_error(error, args, command) for error in lost)):
        assert check(found) == {"run_depth_estimation.py": [*given, "--resume", start]}
        assert "no checkpoint of its own" in found[0].purpose
    (tmp_path / "checkpoints" / "step_00000004").mkdir(parents=True)
    for found in (to_continue(args, command), *(after_error(error, args, command) for error in lost)):
        assert check(found) == {"run_depth_estimation.py": given}
        assert found[0].purpose == "continue where it stopped"


def test_a_run_that_saved_nothing_yet_has_the_checkpoint_that_it_came_from(tmp_path: Path) -> None:
    before = tmp_path / "before" / "checkpoints" / "step_00000004"
    before.mkdir(parents=True)
    (before / "state.json").write_text("{}")
    mark_complete(before)
    for start in (before, tmp_path / "before"):
        given = ["--recipe", "rooms/depth", "--output_dir", str(tmp_path / "out"), "--resume", str(start)]
        args = parse_arguments(given, "depth_estimation")
        command = Command(("python", "scripts/run_depth_estimation.py"), tuple(given))
        assert check(after_error(CheckpointError("full"), args, command)) == {"run_depth_estimation.py": given}
        gentler = check(after_error(NonFiniteLossError("nan"), args, command))["run_depth_estimation.py"]
        assert value(gentler, "init_from") == str(before) and "--resume" not in gentler


def test_after_errors(tmp_path: Path) -> None:
    out = tmp_path / "out"
    frames = str(tmp_path)
    given = ["--recipe", "rooms/depth", "--output_dir", str(out), "--data.source", "folder", "--data.root", frames]
    args = parse_arguments(given, "depth_estimation")
    command = Command(("python", "scripts/run_depth_estimation.py"), tuple(given))
    assert after_error(ConfigError("no"), args, command) == []
    assert after_error(CheckpointError("no"), args, command) == []  # nothing to continue from
    assert after_error(DataError("no"), None, command) == []
    assert value(check(after_error(DataError("bad"), args, command))["check_data.py"], "data.root") == frames
    gone = replace(args, data=replace(args.data, root=f"{frames}/gone"))
    assert after_error(DataError("is not a folder"), gone, command) == []  # the doctor would say no more
    (out / "checkpoints" / "step_00000001").mkdir(parents=True)
    assert check(after_error(CheckpointError("full"), args, command)) == {"run_depth_estimation.py": given}
    (out / "nonfinite" / "step_3").mkdir(parents=True)
    lines = [each.line for each in after_error(NonFiniteLossError("nan"), args, command)]
    assert lines[0].endswith(f"--replay {out / 'nonfinite' / 'step_3'}") and len(lines) == 2
    other = check(after_error(ResumeError("other"), args, command))["run_depth_estimation.py"]
    assert value(other, "output_dir") == f"{out}-2" == unused(str(out))
    elsewhere = Command(command.start, (*given, "--resume", str(tmp_path / "first")))
    kept = check(after_error(ResumeError("the folder is another run's"), args, elsewhere))["run_depth_estimation.py"]
    assert value(kept, "resume") == str(tmp_path / "first")
    (out / "checkpoints").rename(tmp_path / "away")
    (line,) = [each.line for each in after_error(ResumeError("the checkpoint is of another recipe"), args, elsewhere)]
    assert "--resume" not in line and f"--output_dir {out}" in line
    (tmp_path / "away").rename(out / "checkpoints")
    anew = Command(command.start, (*given, "--resume", "none"))
    lines = [each.line for each in after_error(ConfigError("holds checkpoints"), args, anew)]
    assert lines[0].endswith(f"--output_dir {out}-2") and lines[1] == command.line()


def test_after_nan_a_run_is_started_that_does_not_repeat_it(tmp_path: Path) -> None:
    """Resumed it would come to the same step again, and nothing that would help may change in a resumed run."""
    out = tmp_path / "out"
    given = ["--recipe", "rooms/depth", "--output_dir", str(out), "--init_from", "first", "--resume", "none",
             "--optim.learning_rate", "1e-4"]  # fmt: skip
    args = parse_arguments(given, "depth_estimation")
    command = Command(("python", "scripts/run_depth_estimation.py"), tuple(given))

    def answer() -> list[str]:
        return check(after_error(NonFiniteLossError("nan"), args, command))["run_depth_estimation.py"]

    for start in ("first", str(out / "checkpoints" / "step_00000004")):
        found = parse_arguments(answer(), "depth_estimation")
        assert found.optim.learning_rate == args.optim.learning_rate / 2
        assert (found.init_from, found.output_dir, found.resume) == (start, f"{out}-2", "auto")
        folder = out / "checkpoints" / "step_00000004"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text("{}")
        mark_complete(folder)


def test_phases_without_a_first_stage_are_answered_by_its_command(tmp_path: Path) -> None:
    given = ["--recipe", "own/phases", "--data.root", str(tmp_path)]
    args = resolve(given, "action_detection").args
    with pytest.raises(ConfigError) as caught:
        load_first_stage(args)
    command = Command(("python", "scripts/run_action_detection.py"), tuple(given))
    found = check(after_error(caught.value, args, command))["run_video_classification.py"]
    assert found == ["--recipe", "own/phases_clips", "--data.root", str(tmp_path)]


def test_an_ambiguous_unit_is_answered_by_a_command_for_each(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((32, 48), 1500, np.uint16)).save(tmp_path / f"{number}.png")
    with pytest.raises(DepthUnitError) as caught:
        detect_depth_spec(sorted(tmp_path.glob("*.png")), DepthOptions())
    given = ["--recipe", "rooms/depth", "--data.source", "folder", "--data.root", str(tmp_path)]
    args = parse_arguments(given, "depth_estimation")
    command = Command(("python", "scripts/run_depth_estimation.py"), tuple(given))
    found = {each.purpose: shlex.split(each.line) for each in after_error(caught.value, args, command)}
    assert found["if the median distance is 1.5 m"][-2:] == ["--data.options.depth_unit", "millimetre"]
    assert len(found) > 1 and all(line[2:-2] == given for line in found.values())


def test_commands_are_executed_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pre-train; then type what it says, and what that says."""
    short = ["--train.max_steps", "1", "--logging.pictures", "false", "--logging.trackers", "[]",
             "--optim.warmup_steps", "0"]  # fmt: skip
    first = words("rooms/pretrain", tmp_path / "pre trained", logging__progress="true")
    assert main("pretraining", first) == 0
    said = _said(capsys.readouterr().err)
    assert visualize.main(said["visualize.py"]) == 0
    depth = said["run_depth_estimation.py"]
    assert main("depth_estimation", [*depth, *short, "--evaluation.batch_size", "4"]) == 0
    said = _said(capsys.readouterr().err)
    assert main("depth_estimation", said["run_depth_estimation.py"]) == 0
    assert (tmp_path / "pre trained-depth" / "evaluation" / "eval_results.json").is_file()
    assert main("depth_estimation", [*depth, *short, "--seed", "5"]) == 2
    again = _said(capsys.readouterr().err)["run_depth_estimation.py"]  # a changed recipe is a new run
    assert value(again, "output_dir") == f"{tmp_path / 'pre trained-depth'}-2"
    assert main("depth_estimation", [*again, "--dry_run"]) == 0
    assert shlex.join(again) in capsys.readouterr().out


def _said(text: str) -> dict[str, list[str]]:
    lines = [shlex.split(line) for line in text.split("next:\n")[1].splitlines() if line.startswith("  python ")]
    return {Path(line[1]).name: line[2:] for line in lines}


def test_a_command_for_arguments_that_came_from_none() -> None:
    given = ["--recipe", "rooms/depth", "--seed", "4", "--data.options.num_frames", "7", "--train.max_steps", "3"]
    args = parse_arguments(given, "depth_estimation")
    assert parse_arguments(words_from(args), "depth_estimation").to_dict() == args.to_dict()


def test_the_launcher_is_part_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started_as("pretraining", ["--seed", "1"]).line() == "python scripts/run_pretrain.py --seed 1"
    monkeypatch.setattr("sys.argv", ["/here/scripts/run_pretrain.py"])
    for name, value_ in {"RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value_)
    command = started_as("pretraining", ["--seed", "1"])
    assert command.line() == "torchrun --nproc_per_node 2 /here/scripts/run_pretrain.py --seed 1"
    other = command.of_task("depth_estimation", [])
    assert other.line() == "torchrun --nproc_per_node 2 /here/scripts/run_depth_estimation.py"
    assert command.other("visualize.py", []).line() == "python /here/scripts/visualize.py"
    module = Command(("python", "-m", "m33d_hf.scripts.run_pretrain"))
    assert module.other("visualize.py", []).line() == "python -m m33d_hf.scripts.visualize"
    assert module.of_task("depth_estimation", []).line() == "python -m m33d_hf.scripts.run_depth_estimation"


@pytest.mark.parametrize(("source", "reads"), [("folder", True), ("hub", False), ("shards", False), ("nyuv2", False)])
def test_predictions_are_proposed_of_pictures_and_evaluations_of_data_that_are_there(source: str, reads: bool) -> None:
    given = ["--recipe", "nyuv2_depth", "--data.source", source, "--data.root", "FRAMES", "--output_dir", "out"]
    found = following("depth_estimation", given)
    assert value(found["predict.py"], "input") == ("FRAMES" if reads else "PHOTOS")
    assert value(found["run_depth_estimation.py"], "eval_only") == "true"
    assert "run_depth_estimation.py" not in following("depth_estimation", [*given, "--data.eval_split", "null"])


def test_after_a_mixture_the_folder_of_the_next_task_is_asked_for() -> None:
    given = ["--recipe", "scannet_stage2", "--method", "mae", "--data.source", "folder", "--data.mixture",
             "[{source: folder, root: a}]", "--data.eval_split", "null"]  # fmt: skip
    assert value(following("pretraining", given)["run_depth_estimation.py"], "data.root") == "FRAMES"
    stated = following("pretraining", [*given, "--data.root", "b"])
    assert value(stated["run_depth_estimation.py"], "data.root") == "b"


def test_after_clips_without_labels_come_the_tasks_of_single_images() -> None:
    given = ["--recipe", "ucf101_pretrain", "--data.source", "scannet", "--data.root", "SCANNET"]
    found = following("pretraining", given, clips=True)
    single = ["run_depth_estimation.py", "run_semantic_segmentation.py"]
    assert list(found) == ["visualize.py", *single, "run_video_classification.py"]
    for task in ("depth_estimation", "semantic_segmentation"):
        args = resolve(found[f"run_{task}.py"], task).args
        assert args.data.source == "scannet" and int(args.model.get("num_frames", 1)) == 1

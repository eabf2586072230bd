"""scripts/run_pretrain.py from the command line, in its several guises."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.rooms_runs import words
from helpers.scripts import run_script
from helpers.videos import write_video
from m33d_hf.scripts._main import main


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=dict(os.environ))


def test_python_script(repository: Path, tmp_path: Path) -> None:
    script = repository / "scripts/run_pretrain.py"
    code, output = run_script(script, *words("rooms/pretrain", tmp_path), log=tmp_path / "output.txt")
    assert code == 0, output
    assert (tmp_path / "model.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2


LAUNCHERS = {
    "torchrun": (["torch.distributed.run", "--standalone", "--nproc_per_node", "2"], 2),
    "accelerate": (["accelerate.commands.launch", "--cpu", "--num_processes", "1"], 1),
}


@pytest.mark.parametrize("launcher", [pytest.param("torchrun", marks=pytest.mark.slow), "accelerate"])
def test_launchers(launcher: str, repository: Path, tmp_path: Path) -> None:
    start, processes = LAUNCHERS[launcher]
    script = str(repository / "scripts/run_pretrain.py")
    arguments = words("rooms/pretrain", tmp_path, num_processes=str(processes))
    done = run([sys.executable, "-m", *start, script, *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "train_config.json").read_text())["plan"]
    assert plan["effective_batch"] == 4 * processes


def test_as_a_module_with_help(tmp_path: Path) -> None:
    code, output = run_script("m33d_hf.scripts.run_pretrain", "--help", log=tmp_path / "output.txt")
    assert code == 0, output
    assert "--optim.learning_rate" in output and "scannet_stage1" in output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "scannet_stage9"], "Did you mean 'scannet_stage"),
        (["--recipe", "rooms/pretrain", "--optim.lerning_rate", "1"], "Did you mean 'optim.learning_rate'"),
        (["--recipe", "rooms/pretrain_clips", "--model.num_frames", "7", "--cpu"], "7 frames are not a multiple"),
        (["--recipe", "rooms/pretrain", "--modalities.rgb.mask_ratio", "1", "--cpu"], "without tokens"),
        (["--recipe", "rooms/pretrain", "--model.image_size", "4", "--cpu"], "smaller than one patch"),
        (["--recipe", "rooms/pretrain", "--data.source", "fodler", "--cpu"], "Did you mean 'folder'"),
        (["--recipe", "rooms/pretrain", "--init_from", "nowhere.pth", "--cpu"], "nowhere.pth"),
    ],
)
def test_mistakes_end_with_a_message_and_exit_code_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("pretraining", [*argv, "--output_dir", str(tmp_path / "out"), "--logging.trackers", "[]"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_dry_run_through_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("pretraining", [*words("rooms/pretrain", tmp_path / "out"), "--dry_run"]) == 0
    assert "GFLOP per sample" in capsys.readouterr().out


def test_another_world_size_than_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("pretraining", words("rooms/pretrain", tmp_path, num_processes="2")) == 2
    assert "2" in capsys.readouterr().err


def test_the_printed_command_pretrains_on_videos_without_labels(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        write_video(tmp_path / f"VIDEOS/v{number}.mp4", 40, size=(32, 48))
    told = (repository / "docs/videos.md").read_text(encoding="utf-8")
    (line,) = [line for line in told.splitlines() if "own/pretrain_clips --method videomae" in line]
    python, script, *given = shlex.split(line)
    assert (python, script) == ("python", "scripts/run_pretrain.py")
    monkeypatch.chdir(tmp_path)
    code = main("pretraining", [*given, "--dry_run", "--cpu", "--logging.trackers", "[]"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "5 videos" in said.out, "6, without the one that is held out"

"""What README.md and docs/ show can be typed: commands resolve, Python runs, and the README stays short."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch

from m33d_hf import M33DForDepthEstimation, M33DForPreTraining, M33DForVideoClassification
from m33d_hf.inference.preparation_arguments import parse_preparation
from m33d_hf.inspection.proposed_recipes import checked_as
from m33d_hf.inspection.request import add_options
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.help import help_text
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import TASKS
from m33d_hf.training.tasks.building import save_processor

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TASK_OF = {f"run_{task}.py": task for task in TASKS} | {"run_pretrain.py": "pretraining"}
# What stands for something of the reader's own, in lines that cannot be typed as they are.
OPEN = re.compile(r"\.\.\.")


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"))


def commands(page: str) -> list[list[str]]:
    """Words of every line of a shell block that calls a script, continued lines joined."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if "scripts/" in line and not OPEN.search(line)]
    # srun calls a shell, whose one word holds the command.
    return [shlex.split(words[-1]) if words[-2:-1] == ["-c"] else words for words in found]


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_their_settings_exist(page: str) -> None:
    for words in commands(page):
        place = next(i for i, word in enumerate(words) if "scripts/" in word)
        script = ROOT / words[place]
        assert script.is_file(), words
        task = TASK_OF.get(script.name)
        if task is not None and "--help" in words:
            help_text(task, words[place + 1 :])
        elif task is not None:
            resolve(words[place + 1 :], task)
        elif script.name == "prepare_data.py":
            parse_preparation(words[place + 1 :])
        elif script.name == "check_data.py":
            _task_of_check(words[place + 1 :])
        else:
            text = script.read_text(encoding="utf-8")
            flags = [word.split("=")[0] for word in words[place + 1 :] if word.startswith("--")]
            assert [flag for flag in flags if f'"{flag}"' not in text] == [], script.name


def _task_of_check(words: list[str]) -> None:
    """The words of the doctor are those of a run, after a folder and a few of its own."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    positional = [] if words[0].startswith("-") else words[:1]
    _, others = parser.parse_known_args(words[len(positional) :])
    recipe = [] if "--recipe" in others else ["--recipe", checked_as("folder")]
    resolve([*recipe, *others], "pretraining")


def test_there_are_commands_to_look_at() -> None:
    assert len(commands("README.md")) >= 9 and len(commands("docs/videos.md")) >= 10


def test_the_readme_is_short_and_opens_with_its_uses() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    places = [
        text.index(heading) for heading in ("## Install", "## Load", "## Pre-train", "## Fine-tune", "## Results")
    ]
    assert places == sorted(places)
    assert re.findall(r"^\| ---", text, flags=re.M) == ["| ---"], "one table of results"


def test_the_direction_of_the_best_checkpoint_is_said() -> None:
    for page in ("README.md", "docs/runs.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert (
            "`checkpoints/best` is chosen by `evaluation.metric`: smaller is better for losses and errors, larger for "
            "all other metrics, unless `evaluation.greater_is_better` is set."
        ) in text


def _trained(folder: Path) -> None:
    """Models of the rooms recipes, untrained, in the folders that the snippets read; and the committed checkpoints."""
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    kinds = {
        "pre": ("pretraining", "rooms/pretrain", M33DForPreTraining, ["--method", "rgbd_mae"]),
        "depth": ("depth_estimation", "rooms/depth", M33DForDepthEstimation, []),
        "actions": ("video_classification", "rooms/actions", M33DForVideoClassification, []),
    }
    for name, (task, recipe, cls, more) in kinds.items():
        args = resolve(["--recipe", recipe, *more], task).args
        config = M33DConfig(**args.model)
        cls(config).save_pretrained(folder / "outputs" / name)
        save_processor(config, args, folder / "outputs" / name)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trained(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        depth, features = names["depth"], names["features"]
        assert isinstance(depth, torch.Tensor) and depth.shape == (1, 48, 48)
        assert isinstance(features, torch.Tensor) and features.ndim == 3

"""What the pages show can be typed: commands and settings resolve, Python runs, data parse; the README is short."""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import functools
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from m33d_hf import (
    M33DForDepthEstimation,
    M33DForPreTraining,
    M33DForSemanticSegmentation,
    M33DForVideoActionDetection,
    M33DForVideoClassification,
)
from m33d_hf.data.sources import SOURCES
from m33d_hf.experiments.compute import Compute
from m33d_hf.experiments.few_labels.jobs import jobs_of_study
from m33d_hf.inference.preparation.arguments import parse_preparation
from m33d_hf.inference.preparation.options import PreparationOptions
from m33d_hf.inspection.proposed_recipes import checked_as
from m33d_hf.inspection.request import add_options
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.scripts import few_labels
from m33d_hf.training.recipe.help import help_text
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import TASKS
from m33d_hf.training.tasks.building import save_processor

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "WEIGHTS.md", "CONTRIBUTING.md", "benchmarks/README.md", "results/README.md",
           "results/archive/README.md")  # fmt: skip
PAGES = [*OUTSIDE, *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
TASK_OF = {f"run_{task}.py": task for task in TASKS} | {"run_pretrain.py": "pretraining"}
# What stands for something of the reader's own, in lines that cannot be typed as they are.
OPEN = re.compile(r"\.\.\.")
# Programs of others whose lines are shown and not checked further.
OTHERS = {"pytest", "export", "#SBATCH", "sbatch", "hf", "aws", "cd", "cp", "git", "apt", "[", "exit"}
LANGUAGES = {"bash", "python", "py", "json", "yaml", "text", ""}


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"))


def commands(page: str) -> list[list[str]]:
    """Words of every line of a shell block that calls a script, continued lines joined."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if "scripts/" in line and not OPEN.search(line)]
    # srun calls a shell, whose one word holds the command.
    return [shlex.split(words[-1]) if words[-2:-1] == ["-c"] else words for words in found]


def shell_lines(page: str) -> list[str]:
    """Lines of the shell blocks, continued ones joined, without comments and output."""
    joined = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in joined if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_other_lines_of_the_shell_name_what_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for line in shell_lines(page):
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Za-z0-9_]+=\S*", word)]
        if "scripts/" in line or OPEN.search(line) or not words or words[0] in OTHERS:
            continue
        if words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"(?m)^{target}:", makefile), line
        elif words[:2] in (["pip", "install"], ["pip", "wheel"]):
            extras = re.findall(r"\[([\w,]+)\]", line)
            assert [
                name for name in ",".join(extras).split(",") if name and name not in setup["options.extras_require"]
            ] == []
        elif "m33d_hf.scripts." in line:
            module = next(word for word in words if word.startswith("m33d_hf.scripts."))
            assert (ROOT / "scripts" / f"{module.rpartition('.')[2]}.py").is_file(), line
        elif words[:2] == ["python", "-m"]:
            module = ROOT.joinpath(*words[2].split("."))
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), line
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[0] == "srun" or words[0].endswith("run") or words[0] == "accelerate", f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_data_parse_and_languages_are_known(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"(?m)^```(.*)$", text)
    assert set(fences[::2]) <= LANGUAGES and set(fences[1::2]) <= {""}, page
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)


@functools.cache
def known_flags() -> frozenset[str]:
    """Every key of every task and source, and every flag that a script or launcher file of ours mentions."""
    found: set[str] = set()
    for task in TASK_OF.values():
        found |= set(re.findall(r"--[\w.]+", help_text(task, ["--model", "--modalities"])))
    for source in SOURCES:
        found |= set(re.findall(r"--[\w.]+", help_text("pretraining", ["--data.source", source])))
    for folder in ("m33d_hf", "scripts", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    found |= {f"--{field.name}" for field in dataclasses.fields(PreparationOptions)}
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_the_text_exist(page: str) -> None:
    """Flags in running text, in backticks, outside of code blocks; those of launchers and other programs are named."""
    launchers = {"--config_file", "--nproc_per_node", "--nnodes", "--standalone", "--max_restarts", "--find-links"}
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"))
    spans = [span for span in re.findall(r"`([^`\n]+)`", text) if span.startswith("--")]
    unknown = []
    for span in spans:
        flag = re.match(r"--[\w.-]*\w", span)
        if flag is None or flag[0] in launchers or flag[0].endswith(".NAME"):
            continue
        key = re.sub(r"^--modalities\.\w+\.", "--modalities.NAME.", flag[0].replace(".eval_options.", ".options."))
        if key not in known_flags() and not any(known.startswith(f"{key}.") for known in known_flags()):
            unknown.append(flag[0])
    assert unknown == []


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
        elif script.name == "run_probe.py":
            rest = [word for word in words[place + 1 :] if word != "--dense"]
            resolve(rest, "semantic_segmentation" if "--dense" in words else "video_classification")
        elif script.name == "check_data.py":
            _task_of_check(words[place + 1 :])
        elif script.name == "few_labels.py":
            study = few_labels.study_of(*few_labels.read(words[place + 1 :]))
            study.check()
            jobs_of_study(study, Path("outputs"), Compute())  # which resolves the command line of every run
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
        text.index(heading) for heading in ("## Install", "## Load", "## Your own frames", "## Fine-tune", "## Results")
    ]
    assert places == sorted(places)
    assert len(re.findall(r"^\| ---", text, flags=re.M)) == 2, "of the main methods, and of what wins"


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
    causal = ["--model.temporal_causal", "true"]
    kinds = {
        "semseg": ("semantic_segmentation", "rooms/semseg", M33DForSemanticSegmentation, []),
        "semseg_rgbd": ("semantic_segmentation", "rooms/semseg_rgbd", M33DForSemanticSegmentation, []),
        "pre": ("pretraining", "rooms/pretrain", M33DForPreTraining, ["--method", "m33d_hidden"]),
        "depth": ("depth_estimation", "rooms/depth", M33DForDepthEstimation, []),
        "rooms-depth": ("depth_estimation", "rooms/depth", M33DForDepthEstimation, []),
        "actions": ("video_classification", "rooms/actions", M33DForVideoClassification, []),
        "phases2": ("action_detection", "rooms/phases_temporal", M33DForVideoActionDetection, causal),
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
    if page == "docs/depth_units.md":
        expected = {"metres": 1.5, "same": 1.5, "wrong": 7.5}
        for name, value in expected.items():
            decoded = names[name]
            assert isinstance(decoded, np.ndarray) and np.array_equal(decoded, [np.nan, value, np.nan], equal_nan=True)
    if page == "README.md":
        depth, features = names["depth"], names["features"]
        assert isinstance(depth, torch.Tensor) and depth.shape == (1, 48, 48)
        assert isinstance(features, torch.Tensor) and features.ndim == 3

"""What to type after a check: commands with every path filled in."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.unit_guess import units_to_choose
from m33d_hf.data.files.files import RGB_SUFFIXES
from m33d_hf.data.measuring.findings import Finding
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.inspection.proposed_recipes import (
    ACTIONS,
    CLIPS,
    DEPTH,
    FRAMES,
    LONG_VIDEOS,
    OWN,
    PHASES,
    PIXELS,
    recipe_for,
)
from m33d_hf.inspection.request import Request, script_of, task_of
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.command_line import read_overrides
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.showing.command_words import words_of

_PIXELS_TASK = "semantic_segmentation"


def next_step(
    request: Request,
    tally: SplitTally | None,
    findings: Sequence[Finding],
    skip_list: str | None,
    eval_split: str | None,
    labels: Mapping[str, Any],
) -> str:
    """The lines that end a check.

    Args:
        request: what was checked.
        tally: of the training split; None if it could not be opened.
        findings: all.
        skip_list: the list that a run needs; None without any.
        eval_split: to be taken instead of the recipe's, which the data does not have; None for the recipe's.
        labels: options that describe label maps which the command did not.
    """
    if tally is None or not tally.frames:
        return _again(request, findings)
    words = [*_without(_without(request.words, "--data.skip_list"), "--recipe")]
    words += ["--data.skip_list", skip_list] if skip_list is not None else []
    words += ["--data.eval_split", eval_split] if eval_split is not None else []
    recipes = {"": request.recipe} if request.recipe_given else proposals(request.args.data.source, tally)
    advice = "What to type next"
    if any(finding.is_problem for finding in findings):
        advice += ", once the problems are dealt with"
        advice += " (the list leaves out what cannot be read or used)" if skip_list is not None else ""
    lines = [f"{advice}:"]
    for purpose, recipe in recipes.items():
        lines += [f"to {purpose}:"] if purpose else []
        described = words_of({f"data.options.{name}": value for name, value in labels.items()})
        more = described if task_of(recipe) == _PIXELS_TASK else []
        if task_of(recipe) == PRETRAINING and not tally.with_depth:
            more = _of_rgb_alone(recipe, words)
        lines.append("  " + shlex.join(["python", script_of(recipe), "--recipe", recipe, *words, *more, "--dry_run"]))
    return "\n".join(lines)


def _of_rgb_alone(recipe: str, words: Sequence[str]) -> list[str]:
    """The method that a pre-training needs where no sample has depth; nothing where it is named, or shows no depth.

    A first stage compares both modalities and nothing else; no method has one for RGB alone.
    """
    if "method" in read_overrides(list(words)):
        return []
    args = resolve(["--recipe", recipe], PRETRAINING).args
    config = M33DConfig(**args.model)
    if args.stage == 1 or all(each.name != "depth" for each in config.specs):
        return []
    return ["--method", "videomae" if config.num_frames > 1 else "mae"]


def _again(request: Request, findings: Sequence[Finding]) -> str:
    """Checks to type where nothing could be read: as videos, with the options that a finding names, or the same."""
    check = ["python", "scripts/check_data.py"]
    if were_videos(request):
        words = [*_without(_without(request.words, "--recipe"), "--data.source"), *request.looks]
        lines = ["These are videos. What to type next:"]
        for purpose, recipe in ((f"{ACTIONS}, a folder of clips per class", OWN[ACTIONS]), (PHASES, OWN[PHASES])):
            lines += [f"to {purpose}:", "  " + shlex.join([*check, "--recipe", recipe, *words])]
        return "\n".join(lines)
    units = {unit: median for each in findings for unit, median in units_to_choose(each.text).items()}
    if units:
        lines = ["What to type next, by the median distance that is right:"]
        for unit, median in units.items():
            lines += [f"{median}:", f"  {shlex.join([*check, *request.typed])} --data.options.depth_unit {unit}"]
        return "\n".join(lines)
    stated = [line.strip() for each in findings for line in each.text.splitlines() if line.startswith("  --data.")]
    if stated:
        return f"What to type next:\n  {shlex.join([*check, *request.typed])} {stated[0]}"
    return f"What to type next, once the data can be read:\n  {shlex.join([*check, *request.typed])}"


def were_videos(request: Request) -> bool:
    """Whether frames were looked for, as no recipe was named, where there are videos instead."""
    data = request.args.data
    return not request.recipe_given and data.source == "folder" and only_videos(data.root)


def only_videos(root: str | Sequence[str] | None) -> bool:
    """Whether folders hold video files and no picture."""
    folders = [root] if isinstance(root, str) else list(root or [])
    found = {
        Path(name).suffix.lower()
        for folder in folders
        for _, _, names in os.walk(Path(folder).expanduser())
        for name in names
    }
    return bool(found & set(VIDEO_SUFFIXES)) and not found & {*RGB_SUFFIXES}


def proposals(source: str, tally: SplitTally) -> dict[str, str]:
    """Purpose -> recipe, for what the data holds."""
    clips = max(tally.lengths, default=1) > 1
    purposes = [CLIPS if clips else FRAMES]
    if source in LONG_VIDEOS:
        purposes.append(PHASES)
    elif set(tally.action_samples) - {IGNORE_INDEX}:
        purposes.append(ACTIONS)
    elif not clips:
        purposes += [DEPTH] if tally.with_depth and tally.with_rgb else []
        if tally.with_rgb and set(tally.label_pixels) - {IGNORE_INDEX}:  # without depth, for nothing else
            purposes = [*purposes, PIXELS] if tally.with_depth else [PIXELS]
    return {purpose: recipe_for(source, purpose) for purpose in purposes}


def _without(words: Sequence[str], key: str) -> list[str]:
    """The words without a key and its value."""
    kept: list[str] = []
    skipping = False
    for word in words:
        if word.startswith("--"):
            skipping = word == key or word.startswith(f"{key}=")
        if not skipping:
            kept.append(word)
    return kept

"""The command line of the doctor: its own few words, and those of the run whose data it checks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.data.files.remote import is_remote
from m33d_hf.errors import ConfigError
from m33d_hf.inspection.proposed_recipes import checked_as
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.command_line import read_overrides
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import PRETRAINING


@dataclass(frozen=True)
class Request:
    """What to check and how.

    Attributes:
        typed: the whole command line.
        looks: the doctor's own options in it, as words.
        args: of the run; `words` are those that its script takes.
        recipe: of the run; `recipe_given` if the command named it.
        eval_split_given: whether the command named the evaluation data.
        output: folder of the report.
        workers: processes that read; fewer than 2 read in this one.
        max_samples: look at only so many samples of each split, evenly spread; None for all.
        frames: frames to read of each clip or video; 0 for all.
    """

    typed: list[str]
    looks: list[str]
    args: RunArguments
    words: list[str]
    recipe: str
    recipe_given: bool
    eval_split_given: bool
    output: Path
    workers: int
    max_samples: int | None
    frames: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the doctor's own options to a parser; all others are those of a run."""
    parser.add_argument("--output", type=Path, default=Path("outputs/data_check"), help="folder of the report")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--max_samples", type=int, help="look at only N samples of each split, evenly spread")
    parser.add_argument("--frames", type=int, default=8, help="frames to read of each clip or video; 0 = all")


def read_request(words: Sequence[str], parser: argparse.ArgumentParser) -> Request:
    """Read a command line: [FRAMES ..] [the doctor's options] [arguments of a run].

    FRAMES, one folder or several, mean `--data.source folder --data.root FRAMES`, and so does a root alone. Without a
    recipe, `checked_as` says which one tells how the data is used.

    Raises:
        ConfigError: as `resolve`; a number out of range, a folder that is not there, or nothing to check.
    """
    rest, positional = list(words), []
    while rest and not rest[0].startswith("-"):
        positional.append(rest.pop(0))
    own, others = parser.parse_known_args(rest)
    for name, least in (("workers", 0), ("max_samples", 1), ("frames", 0)):
        value = getattr(own, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}; it must be at least {least}.")
    overrides = read_overrides(others)
    data = overrides.get("data")
    data = data if isinstance(data, dict) else {}
    if positional:
        if "root" in data:
            raise ConfigError(f"{' '.join(positional)!r} and --data.root are both given; leave one out.")
        source = [] if "source" in data else ["--data.source", "folder"]
        others = [*others, *source, "--data.root", *positional]
    elif not {"source", "root", "mixture"} & set(data) and "recipe" not in overrides:
        raise ConfigError(
            "nothing to check: give a folder of frames, --recipe NAME, or --data.source X --data.root ROOT."
        )
    recipe_given = "recipe" in overrides
    if not recipe_given:
        others = ["--recipe", checked_as(str(data.get("source") or "folder")), *others]
    recipe = str(read_overrides(others)["recipe"])
    args = resolve(others, task_of(recipe)).args
    _refuse_absent(args)
    stated = bool({"eval_split", "eval_root"} & set(data))
    how = (own.output, own.workers, own.max_samples, own.frames)
    return Request(list(words), _stated(own, parser), args, others, recipe, recipe_given, stated, *how)


def _refuse_absent(args: RunArguments) -> None:
    """Refuse folders that are not there; names of repositories and addresses are left to the source that reads them.

    Raises:
        ConfigError: naming the key and the folder.
    """
    data = args.data
    if data.source == "hub" or ":" in data.source:  # the second is one from outside
        return
    for key, where in (("data.root", data.root), ("data.eval_root", data.eval_root)):
        for root in where if isinstance(where, list) else [] if where is None else [where]:
            if is_remote(root) and data.source != "shards":
                raise ConfigError(
                    f"{key} {root!r} is an address, from which only the sources hub and shards read; copy the data, "
                    "and give the folder."
                )
            if not is_remote(root) and not Path(root).expanduser().exists():
                raise ConfigError(f"{key} {root!r} does not exist.")


def _stated(own: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Every option of the doctor that is not as by default, whichever there are."""
    chosen = {name: value for name, value in vars(own).items() if value != parser.get_default(name)}
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def script_of(recipe: str) -> str:
    """The script that runs a recipe."""
    task = task_of(recipe)
    return f"scripts/run_{'pretrain' if task == PRETRAINING else task}.py"


def task_of(recipe: str) -> str:
    """The task of a recipe, whose script takes the words."""
    task = PRETRAINING
    for _, tree in recipes.recipe_chain(recipe):
        task = str(tree.get("task", task))
    return task

"""The command line of the doctor: its own few words, and those of the run whose data it checks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.command_line import read_overrides
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.task_names import PRETRAINING

DEFAULT_RECIPE = "scannet_stage1"


@dataclass(frozen=True)
class Request:
    """What to check and how.

    Attributes:
        args: of the run; `words` are those that its script takes.
        output: folder of the report.
        workers: processes that read; fewer than 2 read in this one.
        max_samples: look at only so many samples of each split, evenly spread; None for all.
        frames: frames to read of each clip or video; 0 for all.
    """

    args: RunArguments
    words: list[str]
    output: Path
    workers: int
    max_samples: int | None
    frames: int

    @property
    def script(self) -> str:
        """The script of the run."""
        return f"scripts/run_{'pretrain' if self.args.task == PRETRAINING else self.args.task}.py"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the doctor's own options to a parser; all others are those of a run."""
    parser.add_argument("--output", type=Path, default=Path("outputs/data_check"), help="folder of the report")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--max_samples", type=int, help="look at only N samples of each split, evenly spread")
    parser.add_argument("--frames", type=int, default=8, help="frames to read of each clip or video; 0 = all")


def read_request(words: Sequence[str], parser: argparse.ArgumentParser) -> Request:
    """Read a command line: [FRAMES] [the doctor's options] [arguments of a run].

    FRAMES alone means `--data.source folder --data.root FRAMES`; without a recipe, `DEFAULT_RECIPE` says at which size
    frames are used.

    Raises:
        ConfigError: as `resolve`; a number out of range, a folder that is not there, or nothing to check.
    """
    rest, positional = list(words), []
    if rest and not rest[0].startswith("-"):
        positional = [rest.pop(0)]
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
            raise ConfigError(f"{positional[0]!r} and --data.root are both given; leave one out.")
        source = [] if "source" in data else ["--data.source", "folder"]
        others = [*others, *source, "--data.root", positional[0]]
    elif "recipe" not in overrides and "source" not in data:
        raise ConfigError(
            "nothing to check: give a folder of frames, --recipe NAME, or --data.source X --data.root ROOT."
        )
    if "recipe" not in overrides:
        others = ["--recipe", DEFAULT_RECIPE, *others]
    args = resolve(others, _task(read_overrides(others)["recipe"])).args
    for key, stated in (("data.root", args.data.root), ("data.eval_root", args.data.eval_root)):
        folders = stated if isinstance(stated, list) else [stated]
        folder = next((each for each in folders if each is not None and not Path(each).expanduser().exists()), None)
        if folder is not None:
            raise ConfigError(f"{key} {folder!r} does not exist.")
    return Request(args, others, own.output, own.workers, own.max_samples, own.frames)


def _task(recipe: object) -> str:
    """The task of a recipe, whose script takes the words."""
    task = PRETRAINING
    for _, tree in recipes.recipe_chain(str(recipe)):
        task = str(tree.get("task", task))
    return task

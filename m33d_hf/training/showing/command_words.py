"""Commands as words: how a run was started, and the same or another script with some settings taken out or put in."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.arguments import RunArguments, same_setting
from m33d_hf.training.recipe.command_line import SHORT
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.recipes import leaves
from m33d_hf.training.recipe.task_names import PRETRAINING

# What the recipe of a task, or the run itself, fixes: never part of a reconstructed command.
_NO_WORDS = ("task", "dry_run", "replay", "resume", "model.modalities")


def script_of(task: str) -> str:
    """File name of the script that runs a task."""
    return f"run_{'pretrain' if task == PRETRAINING else task}.py"


@dataclass(frozen=True)
class Command:
    """How a script is called.

    Attributes:
        start: words up to and with the script: "python scripts/run_pretrain.py".
        words: the words after it.
    """

    start: tuple[str, ...]
    words: tuple[str, ...] = ()

    def line(self) -> str:
        """For a shell to read."""
        return shlex.join([*self.start, *self.words])

    def other(self, script: str, words: Sequence[str]) -> Command:
        """Another script of the same folder, started by plain python, with its own words."""
        return Command(_beside(self.start, script), tuple(words))

    def of_task(self, task: str, words: Sequence[str]) -> Command:
        """The script of another task, started as this one was (with the same launcher)."""
        return Command((*self.start[:-1], _renamed(self.start[-1], script_of(task))), tuple(words))

    def changed(self, without: Sequence[str] = (), **settings: Any) -> Command:
        """The same with some settings left out and others put in; `__` in their names stands for a dot."""
        added = {name.replace("__", "."): value for name, value in settings.items()}
        kept = without_keys(self.words, [*without, *added])
        return replace(self, words=(*kept, *words_of(added)))


def started_as(task: str, words: Sequence[str]) -> Command:
    """The command that started this process, with the launcher where there was one.

    Args:
        task: whose script it is, for a process that was started in another way (a test, a notebook).
        words: of the script.
    """
    script, program = script_of(task), sys.argv[0] if sys.argv else ""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    python = [] if _launcher() else ["python"]
    if spec is not None and str(spec.name).endswith(f".{script.removesuffix('.py')}"):
        called = [*python, "-m", spec.name]
    else:
        called = [*python, program if Path(program).name == script else f"scripts/{script}"]
    return Command((*_launcher(), *called), tuple(words))


def _launcher() -> list[str]:
    """Words of the launcher: its own options are unknown here, but for the number of processes on this machine."""
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE", "1")
    if local is None or "RANK" not in os.environ:
        return []
    if any(name.startswith("ACCELERATE_") for name in os.environ):
        return ["accelerate", "launch", "--num_processes", world]
    return ["torchrun", "--nproc_per_node", local]


def _beside(start: Sequence[str], script: str) -> tuple[str, ...]:
    last = start[-1]
    module = ["-m"] if "-m" in start else []
    return ("python", *module, _renamed(last, script))


def _renamed(place: str, script: str) -> str:
    """The path or the module of another script of the same folder."""
    if place.endswith(".py"):
        return str(Path(place).with_name(script))
    return f"{place.rpartition('.')[0]}.{script.removesuffix('.py')}"


def groups(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(key, its words with the flag itself) of every setting of a command line."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            key = word[2:].partition("=")[0].replace("-", "_")
            found.append((SHORT.get(key, key), [word]))
        elif found:
            found[-1][1].append(word)
    return found


def without_keys(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The words without the named settings; a key that ends in a dot stands for all of its section."""
    return [word for key, part in groups(words) if not _named(key, keys) for word in part]


def only_keys(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The words of the named settings alone, see `without_keys`."""
    return [word for key, part in groups(words) if _named(key, keys) for word in part]


def _named(key: str, keys: Sequence[str]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in keys)


def _plain(value: Any) -> Any:
    """What a program, not a command line, gave as an option: as a list where it is one of something, else its text."""
    return list(value) if isinstance(value, Iterable) else str(value)


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """`--key value` of dotted settings; what is no text is written as JSON, which the command line reads as YAML."""
    return [
        word
        for key, value in settings.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value, default=_plain))
    ]


def words_from(args: RunArguments) -> list[str]:
    """A command line for arguments that came from none: recipe and method, and every setting that differs from theirs.

    Changes of `model.modalities` beyond those of a method cannot be written as one word and are left out.
    """
    named = {key: value for key in ("recipe", "method", "stage") if (value := getattr(args, key)) is not None}
    words = words_of(named)
    known = settings_of(words, args) or dict(leaves(RunArguments().to_dict()))
    given = dict(leaves(args.to_dict()))
    changed = {
        key: value
        for key, value in given.items()
        if key not in (*_NO_WORDS, *named) and not same_setting(known.get(key), value) and value != {}
    }
    return [*words, *words_of(changed)]


def settings_of(words: Sequence[str], args: RunArguments) -> dict[str, Any] | None:
    """All settings, dotted, that words would resolve to; None where they do not."""
    length = [] if args.recipe else ["--train.max_steps", "1"]
    try:
        return dict(leaves(resolve([*words, *length], args.task).args.to_dict()))
    except ConfigError:
        return None

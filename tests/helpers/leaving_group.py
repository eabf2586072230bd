"""What a rank of two does to see that nothing of its process group outlives a run that failed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch import nn

from helpers.tiny_task import TinyTask, collate, tiny_arguments
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import M33DError
from m33d_hf.training.processes import launch
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import Batch, Collator


class _CannotWrite(TinyTask):
    """Its model cannot be written, which every rank hears of."""

    def save(self, model: nn.Module, args: RunArguments) -> None:
        raise OSError("no room")


class _CannotRead(TinyTask):
    """Its samples cannot be put together, on the main process alone."""

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        def broken(samples: list[RGBDSample]) -> Batch:
            if os.environ["RANK"] == "0":
                raise RuntimeError("no batch")
            return collate(samples)

        return broken


FAILING = {"write": _CannotWrite, "read": _CannotRead}


def leave_after_a_failure(which: str, uncaught: bool, folder: str) -> int:
    """Train to the failure, then leave the group; writes the names of the threads before and after to `folder`."""
    try:
        train(tiny_arguments(Path(folder, "run"), train__max_steps=2), FAILING[which]())
    except (M33DError, RuntimeError) as error:
        if uncaught:  # as the interpreter does with an error that ends the program
            sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    before = _threads()
    launch._leave_group()
    rank = os.environ["RANK"]
    Path(folder, f"threads.{rank}.txt").write_text("\n".join([" ".join(before), " ".join(_threads())]))
    return 0


def _threads() -> list[str]:
    return sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))

"""Splits a list of items over the processes of a launcher, without communication.

`torchrun` and `accelerate launch` set RANK and WORLD_SIZE, Slurm's `srun` SLURM_PROCID and SLURM_NTASKS. For work that
writes a separate file per item this is sufficient: each process takes its share, existing files are skipped, and
`data.atomic_writing` ensures that only complete files exist.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from m33d_hf.errors import ConfigError

Item = TypeVar("Item")


class Place(NamedTuple):
    """Rank of a process among those of its launcher; `local_rank` counts within one machine."""

    rank: int
    world_size: int
    local_rank: int


def launched_place() -> Place:
    """Read RANK, WORLD_SIZE and LOCAL_RANK; else, of `srun`, SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID; without a
    launcher this is the only process.

    Raises:
        ConfigError: values that are no numbers, or a rank outside 0 .. world size - 1.
    """
    words = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if words["RANK"] is None and words["WORLD_SIZE"] not in (None, "", "1"):
        raise ConfigError(
            f"WORLD_SIZE is {words['WORLD_SIZE']} but RANK is not set, so every process would do all the work; start "
            "with torchrun or accelerate launch, or unset WORLD_SIZE."
        )
    if words["RANK"] is None and os.environ.get("SLURM_PROCID") is not None:
        # Of the step; the job may have more tasks, and a script of sbatch that is started without srun has no step.
        tasks = "SLURM_STEP_NUM_TASKS" if os.environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
        words = {name: os.environ.get(name) for name in ("SLURM_PROCID", tasks, "SLURM_LOCALID")}
    try:
        rank, world_size, local_rank = (
            int(word or default) for word, default in zip(words.values(), (0, 1, 0), strict=True)
        )
    except ValueError as error:
        listed = ", ".join(f"{name}={word!r}" for name, word in words.items())
        raise ConfigError(f"the launcher's variables are not numbers: {listed}.") from error
    _check_place(rank, world_size)
    return Place(rank, world_size, local_rank)


def rank_share(items: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """Every `world_size`-th item from `rank` on: shares are disjoint, complete, and even to within one item.

    The caller sorts `items` the same way in every process. Neighbours go to different processes, so that a folder of
    long videos does not land on one.

    Raises:
        ConfigError: a rank outside 0 .. world_size - 1.
    """
    _check_place(rank, world_size)
    return list(items[rank::world_size])


def _check_place(rank: int, world_size: int) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} of {world_size} processes: a rank must be between 0 and the world size - 1.")

"""In which order the rows of a data set are read, a pure function of (seed, epoch, step, rank).

So resuming is an offset and nothing is replayed. The loader must not be prepared by Accelerate, which would shard it a
second time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from m33d_hf.data.randomness import generator_of
from m33d_hf.errors import ConfigError

Row = tuple[int, int]
EPOCHS_APART = 1 << 40  # more than any run has epochs


class StepSampler(Sampler[list[Row]]):
    """Yields this rank's micro-batches of (epoch, index), a pure function of its arguments.

    The rows of optimizer step s are one slice of an epoch's permutation; micro-batch m of it is the m-th
    part of that slice, and rank r takes the rows r::world_size of that part. So one process with batch 2B,
    two processes with batch B, and one process with batch B accumulated twice see the same rows in the same
    step.

    The ragged tail of an epoch is dropped (another one each epoch, as the order changes). A data set smaller
    than one optimizer step is repeated instead: the step then spans several epochs, so that the repetitions
    differ in augmentation and masks; `repeats` says so.

    Args:
        length: size of the data set.
        batch_size: rows per micro-batch and process.
        rank: this process, in [0, world_size).
        world_size: number of processes.
        seed: seed of the run.
        start_step: optimizer steps already done.
        total_steps: optimizer step to stop before; None goes on for ever.
        accumulation: micro-batches per optimizer step.
        shuffle: False keeps the data set's order in every epoch.
        weights: (length,) how often each row is drawn in relation to the others; an epoch is then `length` draws with
            replacement. The k-th time that a row comes in an epoch, its epoch is counted as `EPOCHS_APART` * k later,
            so that the repetitions differ in augmentation. None: every row once.

    Raises:
        ConfigError: a size below 1, a rank outside the world, or weights that cannot be drawn by.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        start_step: int = 0,
        total_steps: int | None = None,
        *,
        accumulation: int = 1,
        shuffle: bool = True,
        weights: np.ndarray | None = None,
    ) -> None:
        check_sizes(length=length, batch_size=batch_size, world_size=world_size, accumulation=accumulation)
        self._edges = None if weights is None else _edges(weights, length)
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is outside a world of {world_size} processes")
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.start_step = start_step
        self.total_steps = total_steps
        self.accumulation = accumulation
        self.shuffle = shuffle
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0, dtype=torch.int64))
        self._times = torch.empty(0, dtype=torch.int64)

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all ranks and micro-batches: the effective batch."""
        return self.batch_size * self.world_size * self.accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data, at least 1."""
        return max(self.length // self.rows_per_step, 1)

    @property
    def repeats(self) -> bool:
        """Whether the data set is smaller than one optimizer step, so that rows repeat within it."""
        return self.length < self.rows_per_step

    def step_rows(self, step: int) -> list[Row]:
        """Return the (epoch, index) rows of one optimizer step, over all ranks and micro-batches."""
        size = self.rows_per_step
        if not self.repeats:
            epoch, place = divmod(step, self.steps_per_epoch)
            return self._rows(epoch, slice(place * size, (place + 1) * size))
        stream = range(step * size, (step + 1) * size)
        return [self._rows(at // self.length, slice(at % self.length, at % self.length + 1))[0] for at in stream]

    def _rows(self, epoch: int, part: slice) -> list[Row]:
        indices = self._epoch_order(epoch)[part].tolist()
        if self._edges is None:
            return [(epoch, index) for index in indices]
        times = self._times[part].tolist()
        return [(epoch + EPOCHS_APART * time, index) for time, index in zip(times, indices, strict=True)]

    def __iter__(self) -> Iterator[list[Row]]:
        step = self.start_step
        part = self.batch_size * self.world_size
        while self.total_steps is None or step < self.total_steps:
            rows = self.step_rows(step)
            for micro in range(self.accumulation):
                yield rows[micro * part : (micro + 1) * part][self.rank :: self.world_size]
            step += 1

    def __len__(self) -> int:
        if self.total_steps is None:
            raise TypeError("a StepSampler without total_steps has no length")
        return max(self.total_steps - self.start_step, 0) * self.accumulation

    def _epoch_order(self, epoch: int) -> torch.Tensor:
        """(length,) int64; a tensor, since a list of as many numbers takes four times the memory."""
        if self._order[0] != epoch:
            if self._edges is not None:
                draws = torch.rand(self.length, generator=generator_of(self.seed, epoch, "order"), dtype=torch.float64)
                order = torch.searchsorted(self._edges, draws, right=True)
                self._times = _times_before(order)
            elif self.shuffle:
                order = torch.randperm(self.length, generator=generator_of(self.seed, epoch, "order"))
            else:
                order = torch.arange(self.length)
            self._order = (epoch, order)
        return self._order[1]


class EvaluationSampler(Sampler[list[Row]]):
    """Yields every index exactly once over all ranks, in order, without padding; the epoch is always 0.

    Ranks may get different numbers of batches (the first one has most), so evaluation must not synchronise per batch.

    Args:
        length: samples of the data set.
        batch_size: of each rank.
        rank: of this process.
        world_size: processes.
        same_batches: for evaluations that compare the samples of a batch: neighbours share a batch, the same ones for
            any number of processes. Ranks then differ by up to a batch; else by a sample at most.

    Raises:
        ConfigError: a size below 1, or a rank outside the world.
    """

    def __init__(
        self, length: int, batch_size: int, rank: int = 0, world_size: int = 1, same_batches: bool = False
    ) -> None:
        check_sizes(length=length, batch_size=batch_size, world_size=world_size)
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is outside a world of {world_size} processes")
        self.batch_size = batch_size
        self.rows = [
            (0, index)
            for index in range(length)
            if (index // batch_size if same_batches else index) % world_size == rank
        ]

    def __iter__(self) -> Iterator[list[Row]]:
        for start in range(0, len(self.rows), self.batch_size):
            yield self.rows[start : start + self.batch_size]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)


def _edges(weights: np.ndarray, length: int) -> torch.Tensor:
    """(length - 1,) float64 borders in [0, 1] between the rows; a uniform draw lies with the row it hits."""
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (length,) or not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise ConfigError(f"weights of {length} rows must be as many numbers of at least 0, not all 0")
    sums = np.cumsum(given)
    # The last row that can be drawn takes what rounding leaves.
    last = int(np.flatnonzero(given)[-1])
    borders = sums[:-1] / sums[-1]
    borders[last:] = 1.0
    return torch.from_numpy(borders)


def _times_before(order: torch.Tensor) -> torch.Tensor:
    """(N,) how often each entry came before."""
    found, places = torch.sort(order, stable=True)
    begins = torch.ones_like(found, dtype=torch.bool)
    begins[1:] = found[1:] != found[:-1]
    numbers = torch.arange(len(found))
    first = torch.cummax(torch.where(begins, numbers, 0), 0).values
    times = torch.empty_like(order)
    times[places] = numbers - first
    return times


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}; it must be at least 1")

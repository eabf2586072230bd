"""The samples that a run shows: spread over the data or from its first batch, and read without side effects."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.loader.sampling import Row, StepSampler
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.frames import spread_indices
from m33d_hf.errors import DataError
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Task

SHOWN = 4  # samples in a picture


@dataclass(frozen=True)
class Chosen:
    """Samples and the batch that a model takes of them.

    Attributes:
        views: per sample its views, at least one, as the transform left them.
        batch: finished forward arguments on the CPU and "meta"; its rows are all views, one sample after the other.
    """

    views: list[list[RGBDSample]]
    batch: Batch

    @property
    def samples(self) -> list[RGBDSample]:
        """The first view of every sample."""
        return [views[0] for views in self.views]

    def rows_of(self, number: int) -> slice:
        """The rows of the batch that belong to a sample."""
        start = sum(len(views) for views in self.views[:number])
        return slice(start, start + len(self.views[number]))


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the generators of Python, numpy and torch stand afterwards as they stood before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def first_rows(args: RunArguments, task: Task, dataset: SampleDataset, processes: int, count: int = SHOWN) -> list[Row]:
    """Rows of the first process's first batch, evenly spread over it; the order is shuffled, so over the data as well.

    Args:
        args, task: of the run.
        dataset: the training data.
        processes: of the run.
        count: rows at most.
    """
    sampler = StepSampler(
        len(dataset),
        args.train.batch_size,
        0,
        processes,
        args.seed,
        0,
        1,
        accumulation=args.train.accumulation,
        weights=task.sample_weights(args, dataset),
    )
    rows = next(iter(sampler))
    return [rows[place] for place in spread_indices(len(rows), count)]


def spread_rows(dataset: SampleDataset, count: int = SHOWN) -> list[Row]:
    """Rows evenly spread over a data set, the same ones each time."""
    return [(0, index) for index in spread_indices(len(dataset), count)]


def choose(
    args: RunArguments, task: Task, model: nn.Module, dataset: SampleDataset, rows: Sequence[Row], train: bool
) -> Chosen:
    """Read samples as a run reads them; those that cannot be read are left out (the run itself lists them).

    Of several views of a training sample the first one is taken; of an evaluation sample all.

    Raises:
        DataError: none of them can be read.
    """
    items = [dataset[row] for row in rows]
    listed = [item if isinstance(item, list) else [item] for item in items]
    views = [each[:1] if train else each for each in listed if each and not each[0].meta.get("dropped", False)]
    if not views:
        raise DataError(f"none of the {len(rows)} chosen samples can be read")
    seen = copy.deepcopy(args)
    seen.evaluation.depth_protocol = None  # a picture shows what the model sees
    batch = task.build_collator(seen, model, train)([view for each in views for view in each])
    return Chosen(views, batch)

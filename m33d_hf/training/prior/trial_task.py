"""Depth estimation on a part of the training data; the rest judges every share of the mean depth per position."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.evaluation.metrics import DepthMetrics
from m33d_hf.training.prior.keeping_back import KeptBack, keep_back
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask

WEIGHTS = tuple(number / 10 for number in range(11))


class PriorTrialTask(DepthEstimationTask):
    """The task of a trial run: the model alone is trained, on training frames without those that are kept back.

    Attributes:
        division: which frames are trained on, and which are judged on.
    """

    division: KeptBack
    _mean_depth: Tensor

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """The two parts of the training data; evaluation data are not looked at.

        Raises:
            DataError: too few samples. Others as the task.
        """
        whole, _ = super().build_datasets(args, model)
        self.division = keep_back(_recordings(whole))
        config = config_of(model)
        trained = _part(whole, self.division.trained)
        transform = build_transform(args.transforms, False, config.image_height_width, config.patch_height_width)
        judged = _part(whole, self.division.judged).with_transform(transform).reading_once()
        judged.train, judged.num_views = False, 1
        self._mean_depth = self._floor_of(args, config, trained)
        return trained, judged

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """delta1 with every share of the mean depth per position, by the share ("0.3")."""
        judges = {f"{weight:g}": DepthMetrics(device=accelerator.device) for weight in WEIGHTS}
        for output, labels in self.predictions(model, loader, accelerator):
            predicted = output.predicted_depth.float()
            blind = self._mean_depth.to(predicted)
            for weight, judge in zip(WEIGHTS, judges.values(), strict=True):
                judge.update(predicted + weight * (blind - predicted), labels)
        return {name: judge.reduce(accelerator).compute()["delta1"] for name, judge in judges.items()}


def _recordings(dataset: SampleDataset) -> list[str]:
    groups = dataset.source.groups()
    return [""] * len(dataset) if groups is None else [groups[row] for row in dataset.indices]


def _part(dataset: SampleDataset, positions: list[int]) -> SampleDataset:
    twin = copy.copy(dataset)
    twin.indices = [dataset.indices[position] for position in positions]
    return twin

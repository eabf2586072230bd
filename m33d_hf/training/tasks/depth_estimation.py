"""Monocular depth estimation: berHu, L1 or scale-invariant log; delta, RMSE and relative errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.loader.collation import DepthCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.evaluation.metrics import DEPTH_METRICS, DepthMetrics
from m33d_hf.evaluation.position_floors import PositionMean
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.training.processes.launch import maximum_over_ranks
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Collator
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.dense import DenseTask, MeanLoss
from m33d_hf.training.tasks.depth_protocols import PROTOCOLS, DepthProtocol


class DepthEstimationTask(DenseTask):
    """Fine-tunes `M33DForDepthEstimation`.

    `transforms.eval_crop` decides what is evaluated: "center" cuts out the middle, "resize" takes the whole frame, and
    predictions are clamped to [min_depth, max_depth]. Or the evaluation follows one of the published protocols
    (`evaluation.depth_protocol`, see `depth_protocols`).
    """

    metric = "delta1"
    greater_is_better = True
    model_class = M33DForDepthEstimation
    collator_class = DepthCollator
    label_map = "depth"
    floor_metrics = ("delta1", "abs_rel", "rmse")

    def new_floor(self, config: M33DConfig) -> PositionMean:
        """The mean depth of every position."""
        return PositionMean()

    def __init__(self) -> None:
        self._protocol: DepthProtocol | None = None
        self._prior_weight = 0.0

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: depth that is not distance in metres (inverse, relative).
        """
        train_set, eval_set = super().build_datasets(args, model)
        prior = getattr(model, "depth_prior", None)
        if prior is not None and not args.dry_run:
            prior.fill(self._floor if self._floor is not None else self._floor_of(args, config_of(model), train_set))
        return train_set, self._judged(args, model, eval_set)

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None.

        Raises:
            ConfigError: see `build_datasets`.
        """
        return self._judged(args, model, super().build_eval_dataset(args, model))

    def _judged(self, args: RunArguments, model: nn.Module, dataset: SampleDataset | None) -> SampleDataset | None:
        """The evaluation data as the protocol needs them."""
        self._prior_weight = float(config_of(model).depth_prior_weight)
        name = args.evaluation.depth_protocol
        if name is None or dataset is None:
            return dataset
        self._protocol = PROTOCOLS[name]
        self._protocol.check(args, config_of(model))
        return self._protocol.judging(dataset)

    def closing_lines(self, metrics: Mapping[str, float]) -> list[str]:
        """The model beside the trivial floor, and how much of that is in the model's own predictions."""
        lines, share = super().closing_lines(metrics), self._prior_weight
        if not share:
            return lines
        return [*lines, f"{share:.0%} of this model's prediction is the mean depth per position of its training frames"]

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to pixels and depth."""
        name = args.evaluation.depth_protocol
        if train or name is None:
            return super().build_collator(args, model, train)
        return PROTOCOLS[name].collator(config_of(model))

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """The share of the data and the protocol of the evaluation."""
        name, share = args.evaluation.depth_protocol, super().describe(args, model, dataset)
        return share if name is None else [*share, f"depth is judged by the protocol {name}: {PROTOCOLS[name].said}"]

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        """berHu's threshold of the whole optimizer step.

        Without accumulation, each forward pass computes it and takes the maximum over ranks, at no extra cost. With
        accumulation, a pass without gradients over all micro-batches computes it first; random states are restored, so
        that dropout and drop path are the same in the following passes.
        """
        if config_of(model).depth_loss != "berhu":
            return {}
        if len(batches) == 1:
            return {"berhu_threshold": maximum_over_ranks}
        device = batches[0]["pixel_values"].device
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            found = [self._threshold(model, batch) for batch in batches]
        return {"berhu_threshold": maximum_over_ranks(torch.stack(found).amax())}

    @staticmethod
    def _threshold(model: nn.Module, batch: Batch) -> Tensor:
        output = model(pixel_values=batch["pixel_values"])
        return model.berhu_threshold(output.standardized_depth, batch["labels"])  # type: ignore[operator]

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """What `evaluate` returns."""
        by_image = [] if args.evaluation.depth_protocol else [f"per_image/{name}" for name in DEPTH_METRICS]
        floor = [f"floor/{name}" for name in self.floor_metrics] if args.evaluation.floor else []
        return [*DEPTH_METRICS, "loss", *by_image, *floor]

    def answers(self, output: Any) -> Tensor:
        """Metres."""
        return output.predicted_depth

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Errors over the pixels with ground truth.

        Returns:
            those of `DepthMetrics.compute`, by the protocol; without one, pooled over the pixels of the whole set, and
            the same as "per_image/..." averaged over images; and "loss". berHu's threshold is that of each evaluation
            batch.
        """
        protocol = self._protocol
        if protocol is None:
            judges = {"": DepthMetrics("pixels", device=accelerator.device)}
            judges["per_image/"] = DepthMetrics("images", device=accelerator.device)
        else:
            judges = {"": protocol.metrics(accelerator.device)}
        floor = None
        if self._floor is not None:
            floor = protocol.metrics(accelerator.device) if protocol else DepthMetrics(device=accelerator.device)
        config, loss = config_of(model), MeanLoss(accelerator.device)
        for output, labels in self.predictions(model, loader, accelerator):
            for judge in judges.values():
                judge.update(*_compared(output.predicted_depth.float(), labels, protocol, config))
            if floor is not None and self._floor is not None:
                blind = self._floor.to(labels.device).expand(len(labels), -1, -1)
                floor.update(*_compared(blind, labels, protocol, config))
            loss.add(output.loss_sums[config.depth_loss], output.loss_counts[config.depth_loss])
        metrics = {"loss": loss.compute(accelerator)}
        for prefix, judge in judges.items():
            metrics |= {f"{prefix}{name}": value for name, value in judge.reduce(accelerator).compute().items()}
        if floor is not None:
            found = floor.reduce(accelerator).compute()
            metrics |= {f"floor/{name}": found[name] for name in self.floor_metrics}
        return metrics


def _compared(
    predicted: Tensor, labels: Tensor, protocol: DepthProtocol | None, config: M33DConfig
) -> tuple[Tensor, Tensor]:
    """Predictions and labels in metres as they are compared."""
    if protocol is None:
        return predicted.clamp(config.min_depth, config.max_depth), labels
    return protocol.compared(predicted, labels)

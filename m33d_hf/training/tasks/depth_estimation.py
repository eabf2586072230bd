"""Monocular depth estimation: berHu, L1 or scale-invariant log; delta, RMSE and relative errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.loader.collation import DepthCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.metrics import DepthMetrics
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.training.processes.launch import maximum_over_ranks
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.dense import DenseTask, MeanLoss


class DepthEstimationTask(DenseTask):
    """Fine-tunes `M33DForDepthEstimation`.

    `transforms.eval_crop` decides what is evaluated: "center" with image_size 256 is MultiMAE's protocol (short side to
    256, centre crop), "resize" evaluates the whole frame. Predictions are clamped to [min_depth, max_depth].
    """

    metric = "delta1"
    greater_is_better = True
    model_class = M33DForDepthEstimation
    collator_class = DepthCollator
    label_map = "depth"

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: depth that is not distance in metres (inverse, relative).
        """
        train_set, eval_set = super().build_datasets(args, model)
        self._check_depth(args, train_set)
        self._check_depth(args, eval_set)
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None.

        Raises:
            ConfigError: see `build_datasets`.
        """
        dataset = super().build_eval_dataset(args, model)
        self._check_depth(args, dataset)
        return dataset

    def _check_depth(self, args: RunArguments, dataset: SampleDataset | None) -> None:
        spec = None if dataset is None else dataset.source.depth_spec
        if spec is not None and spec.kind != "metric":
            raise ConfigError(
                f"The depth of source {args.data.source!r} is {spec.kind}, but {self.name} requires metres. Convert "
                "the files to distances; inverse and relative depth can be used for pre-training only."
            )

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
        names = list(DepthMetrics("pixels").compute())
        return [*names, "loss", *(f"per_image/{name}" for name in names)]

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Errors over the pixels with ground truth.

        Returns:
            "delta1" to "delta3" (shares in [0, 1]), "rmse" (metres), "abs_rel", "sq_rel", "rmse_log" (natural log),
            all pooled over the pixels of the whole set; the same as "per_image/..." averaged over images; and "loss".
            berHu's threshold is that of each evaluation batch.
        """
        pooled = DepthMetrics("pixels", device=accelerator.device)
        per_image = DepthMetrics("images", device=accelerator.device)
        config, loss = config_of(model), MeanLoss(accelerator.device)
        for output, labels in self.predictions(model, loader, accelerator):
            predicted = output.predicted_depth.float().clamp(config.min_depth, config.max_depth)
            pooled.update(predicted, labels)
            per_image.update(predicted, labels)
            loss.add(output.loss_sums[config.depth_loss], output.loss_counts[config.depth_loss])
        metrics = pooled.reduce(accelerator).compute()
        metrics["loss"] = loss.compute(accelerator)
        for name, value in per_image.reduce(accelerator).compute().items():
            metrics[f"per_image/{name}"] = value
        return metrics

"""Streaming metrics of the dense tasks: they accumulate on the device and are summed over ranks once.

Both accumulators work alike: `update` per batch (no device synchronisation), `reduce` once, `compute` at the
end. Ratios without a denominator are NaN, never an exception and never a silent zero.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from m33d_hf.errors import LabelError

RATIO_FLOOR = 1e-6  # metres: keeps ratios and logarithms finite, as MultiMAE
_SUMS = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "log10", "squared", "squared_log", "log_ratio")

DEPTH_METRICS = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "log10", "rmse", "rmse_log", "silog")


def accumulator_dtype(device: torch.device | str) -> torch.dtype:
    """The type in which sums are kept on a device: float64 where it has it."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64  # mps has no float64


class _Reducible:
    """A flat state that ranks add up once."""

    state: Tensor
    _reduced: bool = False

    def reset(self) -> None:
        """Reset all counts."""
        self.state.zero_()
        self._reduced = False

    def reduce(self, accelerator: Any | None = None) -> Any:
        """Add the state of all ranks (in place, a second call does nothing) and return self.

        Args:
            accelerator: an `accelerate.Accelerator`; None or a single process leaves the state as it is.
        """
        if accelerator is not None and accelerator.num_processes > 1 and not self._reduced:
            self.state = accelerator.reduce(self.state.to(accelerator.device), reduction="sum")
            self._reduced = True
        return self


class ConfusionMatrix(_Reducible):
    """Pixel counts of (label, prediction) over a whole data set.

    Args:
        num_classes: L.
        ignore_index: label of pixels that do not count.
        device: where to accumulate.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, device: torch.device | str = "cpu") -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        # One slot past the matrix for ignored pixels and one for labels or predictions outside the classes.
        self.state = torch.zeros(num_classes**2 + 2, dtype=torch.int64, device=device)

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: class ids, any shape, or logits (B, L, ...) with one dimension more than `labels`.
            labels: class ids or `ignore_index`.

        Raises:
            LabelError: the shapes do not agree.
        """
        if predictions.dim() == labels.dim() + 1:
            predictions = predictions.argmax(dim=1)
        if predictions.shape != labels.shape:
            shapes = f"{tuple(predictions.shape)} and labels {tuple(labels.shape)}"
            raise LabelError(f"predictions {shapes} differ in shape")
        if self.state.device != labels.device:
            self.state = self.state.to(labels.device)
        predictions, labels = predictions.to(labels.device).long().flatten(), labels.long().flatten()
        number = self.num_classes
        inside = (labels >= 0) & (labels < number) & (predictions >= 0) & (predictions < number)
        slot = torch.where(inside, labels * number + predictions, torch.full_like(labels, number**2 + 1))
        slot = torch.where(labels == self.ignore_index, torch.full_like(slot, number**2), slot)
        self.state.scatter_add_(0, slot, torch.ones_like(slot))

    @property
    def matrix(self) -> Tensor:
        """(L, L) int64 counts, rows are labels, columns predictions."""
        return self.state[: self.num_classes**2].reshape(self.num_classes, self.num_classes)

    def compute(self) -> dict[str, Any]:
        """Return `mean_iou`, `mean_accuracy`, `pixel_accuracy` in [0, 1] and lists of both per class.

        A class that occurs neither in labels nor in predictions has IoU NaN and leaves the mean.

        Raises:
            LabelError: some labels or predictions lay outside [0, num_classes).
        """
        outside = int(self.state[-1])
        if outside:
            raise LabelError(
                f"{outside} pixels have a label or prediction outside [0, {self.num_classes}) that is not the ignore "
                f"index {self.ignore_index}; check num_labels and the label files."
            )
        counts = self.matrix.cpu().double()
        hits, labelled = counts.diagonal(), counts.sum(dim=1)
        iou = hits / (labelled + counts.sum(dim=0) - hits)
        accuracy = hits / labelled
        return {
            "mean_iou": iou.nanmean().item(),
            "mean_accuracy": accuracy.nanmean().item(),
            "pixel_accuracy": (hits.sum() / counts.sum()).item(),
            "per_class_iou": iou.tolist(),
            "per_class_accuracy": accuracy.tolist(),
        }


class DepthMetrics(_Reducible):
    """Depth errors over the pixels with ground truth, pooled over all pixels or averaged over images or batches.

    Args:
        average: "pixels" pools every pixel of the data set (the root is taken at the end); "images" takes the
            metric of every image, "batches" that of the pooled pixels of every call of `update` (as MultiMAE's code),
            and averages those that have a valid pixel.
        min_depth, max_depth: metres; ground truth outside is not evaluated. None sets no bound, as in MultiMAE.
        device: where to accumulate.
    """

    def __init__(
        self,
        average: Literal["pixels", "images", "batches"] = "pixels",
        min_depth: float | None = None,
        max_depth: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.average, self.min_depth, self.max_depth = average, min_depth, max_depth
        # Pooled: sums over pixels, and pixels. Averaged: sums of the metrics of each image or batch, and their number.
        self.state = torch.zeros(len(_SUMS) + 1, dtype=accumulator_dtype(device), device=device)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            predictions, targets: (B, H, W) metres; targets that are not finite or not above 0 do not count.

        Raises:
            LabelError: the shapes do not agree.
        """
        if predictions.shape != targets.shape or targets.dim() != 3:
            raise LabelError(
                f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} must both be (B, H, W)"
            )
        if self.state.device != targets.device:
            self.state = self.state.to(accumulator_dtype(targets.device)).to(targets.device)
        dtype = self.state.dtype
        valid = torch.isfinite(targets) & (targets > 0)
        if self.min_depth is not None:
            valid &= targets >= self.min_depth
        if self.max_depth is not None:
            valid &= targets <= self.max_depth
        target = torch.where(valid, targets, torch.ones_like(targets)).to(dtype)
        prediction = torch.where(valid, predictions.to(targets.device).to(dtype), torch.ones_like(target))
        sums = self._terms(prediction, target, valid).flatten(2).sum(dim=2)  # (len(_SUMS), B)
        pixels = valid.flatten(1).sum(dim=1).to(dtype)
        if self.average != "images":
            sums, pixels = sums.sum(dim=1, keepdim=True), pixels.sum()[None]
        if self.average == "pixels":
            self.state += torch.cat([sums[:, 0], pixels])
            return
        finished = torch.stack(_finished(sums / pixels.clamp_min(1)))
        self.state += torch.cat([torch.where(pixels > 0, finished, 0).sum(dim=1), (pixels > 0).sum().to(dtype)[None]])

    @staticmethod
    def _terms(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        floored, reference = prediction.clamp_min(RATIO_FLOOR), target.clamp_min(RATIO_FLOOR)
        ratio = torch.maximum(floored / reference, reference / floored)
        error = prediction - target
        terms = [(ratio < 1.25**power).to(target.dtype) for power in (1, 2, 3)]
        log_ratio = floored.log() - reference.log()
        terms += [error.abs() / reference, error.square() / reference, log_ratio.abs() / math.log(10)]
        terms += [error.square(), log_ratio.square(), log_ratio]
        return torch.where(valid, torch.stack(terms), torch.zeros_like(target))

    def compute(self) -> dict[str, float]:
        """Return delta1, delta2, delta3 (shares), abs_rel, sq_rel (metres), log10 (mean absolute difference of
        decimal logarithms), rmse (metres), rmse_log (natural logarithm) and silog (100 times the standard deviation of
        the difference of natural logarithms, which no common factor changes).

        Everything is NaN when no valid pixel was seen.
        """
        values = self.state.cpu().double()
        means = values[:-1] / values[-1]  # 0 / 0 is NaN
        if self.average == "pixels":
            means = torch.stack(_finished(means))
        return dict(zip(DEPTH_METRICS, means.tolist()))


def _finished(means: Tensor) -> list[Tensor]:
    """The metrics, in the order of `DEPTH_METRICS`, of means of the terms `_SUMS` (first dimension)."""
    *shares, squared, squared_log, log_ratio = means
    variance = (squared_log - log_ratio.square()).clamp_min(0)
    return [*shares, squared.sqrt(), squared_log.sqrt(), 100 * variance.sqrt()]

"""Evaluation protocols for depth: those under which results on NYUv2 are published, by name.

They differ in the evaluated part of the picture, its size, and the average; results of two protocols cannot be
compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from m33d_hf.data.augmentation.transforms import EvaluationTransform
from m33d_hf.data.loader.collation import DepthCollator, Step
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.evaluation.metrics import DepthMetrics
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch
from m33d_hf.training.tasks.dense import JUDGED

_FULL = "full_depth"
_LOOKED_AT = 4  # samples at most, until one can be read
_OTHERWISE = "Set --evaluation.depth_protocol null to evaluate the output of the evaluation transform."


@dataclass(frozen=True)
class DepthProtocol:
    """One protocol.

    Attributes:
        name: of `evaluation.depth_protocol`.
        average: see `DepthMetrics`.
        said: one sentence for the log.
        bounds: metres; only ground truth strictly between them counts, and predictions are clamped to them. None: no
            bounds.
        window: (top, bottom, left, right) of the evaluated pixels, at the size of `full_size`; None: all.
        full_size: (height, width) of the ground truth to which the prediction is resized; None: both are compared at
            the size of the evaluation transform.
        crop: required value of `transforms.eval_crop`.
        side: required value of `model.image_size`; None: any.
    """

    name: str
    average: Literal["pixels", "images", "batches"]
    said: str
    bounds: tuple[float, float] | None = None
    window: tuple[int, int, int, int] | None = None
    full_size: tuple[int, int] | None = None
    crop: str = "center"
    side: int | None = 256

    def metrics(self, device: torch.device) -> DepthMetrics:
        """An accumulator with the protocol's average."""
        return DepthMetrics(self.average, device=device)

    def compared(self, predicted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The compared parts of predictions (B, h, w) and ground truth (B, H, W), both in metres."""
        if predicted.shape[-2:] != labels.shape[-2:]:
            predicted = F.interpolate(predicted[:, None], labels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        if self.bounds is not None:
            low, high = self.bounds
            predicted = predicted.clamp(low, high)
            labels = torch.where((labels > low) & (labels < high), labels, torch.nan)
        if self.window is not None:
            top, bottom, left, right = self.window
            predicted, labels = (each[:, top:bottom, left:right] for each in (predicted, labels))
        return predicted, labels

    def check(self, args: RunArguments, config: M33DConfig) -> None:
        """Refuse a run that does not fit the protocol.

        Raises:
            ConfigError: another evaluation crop or image size.
        """
        if args.transforms.eval_crop != self.crop:
            raise ConfigError(
                f"The depth protocol {self.name} requires transforms.eval_crop {self.crop!r}, but it is "
                f"{args.transforms.eval_crop!r}. {_OTHERWISE}"
            )
        if self.side is not None and config.image_height_width != (self.side, self.side):
            raise ConfigError(
                f"The depth protocol {self.name} requires {self.side} x {self.side} pixels, but model.image_size is "
                f"{list(config.image_height_width)}. {_OTHERWISE}"
            )

    def judging(self, dataset: SampleDataset) -> SampleDataset:
        """The evaluation data with everything that the protocol requires.

        Raises:
            DataError: the first readable picture has another size than the protocol is defined for.
        """
        transform = dataset.transform
        if self.full_size is None or not isinstance(transform, EvaluationTransform):
            return dataset
        judged = dataset.with_transform(FullDepthTransform(transform.options, transform.size, transform.patch_size))
        self._look_at_one(judged.reading_once())
        return judged

    def _look_at_one(self, judged: SampleDataset) -> None:
        """Refuse pictures of another size before anything is trained, and not at the first evaluation."""
        for index in range(min(len(judged), _LOOKED_AT)):
            sample = judged[0, index]
            if isinstance(sample, RGBDSample) and _FULL in sample.meta and sample.meta[_FULL] is not None:
                self.check_size(sample)
                return

    def check_size(self, sample: RGBDSample) -> None:
        """Refuse a transformed sample whose picture has another size than the protocol is defined for.

        Raises:
            DataError: says which size it has.
        """
        found = tuple(sample.meta[_FULL].shape[-2:])
        if found != self.full_size:
            raise DataError(
                f"{sample.key}: the depth protocol {self.name} is defined for pictures of {self.full_size} pixels "
                f"(height, width), but this one has {found}. {_OTHERWISE}"
            )

    def collator(self, config: M33DConfig) -> DepthCollator:
        """Samples to batches of evaluation."""
        return DepthCollator(config) if self.full_size is None else FullDepthCollator(config, self)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        DepthProtocol("multimae", "pixels", "256-pixel centre crop, the pixels of all images pooled"),
        DepthProtocol("exact_multimae", "batches", "256-pixel centre crop, the mean over evaluation batches"),
        DepthProtocol(
            "eigen",
            "images",
            "full resolution, rows 45 to 471 and columns 41 to 601, 1 mm to 10 m, the mean over images",
            bounds=(1e-3, 10.0),
            window=(45, 471, 41, 601),
            full_size=(480, 640),
            crop="resize",
            side=None,
        ),
    )
}


@dataclass
class FullDepthTransform(EvaluationTransform):
    """An evaluation transform that keeps the ground truth at the size of the picture, beside the placed one."""

    aligns: ClassVar[bool] = False

    def __call__(self, sample: RGBDSample) -> RGBDSample:
        placed = super().__call__(sample)
        return dataclasses.replace(placed, meta={**placed.meta, _FULL: sample.depth})


class FullDepthCollator(DepthCollator):
    """A `DepthCollator` that adds the ground truth for evaluation, (B, H, W) metres at the size of the pictures."""

    def __init__(self, config: M33DConfig, protocol: DepthProtocol) -> None:
        super().__init__(config)
        self.protocol = protocol

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """See the class.

        Raises:
            DataError: pictures of another size than the protocol is defined for.
        """
        batch, steps = super().collate(samples)
        full = [sample.meta[_FULL][0, 0] for sample in samples]
        for sample in samples:
            self.protocol.check_size(sample)
        batch[JUDGED] = torch.stack(full).float()
        return batch, steps

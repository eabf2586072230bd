"""The one way of a checkpoint's weights into a model: planned whole, accounted for on both sides, then copied."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.layout import Weight
from m33d_hf.weights.init_options import ConversionOptions
from m33d_hf.weights.report import ConversionReport

# Embeddings and encoders: of which modality or encoder, and which weight of it.
PART = re.compile(r"(?:m33d\.)?(?P<part>embeddings|encoders)\.(?P<owner>\w+)\.(?P<leaf>.+)")


@dataclass
class Matching(ABC):
    """The weights of one checkpoint against those of one model; a subclass knows the names of a format.

    Args:
        targets: weights of the model, filled in place.
        weights: the checkpoint's, by the names under which the rules look for them.
        report: what is known beforehand: where from, what was ignored.
        options: how parts are filled that the checkpoint does not have.
    """

    targets: Mapping[str, Tensor]
    weights: Mapping[str, Weight]
    report: ConversionReport
    options: ConversionOptions = field(default_factory=ConversionOptions)
    values: dict[str, Tensor] = field(default_factory=dict, init=False)

    def apply(self) -> ConversionReport:
        """Fill the model; nothing is written unless every weight on both sides is accounted for.

        Raises:
            CheckpointError: a weight that the rules cannot explain, or of another shape.
        """
        for target, own in self.targets.items():
            self.place(target, own)
        for name, weight in self.weights.items():
            for key in weight.sources:
                if not self._told(key) and (reason := self.why_unused(name)):
                    self.report.ignored[key] = reason
        self._refuse_open_weights()
        self._pour()
        return self.report

    @abstractmethod
    def place(self, target: str, own: Tensor) -> None:
        """Decide for one weight of the model: take, leave, or neither, which is an error."""

    def why_unused(self, name: str) -> str | None:
        """The reason why a weight of the checkpoint has no place in the model; None is an error."""
        return None

    def take(self, target: str, weight: Weight, value: Tensor | None = None, how: str = "") -> None:
        """Fill a weight of the model from one of the checkpoint, with its tensor or a value made of it."""
        self.values[target] = weight.tensor if value is None else value
        self.report.filled[target] = how or weight.how
        for source in weight.sources:
            self.report.used.setdefault(source, []).append(target)

    def leave(self, target: str, reason: str) -> None:
        """Let a weight of the model keep its fresh initialisation."""
        self.report.new[target] = reason

    def take_or_leave(self, target: str, reason: str, name: str | None = None) -> None:
        """Take the weight of the same name, or of `name`, or leave it for a reason where the checkpoint has none."""
        source = self.weights.get(target if name is None else name)
        if source is None:
            self.leave(target, reason)
        else:
            self.take(target, source)

    def _told(self, key: str) -> bool:
        return key in self.report.used or key in self.report.ignored

    def _refuse_open_weights(self) -> None:
        report = self.report
        unexplained = [key for weight in self.weights.values() for key in weight.sources if not self._told(key)]
        if unexplained:
            raise ConversionError(
                f"{report.format}: {plural(len(unexplained), 'weight')} of {report.origin} "
                f"{agree(len(unexplained), 'does', 'do')} not exist in the "
                "model, first"
                f" {unexplained[0]!r}. Does the model's configuration (qkv_bias, layers, modalities) match?"
            )
        missing = [target for target in self.targets if target not in report.filled and target not in report.new]
        if missing:
            raise ConversionError(
                f"{report.format}: {plural(len(missing), 'weight')} of the model {agree(len(missing), 'is', 'are')} "
                f"not in {report.origin}, first"
                f" {missing[0]!r}. The file is incomplete or belongs to another model."
            )

    def _pour(self) -> None:
        for target, value in self.values.items():
            format, own = self.report.format, self.targets[target]
            if not value.is_floating_point():
                raise ConversionError(
                    f"{format}: the checkpoint's weight for {target!r} is {value.dtype}, not a floating-point type."
                )
            if value.shape != own.shape:
                raise ConversionError(
                    f"{format}: {target!r} is {tuple(own.shape)} in the model but {tuple(value.shape)} in the"
                    " checkpoint."
                )
        with torch.no_grad():
            for target, value in self.values.items():
                self.targets[target].copy_(value)


def depth_kernel(kernel: Tensor, channels: int, how: str) -> Tensor:
    """The patch kernel (D, channels, ...) of a modality made of the RGB one (D, 3, ...): docs/method.md#depth-kernel.

    Args:
        kernel: of RGB.
        channels: of the modality.
        how: "sum" or "mean" over the colours.
    """
    total = kernel.sum(dim=1, keepdim=True)
    if how == "mean":
        total = total / kernel.shape[1]
    # Spread over several channels so that equal channels still give the response of one.
    return (total / channels).expand(-1, channels, *total.shape[2:])


def fit_time(kernel: Tensor, own: Tensor, inflate: str) -> tuple[Tensor, str]:
    """A patch kernel between images, (D, C, p, p), and clips, (D, C, t, p, p): docs/method.md#clip-kernel.

    Of a clip model in an image model it is summed over the frames of the tubelet: the response to a still clip, whose
    frames are all equal, is the response of the sum to one of them. Of an image model in a clip model it is spread
    over the frames, so that the sum is the image's kernel.

    Args:
        kernel: the checkpoint's.
        own: the model's.
        inflate: "average" or "center", see `InitOptions.inflate`.

    Returns:
        The kernel and what was done, "" for nothing.
    """
    if kernel.ndim == 5 and own.ndim == 4:
        wide = torch.promote_types(kernel.dtype, torch.float32)  # sums of halves have more digits than one
        return kernel.sum(dim=2, dtype=wide), f"summed over the tubelet of {kernel.shape[2]} frames"
    if kernel.ndim == 4 and own.ndim == 5:
        frames = own.shape[2]
        if inflate == "average":
            kernel = kernel.unsqueeze(2).repeat_interleave(frames, dim=2) / frames
        else:
            spread = kernel.new_zeros(kernel.shape[0], kernel.shape[1], frames, *kernel.shape[2:])
            spread[:, :, frames // 2] = kernel
            kernel = spread
        return kernel, f"inflated over {frames} frames ({inflate})"
    return kernel, ""


def still_positions(spatial_ND: Tensor, temporal_TD: Tensor) -> Tensor:
    """Learned positions of a clip model for an image model: those of places and of the one moment of a still clip.

    A clip model interpolates its moments linearly to one, as `M33DLearnedPositions` does for a single tubelet.
    """
    wide = torch.promote_types(spatial_ND.dtype, torch.float32)
    steps = temporal_TD.to(wide).t()[None]
    moment = torch.nn.functional.interpolate(steps, size=1, mode="linear", align_corners=False)[0].t()
    return spatial_ND.to(wide) + moment


def time_note(kernel: Tensor, own: Tensor, positions: str) -> str | None:
    """What a report says where the checkpoint is of clips and the model of images, or the other way round.

    Args:
        kernel: a patch kernel of the checkpoint.
        own: the model's.
        positions: kind of the model's positions.
    """
    if kernel.ndim == 5 and own.ndim == 4:
        moment = "of moments interpolated to one" if positions == "learned" else "of the clip's first time slot"
        return (
            f"a clip checkpoint in an image model: patch kernels are summed over the tubelet of {kernel.shape[2]}"
            f" frames, so that a picture gives the tokens of its still clip of {kernel.shape[2]} frames; positions are"
            f" those {moment}"
        )
    if kernel.ndim == 4 and own.ndim == 5:
        time = "those of places, zero in time" if positions == "learned" else f"the model's own {positions} table"
        spread = f"patch kernels are spread over {own.shape[2]} frames"
        return f"an image checkpoint in a clip model: {spread}; positions are {time}"
    return None

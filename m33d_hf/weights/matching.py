"""The one way of a checkpoint's weights into a model: planned whole, accounted for on both sides, then copied.

A format, foreign or our own, gives its weights by name and the rules of the names: a subclass of `Matching`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError
from m33d_hf.weights.formats.layout import Weight
from m33d_hf.weights.options import ConversionOptions
from m33d_hf.weights.report import ConversionReport

# Embeddings and encoders: of which modality or encoder, and which weight of it.
PART = re.compile(r"(?:m33d\.)?(?P<part>embeddings|encoders)\.(?P<owner>\w+)\.(?P<leaf>.+)")


class Matching(ABC):
    """The weights of one checkpoint against those of one model.

    Args:
        targets: weights of the model, filled in place.
        weights: the checkpoint's, by the names under which the rules look for them.
        report: what is known beforehand: where from, what was ignored.
        options: how parts are filled that the checkpoint does not have.
    """

    def __init__(
        self,
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Weight],
        report: ConversionReport,
        options: ConversionOptions | None = None,
    ) -> None:
        self.targets, self.weights, self.report = targets, weights, report
        self.options = options or ConversionOptions()
        self._values: dict[str, Tensor] = {}

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
        self._values[target] = weight.tensor if value is None else value
        self.report.filled[target] = how or weight.how
        for source in weight.sources:
            self.report.used.setdefault(source, []).append(target)

    def leave(self, target: str, reason: str) -> None:
        """Let a weight of the model keep its fresh initialisation."""
        self.report.new[target] = reason

    def take_or_leave(self, target: str, reason: str) -> None:
        """Take the weight of the same name, or leave it for a reason where the checkpoint has none."""
        if target in self.weights:
            self.take(target, self.weights[target])
        else:
            self.leave(target, reason)

    def _told(self, key: str) -> bool:
        return key in self.report.used or key in self.report.ignored

    def _refuse_open_weights(self) -> None:
        report = self.report
        unexplained = [key for weight in self.weights.values() for key in weight.sources if not self._told(key)]
        if unexplained:
            raise ConversionError(
                f"{report.format}: {len(unexplained)} weights of {report.origin} have no place in the model, first"
                f" {unexplained[0]!r}. Does the model's configuration (qkv_bias, layers, modalities) match?"
            )
        missing = [target for target in self.targets if target not in report.filled and target not in report.new]
        if missing:
            raise ConversionError(
                f"{report.format}: {len(missing)} weights of the model are not in {report.origin}, first"
                f" {missing[0]!r}. The file is incomplete or of another model."
            )

    def _pour(self) -> None:
        for target, value in self._values.items():
            where = f"{self.report.format}: the checkpoint's weight for {target!r}"
            if not value.is_floating_point():
                raise ConversionError(f"{where} is {value.dtype}, no float.")
            if value.shape != self.targets[target].shape:
                raise ConversionError(
                    f"{self.report.format}: {target!r} is {tuple(self.targets[target].shape)} in the model but"
                    f" {tuple(value.shape)} in the checkpoint."
                )
        with torch.no_grad():
            for target, value in self._values.items():
                self.targets[target].copy_(value)


class PartMatching(Matching):
    """Rules by the part of the model that a weight belongs to: embeddings and encoders, decoder, heads.

    A subclass sets `decoder_obstacle`: why the decoder is not taken; None when it is.
    """

    decoder_obstacle: str | None

    def place(self, target: str, own: Tensor) -> None:
        """Ask the rule of the part."""
        match = PART.fullmatch(target)
        if match or target.removeprefix("m33d.") == "global_token":
            self.place_part(target, own, match)
        elif not target.startswith("decoder."):
            self.place_head(target, own)
        elif self.decoder_obstacle is not None:
            self.leave(target, self.decoder_obstacle)
        else:
            self.place_decoder(target, own)

    @abstractmethod
    def place_part(self, target: str, own: Tensor, match: re.Match[str] | None) -> None:
        """Decide for one weight of embeddings or encoders (`match` of `PART`), or the global token (None)."""

    @abstractmethod
    def place_decoder(self, target: str, own: Tensor) -> None:
        """Decide for one weight of a decoder that is taken."""

    @abstractmethod
    def place_head(self, target: str, own: Tensor) -> None:
        """Decide for any other weight."""


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

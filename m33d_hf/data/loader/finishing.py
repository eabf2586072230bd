"""The last steps of a batch, done on its device: changes of RGB alone, normalisation, and what depends on it.

Loaders deliver uint8 RGB, raw depth and uint8 labels (a quarter of the memory, and nothing that a device does faster),
with a `Finishing` in ``meta`` that says what is left. Everything random in it was drawn by the collator, or is drawn
from a generator that came with it, so that draws do not depend on who finishes a batch. On a CPU the finished batch is
bit-equal to that of a collator that finishes its own. Another device rounds in its own way, draws other noise into
erased boxes from the same seed, and carries out RandAugment by torchvision, whose pixels differ by more than rounding
from those of a CPU (`rgb_changes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import torch

from m33d_hf.data.augmentation.clips import Erasing
from m33d_hf.data.augmentation.mixing import MixDraw, mix_batch
from m33d_hf.data.augmentation.rgb_changes import RgbChanges, change_rows
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.masking_m33d import Keep, settle_keep, tubelet_motion
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb

Batch = dict[str, Any]
FINISHING = "finishing"


class Step(Protocol):
    """One remaining step; a dataclass whose tensors move with the batch."""

    def apply(self, batch: Batch) -> None:
        """Change entries of a batch; the tensors passed in are not modified."""


@dataclass(frozen=True)
class NormalizeRgb:
    """uint8 RGB (B, ..., 3, H, W) to float32; `mask_name` gets the validity mask (B, ..., 1, H, W), which is True
    everywhere.

    Rows are changed first (RandAugment, colour), as `changes` says for each, None for nothing; then those named by
    `mirrored`, (B,) bool, are mirrored, left to right.
    """

    name: str
    mean: Sequence[float] | None
    std: Sequence[float] | None
    mask_name: str | None = None
    mirrored: torch.Tensor | None = None
    changes: Sequence[RgbChanges | None] | None = None

    def apply(self, batch: Batch) -> None:
        """See the class."""
        pixels = batch[self.name]
        if self.changes is not None:
            pixels = change_rows(pixels, self.changes)
        if self.mirrored is not None:
            pixels = mirror_rows(pixels, self.mirrored, in_place=self.changes is not None)
        batch[self.name] = normalize_rgb(pixels, self.mean, self.std)
        if self.mask_name is not None:
            batch[self.mask_name] = torch.ones_like(batch[self.name][..., :1, :, :], dtype=torch.bool)


def mirror_rows(pixels: torch.Tensor, rows: torch.Tensor, in_place: bool = False) -> torch.Tensor:
    """A copy of (B, ..., W) in which the rows (B,) bool are mirrored along the last axis; `in_place` may overwrite."""
    if pixels.device.type != "cpu":  # to ask which rows they are would make the host wait for the device
        return torch.where(rows.view(-1, *[1] * (pixels.dim() - 1)), pixels.flip(-1), pixels)
    pixels = pixels if in_place else pixels.clone()
    for row in rows.nonzero()[:, 0].tolist():
        pixels[row] = pixels[row].flip(-1)
    return pixels


@dataclass(frozen=True)
class StandardizeDepth:
    """Depth (B, T, 1, H, W), or (B, 1, H, W) of images, NaN where invalid, to standardised values and validity."""

    name: str
    mask_name: str | None
    mode: str
    scope: str

    def apply(self, batch: Batch) -> None:
        """See the class."""
        depth = batch[self.name]
        image = depth.dim() == 4
        values, valid = standardize_depth(depth[:, None] if image else depth, self.mode, self.scope)
        batch[self.name] = values[:, 0] if image else values
        if self.mask_name is not None:
            batch[self.mask_name] = valid[:, 0] if image else valid


@dataclass(frozen=True)
class NormalizeMap:
    """Another modality (B, ..., C, H, W), NaN where invalid, to normalised values (0 there) and their validity."""

    name: str
    mask_name: str | None
    mean: Sequence[float] | None
    std: Sequence[float] | None

    def apply(self, batch: Batch) -> None:
        """See the class."""
        values = batch[self.name].float()
        valid = torch.isfinite(values).all(dim=-3, keepdim=True)
        if self.mean is not None and self.std is not None:
            values = values.clone()
            # By numbers: a tensor of them would make the host wait for the device.
            for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
                values[..., channel, :, :].sub_(mean).div_(std)
        batch[self.name] = values.masked_fill(~valid, 0.0)
        if self.mask_name is not None:
            batch[self.mask_name] = valid


@dataclass(frozen=True)
class ChooseByMotion:
    """Choose the visible tokens ``keep``; some of them depend on the motion in the normalised pixels `name`."""

    name: str
    tubelet_size: int
    patch: tuple[int, int]
    keep: Keep

    def apply(self, batch: Batch) -> None:
        """See the class."""
        batch["keep"] = settle_keep(self.keep, tubelet_motion(batch[self.name], self.tubelet_size, self.patch))


@dataclass(frozen=True)
class WidenLabels:
    """uint8 class ids to int64, with `ignored` where nothing is labelled."""

    name: str
    ignored: int

    def apply(self, batch: Batch) -> None:
        """See the class."""
        labels = batch[self.name].long()
        batch[self.name] = labels if self.ignored == IGNORE_INDEX else labels.masked_fill(
            labels == IGNORE_INDEX, self.ignored
        )  # fmt: skip


@dataclass(frozen=True)
class EraseBoxes:
    """Fill boxes with noise, each given as (row of the batch, erased box); the noise is drawn on the batch's device."""

    name: str
    erased: Sequence[tuple[int, Erasing]]

    def apply(self, batch: Batch) -> None:
        """See the class; runs after normalisation and writes to the memory that it allocated."""
        for row, erasing in self.erased:
            pixels, (top, left, height, width) = batch[self.name][row], erasing.box
            frames = pixels.shape[0] if pixels.dim() == 4 else 1
            noise = erasing.noise(frames, pixels.device)
            pixels[..., top : top + height, left : left + width] = noise


@dataclass(frozen=True)
class Mix:
    """Mixup or CutMix of pixels and soft targets, as drawn; writes to the memory that normalisation allocated.

    With `name` None the targets alone are mixed.
    """

    name: str | None
    targets: str
    drawn: MixDraw

    def apply(self, batch: Batch) -> None:
        """See the class."""
        targets = batch[self.targets]
        if self.name is None:
            batch[self.targets] = mix_batch(targets.new_empty(len(targets), 1, 1, 1), targets, self.drawn)[1]
        else:
            batch[self.name], batch[self.targets] = mix_batch(batch[self.name], targets, self.drawn)


@dataclass(frozen=True)
class Finishing:
    """The remaining steps, in order."""

    steps: tuple[Step, ...]

    def pin_memory(self) -> Finishing:
        """A copy with its tensors in page-locked memory; DataLoader calls this."""
        return self._with_tensors(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Finishing:
        """A copy with its tensors on a device; the transfer may still be in progress when this returns."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Finishing:
        return Finishing(tuple(_changed(step, change) for step in self.steps))


def finish(batch: Batch) -> Batch:
    """Apply the remaining steps to a batch; one without a `Finishing` is returned unchanged.

    Returns:
        A new dict without the `Finishing`; the forward arguments are complete, and "meta" lists the same keys.
    """
    meta = batch.get("meta", {})
    if FINISHING not in meta:
        return batch
    finished = {**batch, "meta": {name: value for name, value in meta.items() if name != FINISHING}}
    for step in meta[FINISHING].steps:
        step.apply(finished)
    return finished


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A step, or what one holds, with `change` applied to every tensor."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _changed(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        changed = [_changed(each, change) for each in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
    return value

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Checks that the tensors of one batch belong together; otherwise they would broadcast, or read wrong patches.

Shapes are always compared: that costs nothing and can be traced. Values (positions that are repeated or out of range,
class ids) are checked only where that does not synchronise a device: on CPU tensors, and not while a graph is traced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from .configuration_m33d import M33DConfig
from .errors_m33d import ConfigError, DataError, LabelError, nearest_name_hint
from .masking_m33d import JOINT

Tensors = Mapping[str, torch.Tensor]


def collect_masks(config: M33DConfig, values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The masks of valid pixels among forward arguments: name of the modality -> (B, T, C, H, W)."""
    masks = {}
    for spec in config.specs:
        mask = values.get(spec.mask_name) if spec.mask_name else None
        if mask is not None:
            clip = mask[:, None] if mask.ndim == 4 else mask
            still = clip.ndim == 5 and clip.shape[1] == 1  # repeated like the pixels, see `as_clip`
            masks[spec.name] = clip.expand(-1, config.tubelet_size, -1, -1, -1) if still else clip
    return masks


def check_alike(pixels: Tensors, masks: Tensors) -> None:
    """Refuse modalities that differ in batch size, frames or image size, and masks that do not match their modality.

    Args:
        pixels: name -> (B, T, C, H, W).
        masks: name -> validity likewise.

    Raises:
        DataError: naming both.
    """
    first, reference = next(iter(pixels.items()))
    expected = (*reference.shape[:2], *reference.shape[3:])
    named = [*pixels.items(), *((f"the mask of {name}", mask) for name, mask in masks.items())]
    for name, values in named:
        if values.ndim != 5 or (*values.shape[:2], *values.shape[3:]) != expected:
            raise DataError(
                f"{name} has shape {tuple(values.shape)}, but {first} has {tuple(reference.shape)} as (B, T, C, H, W): "
                "all modalities and masks of a batch must have the same samples, frames, height and width."
            )


def without_holes(pixels: Tensors, masks: Tensors) -> dict[str, torch.Tensor]:
    """The pixels with 0 where a mask is False: a NaN in a hole would spread through the patch embedding.

    Args:
        pixels: name -> (B, T, C, H, W).
        masks: name -> validity likewise, of some of them or of others.
    """
    return {
        name: values.masked_fill(~masks[name].bool(), 0.0) if name in masks else values
        for name, values in pixels.items()
    }


def check_rows(name: str, tensor: torch.Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Refuse a tensor whose shape does not match the batch.

    Raises:
        DataError: naming both shapes.
    """
    if tuple(tensor.shape) != shape:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}: {meaning}.")


def check_names(argument: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse names that are no modality of this model.

    Raises:
        ConfigError: naming the argument and the nearest known modality.
    """
    for name in given:
        if name not in known:
            hint = nearest_name_hint(name, known)
            raise ConfigError(f"{argument} names {name!r}, which is none of {list(known)}.{hint}")


def check_keep(keep: Tensors, inputs: Tensors, known: Collection[str], num_tokens: int) -> None:
    """Refuse visible positions that are not those of this batch.

    Args:
        keep: name -> (B, V) positions, or "joint" -> (B, V) over all modalities side by side.
        inputs: name -> (B, T, C, H, W) of what is encoded.
        known: names of the input modalities.
        num_tokens: N of one modality.

    Raises:
        ConfigError: a name that is no modality, or an input without positions.
        DataError: positions of another batch, not int64, repeated or out of range.
    """
    if JOINT in keep:
        check_names("keep", keep, [JOINT])
        limits = {JOINT: num_tokens * len(known)}
    else:
        check_names("keep", keep, known)
        missing = [name for name in inputs if name not in keep]
        if missing:
            raise ConfigError(f"keep has no visible tokens of {missing}; it has those of {sorted(keep)}.")
        limits = dict.fromkeys(inputs, num_tokens)
    batch = next(iter(inputs.values())).shape[0]
    for name, limit in limits.items():
        index = keep[name]
        if index.ndim != 2 or index.shape[0] != batch or not 1 <= index.shape[1] <= limit:
            raise DataError(
                f"keep of {name!r} has shape {tuple(index.shape)}, expected (B, V) with B = {batch} as in the inputs "
                "and "
                f"V from 1 to the {limit} tokens."
            )
        if index.dtype != torch.int64:
            raise DataError(f"keep of {name!r} is {index.dtype}, expected int64 positions.")
        if _can_be_read(index):
            _check_positions(name, index, limit)


def check_class_ids(labels: torch.Tensor, num_labels: int, ignore_index: int) -> None:
    """Refuse class ids that no logit stands for; torch would end in an IndexError without names.

    Args:
        labels: int64 of any shape, in [0, num_labels) or `ignore_index`.
        num_labels: classes L of the model.
        ignore_index: label of what takes no part in the loss.

    Raises:
        DataError: another type than int64.
        LabelError: an id outside, where values can be read (on CPU, not while a graph is traced).
    """
    if labels.dtype != torch.int64:
        raise DataError(f"labels are {labels.dtype}, expected int64 class ids, as labels.long() gives.")
    if not _can_be_read(labels):
        return
    values = labels.numpy()
    outside = (values != ignore_index) & ((values < 0) | (values >= num_labels))
    if outside.any():
        found = [int(each) for each in np.unique(values[outside])]
        named = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise LabelError(
            f"labels hold {named}, but the model has {num_labels} classes: expected ids from 0 to {num_labels - 1}, or "
            f"{ignore_index} where nothing is labelled. Map other ids to these, or set num_labels (id2label)."
        )


def refuse_ambiguous_ids(labels: torch.Tensor, num_labels: int, ignore_index: int) -> None:
    """Refuse the label of "not labelled" where a class has the same number: that class would never be trained.

    Costs nothing where there is no such class. Where there is one, values on other devices are read as well.

    Raises:
        LabelError: labels that hold it.
    """
    ambiguous = 0 <= ignore_index < num_labels and _has_values(labels)
    if ambiguous and bool((labels == ignore_index).any()):
        raise LabelError(
            f"labels hold {ignore_index}, which says that nothing is labelled, but is also one of the {num_labels} "
            f"classes of the model, which would never be trained: train with at most {ignore_index} classes (0 to "
            f"{ignore_index - 1}), or pass target probabilities."
        )


def _has_values(tensor: torch.Tensor) -> bool:
    if tensor.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    # A subclass (sharded, or without data) has no plain memory, nor have the results of a mode that estimates costs.
    return type(tensor) is torch.Tensor and type(tensor.new_empty(0)) is torch.Tensor


def _can_be_read(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and _has_values(tensor)


def _check_positions(name: str, index: torch.Tensor, limit: int) -> None:
    values = index.numpy()  # numpy: a torch mode that only counts operations would return tensors without data
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise DataError(f"keep of {name!r} has positions from {low} to {high}, expected 0 to {limit - 1}.")
    ordered = np.sort(values, axis=1)
    twice = ordered[:, 1:] == ordered[:, :-1]
    if twice.any():
        row, place = (int(each) for each in np.argwhere(twice)[0])
        position = int(ordered[row, place])
        raise DataError(f"keep of {name!r} names position {position} twice in row {row}; each may occur only once.")

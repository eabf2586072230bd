"""What a prediction that looks at nothing reaches in the losses of a pre-training, by formula or by the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.terms_m33d import reconstruction


def loss_floors(config: M33DConfig) -> dict[str, float]:
    """Trivial floors of the reconstruction losses that need no data.

    A target whose patches are normalised by their own statistics has mean 0 in every patch, so the best constant is 0,
    and its squared error is the biased variance over the unbiased one, (n - 1) / n for n values that are normalised
    together (patches that are nearly flat count less, because of the epsilon in the denominator).

    Returns:
        "loss/<modality>" -> floor, for targets with a squared error and normalised patches; others depend on the data
        and are left out.
    """
    floors = {}
    for spec in config.specs:
        if spec.is_target and spec.loss == "mse" and spec.target_norm != "none":
            together = config.patch_dim(spec) // (spec.channels if spec.target_norm == "per_channel" else 1)
            floors[f"loss/{spec.name}"] = (together - 1) / together
    return floors


@torch.no_grad()
def constant_floors(model: M33DForPreTraining, batch: Mapping[str, Any]) -> dict[str, float]:
    """What one constant for all values reaches in the reconstruction losses of a batch: their median in "l1", which
    is the best, and their mean, which is in "mse" (in "l2" a better one may exist).

    Args:
        batch: the arguments of the model's `forward`; the more samples, the better it stands for their data.

    Returns:
        "loss/<modality>" -> floor, for every modality that the model reconstructs and the batch has values of.
    """
    prepared, floors = model.prepared(**batch), {}
    for spec in model.config.target_specs:
        index = prepared.masked_index(spec)
        valid = prepared.valid_patches(spec, index)
        target, counted = prepared.target_patches(spec, index, valid), prepared.counted_values(spec, valid)
        values = target.flatten() if counted is None else target[counted]
        if spec.name in model.loss_weights and values.numel():
            constant = values.median() if spec.loss == "l1" else values.mean()
            total, count = reconstruction(prepared, spec, constant.expand_as(target), index)
            floors[f"loss/{spec.name}"] = float(total / count.clamp_min(1))
    return floors

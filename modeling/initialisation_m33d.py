# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Initial values of single layers: what a module asks for through `m33d_init`, and patch kernels as MAE's."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from transformers import initialization as init


class Leaf(Protocol):
    """A layer with one weight and perhaps a bias."""

    weight: torch.Tensor
    bias: torch.Tensor | None


def initialise_as_asked(module: Leaf, wanted: str, std: float) -> None:
    """Fill a layer as `wanted` says: "trunc_normal" (of standard deviation `std`), "default" (torch's own), "apart"
    (Xavier for each of the square matrices that are stacked in the weight), "zeros", or "first" (the output is what
    the first inputs are, and the others have no part in it).
    """
    if wanted == "default":
        init.kaiming_uniform_(module.weight, a=5**0.5)
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.bias, -bound, bound)
        return
    if wanted == "apart":
        bound = (3.0 / module.weight.shape[1]) ** 0.5
        init.uniform_(module.weight, -bound, bound)
    elif wanted == "zeros":
        init.zeros_(module.weight)
    elif wanted == "first":
        init.eye_(module.weight)
    else:
        init.trunc_normal_(module.weight, std=std)
    if module.bias is not None:
        init.zeros_(module.bias)


def initialise_patch_kernel(convolution: nn.Conv2d | nn.Conv3d) -> None:
    """Xavier over the flattened kernel (D, C * t * p * p); the bias keeps torch's own range, as MAE's does."""
    fan_out, fan_in = convolution.weight.flatten(1).shape
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    init.uniform_(convolution.weight, -bound, bound)
    if convolution.bias is not None:
        init.uniform_(convolution.bias, -(fan_in**-0.5), fan_in**-0.5)

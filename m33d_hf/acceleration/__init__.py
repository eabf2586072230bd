"""Faster kernels for models on CPU. Models from the Hub work without them.

All that this package computes uses them: training, evaluation, extraction of features, detection, `predict.py`, the
demo page and `extract_depth.py` (our models; those of others stay as they are). What is compiled, exported or published
has torch's own. Weights, their names and saved files are unchanged.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from m33d_hf.acceleration.attention import NAME, prefers_blocks
from m33d_hf.acceleration.linear import CPULinear, cpu_linear
from m33d_hf.acceleration.maps import prefers_channels_last
from m33d_hf.modeling.heads_m33d import ConvNeXtSegmentationHead, DPTDepthHead

Model = TypeVar("Model", bound=nn.Module)


def accelerate_cpu(model: Model) -> Model:
    """Make a model use this machine's faster kernels, in place, and return it.

    Every kernel looks at what it is given, and leaves other devices, dtypes and compiling to torch. Linear layers, and
    modules that multiply by part of a weight through an attribute `linear`, go to `m33d_hf.acceleration.linear`;
    attention that is "sdpa" goes to `m33d_hf.acceleration.attention`, any other stays; maps of the dense heads to
    `m33d_hf.acceleration.maps`.
    """
    module: Any
    for module in model.modules():
        if type(module) is nn.Linear:  # kinds of it compute what they like
            module.__class__ = CPULinear
        elif getattr(module, "linear", None) is nn.functional.linear:
            module.linear = cpu_linear
        elif isinstance(module, ConvNeXtSegmentationHead | DPTDepthHead):
            module.prefers_channels_last = prefers_channels_last
        attends = isinstance(module, PreTrainedModel) and module.config._attn_implementation
        if attends == "sdpa" and prefers_blocks():
            module.set_attn_implementation(NAME)
    return model


def place(model: Any, device: torch.device | str) -> Any:
    """The model on its device, accelerated if that is the CPU."""
    model.to(device)
    return accelerate_cpu(model) if torch.device(device).type == "cpu" else model

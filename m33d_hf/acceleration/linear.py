"""Linear layers that let oneDNN do their float32 products on CPUs with AVX-512, where it is the faster library.

torch sends float32 products to MKL. At the widths of a ViT oneDNN reaches a tenth more there (benchmarks/README.md);
at small widths, where it copies its operands first, it is slower, so those stay as they are. The same sums in another
order: results agree to float32 rounding. Everything else (other devices, dtypes and autocast, compiling, CPUs
without AVX-512) is torch's own linear layer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from m33d_hf.acceleration.eager import is_eager_on_cpu

# Where oneDNN was seen to win: both widths of a ViT's blocks, and enough rows to be worth an autograd function.
MIN_WIDTH = 384
MIN_MULTIPLY_ADDS = 1 << 25


@lru_cache(maxsize=1)
def has_fast_products() -> bool:
    """Whether this machine is of the kind on which oneDNN was measured to be faster, and torch has it."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not where torch is built without oneDNN
    return known and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _product(rows_RI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(rows_RI, weight_OI, bias_O, "none", [], "")


class _Linear(torch.autograd.Function):
    """`torch.nn.functional.linear` by oneDNN; its backward pass is made of itself, so that it can be derived again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tokens: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        return _product(tokens, weight_OI, bias_O)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        into_tokens, into_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(inputs[0] if into_weight else None, inputs[1] if into_tokens else None)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tokens, weight_OI = ctx.saved_tensors
        into_tokens = into_weight = into_bias = None
        rows_RO = gradient.reshape(-1, gradient.shape[-1])
        if ctx.needs_input_grad[0]:
            into_tokens = _Linear.apply(gradient, weight_OI.t(), None)
        if ctx.needs_input_grad[1]:
            into_weight = _Linear.apply(rows_RO.t(), tokens.reshape(-1, tokens.shape[-1]).t(), None)
        if ctx.needs_input_grad[2]:
            into_bias = rows_RO.sum(dim=0)
        return into_tokens, into_weight, into_bias


def _goes_to_onednn(tokens: torch.Tensor, weight_OI: torch.Tensor) -> bool:
    return (
        is_eager_on_cpu(tokens, torch.float32)
        and weight_OI.dtype == torch.float32
        and min(weight_OI.shape) >= MIN_WIDTH
        and tokens.numel() * weight_OI.shape[0] >= MIN_MULTIPLY_ADDS
        and has_fast_products()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


def cpu_linear(tokens: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """(..., I) to (..., O), as `torch.nn.functional.linear`."""
    if _goes_to_onednn(tokens, weight_OI):
        return _Linear.apply(tokens, weight_OI, bias_O)
    return nn.functional.linear(tokens, weight_OI, bias_O)


class CPULinear(nn.Linear):
    """`nn.Linear` by `cpu_linear`; what `accelerate_cpu` makes of one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., I) to (..., O)."""
        return cpu_linear(input, self.weight, self.bias)

"""How maps lie in memory while dense heads go over them without gradients in bfloat16 on a CPU.

Channel by channel for every pixel is how oneDNN wants them, else it turns the map around before and after every
convolution; and so norms and additions find their values side by side. In float32 both are a small part of a head, and
results would move by 2e-6 of the largest for it (benchmarks/README.md); in bfloat16 by less than its rounding.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from m33d_hf.acceleration.eager import is_eager_on_cpu


@lru_cache(maxsize=1)
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, be it with matrix units (AMX) or without."""
    return torch.cpu._is_avx512_bf16_supported()


def prefers_channels_last(values: torch.Tensor) -> bool:
    """Whether maps of such values are to lie with channels last for what a dense head does next."""
    return is_eager_on_cpu(values, torch.bfloat16) and not torch.is_grad_enabled() and multiplies_bfloat16()

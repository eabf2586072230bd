"""How maps lie in memory while convolutions without gradients go over them in bfloat16 on a CPU.

Channel by channel for every pixel is how oneDNN wants them: else it turns the map around before and after every
convolution. In float32 that is a small part of a convolution, and the results would move by 2e-6 of the largest for it
(benchmarks/README.md); in bfloat16 they move by less than its rounding.
"""

from __future__ import annotations

import torch

from m33d_hf.acceleration.attention import prefers_blocks


def arranged(map_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) with channels last where that is faster, else as it is."""
    if (
        torch.compiler.is_compiling()  # first: nothing after it is to be traced
        or torch.jit.is_tracing()
        or torch.is_grad_enabled()
        or map_BCHW.device.type != "cpu"
        or map_BCHW.dtype != torch.bfloat16
        or not prefers_blocks()
    ):
        return map_BCHW
    return map_BCHW.contiguous(memory_format=torch.channels_last)

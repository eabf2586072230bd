"""What every kernel asks first: whether a tensor is computed with here and now, on a CPU, in its dtype."""

from __future__ import annotations

import torch


def is_eager_on_cpu(values: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether no graph is made of what follows, and the values lie on a CPU with this dtype."""
    return (
        not torch.compiler.is_compiling()  # first: nothing after it is to be traced
        and not torch.jit.is_tracing()
        and values.device.type == "cpu"
        and values.dtype == dtype
    )

"""Numbers of the host on their way to a device that computes: they are sent along, and the host goes on.

An accelerator works through what it was told while the host says what comes next. `torch.tensor(numbers, device=...)`
and an index of Python's numbers stop that: the host waits until all that was told is done, once per call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def sent(
    numbers: Sequence[float] | Sequence[int], device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """`torch.tensor(numbers, dtype=dtype, device=device)` for which nobody waits."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)


class Sending(TorchFunctionMode):
    """While it is entered, `torch.tensor` sends its numbers, whoever calls it: torchvision makes its constants so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch with every function."""
        kwargs = kwargs or {}
        if func is not torch.tensor or kwargs.get("device") is None:
            return func(*args, **kwargs)
        there = torch.device(kwargs["device"])
        return func(*args, **{**kwargs, "device": None}).to(there, non_blocking=True)

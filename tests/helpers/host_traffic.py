"""What passes between the host and a device, of fake tensors or of real ones."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HostTraffic(TorchDispatchMode):
    """Notes every operation that touches the host's memory, where all tensors should be on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def is_noted(self, func: Any, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        """Whether an operation of these arguments and outputs is among those that are looked for."""
        harmless = func in (torch.ops.aten.lift_fresh.default, torch.ops.prim.device.default)
        return not harmless and any(tensor.device.type == "cpu" and tensor.numel() for tensor in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, output)) if isinstance(t, torch.Tensor)]
        if self.is_noted(func, tensors, kwargs or {}):
            lines = [line for line in traceback.format_stack() if "m33d" in line and "/tests/" not in line]
            self.found.append(f"{func}:{lines[-1] if lines else ''}")
        return output


class Waiting(HostTraffic):
    """Notes operations for which the host waits: all between it and the device, but numbers that are sent along."""

    def is_noted(self, func: Any, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        """See the base class; what has no dimension travels with the kernel that takes it."""
        if func is torch.ops.aten._to_copy.default and kwargs.get("non_blocking"):
            return tensors[0].device.type != "cpu"  # back to the host nothing may be looked at before it is there
        return len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1


@contextmanager
def no_waiting() -> Iterator[None]:
    """The host may not wait for the GPU; what waits raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")

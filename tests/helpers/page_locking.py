"""Batches as DataLoader locks their memory for a GPU, which is refused where one value stands for many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from m33d_hf.data.finishing import FINISHING


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor that DataLoader would lock: those of a batch and those that finish it."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_of(each)


def assert_lockable(batch: dict[str, Any]) -> None:
    """No tensor of a batch, nor of what is left to do for it, has elements that share memory."""
    found = list(tensors_of(batch))
    finishing = batch["meta"].get(FINISHING)
    if finishing is not None:
        finishing._with_tensors(lambda tensor: found.append(tensor) or tensor)
    assert found
    for tensor in found:
        shared = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride == 0 and size > 1]
        assert not shared, f"a tensor of {tuple(tensor.shape)} with strides {tensor.stride()}"
        if torch.cuda.is_available():
            tensor.pin_memory()

"""Batches as DataLoader locks their memory for a GPU, which is refused where one value stands for many."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from m33d_hf.data.loader.finishing import FINISHING


def assert_lockable(batch: dict[str, Any]) -> None:
    """No tensor of a batch, nor of what is left to do for it, has elements that share memory."""
    found = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    finishing = batch["meta"].get(FINISHING)
    if finishing is not None:
        finishing._with_tensors(lambda tensor: found.append(tensor) or tensor)
    assert found
    for tensor in found:
        shared = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride == 0 and size > 1]
        assert not shared, f"a tensor of {tuple(tensor.shape)} with strides {tensor.stride()}"
        if torch.cuda.is_available():
            tensor.pin_memory()

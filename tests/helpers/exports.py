"""Saved folders of tiny models whose every weight says something, for tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from helpers.tiny import CLIP, tiny_config


def scattered(model: PreTrainedModel, width: float = 0.2, seed: int = 0) -> Any:
    """The model with no weight left at the zero or the one it starts from, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += width * torch.randn(weight.shape, generator=generator)
    return model.eval()


def saved(kind: type[PreTrainedModel], folder: Path, width: float = 0.2, **overrides: Any) -> Any:
    """A model of `kind` saved to `folder`; its weights are scattered by a normal distribution of `width`."""
    torch.manual_seed(0)
    model = scattered(kind(tiny_config(**overrides)), width)  # type: ignore[call-arg]
    model.save_pretrained(folder)
    return model


CLASSIFIER: dict[str, Any] = {**CLIP, "num_labels": 5}

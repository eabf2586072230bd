"""The average of the weights beside the layers that `accelerate_cpu` swaps: the same average, for any model to load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.tiny import tiny_config
from m33d_hf.acceleration import accelerate_cpu, linear
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.processes.ema import WeightAverage

DECAY, STEPS = 0.8, 3


def built() -> M33DForPreTraining:
    torch.manual_seed(0)
    return M33DForPreTraining(tiny_config(attn_implementation="sdpa")).train()


def trained(prepare: Callable[[M33DForPreTraining], Any], first: bool = False) -> tuple[Any, WeightAverage, list[Any]]:
    """A model after a few steps, its average, and its weights after every step; `first`: averaged, then prepared."""
    model = built()
    average = WeightAverage(model, DECAY) if first else None
    prepare(model)
    average = average or WeightAverage(model, DECAY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    passed = []
    for step in range(STEPS):
        loss = model(**batch_of(model, step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        passed.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    return model, average, passed


def batch_of(model: M33DForPreTraining, seed: int = 9) -> dict[str, Any]:
    torch.manual_seed(seed)
    config = model.config
    pixels = {s.input_name: torch.randn(3, s.channels, *config.image_height_width) for s in config.specs}
    return {**pixels, "keep": draw_keep(config, 3)}


def losses(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).loss


def swapped(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module) is linear.CPULinear]


@pytest.mark.parametrize("first", [False, True], ids=["swapped, then averaged", "averaged, then swapped"])
def test_the_average_is_the_same_with_and_without_the_swap(first: bool) -> None:
    plain, expected, passed = trained(lambda model: model)
    fast, found, _ = trained(accelerate_cpu, first)
    assert swapped(fast)
    assert not swapped(plain)
    assert found.parameters.keys() == expected.parameters.keys()
    start = dict(built().named_parameters())
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
        shadow = start[name].detach().double()
        for weights in passed:
            shadow = DECAY * shadow + (1 - DECAY) * weights[name].double()
        torch.testing.assert_close(value.double(), shadow, rtol=1e-5, atol=1e-7)


def test_a_plain_model_loads_what_an_accelerated_one_averaged_and_saved(tmp_path: Path) -> None:
    fast, average, _ = trained(accelerate_cpu)
    store, batch = CheckpointStore(tmp_path), batch_of(fast)
    with average.applied():
        averaged = losses(fast, batch)
        best = store.save_best(fast, {"step": STEPS, "metrics": {}})
    step = store.save(fast, {}, {"step": STEPS}, average.state_dict())
    last = losses(fast, batch)
    assert not torch.equal(averaged, last)  # the trained weights came back
    for folder, expected in ((best, averaged), (step, last)):
        plain = M33DForPreTraining.from_pretrained(folder, attn_implementation="sdpa")
        assert not swapped(plain)
        assert torch.equal(losses(plain, batch), expected)
    kept = load_file(step / "ema.safetensors")
    plain = built()
    again = WeightAverage(plain, DECAY)
    again.load_state_dict(kept)
    with again.applied():
        assert torch.equal(losses(plain, batch), averaged)

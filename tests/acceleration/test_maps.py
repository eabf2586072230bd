"""Maps lie channels last where convolutions predict in bfloat16 on a CPU that has instructions for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from m33d_hf.acceleration import accelerate_cpu, maps
from m33d_hf.modeling.heads_m33d import ConvNeXtSegmentationHead, DPTDepthHead

LAST = {"memory_format": torch.channels_last}


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "multiplies_bfloat16", lambda: True)


def test_only_predictions_in_bfloat16_lie_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    full, half = torch.randn(2, 3), torch.randn(2, 3).bfloat16()
    with torch.no_grad():
        assert maps.prefers_channels_last(half)
        assert not maps.prefers_channels_last(full)
        with monkeypatch.context() as other:
            other.setattr(maps, "multiplies_bfloat16", lambda: False)
            assert not maps.prefers_channels_last(half)
    assert not maps.prefers_channels_last(half), "training"


Head = ConvNeXtSegmentationHead | DPTDepthHead


def _depth_head() -> tuple[Head, nn.Module, Any]:
    head = DPTDepthHead(48, 32, [6, 12, 24, 48]).eval()
    return head, head.laterals[0], [torch.randn(1, 16, 48) for _ in range(4)]


def _segmentation_head() -> tuple[Head, nn.Module, Any]:
    head = ConvNeXtSegmentationHead(48, 10, 32, 2, 4).eval()
    return head, head.blocks[0], torch.randn(2, 16, 48)


@pytest.mark.parametrize("build", [_depth_head, _segmentation_head])
def test_a_head_predicts_the_same_of_maps_with_channels_last(
    build: Callable[[], tuple[Head, nn.Module, Any]],
) -> None:
    torch.manual_seed(0)
    head, part, tokens = build()
    seen: list[bool] = []
    part.register_forward_hook(lambda _, given, out: seen.append(given[0].is_contiguous(**LAST)))

    def predict() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return head(tokens, (4, 4), (64, 64))

    exact = head(tokens, (4, 4), (64, 64)).detach()
    before = predict()
    accelerate_cpu(head)
    after = predict()
    assert seen == [False, False, True]
    assert after.is_contiguous(), "what users get lies as it did"
    scale = float(exact.abs().max())
    assert float((after.float() - exact).abs().max()) <= 0.03 * scale, "as far from float32 as bfloat16 is"
    assert float((before.float() - exact).abs().max()) <= 0.03 * scale
    assert not any("channels_last" in name for name in head.state_dict())

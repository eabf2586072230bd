"""Maps lie channels last where convolutions predict in bfloat16 on a CPU that was measured, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from m33d_hf.acceleration import accelerate_cpu, maps
from m33d_hf.modeling.heads_m33d import DPTDepthHead

LAST = {"memory_format": torch.channels_last}


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "prefers_blocks", lambda: True)


def test_only_predictions_in_bfloat16_are_arranged(monkeypatch: pytest.MonkeyPatch) -> None:
    full, half = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).bfloat16()
    with torch.no_grad():
        found = maps.arranged(half)
        assert found.is_contiguous(**LAST) and torch.equal(found, half)
        assert maps.arranged(full) is full
        with monkeypatch.context() as other:
            other.setattr(maps, "prefers_blocks", lambda: False)
            assert maps.arranged(half) is half
    assert maps.arranged(half) is half, "training"


def test_a_head_predicts_the_same_from_arranged_maps() -> None:
    torch.manual_seed(0)
    head = DPTDepthHead(48, 32, [6, 12, 24, 48]).eval()
    tokens = [torch.randn(1, 16, 48) for _ in range(4)]
    seen: list[bool] = []
    head.laterals[0].register_forward_hook(lambda _, given, out: seen.append(given[0].is_contiguous(**LAST)))

    def predict() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return head(tokens, (4, 4), (64, 64)).float()

    exact = head(tokens, (4, 4), (64, 64)).detach()
    before = predict()
    accelerate_cpu(head)
    after = predict()
    assert seen == [False, False, True]
    scale = float(exact.abs().max())
    assert float((after - exact).abs().max()) <= 0.03 * scale, "as far from float32 as bfloat16 is"
    assert float((before - exact).abs().max()) <= 0.03 * scale
    assert "arrange" not in head.state_dict()

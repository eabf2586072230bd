"""MS-TCN against the formulas of its paper, written with loops over clips and neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import CLIP, tiny_config
from m33d_hf.modeling.temporal_convolutions_m33d import smoothing_loss
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

LABELS, STAGES, LAYERS = 5, 3, 4


def _detector(**fields: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    sizes = {"temporal_tcn_stages": STAGES, "temporal_tcn_layers": LAYERS, "temporal_hidden_size": 8, **fields}
    return M33DForVideoActionDetection(tiny_config(**CLIP, num_labels=LABELS, temporal_model="tcn", **sizes)).eval()


def _stage(weights: dict[str, torch.Tensor], name: str, rows: list[torch.Tensor], causal: bool) -> list[torch.Tensor]:
    """States of a stage: Eq. 1 and 2, one clip after the other, a neighbour outside of the video being zero."""
    states = [weights[f"{name}.input.weight"][:, :, 0] @ row + weights[f"{name}.input.bias"] for row in rows]
    for number in range(LAYERS):
        layer, dilation = f"{name}.layers.{number}", 2**number
        offsets = (-2 * dilation, -dilation, 0) if causal else (-dilation, 0, dilation)
        after = []
        for clip, state in enumerate(states):
            seen = weights[f"{layer}.dilated.bias"].clone()
            for tap, offset in enumerate(offsets):
                if 0 <= clip + offset < len(states):
                    seen = seen + weights[f"{layer}.dilated.weight"][:, :, tap] @ states[clip + offset]
            more = weights[f"{layer}.pointwise.weight"][:, :, 0] @ seen.clamp_min(0)
            after.append(state + more + weights[f"{layer}.pointwise.bias"])
        states = after
    return states


@pytest.mark.parametrize("causal", [False, True])
def test_the_network_is_that_of_the_formulas(causal: bool) -> None:
    model, features = _detector(temporal_causal=causal), torch.randn(1, 21, 32)
    weights = dict(model.named_parameters())
    rows = _stage(weights, "tcn", list(features[0]), causal)
    found = [weights["temporal_classifier.weight"] @ row + weights["temporal_classifier.bias"] for row in rows]
    for number in range(STAGES - 1):
        name = f"refinement_stages.{number}"
        rows = _stage(weights, name, [row.softmax(0) for row in found], causal)
        found = [weights[f"{name}.classifier.weight"] @ row + weights[f"{name}.classifier.bias"] for row in rows]
    torch.testing.assert_close(model(features=features).logits[0], torch.stack(found), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("causal", "reach"), [(True, range(-30, 1)), (False, range(-15, 16))])
def test_a_clip_sees_as_far_as_the_dilations_add_up_to(causal: bool, reach: range) -> None:
    """One stage of kernel 3: the dilations 1, 2, 4, 8 reach 15 clips either way, or 30 back."""
    model = _detector(temporal_causal=causal, temporal_tcn_stages=1)
    features = torch.randn(1, 81, 32, requires_grad=True)
    model(features=features).logits[0, 40].sum().backward()
    assert features.grad is not None
    seen = (features.grad[0].abs().sum(-1) > 0).nonzero().flatten() - 40
    assert seen.tolist() == list(reach)


def test_the_loss_is_that_of_the_paper_in_every_stage() -> None:
    """L = sum over stages of cross-entropy + 0.15 * truncated MSE with tau = 4, of one video without padding."""
    model, features, labels = _detector(), torch.randn(1, 12, 32), torch.randint(0, LABELS, (1, 12))
    with torch.no_grad():  # rough predictions, so that some differences are beyond tau
        for parameter in (p for n, p in model.named_parameters() if "classifier" in n):
            parameter.mul_(20)
    stages, _ = model.temporal_stages(features, None, None)
    expected, cut = 0.0, 0
    for logits in stages:
        logs = torch.log_softmax(logits[0].detach().double(), dim=-1)
        total = 0.0
        for clip in range(1, 12):
            for label in range(LABELS):
                difference = abs(float(logs[clip, label] - logs[clip - 1, label]))
                cut += difference > 4.0
                total += min(difference, 4.0) ** 2
        expected += float(F.nll_loss(logs, labels[0])) + 0.15 * total / (11 * LABELS)
    assert 0 < cut < 3 * 11 * LABELS
    assert float(model(features=features, labels=labels).loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_smoothing_moves_the_later_clip_alone_and_not_beyond_the_limit() -> None:
    logits = torch.tensor([[[0.0, 1.0], [0.5, 0.2], [30.0, -30.0], [9.0, 9.0]]], requires_grad=True)
    total, count = smoothing_loss(logits, torch.tensor([3]), limit=4.0)
    total.backward()
    assert count == 2 and logits.grad is not None
    assert bool((logits.grad[0, 1] != 0).any()), "the second clip has an earlier one"
    assert not logits.grad[0, 0].any() and not logits.grad[0, 3].any(), "the first has none; the last is padding"
    # The jump to the third is beyond the limit in both classes but for one: log-probability 0 against -0.55.
    logs = logits.detach().log_softmax(-1)[0]
    expected = ((logs[1] - logs[0]).clamp(-4, 4) ** 2).mean() + ((logs[2] - logs[1]).clamp(-4, 4) ** 2).mean()
    torch.testing.assert_close(total.detach(), expected)


def test_without_smoothing_and_refinement_the_loss_is_the_cross_entropy() -> None:
    model = _detector(temporal_tcn_stages=1, temporal_tcn_smoothing=0)
    features, labels = torch.randn(1, 6, 32), torch.randint(0, LABELS, (1, 6))
    output = model(features=features, labels=labels)
    assert model.loss_weights == {"cross_entropy": 1.0}
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[0], labels[0]))


def test_class_weights_count_in_every_stage() -> None:
    model, labels = _detector(temporal_dropout=0.0).freeze_encoder().train(), torch.tensor([[0, 0, 1, 255]])
    features = torch.randn(1, 4, 32)
    model.weigh_classes(torch.tensor([2.0, 0.0, 1.0, 1.0, 1.0]))
    stages, _ = model.temporal_stages(features, None, None)
    expected = [2 * F.cross_entropy(logits[0, :2], labels[0, :2], reduction="sum") for logits in stages]
    sums = model(features=features, labels=labels).loss_sums
    torch.testing.assert_close(sums["cross_entropy"], expected[-1])
    torch.testing.assert_close(sums["earlier_stages"], torch.stack(expected[:-1]).sum())

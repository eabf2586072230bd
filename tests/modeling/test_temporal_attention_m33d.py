"""The windowed transformer against its formula, written with loops over clips, heads and distances."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import CLIP, tiny_config
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

LABELS, HEADS, LAYERS = 5, 2, 2


def _detector(**fields: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    sizes = {"temporal_hidden_size": 8, "temporal_num_layers": LAYERS, "temporal_num_attention_heads": HEADS, **fields}
    config = tiny_config(**CLIP, num_labels=LABELS, temporal_model="transformer", **sizes)
    model = M33DForVideoActionDetection(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("temporal_") and parameter.ndim < 3:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def _by_loops(model: M33DForVideoActionDetection, features: torch.Tensor, window: int, causal: bool) -> torch.Tensor:
    """(S, L) of one video (S, D): every clip attends to all distances of its window, beyond the video to a stand-in."""
    weights = {n.removeprefix("temporal_transformer."): p for n, p in model.named_parameters()}
    steps = len(features)
    states = F.linear(features, weights["input.weight"], weights["input.bias"])
    for number in range(LAYERS):
        name = f"layers.{number}"
        norm = weights[f"{name}.layernorm_before.weight"], weights[f"{name}.layernorm_before.bias"]
        normed = F.layer_norm(states, (8,), *norm, 1e-6)
        qkv = F.linear(normed, weights[f"{name}.attention.qkv.weight"], weights[f"{name}.attention.qkv.bias"])
        table, outside = weights[f"{name}.attention.relative_positions"], weights[f"{name}.attention.outside_token"]
        attended = torch.zeros(steps, 8)
        for query in range(steps):
            for head in range(HEADS):
                own = slice(head * 4, head * 4 + 4)
                scores, values = [], []
                for distance in range(-window + 1, 1 if causal else window):
                    there = 0 <= query + distance < steps
                    key, value = (qkv[query + distance, 8:16], qkv[query + distance, 16:]) if there else outside
                    scores.append(qkv[query, own] @ key[own] / 2 + table[head, distance + window - 1])
                    values.append(value[own])
                attended[query, own] = torch.stack(scores).softmax(0) @ torch.stack(values)
        states = states + F.linear(
            attended, weights[f"{name}.attention.proj.weight"], weights[f"{name}.attention.proj.bias"]
        )
        norm = weights[f"{name}.layernorm_after.weight"], weights[f"{name}.layernorm_after.bias"]
        normed = F.layer_norm(states, (8,), *norm, 1e-6)
        inner = F.gelu(F.linear(normed, weights[f"{name}.mlp.fc1.weight"], weights[f"{name}.mlp.fc1.bias"]))
        states = states + F.linear(inner, weights[f"{name}.mlp.fc2.weight"], weights[f"{name}.mlp.fc2.bias"])
    states = F.layer_norm(states, (8,), weights["layernorm.weight"], weights["layernorm.bias"], 1e-6)
    return F.linear(states, weights["temporal_classifier.weight"], weights["temporal_classifier.bias"])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "steps"), [(4, 17), (4, 8), (4, 3), (1, 5), (50, 12)])
def test_blocks_of_windows_are_every_window_by_itself(window: int, steps: int, causal: bool) -> None:
    model, features = _detector(temporal_attention_window=window, temporal_causal=causal), torch.randn(1, steps, 32)
    expected = _by_loops(model, features[0], window, causal)
    torch.testing.assert_close(model(features=features).logits[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_a_clip_sees_as_far_as_the_windows_of_all_layers(causal: bool) -> None:
    model = _detector(temporal_attention_window=4, temporal_causal=causal)
    features = torch.randn(1, 31, 32, requires_grad=True)
    model(features=features).logits[0, 15].sum().backward()
    assert features.grad is not None
    seen = (features.grad[0].abs().sum(-1) > 0).nonzero().flatten() - 15
    assert seen.tolist() == list(range(-6, 1 if causal else 7)), "two layers of three clips each way"


@pytest.mark.parametrize("causal", [True, False])
def test_a_clip_can_tell_how_near_the_ends_of_its_video_are(causal: bool) -> None:
    """Of clips that all look the same: two layers of three clips reach six from either end."""
    model = _detector(temporal_attention_window=4, temporal_causal=causal)
    logits = model(features=torch.randn(1, 1, 32).expand(1, 20, 32)).logits[0]
    middle = (logits - logits[9]).abs().amax(-1) < 1e-5
    assert middle.nonzero().flatten().tolist() == list(range(6, 20 if causal else 14))


def test_a_video_longer_than_any_before_needs_no_new_positions() -> None:
    model = _detector(temporal_attention_window=4, temporal_causal=True)
    pattern = torch.randn(1, 1, 32).expand(1, 400, 32)
    logits = model(features=pattern).logits[0]
    torch.testing.assert_close(logits[20:], logits[19:20].expand(380, -1), atol=1e-5, rtol=0)


def test_what_is_kept_for_the_backward_pass_grows_with_the_clips_alone() -> None:
    model, kept = _detector(temporal_attention_window=8), {}
    for steps in (256, 1024):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t.numel()), t)[1], lambda t: t):
            model(features=torch.randn(1, steps, 32))
        kept[steps] = sum(saved)
    assert kept[1024] / kept[256] < 4.2

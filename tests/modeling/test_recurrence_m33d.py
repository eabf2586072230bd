"""The GRU by masks, which is traced, against the packed one of torch and against each sequence alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.tiny import CLIP, tiny_config
from m33d_hf.modeling.recurrence_m33d import recur, recur_by_masks
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

LENGTHS = torch.tensor([5, 1, 7, 3])


def _case(bidirectional: bool, layers: int, bias: bool = True) -> tuple[nn.GRU, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    gru = nn.GRU(6, 4, layers, batch_first=True, bidirectional=bidirectional, bias=bias)
    mask = torch.arange(7) < LENGTHS[:, None]
    mask[2, 3] = False  # a clip inside that could not be read
    return gru, torch.randn(4, 7, 6), mask


@pytest.mark.parametrize(("bidirectional", "layers", "bias"), [(True, 2, True), (False, 3, True), (True, 1, False)])
def test_masks_give_what_packing_gives(bidirectional: bool, layers: int, bias: bool) -> None:
    gru, features, mask = _case(bidirectional, layers, bias)
    features.requires_grad_()
    found, expected = [], []
    for results, packed in ((found, False), (expected, True)):
        gru.zero_grad()
        features.grad = None
        filled = features.masked_fill(~mask[..., None], 0.0)
        states, last = recur(gru, features, mask, None) if packed else recur_by_masks(gru, filled, LENGTHS, None)
        (states.square().sum() + last.sin().sum()).backward()
        results += [states, last, features.grad, *(parameter.grad for parameter in gru.parameters())]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not found[0][1, 1:].any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_each_sequence_runs_as_it_does_alone(bidirectional: bool) -> None:
    gru, features, mask = _case(bidirectional, 2)
    features = features.masked_fill(~mask[..., None], 0.0)
    states, last = recur_by_masks(gru, features, LENGTHS, None)
    for row, length in enumerate(LENGTHS):
        alone, final = gru(features[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], alone[0])
        torch.testing.assert_close(last[:, row], final[:, 0])


def test_a_causal_net_goes_on_from_a_state() -> None:
    gru, features, _ = _case(False, 2)
    whole, final = gru(features)
    _, state = recur_by_masks(gru, features[:, :3], torch.full((4,), 3), None)
    states, last = recur_by_masks(gru, features[:, 3:], torch.full((4,), 4), state)
    torch.testing.assert_close(states, whole[:, 3:])
    torch.testing.assert_close(last, final)


def test_dropout_between_layers_falls_on_training_alone() -> None:
    gru, features, _ = _case(True, 2)
    gru.dropout = 0.5
    plain = recur_by_masks(gru.eval(), features, LENGTHS, None)[0]
    assert torch.equal(plain, recur_by_masks(gru.eval(), features, LENGTHS, None)[0])
    assert not torch.equal(plain, recur_by_masks(gru.train(), features, LENGTHS, None)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_detection_exports_with_a_mask(causal: bool) -> None:
    torch.manual_seed(0)
    config = tiny_config(**CLIP, num_labels=3, temporal_causal=causal, temporal_num_layers=2, temporal_hidden_size=8)
    model = M33DForVideoActionDetection(config).eval()
    mask = torch.arange(7) < LENGTHS[:, None]
    given = {"features": torch.randn(4, 7, 32), "attention_mask": mask}
    program = torch.export.export(model, (), given).module()
    for lengths in (LENGTHS, torch.tensor([7, 7, 2, 1])):
        given["attention_mask"] = torch.arange(7) < lengths[:, None]
        with torch.no_grad():
            torch.testing.assert_close(program(**given)["logits"], model(**given).logits)

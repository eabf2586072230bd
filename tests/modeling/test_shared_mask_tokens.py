"""Mask tokens that are normed and projected once per position: the same numbers, and where they are not shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.tiny import tiny_config
from m33d_hf.evaluation.flops import count_pretraining
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.decoder_m33d import M33DDecoder
from m33d_hf.modeling.masking_m33d import draw_keep, visible_count
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

BATCH = 5


def _config(**changes: Any) -> M33DConfig:
    modalities = [rgb_modality(mask_ratio=0.5, weight=1.0), depth_modality(mask_ratio=0.75, weight=0.5)]
    return tiny_config(**{"modalities": modalities, "decoder_num_hidden_layers": 3, **changes})


def _model_and_batch(config: M33DConfig, samples: int = BATCH) -> tuple[M33DForPreTraining, dict[str, Any]]:
    torch.manual_seed(0)
    model = M33DForPreTraining(config).train()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    shape = (samples,) if config.num_frames == 1 else (samples, config.num_frames)
    batch: dict[str, Any] = {
        spec.input_name: torch.randn(*shape, spec.channels, *config.image_height_width) for spec in config.specs
    }
    return model, {**batch, "keep": draw_keep(config, samples)}


def _loss_and_gradients(model: M33DForPreTraining, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    loss = model(**batch).loss
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a forward pass shares mask tokens."""
    calls: list[int] = []
    distinct = M33DDecoder._distinct

    def counted(self: M33DDecoder, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return distinct(self, *args)

    monkeypatch.setattr(M33DDecoder, "_distinct", counted)
    return calls


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_cls_token": False, "decoder_num_hidden_layers": 2},
        {"decoder_fusion": "separate", "encoder_sharing": "shared"},
        {"num_frames": 4, "tubelet_size": 2},
    ],
)
def test_shared_mask_tokens_give_the_same_loss_and_gradients(
    changes: dict[str, Any], shared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = _model_and_batch(_config(**changes))
    loss, gradients = _loss_and_gradients(model, batch)
    assert shared
    monkeypatch.setattr(M33DDecoder, "_shares_mask_tokens", lambda *_: False)
    plain, expected = _loss_and_gradients(model, batch)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0.0)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}")


def test_sharing_is_for_float32_training_of_more_samples_than_one(shared: list[int]) -> None:
    model, batch = _model_and_batch(_config())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch)
    model.eval()(**batch)
    model.train().set_attn_implementation("eager")
    model(**batch)
    alone, batch_of_one = _model_and_batch(_config(), samples=1)
    alone(**batch_of_one)
    assert not shared


@pytest.mark.parametrize("changes", [{}, {"decoder_fusion": "separate", "encoder_sharing": "shared"}])
def test_the_products_of_queries_keys_and_values_are_what_is_saved(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = _model_and_batch(_config(**changes))
    plain = count_pretraining(model.config, BATCH).training
    model.set_attn_implementation("eager")
    monkeypatch.setattr(M33DDecoder, "_shares_mask_tokens", lambda *_: True)
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    config, found = model.config, counter.get_total_flops() / BATCH
    masked = sum(config.num_tokens - visible_count(spec, config.grid) for spec in config.target_specs)
    saved = 3 * 2.0 * (masked - 2 * config.num_tokens / BATCH) * config.decoder_hidden_size**2 * 3
    assert found == pytest.approx(plain - saved, rel=1e-6)
    assert found < 0.99 * plain

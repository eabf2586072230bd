"""Clip classification and Bi-GRU detection: losses, pooling, loading, causality, what bad input gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import CLIP, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

LABELS = 5


def _config(**overrides: Any) -> M33DConfig:
    return tiny_config(**{**CLIP, "num_labels": LABELS, "temporal_hidden_size": 8, **overrides})


def _classifier(**overrides: Any) -> M33DForVideoClassification:
    torch.manual_seed(0)
    return M33DForVideoClassification(_config(**overrides))


def _detector(**overrides: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    return M33DForVideoActionDetection(_config(**overrides)).eval()


def _clips(*lead: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*lead, 4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def _features(videos: int, clips: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(videos, clips, 32, generator=torch.Generator().manual_seed(seed))


def test_features_are_the_normed_mean_of_all_tokens() -> None:
    model = _classifier().eval()
    pixels = _clips(2)
    tokens = model.extract_features(pixels)["rgb"]
    assert tokens.shape == (2, 2 * 4 * 4, 32)
    pooled = F.layer_norm(tokens.mean(1), (32,), model.fc_norm.weight, model.fc_norm.bias, 1e-6)
    output = model(pixels)
    torch.testing.assert_close(output.features, pooled)
    torch.testing.assert_close(output.logits, pooled @ model.classifier.weight.T + model.classifier.bias)


def test_class_ids_and_their_one_hot_targets_give_one_loss() -> None:
    model, labels = _classifier(), torch.tensor([3, 1, 255])
    pixels = _clips(3)
    hard = model(pixels, labels=labels)
    assert hard.loss_counts["cross_entropy"] == 2 == model.loss_counts(labels=labels)["cross_entropy"]
    soft = model(pixels[:2], labels=F.one_hot(labels[:2], LABELS).float())
    torch.testing.assert_close(hard.loss, soft.loss)
    mixed = torch.full((2, LABELS), 0.2)
    expected = -(mixed * model(pixels[:2]).logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(model(pixels[:2], labels=mixed).loss, expected)
    assert model.loss_counts(labels=mixed)["cross_entropy"] == 2


def test_a_batch_without_labels_has_loss_zero_and_finite_gradients() -> None:
    model = _classifier()
    loss = model(_clips(2), labels=torch.tensor([255, 255])).loss
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_fresh_heads_start_near_even_probabilities() -> None:
    model = _classifier(classifier_init_scale=1e-3)
    assert 0 < model.classifier.weight.abs().max() <= 2 * 0.02 * 1e-3
    assert _classifier(classifier_init_scale=1.0).classifier.weight.std() > 5e-3


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 32, 32), (2, 3, 16, 48), (10, 3, 40, 24)])
def test_one_image_and_any_size_that_fits_work(shape: tuple[int, ...]) -> None:
    model = _classifier().eval()
    assert model(torch.randn(2, *shape)).logits.shape == (2, LABELS)


def test_an_image_is_a_clip_that_stands_still() -> None:
    model = _classifier().eval()
    image = torch.randn(1, 3, 32, 32)
    still = image[:, None].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(model(image).logits, model(still).logits)
    torch.testing.assert_close(model(image[:, None]).logits, model(still).logits)


def test_encoder_of_a_pre_training_is_taken_and_the_rest_left(tmp_path: Path) -> None:
    pretrained = M33DForPreTraining(_config(contrastive_weight=0.1, matching_weight=0.1))
    pretrained.save_pretrained(tmp_path)
    model, found = M33DForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert found["missing_keys"] == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    assert not found["unexpected_keys"] and not found["mismatched_keys"]
    for name, value in model.m33d.state_dict().items():
        assert torch.equal(value, pretrained.m33d.state_dict()[name]), name


def test_stage_one_loads_into_stage_two_and_back(tmp_path: Path) -> None:
    model = _classifier()
    model.save_pretrained(tmp_path / "one")
    detector, found = M33DForVideoActionDetection.from_pretrained(tmp_path / "one", output_loading_info=True)
    assert {key.split(".")[0] for key in found["missing_keys"]} == {"gru", "temporal_classifier"}
    bound = detector.config.temporal_hidden_size**-0.5
    for name, weight in detector.gru.named_parameters():
        assert torch.isfinite(weight).all() and 0 < weight.abs().max() <= bound, name
    detector.save_pretrained(tmp_path / "two")
    again, found = M33DForVideoClassification.from_pretrained(tmp_path / "two", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    pixels = _clips(2)
    torch.testing.assert_close(again.eval()(pixels).logits, model.eval()(pixels).logits)


def test_pixels_and_their_features_give_the_same_answer() -> None:
    model, pixels = _detector(), _clips(2, 3)
    whole = model(pixel_values=pixels)
    features = torch.stack([model.encode_clips(pixels[:, s]) for s in range(3)], dim=1)
    torch.testing.assert_close(model(features=features).logits, whole.logits)
    torch.testing.assert_close(whole.clip_logits, model.classifier(features))
    assert whole.logits.shape == (2, 3, LABELS) == whole.clip_logits.shape


def test_bi_gru_agrees_with_its_formula() -> None:
    model, features = _detector(), _features(1, 6)
    weights = dict(model.gru.named_parameters())

    def run(rows: list[torch.Tensor], suffix: str) -> list[torch.Tensor]:
        state, states = torch.zeros(8), []
        for row in rows:
            from_input = weights[f"weight_ih_l0{suffix}"] @ row + weights[f"bias_ih_l0{suffix}"]
            from_state = weights[f"weight_hh_l0{suffix}"] @ state + weights[f"bias_hh_l0{suffix}"]
            (ri, zi, ni), (rs, zs, ns) = from_input.chunk(3), from_state.chunk(3)
            reset, update = torch.sigmoid(ri + rs), torch.sigmoid(zi + zs)
            state = (1 - update) * torch.tanh(ni + reset * ns) + update * state
            states.append(state)
        return states

    rows = list(features[0])
    forward, backward = run(rows, ""), run(rows[::-1], "_reverse")[::-1]
    states = torch.stack([torch.cat(pair) for pair in zip(forward, backward, strict=True)])
    torch.testing.assert_close(model(features=features).logits[0], model.temporal_classifier(states))


def test_the_order_of_clips_matters() -> None:
    model, features = _detector(), _features(1, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled, straight = model(features=features[:, order]), model(features=features)
    assert not torch.allclose(shuffled.logits, straight.logits[:, order], atol=1e-4)
    # The clip classifier, by contrast, cannot tell.
    torch.testing.assert_close(shuffled.clip_logits, straight.clip_logits[:, order])


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_model_is_blind_to_the_future(causal: bool) -> None:
    model, features = _detector(temporal_causal=causal, temporal_num_layers=2), _features(1, 10)
    other = features.clone()
    other[:, 6:] = _features(1, 4, seed=9)
    before, after = (model(features=values).logits[:, :6] for values in (features, other))
    assert torch.equal(before, after) == causal


def test_a_causal_model_goes_on_from_its_state() -> None:
    model, features = _detector(temporal_causal=True, temporal_num_layers=2), _features(2, 7)
    whole, last = model.temporal(features)
    state, parts = None, []
    for part in features.split([1, 2, 4], dim=1):
        logits, state = model.temporal(part, state=state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal: bool) -> None:
    model, features = _detector(temporal_causal=causal), _features(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    padded = model(features=features, attention_mask=mask)
    torch.testing.assert_close(padded.logits[0], model(features=features[:1]).logits[0])
    torch.testing.assert_close(padded.logits[1, :5], model(features=features[1:, :5]).logits[0])
    noisy = features.clone()
    noisy[1, 5:] = 1e6
    assert torch.equal(model(features=noisy, attention_mask=mask).logits, padded.logits)


def test_only_the_recurrent_net_learns_once_frozen() -> None:
    model = _detector(drop_path_rate=0.5).freeze_encoder().train()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "gru",
        "temporal_classifier",
    }
    assert model.training and model.gru.training and not model.m33d.training
    labels = torch.tensor([[0, 1, 255]])
    output = model(features=_features(1, 3), labels=labels)
    output.loss.backward()
    assert output.loss_counts["cross_entropy"] == 2 == model.loss_counts(labels=labels)["cross_entropy"]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_hidden_states_come_when_asked_for() -> None:
    output = _classifier().eval()(_clips(1), output_hidden_states=True)
    assert output.hidden_states is not None and output.hidden_states[0].shape == (1, 32, 32)


def test_bad_input_is_named() -> None:
    model, detector = _classifier(), _detector()
    with pytest.raises(ConfigError, match="no argument 'pixel_value'"):
        model(pixel_value=_clips(1))
    with pytest.raises(ConfigError, match="multiple of tubelet_size"):
        model(torch.randn(1, 3, 3, 32, 32))
    with pytest.raises(DataError, match="one class id per clip"):
        model(_clips(2), labels=torch.tensor([1]))
    with pytest.raises(DataError, match="one class id per clip"):
        model(_clips(2), labels=torch.zeros(2, LABELS, dtype=torch.int64))
    with pytest.raises(ConfigError, match="either pixel_values"):
        detector()
    with pytest.raises(DataError, match=r"expected \(B, S, 32\)"):
        detector(features=torch.zeros(1, 3, 31))
    with pytest.raises(DataError, match=r"expected \(B, S, T, 3, H, W\)"):
        detector(pixel_values=_clips(1))
    with pytest.raises(DataError, match="attention_mask has shape"):
        detector(features=_features(1, 3), attention_mask=torch.ones(1, 4))
    with pytest.raises(ConfigError, match="temporal_causal True"):
        detector.temporal(_features(1, 3), state=torch.zeros(2, 1, 8))
    with pytest.raises(DataError, match=r"expected \(B, S\) = \(1, 3\)"):
        detector(features=_features(1, 3), labels=torch.zeros(1, 2, dtype=torch.int64))

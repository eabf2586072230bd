"""One interface of all temporal models: padding, causality, steps with bounded state, gradients, saving, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import CLIP, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.sequences_m33d import State
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

LABELS = 5
MODELS: dict[str, dict[str, Any]] = {
    "gru": {"temporal_num_layers": 2},
    "tcn": {"temporal_model": "tcn", "temporal_tcn_layers": 3, "temporal_tcn_stages": 3},
    "one-stage-tcn": {"temporal_model": "tcn", "temporal_tcn_layers": 4, "temporal_tcn_stages": 1},
    "transformer": {"temporal_model": "transformer", "temporal_num_layers": 2, "temporal_attention_window": 4},
}
EVERY = pytest.mark.parametrize("name", MODELS)
BOTH = pytest.mark.parametrize("causal", [True, False])
LENGTHS = torch.tensor([19, 7, 1])


def _detector(name: str, **fields: Any) -> M33DForVideoActionDetection:
    torch.manual_seed(0)
    config = tiny_config(**{**CLIP, "num_labels": LABELS, "temporal_hidden_size": 8, **MODELS[name], **fields})
    model = M33DForVideoActionDetection(config).eval()
    with torch.no_grad():  # relative positions of a trained size, so that a mistake is seen
        for weight, parameter in model.named_parameters():
            if weight.endswith(("relative_positions", "outside_token")):
                parameter.normal_()
    return model


def _features(videos: int, clips: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(videos, clips, 32, generator=torch.Generator().manual_seed(seed))


def _sizes(state: State) -> list[torch.Size]:
    return [part.shape for part in ([state] if isinstance(state, torch.Tensor) else state)]


@EVERY
@BOTH
def test_a_batch_of_unequal_videos_is_each_alone(name: str, causal: bool) -> None:
    model, features = _detector(name, temporal_causal=causal), _features(3, 19)
    mask = torch.arange(19) < LENGTHS[:, None]
    padded = model(features=features, attention_mask=mask).logits
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(features=features[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(padded[row, :length], alone, atol=1e-5, rtol=0)
    noisy = torch.where(mask[..., None], features, 1e6)
    assert torch.equal(model(features=noisy, attention_mask=mask).logits, padded), "padding is looked at"


@EVERY
def test_an_unreadable_clip_is_a_step_over_zeros(name: str) -> None:
    model, features = _detector(name), _features(1, 9)
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, 4] = False
    zeros = features.clone()
    zeros[0, 4] = 0
    found = model(features=features, attention_mask=mask).logits
    torch.testing.assert_close(found, model(features=zeros).logits)


@EVERY
@BOTH
def test_only_a_causal_model_is_blind_to_the_future(name: str, causal: bool) -> None:
    model, features = _detector(name, temporal_causal=causal), _features(1, 14)
    other = features.clone()
    other[:, 9:] = _features(1, 5, seed=9)
    before, after = (model(features=values).logits[:, :9] for values in (features, other))
    assert torch.equal(before, after) == causal
    assert not torch.equal(model(features=features).logits[:, 9:], model(features=other).logits[:, 9:])


@EVERY
def test_steps_with_a_state_of_one_size_give_what_the_whole_video_gives(name: str) -> None:
    model, features = _detector(name, temporal_causal=True), _features(2, 40)
    whole = model(features=features).logits
    state, found, sizes = None, [], []
    for clip in features.unbind(dim=1):
        logits, state = model.step(clip, state)
        found.append(logits)
        sizes.append(_sizes(state))
    torch.testing.assert_close(torch.stack(found, dim=1), whole, atol=1e-6, rtol=0)
    assert all(each == sizes[0] for each in sizes), "the state grows"


@EVERY
def test_stretches_of_any_length_go_on_from_the_state_of_each_video(name: str) -> None:
    """Videos that pause at different clips go on as if they had not been in one batch."""
    model, features = _detector(name, temporal_causal=True), _features(3, 19)
    later = _features(3, 5, seed=3)
    _, state = model.temporal(features, torch.arange(19) < LENGTHS[:, None])
    found, _ = model.temporal(later, state=state)
    for row, length in enumerate(LENGTHS.tolist()):
        joined = torch.cat([features[row : row + 1, :length], later[row : row + 1]], dim=1)
        torch.testing.assert_close(found[row], model(features=joined).logits[0, length:], atol=1e-5, rtol=0)


@EVERY
def test_the_gradient_reaches_all_of_the_temporal_model_and_nothing_else(name: str) -> None:
    model = _detector(name, temporal_dropout=0.0).freeze_encoder().train()
    mask = torch.arange(19) < LENGTHS[:, None]
    labels = torch.randint(0, LABELS, (3, 19)).masked_fill(~mask, 255)
    model(features=_features(3, 19), attention_mask=mask, labels=labels).loss.backward()
    frozen = ("m33d.", "fc_norm.", "classifier.")
    for weight, parameter in model.named_parameters():
        if weight.startswith(frozen):
            assert parameter.grad is None, weight
        else:
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), weight


@EVERY
def test_terms_are_those_that_are_weighed_and_add_up_to_the_loss(name: str) -> None:
    model, mask = _detector(name), torch.arange(19) < LENGTHS[:, None]
    labels = torch.randint(0, LABELS, (3, 19)).masked_fill(~mask, 255)
    output = model(features=_features(3, 19), attention_mask=mask, labels=labels)
    weights = model.loss_weights
    assert weights.keys() == output.loss_sums.keys() == output.loss_counts.keys()
    counts = model.loss_counts(labels=labels, attention_mask=mask)
    assert counts == output.loss_counts, "known without a forward pass"
    total = sum(weights[term] * output.loss_sums[term] / counts[term] for term in weights)
    torch.testing.assert_close(output.loss, total)
    more = {"tcn": {"earlier_stages", "smoothing"}, "one-stage-tcn": {"smoothing"}}
    assert weights.keys() == {"cross_entropy", *more.get(name, ())}


@EVERY
def test_a_folder_loads_as_it_was_saved_and_as_its_first_stage(name: str, tmp_path: Path) -> None:
    model, features = _detector(name), _features(2, 6)
    model.save_pretrained(tmp_path)
    again, found = M33DForVideoActionDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    assert torch.equal(again.eval()(features=features).logits, model(features=features).logits)
    _, found = M33DForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]


@EVERY
def test_a_graph_with_a_mask_gives_the_same(name: str) -> None:
    model = _detector(name)
    given = {"features": _features(3, 19), "attention_mask": torch.arange(19) < LENGTHS[:, None]}
    program = torch.export.export(model, (), given).module()
    given["attention_mask"] = torch.arange(19) < torch.tensor([3, 19, 8])[:, None]
    with torch.no_grad():
        torch.testing.assert_close(program(**given)["logits"], model(**given).logits)


@EVERY
def test_bad_input_is_named(name: str) -> None:
    model, causal = _detector(name), _detector(name, temporal_causal=True)
    with pytest.raises(ConfigError, match="temporal_causal True"):
        model.step(_features(1, 1)[:, 0])
    with pytest.raises(DataError, match=r"expected \(B, D\)"):
        causal.step(_features(1, 3))
    _, state = causal.step(_features(1, 1)[:, 0])
    with pytest.raises(ConfigError, match="temporal_causal True"):
        model.temporal(_features(1, 3), state=state)
    if name != "gru":
        with pytest.raises(DataError, match="not of this model"):
            causal.temporal(_features(1, 3), state=torch.zeros(2, 1, 8))

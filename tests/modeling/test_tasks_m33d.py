"""The RGB-only task models: losses, counts, loading from pre-training checkpoints, what bad input gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation

TINY: dict[str, Any] = {
    "image_size": [16, 24],
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "segmentation_head_width": 8,
    "segmentation_head_depth": 1,
    "segmentation_head_upscale": 2,
    "depth_head_width": 16,
    "num_labels": 5,
}


def _depth_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(3, 16, 24, generator=generator) * 4 + 0.5
    labels[0, :5], labels[1] = float("nan"), 0.0
    return {"pixel_values": torch.randn(3, 3, 16, 24, generator=generator), "labels": labels}


def _segmentation_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (3, 16, 24), generator=generator)
    labels[0, :5], labels[1] = 255, 255
    return {"pixel_values": torch.randn(3, 3, 16, 24, generator=generator), "labels": labels}


def _model(kind: str, **overrides: Any) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = M33DConfig(**{**TINY, **overrides})
    if kind == "segmentation":
        return M33DForSemanticSegmentation(config), _segmentation_batch()
    return M33DForDepthEstimation(config), _depth_batch()


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_outputs_have_full_size_and_the_loss_is_its_sum_over_its_count(kind: str) -> None:
    model, batch = _model(kind)
    output = model(**batch)
    if kind == "segmentation":
        assert output.logits.shape == (3, 5, 16, 24)
    else:
        assert output.predicted_depth.shape == (3, 16, 24)
    (term,) = model.loss_weights
    assert output.loss == output.loss_sums[term] / output.loss_counts[term]
    assert output.loss is output[0]
    counts = model.loss_counts(**batch)
    assert counts.keys() == output.loss_counts.keys()
    assert counts[term] == output.loss_counts[term] == 16 * 24 * 2 - 5 * 24


def test_predictions_are_metres_and_clamped_only_in_eval_mode() -> None:
    model, batch = _model("depth", min_depth=2.5, max_depth=3.0)
    train = model(**batch)
    metres = train.standardized_depth * model.config.depth_std + model.config.depth_mean
    torch.testing.assert_close(train.predicted_depth, metres)
    model.eval()
    predicted = model(pixel_values=batch["pixel_values"]).predicted_depth
    torch.testing.assert_close(predicted, metres.clamp(2.5, 3.0))
    assert (metres < 2.5).any()


@pytest.mark.parametrize("loss", ["berhu", "l1", "silog"])
def test_depth_loss_on_standardised_values_in_float64(loss: str) -> None:
    model, batch = _model("depth", depth_loss=loss)
    output = model(**batch)
    p, t = output.standardized_depth.double(), batch["labels"].double()
    valid = torch.isfinite(t) & (t > 0)
    if loss == "silog":
        expected, images = 0.0, 0
        for pi, ti, vi in zip(p * model.config.depth_std + model.config.depth_mean, t, valid):
            if vi.any():
                g = pi[vi].clamp(1e-3, 10).log() - ti[vi].clamp(1e-3, 10).log()
                expected, images = expected + g.square().mean() - 0.5 * g.mean() ** 2, images + 1
        expected = expected / images
        assert model.loss_counts(**batch) == {"silog": 2}
    else:
        d = (p - (t - model.config.depth_mean) / model.config.depth_std)[valid].abs()
        cut = 0.2 * d.max()
        expected = (d if loss == "l1" else torch.where(d < cut, d, (d**2 + cut**2) / (2 * cut))).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_berhu_over_parts_equals_the_whole_batch() -> None:
    model, batch = _model("depth")
    model.eval()
    whole = model(**batch)
    thresholds, parts = [], [{k: v[i : i + 1] for k, v in batch.items()} for i in range(3)]
    for part in parts:
        thresholds.append(model.berhu_threshold(model(part["pixel_values"]).standardized_depth, part["labels"]))
    outputs = [model(**part, berhu_threshold=max(thresholds)) for part in parts]
    total = sum(o.loss_sums["berhu"] for o in outputs) / sum(o.loss_counts["berhu"] for o in outputs)
    torch.testing.assert_close(total, whole.loss)


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
@pytest.mark.parametrize(
    "overrides", [{}, {"head_norm": True}, {"encoder_sharing": "shared"}, {"num_hidden_layers": 2}]
)
def test_every_parameter_gets_a_finite_gradient_also_without_labels(kind: str, overrides: dict[str, Any]) -> None:
    model, batch = _model(kind, **overrides)
    model(**batch).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.zero_grad()
    batch["labels"] = torch.full_like(batch["labels"], 255 if kind == "segmentation" else float("nan"))
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == 0.0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_a_pretraining_checkpoint_gives_its_rgb_encoder_and_nothing_else(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    source = M33DForPreTraining(M33DConfig(**TINY, contrastive_weight=0.1, matching_weight=0.1))
    source.save_pretrained(tmp_path)
    cls = M33DForSemanticSegmentation if kind == "segmentation" else M33DForDepthEstimation
    model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    head = "segmentation_head." if kind == "segmentation" else "depth_head."
    new = {name for name, _ in model.named_parameters() if name.startswith(head)}
    assert set(info["missing_keys"]) == new
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    state = source.state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith(head):
            assert torch.equal(value, state[name]), name


def test_the_new_head_is_initialised_as_the_original(tmp_path: Path) -> None:
    M33DForPreTraining(M33DConfig(**TINY)).save_pretrained(tmp_path)
    wide = {"segmentation_head_width": 64, "segmentation_head_depth": 2}
    model = M33DForSemanticSegmentation.from_pretrained(tmp_path, **wide)
    head = model.segmentation_head
    assert head.blocks[0].fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert head.projection.bias.abs().max() == 0
    bound = 1 / 7  # torch's default for a depthwise 7x7: fan-in 49
    assert head.blocks[0].depthwise.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
    assert head.blocks[1].norm.weight.eq(1).all()


def test_saved_task_models_come_back_equal(tmp_path: Path) -> None:
    for kind in ("segmentation", "depth"):
        model, batch = _model(kind)
        model.eval().save_pretrained(tmp_path / kind)
        again = type(model).from_pretrained(tmp_path / kind).eval()
        torch.testing.assert_close(again(**batch).loss, model(**batch).loss, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (8, 56)])
def test_other_image_sizes_work(size: tuple[int, int]) -> None:
    for kind in ("segmentation", "depth"):
        model, _ = _model(kind)
        output = model(torch.randn(2, 3, *size))
        assert (output.logits if kind == "segmentation" else output.predicted_depth).shape[-2:] == size


def test_one_frame_clips_are_images_and_longer_ones_are_refused() -> None:
    for kind in ("segmentation", "depth"):
        model, batch = _model(kind)
        images = model(**batch).loss
        batch["pixel_values"] = batch["pixel_values"][:, None]
        torch.testing.assert_close(model(**batch).loss, images)
        with pytest.raises(DataError, match="4 frames"):
            model(batch["pixel_values"].expand(-1, 4, -1, -1, -1))


def test_bad_arguments_are_refused_with_a_hint() -> None:
    for kind in ("segmentation", "depth"):
        model, batch = _model(kind)
        with pytest.raises(ConfigError, match=r"labls.*Did you mean 'labels'"):
            model(batch["pixel_values"], labls=batch["labels"])
        with pytest.raises(DataError, match="labels have shape"):
            model(batch["pixel_values"], labels=batch["labels"][:, :8])
    with pytest.raises(ConfigError, match="depth_head_layers"):
        M33DForDepthEstimation(M33DConfig(**TINY, depth_head_layers=[0, 1, 2, 4]))


def test_hidden_states_and_attentions_come_on_request() -> None:
    for kind in ("segmentation", "depth"):
        model, batch = _model(kind)
        model.set_attn_implementation("eager")
        output = model(**batch, output_hidden_states=True, output_attentions=True)
        assert [tuple(h.shape) for h in output.hidden_states] == [(3, 7, 16)] * 5
        assert [tuple(a.shape) for a in output.attentions] == [(3, 2, 7, 7)] * 4


def test_autocast_keeps_metres_in_the_inputs_precision():
    model = M33DForDepthEstimation(M33DConfig(**TINY)).eval()
    pixels = _depth_batch()["pixel_values"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(pixels).predicted_depth.dtype == torch.float32
    assert model.to(torch.bfloat16)(pixels.bfloat16()).predicted_depth.dtype == torch.bfloat16


@pytest.mark.parametrize("model_class", [M33DForSemanticSegmentation, M33DForDepthEstimation])
def test_a_misspelt_input_is_named(model_class):
    model = model_class(tiny_config(segmentation_head_width=8, depth_head_width=8))
    with pytest.raises(ConfigError, match="pixel_values"):
        model(pixel_value=torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="requires 'pixel_values'"):
        model()

"""Task models that see RGB, depth or both: how they begin, what missing depth does, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import pipeline

from helpers.depth_models import shake
from helpers.tiny import CLIP, both, random_batch, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.backbone_m33d import M33DBackbone
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

HEAD = {"num_labels": 3, "segmentation_head_width": 16, "classifier_init_scale": 50.0}
RGBD = {"task_inputs": ["rgb", "depth"]}
WAYS: dict[str, dict[str, Any]] = {
    "sum": {},
    "concatenation": {"task_fusion": "concatenation"},
    "cross_attention": {"task_fusion": "cross_attention"},
    "shared": {"encoder_sharing": "shared"},
    "joint": {"joint_encoding": True},
    "global": {"joint_encoding": True, "global_token": True},
    "registers": {"encoder_sharing": "shared", "num_register_tokens": 2},
}
SEPARATE = ("sum", "concatenation", "cross_attention")
EVERY = pytest.mark.parametrize("way", WAYS)


def _model(way: str, clip: bool = False, seed: int | None = 0, **fields: Any) -> Any:
    """A model whose fusion is not fresh, unless `seed` is None."""
    torch.manual_seed(3)
    config = tiny_config(**{**HEAD, **RGBD, **WAYS[way], **(CLIP if clip else {}), **fields})
    model = (M33DForVideoClassification if clip else M33DForSemanticSegmentation)(config)
    if seed is not None:
        shake(model, seed)
    return model.eval()


def _batch(model: Any, seed: int = 0) -> dict[str, Tensor]:
    return random_batch(model.config, 3, seed)


@pytest.mark.parametrize("way", SEPARATE)
@pytest.mark.parametrize("clip", [False, True], ids=["images", "clips"])
def test_a_fresh_model_is_the_rgb_model_to_the_bit(way: str, clip: bool) -> None:
    model = _model(way, clip, seed=None)
    kind = type(model)
    alone = kind(tiny_config(**{**HEAD, **(CLIP if clip else {})})).eval()
    alone.load_state_dict({name: model.state_dict()[name] for name in alone.state_dict()})
    batch = _batch(model)
    expected = alone(pixel_values=batch["pixel_values"]).logits
    assert torch.equal(model(pixel_values=batch["pixel_values"]).logits, expected)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=0 if way == "sum" else 1e-6)


@EVERY
@pytest.mark.parametrize("clip", [False, True], ids=["images", "clips"])
def test_a_sample_without_depth_is_seen_as_rgb_alone(way: str, clip: bool) -> None:
    """Beside samples with depth, in one batch; what stands in its pixels has no say."""
    model = _model(way, clip)
    batch = _batch(model)
    batch["depth_mask"][1] = False
    batch["depth_values"][1] = 1e3
    with torch.no_grad():
        found, alone = model(**batch).logits, model(pixel_values=batch["pixel_values"]).logits
    torch.testing.assert_close(found[1], alone[1], rtol=1e-4, atol=1e-5)
    assert all((found[row] - alone[row]).abs().max() > 1e-4 for row in (0, 2)), "depth changes something"


@EVERY
def test_holes_are_zeros_and_tokens_of_holes_are_left_out(way: str) -> None:
    model = _model(way)
    batch = _batch(model)
    batch["depth_mask"][..., :8, :16] = False  # two whole patches of 8
    expected = model(**batch).logits
    for strange in (float("nan"), float("inf"), 7.0):
        values = batch["depth_values"].masked_fill(~batch["depth_mask"], strange)
        assert torch.equal(model(**{**batch, "depth_values": values}).logits, expected)
    marked = batch["depth_values"].masked_fill(~batch["depth_mask"], float("nan"))
    unmasked = model(pixel_values=batch["pixel_values"], depth_values=marked).logits
    assert torch.equal(unmasked, expected), "holes that are NaN need no mask"
    assert bool(expected.isfinite().all())


@pytest.mark.parametrize("way", ["sum", "concatenation", "shared", "joint"])
def test_a_missing_frame_of_a_clip(way: str) -> None:
    """Frames 0 and 1 make one tubelet: without both, its tokens are left out; the others stay."""
    model = _model(way, clip=True)
    batch = _batch(model)
    batch["depth_values"][:, 1] = float("nan")
    one = model(**batch).logits
    batch["depth_values"][:, 0] = float("nan")
    two = model(**batch).logits
    assert bool(one.isfinite().all() and two.isfinite().all())
    assert not torch.equal(one, two) and not torch.equal(two, model(pixel_values=batch["pixel_values"]).logits)


@pytest.mark.parametrize("way", ["shared", "joint", "global"])
def test_one_sequence_is_what_the_encoder_makes_of_the_tokens_that_are_there(way: str) -> None:
    """The second way: the depth tokens that are missing are never put into the sequence."""
    model = _model(way)
    batch = _batch(model)
    hidden = torch.zeros(3, 16, dtype=torch.bool)
    hidden[:, [0, 5, 6]] = True
    pixels = hidden.view(3, 1, 4, 4).repeat_interleave(8, -2).repeat_interleave(8, -1)
    mask = ~pixels
    values = batch["depth_values"].masked_fill(~mask, 0.0)
    inputs, seen = model.given_inputs(batch["pixel_values"], values, mask)
    found = model.encode_inputs(inputs, seen)
    everything = torch.arange(16).expand(3, -1)
    keep = {"rgb": everything, "depth": (~hidden[0]).nonzero()[:, 0].expand(3, -1)}
    encoder = M33DModel(tiny_config(**{**HEAD, **WAYS[way], "joint_encoding": True, "encoder_final_norm": False,
                                       "encoder_modalities": ["rgb", "depth"]})).eval()  # fmt: skip
    encoder.load_state_dict(model.m33d.state_dict())
    states = encoder.encode({"rgb": batch["pixel_values"][:, None], "depth": values[:, None]}, keep)["rgb"]
    torch.testing.assert_close(found, encoder.without_cls(states), rtol=1e-4, atol=1e-5)


@EVERY
def test_hidden_states_and_gradients_are_those_of_all_inputs(way: str) -> None:
    model = _model(way)
    batch = _batch(model)
    plain, recorded = model(**batch), model(**batch, output_hidden_states=True)
    torch.testing.assert_close(recorded.logits, plain.logits, rtol=1e-4, atol=1e-5)
    assert recorded.hidden_states[0].shape[1] >= 2 * 16
    labels = torch.randint(0, 3, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    batch["depth_mask"][0] = False
    model.train()(**batch, labels=labels).loss.backward()
    lacking = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert not lacking, "data-parallel training would wait for them"
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters())
    assert float(model.m33d.embeddings["depth"].projection.weight.grad.abs().max()) > 0


def test_depth_alone() -> None:
    model = _model("sum", task_inputs=["depth"])
    batch = _batch(model)
    assert set(model.m33d.embeddings) == {"depth"} and model.task_fusion is None
    logits = model(depth_values=batch["depth_values"], depth_mask=batch["depth_mask"]).logits
    assert logits.shape == (3, 3, 32, 32)
    holes = model(depth_values=torch.zeros_like(batch["depth_values"]), depth_mask=batch["depth_mask"] & False).logits
    assert bool(holes.isfinite().all())
    with pytest.raises(ConfigError, match="got pixel_values, but this model has task_inputs \\['depth'\\]"):
        model(**batch)
    with pytest.raises(ConfigError, match="requires 'depth_values'"):
        model()


def test_phases_of_clips_with_depth() -> None:
    torch.manual_seed(0)
    config = tiny_config(**HEAD, **RGBD, **CLIP, temporal_hidden_size=8)
    model = M33DForVideoActionDetection(config).eval()
    shake(model, 1)
    batch = _batch(model)
    videos = {name: torch.stack([each, each.flip(0)], dim=1) for name, each in batch.items()}
    output = model(**videos)
    first = model.encode_clips(batch["pixel_values"], batch["depth_values"], batch["depth_mask"])
    torch.testing.assert_close(output.features[:, 0], first)
    torch.testing.assert_close(output.features[:, 1], first.flip(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(output.features[:, 0], model.encode_clips(batch["pixel_values"]))
    recorded = model(**videos, output_hidden_states=True)
    torch.testing.assert_close(recorded.logits, output.logits, rtol=1e-4, atol=1e-5)
    model.freeze_encoder().train()
    assert not model.task_fusion.training and not any(w.requires_grad for w in model.task_fusion.parameters())
    with pytest.raises(DataError, match=r"depth_values has shape .* expected \(B, S, T, 1, H, W\)"):
        model(**{**videos, "depth_values": videos["depth_values"][:, :1]})


@EVERY
def test_a_saved_model_is_the_same_and_others_load_from_its_folder(way: str, tmp_path: Path) -> None:
    model = _model(way)
    model.save_pretrained(tmp_path)
    batch = _batch(model)
    again = M33DForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    encoders, info = M33DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(encoders.embeddings) == {"rgb", "depth"} and not info["missing_keys"]
    for cls, fields in ((M33DBackbone, {}), (M33DForSemanticSegmentation, {"task_inputs": ["rgb"]})):
        loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True, **fields)
        assert not info["unexpected_keys"] and not info["missing_keys"], cls
    if way == "sum":  # whose fusion does nothing to RGB
        expected = model(pixel_values=batch["pixel_values"]).logits
        torch.testing.assert_close(loaded.eval()(pixel_values=batch["pixel_values"]).logits, expected)


@pytest.mark.parametrize("way", ["sum", "shared"])
def test_a_pretraining_gives_both_encoders(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = M33DForPreTraining(tiny_config(**WAYS[way]))
    source.save_pretrained(tmp_path)
    model, info = M33DForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True, **HEAD, **RGBD)
    assert not info["unexpected_keys"]
    assert all(name.startswith(("segmentation_head.", "task_fusion.")) for name in info["missing_keys"])
    weights = source.state_dict()
    assert all(torch.equal(value, weights[f"m33d.{name}"]) for name, value in model.m33d.state_dict().items())
    if model.task_fusion is not None:
        assert bool((model.task_fusion.scale == 0).all()), "made anew, not left as memory was"
    alone, info = M33DForSemanticSegmentation.from_pretrained(
        tmp_path, output_loading_info=True, **HEAD, task_inputs=["depth"]
    )
    assert not info["unexpected_keys"] and set(alone.m33d.embeddings) == {"depth"}


def test_a_pipeline_of_pictures_and_the_processor_with_depth(tmp_path: Path) -> None:
    model = _model("sum", id2label={0: "a", 1: "b", 2: "c"})
    model.save_pretrained(tmp_path)
    processor = M33DImageProcessor.from_model_config(model.config)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    segment = pipeline("image-segmentation", model=str(tmp_path), device="cpu")
    found = np.full((32, 32), 255)
    for part in segment(Image.fromarray(pixels)):
        found[np.array(part["mask"]) > 0] = {"a": 0, "b": 1, "c": 2}[part["label"]]
    with torch.no_grad():
        alone = model(**processor(pixels, return_tensors="pt")).logits.argmax(1)[0].numpy()
        depth = np.linspace(1, 4, 1024, dtype=np.float32).reshape(32, 32)
        depth[:, :8] = np.nan
        together = model(**processor(pixels, depth=depth, return_tensors="pt")).logits
    assert np.array_equal(found, alone)
    assert bool(together.isfinite().all()) and together.shape == (1, 3, 32, 32)


def test_half_precision_and_eager_attention_agree() -> None:
    model = _model("shared")
    batch = _batch(model)
    batch["depth_mask"][0] = False
    expected = model(**batch).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-5)
    for way in ("shared", "cross_attention"):
        other = _model(way)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert bool(other(**batch).logits.isfinite().all())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_inputs": []}, r"task_inputs is \[\]"),
        ({"task_inputs": ["rgb", "rgb"]}, "must be \\[rgb\\], \\[depth\\] or \\[rgb, depth\\]"),
        ({"task_inputs": ["thermal"]}, "task_inputs must be a list whose entries are each one of rgb, depth"),
        ({**RGBD, "modalities": both()[:1]}, "task_inputs has 'depth', but the input modalities of the model are"),
        ({**RGBD, "encoder_sharing": "shared", "task_fusion": "sum"}, "encoder_sharing 'shared' .* one sequence"),
        ({**RGBD, "joint_encoding": True, "task_fusion": "concatenation"}, "joint_encoding True"),
        ({**RGBD, "task_fusion": "product"}, "one of sum, concatenation, cross_attention"),
        ({**RGBD, "depth_dropout": 1.0}, "depth_dropout is 1; it must be"),
    ],
)
def test_fields_that_do_not_fit_each_other(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**fields)


def test_the_order_of_inputs_does_not_matter() -> None:
    assert tiny_config(task_inputs=["depth", "rgb"]).task_input_names == ("rgb", "depth")
    assert tiny_config().task_input_names == ("rgb",)


def test_depth_is_not_estimated_from_depth() -> None:
    for inputs in (["depth"], ["rgb", "depth"]):
        with pytest.raises(ConfigError, match="depth is what depth estimation predicts"):
            M33DForDepthEstimation(tiny_config(task_inputs=inputs, num_hidden_layers=4, depth_head_width=16))


def test_inputs_that_cannot_be_used() -> None:
    model, alone = _model("sum"), _model("sum", task_inputs=["rgb"])
    batch = _batch(model)
    with pytest.raises(ConfigError, match="got depth_values, but this model has task_inputs \\['rgb'\\]"):
        alone(**batch)
    with pytest.raises(ConfigError, match="depth_mask without depth_values"):
        model(pixel_values=batch["pixel_values"], depth_mask=batch["depth_mask"])
    with pytest.raises(ConfigError, match="requires 'pixel_values' or 'depth_values'"):
        model()
    with pytest.raises(DataError, match="depth_mask has shape"):
        model(**{**batch, "depth_mask": batch["depth_mask"][..., :16]})
    with pytest.raises(DataError, match="depth has shape"):
        model(pixel_values=batch["pixel_values"], depth_values=batch["depth_values"][:2])
    with pytest.raises(DataError, match=r"depth_values has 2 frames, .* \(B, 1, H, W\)"):
        model(pixel_values=batch["pixel_values"], depth_values=batch["depth_values"][:, None].repeat(1, 2, 1, 1, 1))
    shared = _model("shared")
    shared.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ConfigError, match="'flash_attention_2' takes no mask"):
        shared(**batch)
    with pytest.raises(ConfigError, match="'cross_attention' needs RGB"):
        _model("cross_attention")(depth_values=batch["depth_values"])

"""ViTMAE with random weights -> our `mae` model: same features, predictions and loss (issue 2, item 5)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.foreign import mae_config, original_mae, tiny_vitmae
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import ConversionReport, convert_state_dict, load_foreign

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs() -> Any:
    return tiny_vitmae()


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    noise = torch.rand(2, 16, generator=generator)
    keep = noise.argsort(dim=1)[:, :4].sort(dim=1).values
    return pixels, noise, keep


def _ours(source: Path) -> tuple[M33DForPreTraining, ConversionReport]:
    torch.manual_seed(1)
    model = M33DForPreTraining(mae_config()).eval()
    return model, convert_state_dict(load_foreign(source), model)


def _assert_same(model: M33DForPreTraining, theirs: Any) -> None:
    pixels, noise, keep = _inputs()
    with torch.no_grad():
        expected = theirs(pixels, noise=noise)
        latent = theirs.vit(pixels, noise=noise).last_hidden_state
        found = model(pixels, keep={"rgb": keep}, output_reconstruction=True)
        features = model.m33d.extract_features(pixels, keep={"rgb": keep})["rgb"]
    # theirs come in the order of the noise, ours ascending
    order = noise.argsort(dim=1)[:, :4].argsort(dim=1)
    patches = latent[:, 1:].gather(1, order[..., None].expand(-1, -1, latent.shape[-1]))
    torch.testing.assert_close(features, patches, rtol=TOLERANCE, atol=TOLERANCE)
    masked = expected.logits[expected.mask.bool()].reshape(2, 12, -1)
    torch.testing.assert_close(found.reconstructions["rgb"], masked, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(found.loss, expected.loss, rtol=TOLERANCE, atol=TOLERANCE)


def _assert_complete(report: ConversionReport, model: M33DForPreTraining) -> None:
    assert not report.new
    assert set(report.filled) == set(model.state_dict())
    assert all("rebuilt, identical" in reason for key, reason in report.ignored.items() if "pos" in key)


def test_saved_by_transformers(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    model, report = _ours(tmp_path)
    assert report.format == "ViTMAE (transformers)"
    assert len(report.ignored) == 2
    _assert_complete(report, model)
    _assert_same(model, theirs)


def test_in_memory_names_of_transformers_5(theirs: Any, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "memory.pt")
    model, report = _ours(tmp_path / "memory.pt")
    _assert_complete(report, model)
    _assert_same(model, theirs)


def test_names_of_transformers_4(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    weights = load_foreign(tmp_path).tensors
    renamed = {k.replace("decoder_encoder.layer.", "decoder_layers."): v for k, v in weights.items()}
    assert any(".decoder_layers.0.attention.attention.query.weight" in key for key in renamed)
    torch.save(renamed, tmp_path / "pytorch_model.bin")
    model, report = _ours(tmp_path / "pytorch_model.bin")
    _assert_complete(report, model)
    _assert_same(model, theirs)


def test_original_layout_in_a_training_wrapper(theirs: Any, tmp_path: Path) -> None:
    content = {
        "model": original_mae(theirs),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
        "epoch": 799,
        "scaler": {"scale": 1.0},
        "args": argparse.Namespace(model="mae_vit_base_patch16", lr=1e-3),
    }
    torch.save(content, tmp_path / "checkpoint-799.pth")
    model, report = _ours(tmp_path / "checkpoint-799.pth")
    assert report.format == "MAE (original)"
    assert {"optimizer", "epoch", "scaler", "args", "pos_embed", "decoder_pos_embed"} == set(report.ignored)
    _assert_complete(report, model)
    _assert_same(model, theirs)


def test_encoder_only_release_leaves_a_new_decoder(theirs: Any, tmp_path: Path) -> None:
    torch.save({"model": original_mae(theirs, decoder=False)}, tmp_path / "mae_pretrain.pth")
    model, report = _ours(tmp_path / "mae_pretrain.pth")
    assert set(report.new) == {key for key in model.state_dict() if key.startswith("decoder.")}
    assert set(report.new.values()) == {"the checkpoint holds no decoder"}
    pixels, noise, keep = _inputs()
    with torch.no_grad():
        cls = model.m33d(pixels, keep={"rgb": keep}).last_hidden_state[:, 0]
        expected = theirs.vit(pixels, noise=noise).last_hidden_state[:, 0]
    torch.testing.assert_close(cls, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_features_of_whole_images(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    model, _ = _ours(tmp_path)
    pixels, _, _ = _inputs()
    ascending = torch.arange(16.0).expand(2, 16)
    theirs.vit.config.mask_ratio = 0.0
    with torch.no_grad():
        expected = theirs.vit(pixels, noise=ascending).last_hidden_state
        found = model.m33d(pixels).last_hidden_state
    theirs.vit.config.mask_ratio = 0.75
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_position_row_of_the_class_token_is_added(theirs: Any, tmp_path: Path) -> None:
    weights = original_mae(theirs)
    weights["pos_embed"][0, 0] = 0.25
    torch.save(weights, tmp_path / "row.pth")
    model, _ = _ours(tmp_path / "row.pth")
    cls = next(tensor for key, tensor in model.state_dict().items() if key.endswith("rgb.cls_token"))
    torch.testing.assert_close(cls, weights["cls_token"] + 0.25)

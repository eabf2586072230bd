"""VideoMAE with random weights -> our `videomae` model: same features, predictions and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.foreign import original_videomae, original_videomae_finetuned, tiny_videomae, videomae_config
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.weights import ConversionReport, convert_state_dict, load_foreign

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs() -> Any:
    return tiny_videomae()


def _inputs() -> tuple[Tensor, Tensor]:
    """Clips (B, T, C, H, W) and a tube mask (B, N): 12 of 16 positions masked in both slots."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(2, 4, 3, 32, 32, generator=generator)
    hidden = torch.ones(2, 16, dtype=torch.bool)
    for sample in hidden:
        sample[torch.randperm(16, generator=generator)[:4]] = False
    return pixels, hidden.repeat(1, 2)


def _ours(source: Path) -> tuple[M33DForPreTraining, ConversionReport]:
    torch.manual_seed(1)
    model = M33DForPreTraining(videomae_config()).eval()
    return model, convert_state_dict(load_foreign(source), model)


def _assert_same(model: M33DForPreTraining, theirs: Any) -> None:
    pixels, masked = _inputs()
    keep = (~masked).nonzero()[:, 1].reshape(2, -1)
    with torch.no_grad():
        expected = theirs(pixels, bool_masked_pos=masked)
        latent = theirs.videomae(pixels, bool_masked_pos=masked).last_hidden_state
        found = model(pixels, keep={"rgb": keep}, output_reconstruction=True)
        features = model.m33d.extract_features(pixels, keep={"rgb": keep})["rgb"]
        whole = model.m33d(pixels).last_hidden_state
        expected_whole = theirs.videomae(pixels).last_hidden_state
    torch.testing.assert_close(features, latent, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(whole, expected_whole, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(found.reconstructions["rgb"], expected.logits, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(found.loss, expected.loss, rtol=TOLERANCE, atol=TOLERANCE)


def _bias(model: M33DForPreTraining, layer: int) -> Tensor:
    key = f"encoders.rgb.layers.{layer}.attention.qkv.bias"
    return next(tensor for name, tensor in model.state_dict().items() if name.endswith(key))


def test_saved_by_transformers(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    checkpoint = load_foreign(tmp_path)
    assert any(key.endswith("attention.q_bias") for key in checkpoint.tensors)
    model, report = _ours(tmp_path)
    assert report.format == "VideoMAE (transformers)"
    assert not report.new and not report.ignored
    assert report.filled["decoder.embed.bias"].startswith("zeros")
    _assert_same(model, theirs)


def test_query_and_value_biases_are_used_and_the_key_bias_is_zero(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    model, _ = _ours(tmp_path)
    inner = theirs.videomae.encoder.layer[2].attention.attention
    q, k, v = _bias(model, 2).chunk(3)
    torch.testing.assert_close(q, inner.query.bias)
    torch.testing.assert_close(v, inner.value.bias)
    assert bool((k == 0).all()) and bool(q.abs().min() > 0)


def test_in_memory_names_of_transformers_5(theirs: Any, tmp_path: Path) -> None:
    state = theirs.state_dict()
    assert any(key.endswith("query.bias") for key in state)
    torch.save(state, tmp_path / "memory.pt")
    model, report = _ours(tmp_path / "memory.pt")
    assert not report.new and not report.ignored
    _assert_same(model, theirs)


@pytest.mark.parametrize("wrapper", ["model", "module", None])
def test_original_layout(theirs: Any, tmp_path: Path, wrapper: str | None) -> None:
    weights = original_videomae(theirs)
    torch.save({wrapper: weights, "epoch": 1599} if wrapper else weights, tmp_path / "checkpoint.pth")
    model, report = _ours(tmp_path / "checkpoint.pth")
    assert report.format == "VideoMAE (original)"
    assert set(report.ignored) == ({"epoch"} if wrapper else set())
    assert not report.new
    _assert_same(model, theirs)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "module.model."])
def test_compiled_distributed_and_lightning_prefixes(theirs: Any, tmp_path: Path, prefix: str) -> None:
    weights = {f"{prefix}{key}": tensor for key, tensor in original_videomae(theirs).items()}
    torch.save({"model": weights}, tmp_path / "checkpoint.pth")
    model, report = _ours(tmp_path / "checkpoint.pth")
    assert sum("removed from" in note for note in report.notes) == 2
    _assert_same(model, theirs)


def test_fine_tuned_classifier_gives_its_encoder(theirs: Any, tmp_path: Path) -> None:
    torch.save({"module": original_videomae_finetuned(theirs)}, tmp_path / "finetuned.pt")
    model, report = _ours(tmp_path / "finetuned.pt")
    assert set(report.ignored) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    norms = {key for key in report.new if ".layernorm." in key and "encoders.rgb" in key}
    assert len(norms) == 2
    assert set(report.new) - norms == {key for key in model.state_dict() if key.startswith("decoder.")}
    inner = theirs.videomae.encoder.layer[0].attention.attention
    torch.testing.assert_close(_bias(model, 0).chunk(3)[0], inner.query.bias)

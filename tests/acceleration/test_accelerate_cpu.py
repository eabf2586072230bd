"""What `accelerate_cpu` puts into a model, and that nothing of it shows in what the model is, keeps and writes."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from torch import nn

from helpers.tiny import tiny_config
from m33d_hf.acceleration import accelerate_cpu, attention, linear, place
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

SIZES = {"hidden_size": 384, "intermediate_size": 768, "decoder_hidden_size": 384, "decoder_intermediate_size": 768}
HEADS = {"num_attention_heads": 6, "decoder_num_attention_heads": 6}


def wide_config(**changes) -> M33DConfig:
    """Wide enough for oneDNN, and rows enough."""
    modalities = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, weight=1.0)]
    depth = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 2, "image_size": 64, "patch_size": 8}
    sizes = {**SIZES, **HEADS, **depth, **changes}
    return M33DConfig(modalities=modalities, attn_implementation="sdpa", **sizes)


def batch_of(config: M33DConfig, samples: int = 8):
    torch.manual_seed(1)
    pixels = {s.input_name: torch.randn(samples, s.channels, *config.image_height_width) for s in config.specs}
    return {**pixels, "keep": draw_keep(config, samples)}


def loss_and_gradients(model: nn.Module, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def fast(monkeypatch):
    """A machine on which every kernel is the faster one; the shapes that were given to oneDNN."""
    given, product = [], linear._product
    if not linear.has_fast_products():
        pytest.skip("this CPU has no AVX-512, so torch's own products are used throughout")
    monkeypatch.setattr(linear, "_product", lambda *w: given.append(tuple(w[1].shape)) or product(*w))
    for module in (attention, __import__("m33d_hf.acceleration", fromlist=["accelerate_cpu"])):
        monkeypatch.setattr(module, "prefers_blocks", lambda: True)
    return given


def model_of(config: M33DConfig) -> M33DForPreTraining:
    torch.manual_seed(0)
    return M33DForPreTraining(config).train()


@pytest.mark.parametrize("attends", ["full", "cross"])
def test_losses_and_gradients_agree_and_every_wide_product_is_taken(fast, attends):
    config = wide_config(decoder_attention=attends)
    model, batch = model_of(config), batch_of(config)
    loss, gradients = loss_and_gradients(model, batch)
    assert not fast, "a plain model has plain layers"
    faster, found = loss_and_gradients(accelerate_cpu(copy.deepcopy(model)), batch)
    torch.testing.assert_close(faster, loss, rtol=1e-5, atol=0)
    assert found.keys() == gradients.keys()
    for name, value in found.items():
        assert (value - gradients[name]).norm() <= 1e-4 * gradients[name].norm() + 1e-7, name
    # (384, 384) is also a third of the fused projection; two thirds are keys and values.
    assert {(384, 384), (768, 384), (1152, 384)} <= set(fast)


def test_patches_are_projected_by_it(fast):
    config = wide_config(patch_size=16, image_size=160)  # 3 * 16 * 16 = 768 inputs
    model, batch = accelerate_cpu(model_of(config)), batch_of(config)
    model.m33d.embeddings["rgb"](batch["pixel_values"][:, None], None, None)
    assert fast == [(384, 768)]


def test_layers_stay_linear_layers_and_their_kinds_are_left_alone():
    class Own(nn.Linear):
        def forward(self, tokens):
            return tokens

    net = nn.Sequential(nn.Linear(4, 5), Own(4, 5))
    weight, names = net[0].weight, list(net.state_dict())
    assert accelerate_cpu(net) is net and accelerate_cpu(net) is net
    assert type(net[0]) is linear.CPULinear and isinstance(net[0], nn.Linear) and type(net[1]) is Own
    assert net[0].weight is weight and list(net.state_dict()) == names and net.extra_repr() == ""


def test_saved_models_do_not_know(fast, tmp_path):
    model = accelerate_cpu(model_of(wide_config()))
    assert model.config._attn_implementation == attention.NAME
    model.save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert attention.NAME not in written and not [key for key in json.loads(written) if "attn" in key]
    again = M33DForPreTraining.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
    assert not [module for module in again.modules() if isinstance(module, linear.CPULinear)]
    assert again.state_dict().keys() == model_of(wide_config()).state_dict().keys() == model.state_dict().keys()


def test_copies_and_pickles_stay_accelerated(fast):
    config = wide_config()
    model, batch = accelerate_cpu(model_of(config)), batch_of(config)
    expected, _ = loss_and_gradients(model, batch)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        fast.clear()
        loss, _ = loss_and_gradients(other, batch)
        assert torch.equal(loss, expected) and fast


def test_recomputed_blocks_give_the_same_gradients(fast):
    config = wide_config()
    model, batch = accelerate_cpu(model_of(config)), batch_of(config)
    loss, gradients = loss_and_gradients(model, batch)
    model.gradient_checkpointing_enable()
    again, found = loss_and_gradients(model, batch)
    assert torch.equal(loss, again)
    assert all(torch.equal(found[name], value) for name, value in gradients.items())


def test_compiling_sees_plain_products(fast):
    config = wide_config()
    model, batch = accelerate_cpu(model_of(config)), batch_of(config)
    model(**batch)
    assert fast
    fast.clear()
    layer = torch.compile(model.m33d.encoders[next(iter(model.m33d.encoders))].layers[0], backend="eager")
    layer(torch.randn(8, 65, 384))
    assert not fast


def test_other_attention_stays(fast):
    config = tiny_config()
    config._attn_implementation = "eager"
    assert accelerate_cpu(M33DForPreTraining(config)).config._attn_implementation == "eager"


def test_bfloat16_attends_in_blocks(fast, monkeypatch):
    taken = []
    blockwise = attention.blockwise_attention
    monkeypatch.setattr(attention, "blockwise_attention", lambda *w: taken.append(w[0].dtype) or blockwise(*w))
    config = wide_config()
    model, batch = model_of(config), batch_of(config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(**batch).loss
        assert not taken
        torch.testing.assert_close(accelerate_cpu(model)(**batch).loss, plain, rtol=0.02, atol=0)
    assert set(taken) == {torch.bfloat16} and not fast


def test_only_on_a_cpu():
    assert type(place(nn.Sequential(nn.Linear(2, 2)), "meta")[0]) is nn.Linear
    assert type(place(nn.Sequential(nn.Linear(2, 2)), "cpu")[0]) is linear.CPULinear

"""Hidden states and attention weights, against states that hooks of our own took from plain passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from helpers.tiny import tiny_config
from m33d_hf.modeling.configuration_m33d import depth_modality, rgb_modality
from m33d_hf.modeling.layers_m33d import M33DLayer
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

LAYERS, HEADS, WIDTH = 3, 2, 32
SIZE = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": WIDTH}
REQUEST = {"output_hidden_states": True, "output_attentions": True}


def _model(cls: type[Any] = M33DModel, **overrides: Any) -> Any:
    torch.manual_seed(0)
    model = cls(tiny_config(**{**SIZE, **overrides}))
    model.set_attn_implementation("eager")
    with torch.no_grad():  # weights of a trained size, so that attention is not even
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def _inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randn(2, 3, 32, 32, generator=generator)
    return {"pixel_values": rgb, "depth_values": torch.randn(2, 1, 32, 32, generator=generator)}


def _hooked(model: nn.Module, stack: nn.Module, *args: Any, **kwargs: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """The states around every block of one stack, and its blocks, in one call that asks for nothing."""
    states: list[torch.Tensor] = []
    layers = [module for module in stack.modules() if isinstance(module, M33DLayer)]
    handles = [layers[0].register_forward_pre_hook(lambda module, given: states.append(given[0]))]
    handles += [layer.register_forward_hook(lambda module, given, output: states.append(output)) for layer in layers]
    with torch.no_grad():
        model(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return states, layers


def _attention(layer: M33DLayer, states: torch.Tensor) -> torch.Tensor:
    """softmax(q k / sqrt(d)) of a block from the states before it, head by head."""
    query, key, _ = layer.attention.qkv(layer.layernorm_before(states)).split(WIDTH, dim=-1)
    depth = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * depth, (head + 1) * depth)
        heads.append(torch.einsum("bid,bjd->bij", query[..., part], key[..., part]).div(depth**0.5).softmax(-1))
    return torch.stack(heads, dim=1)


def _streams(model: Any, inputs: dict[str, torch.Tensor]) -> list[tuple[list[torch.Tensor], list[Any]]]:
    pairs = (("rgb", "pixel_values"), ("depth", "depth_values"))
    return [_hooked(model, model._encoder(name), **{key: inputs[key]}) for name, key in pairs]


def _check_states(found: Any, model: Any, inputs: dict[str, torch.Tensor]) -> None:
    for number, states in enumerate(found):
        expected = torch.cat([stream[number] for stream, _ in _streams(model, inputs)], dim=1)
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


def _check(output: Any, streams: list[tuple[list[torch.Tensor], list[M33DLayer]]]) -> None:
    """Compare an output with the states of each sequence, taken alone."""
    assert len(output.hidden_states) == LAYERS + 1 and len(output.attentions) == LAYERS
    for number, found in enumerate(output.hidden_states):
        expected = torch.cat([states[number] for states, _ in streams], dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for number, found in enumerate(output.attentions):
        blocks = [_attention(layers[number], states[number]) for states, layers in streams]
        for row in range(found.shape[0]):
            for head in range(HEADS):
                expected = torch.block_diag(*(block[row, head] for block in blocks))
                torch.testing.assert_close(found[row, head], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sharing", ["separate", "shared"])
def test_modalities_that_pass_separately(sharing: str) -> None:
    model, inputs = _model(encoder_sharing=sharing), _inputs()
    streams = _streams(model, inputs)
    with torch.no_grad():
        output, plain = model(**inputs, **REQUEST), model(**inputs)
    _check(output, streams)
    assert output.hidden_states[0].shape == (2, 2 * 17, WIDTH)
    assert output.attentions[0].shape == (2, HEADS, 2 * 17, 2 * 17)
    assert plain.hidden_states is None and plain.attentions is None
    torch.testing.assert_close(output.last_hidden_state, plain.last_hidden_state, atol=1e-5, rtol=1e-4)
    normed = [
        model._encoder(name).layernorm(states[-1]) for name, (states, _) in zip(("rgb", "depth"), streams, strict=True)
    ]
    torch.testing.assert_close(output.last_hidden_state, torch.cat(normed, dim=1), atol=1e-5, rtol=1e-4)


def test_modalities_of_one_joint_sequence_with_a_global_token() -> None:
    model, inputs = _model(joint_encoding=True, global_token=True, decoder_fusion="separate"), _inputs()
    with torch.no_grad():
        output = model(**inputs, **REQUEST)
    _check(output, [_hooked(model, model.encoders["shared"], **inputs)])
    assert output.hidden_states[-1].shape == output.last_hidden_state.shape == (2, 2 * 16 + 1, WIDTH)


def test_visible_tokens_of_different_number() -> None:
    model, inputs = _model(encoder_sharing="shared"), _inputs()
    keep = {"rgb": torch.tensor([[0, 3, 5], [1, 2, 15]]), "depth": torch.tensor([[0], [7]])}
    with torch.no_grad():
        output = model(**inputs, keep=keep, **REQUEST)
    streams = []
    for name, key in (("rgb", "pixel_values"), ("depth", "depth_values")):
        streams.append(_hooked(model, model.encoders["shared"], **{key: inputs[key]}, keep={name: keep[name]}))
    _check(output, streams)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 4 + 2, WIDTH)] * (LAYERS + 1)


def test_states_are_chosen_by_index_from_either_end() -> None:
    model, inputs = _model(), _inputs()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        every = model(**inputs, output_hidden_states=True).hidden_states
        _check_states(every, model, inputs)
        some = model(**inputs, output_hidden_states=[0, -1]).hidden_states
    assert [state is None for state in some] == [False, True, True, False]
    assert torch.equal(some[0], every[0]) and torch.equal(some[-1], every[-1])


def test_a_configuration_may_ask_and_gradients_reach_what_was_read_off() -> None:
    model = _model(output_hidden_states=True)
    output = model(**_inputs())
    for states in output.hidden_states[:-1]:
        states.retain_grad()
    output.last_hidden_state[:, 20].sum().backward()
    first = output.hidden_states[0].grad
    assert first[:, 17:].any() and not first[:, :17].any()  # a depth token has not seen RGB


@pytest.mark.parametrize("names", [["pixel_values"], ["pixel_values", "depth_values"]])
def test_gradients_reach_attention_weights(names: list[str]) -> None:
    model = _model()
    output = model(**{name: _inputs()[name] for name in names}, output_attentions=True)
    for weights in output.attentions:
        weights.retain_grad()
    output.last_hidden_state[:, 3].square().sum().backward()
    assert all(weights.grad.any() for weights in output.attentions)


def test_pretraining_gives_the_pass_that_reconstruction_reads() -> None:
    ratios = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5)]
    model = _model(
        M33DForPreTraining,
        modalities=ratios,
        contrastive_weight=0.1,
        contrastive_position_free=True,
        encoder_sharing="shared",
    )
    inputs, keep = _inputs(), draw_keep(model.config, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(**inputs, keep=keep, output_diagnostics=True, **REQUEST)
        plain = model(**inputs, keep=keep)
        alone = model.m33d(**inputs, keep=keep, **REQUEST)
    torch.testing.assert_close(output.loss, plain.loss)
    assert len(output.hidden_states) == LAYERS + 1 and len(output.attentions) == LAYERS
    for found, expected in zip(output.hidden_states + output.attentions, alone.hidden_states + alone.attentions):
        assert torch.equal(found, expected)


def test_contrast_alone_gives_the_pass_that_is_contrasted() -> None:
    unweighted = [rgb_modality(mask_ratio=0, weight=0), depth_modality(mask_ratio=0, weight=0)]
    model = _model(M33DForPreTraining, modalities=unweighted, contrastive_weight=1.0, contrastive_position_free=True)
    with torch.no_grad():
        output = model(**_inputs(), **REQUEST)
        model.m33d.positions.table.zero_()
        alone = model.m33d(**_inputs(), **REQUEST)
    for found, expected in zip(output.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(found, expected)


def test_dense_models_give_all_layers_also_those_no_head_reads() -> None:
    model = _model(M33DForDepthEstimation, depth_head_layers=[0, 0, 1, 1])
    pixels = _inputs()["pixel_values"]
    with torch.no_grad():
        output, plain = model(pixels, **REQUEST), model(pixels)
        last = model(pixels, output_hidden_states=-1).hidden_states
    _check(output, [_hooked(model.m33d, model.m33d.encoders["rgb"], pixels)])
    torch.testing.assert_close(output.predicted_depth, plain.predicted_depth)
    assert torch.equal(last[-1], output.hidden_states[-1]) and last[0] is None


def test_detection_gives_the_states_of_every_clip() -> None:
    model = _model(M33DForVideoActionDetection, num_frames=2, tubelet_size=2, use_cls_token=False, num_labels=3)
    clips = torch.randn(2, 3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output, plain = model(clips, **REQUEST), model(clips)
        assert model(features=output.features, **REQUEST).hidden_states == ()
    torch.testing.assert_close(output.logits, plain.logits)
    assert output.hidden_states[0].shape == (2 * 3, 16, WIDTH)
    assert output.attentions[0].shape == (2 * 3, HEADS, 16, 16)
    for number in range(3):
        with torch.no_grad():
            alone = model.m33d(clips[:, number], **REQUEST)
        for found, expected in zip(output.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(found.unflatten(0, (2, 3))[:, number], expected)
        for found, expected in zip(output.attentions, alone.attentions, strict=True):
            torch.testing.assert_close(found.unflatten(0, (2, 3))[:, number], expected)


def test_a_shared_encoder_exports_with_rows_to_choose() -> None:
    model = _model(encoder_sharing="shared")
    rows = torch.export.Dim.AUTO
    shapes = {name: {0: rows, 2: rows, 3: rows} for name in ("pixel_values", "depth_values")}
    program = torch.export.export(model, (), _inputs(), dynamic_shapes=shapes).module()
    three = {name: torch.cat([value, value[:1]]) for name, value in _inputs().items()}
    with torch.no_grad():
        found, expected = program(**three)["last_hidden_state"], model(**three).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

"""Learned positions: their tables, how other grids come by them, and that they are weights like others."""

import numpy as np
import pytest
import torch

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.encoder_m33d import M33DPositions
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.positions_m33d import M33DLearnedPositions
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "position_embedding_type": "learned",
}
CLIP = {"num_frames": 8, "tubelet_size": 2}


def filled(config):
    positions = M33DLearnedPositions(config, config.hidden_size)
    with torch.no_grad():
        for parameter in positions.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    return positions


def keys_cubic(x, a=-0.75):
    """Keys' cubic convolution kernel, a as torch has it without antialiasing."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampling(old, new, antialias=False):
    """(new, old) weights of one axis, pixel centres aligned; smoothed over the step where it shrinks (as PIL)."""
    scale = old / new
    stretch, a = (max(scale, 1.0), -0.5) if antialias else (1.0, -0.75)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * scale - 0.5
        for j in range(int(np.floor(centre - 2 * stretch)), int(np.ceil(centre + 2 * stretch)) + 1):
            inside = 0 <= j < old
            if inside or not antialias:  # PIL leaves out what lies beyond the border, torch repeats the border
                weights[i, min(max(j, 0), old - 1)] += keys_cubic((j - centre) / stretch, a)
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(1, 2, 3), (1, 4, 4), (1, 7, 5)])
def test_space_is_resampled_as_the_formula_says(grid, antialias):
    config = M33DConfig(**TINY, position_embedding_resize="antialias" if antialias else "interpolate")
    positions = filled(config)
    table = positions.spatial.detach().double().numpy().reshape(4, 4, 16)
    rows, columns = resampling(4, grid[1], antialias), resampling(4, grid[2], antialias)
    expected = np.einsum("yi,xj,ijd->yxd", rows, columns, table).reshape(-1, 16)
    np.testing.assert_allclose(positions(grid).detach().numpy(), expected, atol=2e-6)


def test_a_clip_adds_the_moments():
    positions = filled(M33DConfig(**TINY, **CLIP))
    table = positions((4, 4, 4)).view(4, 16, 16)
    for moment in range(4):
        assert torch.equal(table[moment], positions.temporal[moment] + positions.spatial)
    halved = positions((2, 4, 4)).view(2, 16, 16)  # sampled halfway between the moments 0 and 1, 2 and 3
    expected = (positions.temporal[0::2] + positions.temporal[1::2]) / 2
    torch.testing.assert_close(halved - positions.spatial, expected[:, None].expand(-1, 16, -1))


def test_an_image_model_repeats_its_table_over_time():
    positions = filled(M33DConfig(**TINY))
    assert positions.temporal is None
    assert torch.equal(positions((2, 4, 4)), torch.cat([positions.spatial] * 2))


def test_half_precision_is_resized_in_float32():
    positions = filled(M33DConfig(**TINY)).bfloat16()
    exact = M33DLearnedPositions(M33DConfig(**TINY), 16)
    exact.load_state_dict(positions.state_dict())
    assert torch.equal(positions((1, 3, 5)), exact((1, 3, 5)).bfloat16())


@pytest.mark.parametrize("extra", [{}, CLIP], ids=["image", "clip"])
@pytest.mark.parametrize("sharing", ["separate", "shared"])
def test_pretraining_starts_small_saves_loads_and_learns_them(tmp_path, extra, sharing):
    torch.manual_seed(0)
    grid = [4 if extra else 1, 3, 3]
    model = M33DForPreTraining(M33DConfig(**TINY, **extra, encoder_sharing=sharing, position_grid=grid))
    learned = model.m33d.positions
    names = {name for name, _ in model.named_parameters() if "positions" in name}
    assert names == {"m33d.positions.spatial"} | ({"m33d.positions.temporal"} if extra else set())
    for parameter in learned.parameters():
        assert 0.01 < parameter.std() < 0.03
        assert parameter.abs().max() <= 2
    frames = (8,) if extra else ()
    pixels, depth = torch.randn(2, *frames, 3, 32, 32), torch.randn(2, *frames, 1, 32, 32)
    model(pixel_values=pixels, depth_values=depth).loss.backward()
    for parameter in learned.parameters():
        assert (parameter.grad.abs().sum(dim=1) > 0).all()  # the mask hides places of 4 x 4, the table has 3 x 3

    model.save_pretrained(tmp_path)
    loaded = M33DForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded.m33d.positions.spatial, learned.spatial)
    encoders = M33DModel.from_pretrained(tmp_path)
    assert torch.equal(encoders.positions.spatial, learned.spatial)
    assert torch.equal(encoders.positions((1, 4, 4)), learned((1, 4, 4)))


def test_visible_tokens_carry_the_positions_of_their_places():
    torch.manual_seed(0)
    model = M33DModel(M33DConfig(**TINY), modalities=["rgb"]).eval()
    pixels, keep = torch.randn(2, 1, 3, 32, 32), torch.tensor([[0, 5, 9], [15, 2, 3]])
    embed, table = model.embeddings["rgb"], model.positions((1, 4, 4))
    visible, whole = embed(pixels, keep, table), embed(pixels, None, table)
    for sample in range(2):
        torch.testing.assert_close(visible[sample, 1:], whole[sample, 1:][keep[sample]])
    assert torch.equal(whole[:, :1], embed(pixels, None, None)[:, :1])  # nothing is added to the class token
    torch.testing.assert_close(whole[:, 1:] - embed(pixels, None, None)[:, 1:], table.expand(2, -1, -1))


@pytest.mark.parametrize(("extra", "kind"), [({}, "sincos_2d"), (CLIP, "sincos_1d")])
def test_decoders_keep_the_fixed_table_of_their_own_grid(extra, kind):
    grid = [4 if extra else 1, 3, 3]
    learned = M33DForPreTraining(M33DConfig(**TINY, **extra, position_grid=grid)).decoder.positions
    fixed = M33DForPreTraining(M33DConfig(**{**TINY, "position_embedding_type": kind}, **extra)).decoder.positions
    assert isinstance(learned, M33DPositions)
    assert not list(learned.parameters())
    assert torch.equal(learned((grid[0], 4, 4)), fixed((grid[0], 4, 4)))
    other = M33DPositions(M33DConfig(**{**TINY, "image_size": 48, "position_embedding_type": kind}, **extra), 16)
    assert torch.equal(learned((grid[0], 6, 6)), other.table)


def test_a_model_without_memory_gets_its_positions_on_loading(tmp_path):
    config = M33DConfig(**TINY)
    model = M33DModel(config)
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        assert M33DModel(config).positions.spatial.is_meta
    state = {name: tensor for name, tensor in model.state_dict().items() if "positions" not in name}
    fresh, info = M33DModel.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    assert info["missing_keys"] == {"positions.spatial"}
    assert 0.01 < fresh.positions.spatial.std() < 0.03


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_resize": "rebuild"}, "cannot be rebuilt"),
        ({"position_grid": [2, 4, 4]}, "an image model has one"),
        ({"position_grid": [1, 2048, 2048]}, "at most 1048576"),
        ({**CLIP, "position_grid": [1, 3, 3]}, r"set it to \[4, 3, 3\]"),
        ({"position_embedding_type": "learnt"}, "position_embedding_type must be"),
    ],
)
def test_what_cannot_work_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        M33DConfig(**{**TINY, **fields})


def test_positions_that_nothing_would_teach_are_refused():
    config = M33DConfig(**TINY, contrastive_weight=1.0, contrastive_position_free=True)
    assert M33DForPreTraining(config)
    for entry in config.modalities:
        entry["weight"] = 0.0
    with pytest.raises(ConfigError, match="without a gradient"):
        M33DForPreTraining(M33DConfig(**{**config.to_dict()}))


def test_register_tokens_pass_the_blocks_and_stay_behind(tmp_path):
    torch.manual_seed(0)
    model = M33DModel(M33DConfig(**TINY, num_register_tokens=3)).eval()
    encoder, tokens = model.encoders["rgb"], torch.randn(2, 5, 16)
    assert 0.01 < encoder.register_tokens.std() < 0.03
    along = torch.cat([tokens, encoder.register_tokens.expand(2, -1, -1)], dim=1)
    blocks = []
    for layer in encoder.layers:
        along = layer(along)
        blocks.append(along[:, :5])
    torch.testing.assert_close(encoder(tokens), encoder.layernorm(blocks[-1]))
    torch.testing.assert_close(encoder.intermediates(tokens, [0, 1]), blocks)
    with torch.no_grad():
        before = encoder(tokens)
        encoder.register_tokens.normal_(std=3.0)
    assert (encoder(tokens) - before).abs().max() > 1e-3

    names = {name for name, _ in model.named_parameters() if "register" in name}
    assert names == {"encoders.rgb.register_tokens", "encoders.depth.register_tokens"}
    inputs = {"pixel_values": torch.randn(1, 3, 32, 32), "depth_values": torch.randn(1, 1, 32, 32)}
    assert {name: states.shape for name, states in model.extract_features(**inputs).items()} == {
        "rgb": (1, 16, 16),
        "depth": (1, 16, 16),
    }
    states = model(**inputs, output_hidden_states=True).hidden_states
    assert [state.shape for state in states] == [(1, 2 * (1 + 16 + 3), 16)] * 3  # class token, patches, registers
    model.save_pretrained(tmp_path)
    loaded = M33DModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encoders["depth"].register_tokens, model.encoders["depth"].register_tokens)


def test_joint_sequences_have_one_set_of_registers():
    model = M33DModel(M33DConfig(**TINY, num_register_tokens=3, joint_encoding=True)).eval()
    seen = []
    model.encoders["shared"].layers[0].register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    output = model(pixel_values=torch.randn(1, 3, 32, 32), depth_values=torch.randn(1, 1, 32, 32))
    assert seen == [2 * 17 + 3]
    assert output.last_hidden_state.shape == (1, 2 * 17, 16)

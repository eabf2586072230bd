import pytest
import torch

from helpers.tiny import CLIP, UNMASKED, VARIANTS, both, random_batch, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import depth_modality, rgb_modality
from m33d_hf.modeling.losses_m33d import normalize_patches
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.patches_m33d import patchify, unpatchify
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining


def build(config):
    torch.manual_seed(0)
    return M33DForPreTraining(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_every_variant_learns_and_counts_are_known_beforehand(variant):
    config = tiny_config(**VARIANTS[variant])
    model, batch = build(config), random_batch(config)
    output = model(**batch, output_diagnostics=True)
    output.loss.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []
    counts = model.loss_counts(**batch, keep=output.keep)
    assert counts.keys() == output.loss_counts.keys() == model.loss_weights.keys()
    for name, count in counts.items():
        assert torch.equal(count, output.loss_counts[name]), name
    total = sum(w * output.losses[n] for n, w in model.loss_weights.items())
    torch.testing.assert_close(output.loss, total)
    assert all(torch.isfinite(value) for value in output.diagnostics.values())


@pytest.mark.parametrize("variant", ["plus", "video_motion", "shared_encoder"])
def test_saving_and_loading_gives_bit_equal_losses_and_tables(variant, tmp_path):
    config = tiny_config(**VARIANTS[variant])
    model, batch = build(config).eval(), random_batch(config)
    model.save_pretrained(tmp_path)
    loaded = M33DForPreTraining.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.m33d.positions.table, model.m33d.positions.table)
    assert torch.equal(loaded.decoder.positions.table, model.decoder.positions.table)
    output = model(**batch)
    assert torch.equal(loaded(**batch, keep=output.keep).loss, output.loss)
    half = M33DForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16)
    torch.testing.assert_close(half.m33d.positions.table.float(), model.m33d.positions.table, atol=4e-3, rtol=0)


def test_a_model_on_the_meta_device_needs_no_pixels_to_exist():
    with torch.device("meta"):
        model = M33DForPreTraining(tiny_config())
    assert model.decoder.mask_token.device.type == "meta"


def test_only_masked_tokens_are_predicted_and_the_loss_is_maes():
    config = tiny_config(modalities=[rgb_modality(weight=1.0, mask_ratio=0.5)])
    model, batch = build(config), random_batch(config)
    output = model(**batch, output_reconstruction=True)
    assert output.reconstructions["rgb"].shape == (4, 8, 8 * 8 * 3)
    patches = normalize_patches(patchify(batch["pixel_values"][:, None], 1, (8, 8)), "pooled", 3)
    rows = torch.arange(4)[:, None]
    expected = ((output.reconstructions["rgb"] - patches[rows, output.masked["rgb"]]) ** 2).mean()
    torch.testing.assert_close(output.loss, expected)


def test_the_last_decoder_layers_shortcut_is_exact():
    config = tiny_config()
    model, batch = build(config), random_batch(config)
    keep = model(**batch).keep
    states = model.m33d.encode(model.m33d.collect_inputs(batch, {}), keep)
    short, _ = model.decoder(states, keep, config.grid)
    layer = model.decoder.layers[-1]
    whole = type(layer).forward
    layer.forward = lambda tokens, num_queries=None: whole(layer, tokens)[:, -num_queries:]
    full, _ = model.decoder(states, keep, config.grid)
    for name in short:
        torch.testing.assert_close(short[name], full[name])


def test_features_of_visible_tokens_do_not_depend_on_masked_pixels():
    config = tiny_config()
    model, batch = build(config).eval(), random_batch(config)
    output = model(**batch, output_features=True)
    changed = dict(batch)
    pixels = patchify(batch["pixel_values"][:, None], 1, (8, 8))
    pixels[torch.arange(4)[:, None], output.masked["rgb"]] += 5.0
    changed["pixel_values"] = unpatchify(pixels, config.grid, 1, (8, 8))[:, 0]
    again = model(**changed, keep=output.keep, output_features=True)
    assert torch.equal(again.features["rgb"], output.features["rgb"])


def test_depth_reaches_the_rgb_encoder_through_the_decoder():
    config = tiny_config(modalities=both({"role": "input"}, {}))
    model, batch = build(config), random_batch(config)
    model(**batch).loss.backward()
    assert model.m33d.encoders["rgb"].layers[0].mlp.fc1.weight.grad.abs().max() > 0


def test_a_hidden_modality_tells_the_decoder_nothing():
    config = tiny_config(modalities=both({}, {"drop_probability": 0.5}))
    model, batch = build(config).eval(), random_batch(config)
    keep = model(**batch).keep
    hide = {"depth": torch.tensor([True, True, False, False])}
    first = model(**batch, keep=keep, hide=hide, output_reconstruction=True).reconstructions["rgb"]
    other = {**batch, "depth_values": batch["depth_values"] + 1.0}
    second = model(**other, keep=keep, hide=hide, output_reconstruction=True).reconstructions["rgb"]
    assert torch.equal(first[:2], second[:2])
    assert not torch.equal(first[2:], second[2:])


def test_invalid_depth_pixels_change_neither_loss_nor_count():
    config = tiny_config()
    model, batch = build(config).eval(), random_batch(config)
    first = model(**batch)
    index = torch.zeros_like(batch["depth_values"], dtype=torch.bool)
    for b in range(4):
        for token in first.masked["depth"][b].tolist():
            row, column = token // 4 * 8, token % 4 * 8
            index[b, 0, row : row + 8, column : column + 8] = True
    spoiled = torch.where(index & ~batch["depth_mask"], torch.tensor(99.0), batch["depth_values"])
    second = model(**{**batch, "depth_values": spoiled}, keep=first.keep)
    assert torch.equal(first.loss, second.loss)


def test_all_invalid_depth_gives_a_finite_loss():
    config = tiny_config(**VARIANTS["plus"])
    model, batch = build(config), random_batch(config, holes=1.1)
    output = model(**batch)
    output.loss.backward()
    assert float(output.losses["depth"].detach()) == 0.0
    assert float(output.losses["contrastive"].detach()) == 0.0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_one_sample_skips_matching_without_unused_parameters():
    config = tiny_config(**VARIANTS["plus"])
    model = build(config)
    output = model(**random_batch(config, batch_size=1))
    output.loss.backward()
    assert float(output.losses["matching"].detach()) == 0.0
    assert model.matching_head["depth"].weight.grad is not None


def test_position_free_contrast_cannot_use_position():
    """Equal pixels everywhere: without positions all tokens are equal, so retrieval cannot beat chance."""
    config = tiny_config(
        modalities=both(UNMASKED, UNMASKED), contrastive_weight=1.0, contrastive_position_free=True, use_cls_token=False
    )
    model = build(config).eval()
    pixels, depth = torch.ones(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
    output = model(pixel_values=pixels, depth_values=depth)
    torch.testing.assert_close(output.losses["contrastive"], torch.tensor(16.0).log())


def test_third_modality_needs_only_an_entry():
    thermal = depth_modality(name="thermal", input_name="thermal_values", mask_name=None, channels=2)
    config = tiny_config(modalities=[*both(), thermal], contrastive_weight=0.1, matching_weight=0.1)
    model = build(config)
    output = model(**random_batch(config), thermal_values=torch.randn(4, 2, 32, 32))
    output.loss.backward()
    assert output.losses.keys() == {"rgb", "depth", "thermal", "contrastive", "matching"}
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_attention_implementations_and_checkpointing_agree():
    config = tiny_config(**VARIANTS["video_motion"])
    model, batch = build(config), random_batch(config)
    keep = model(**batch).keep
    losses, gradients = [], []
    for setting in ("eager", "sdpa", "checkpointing"):
        if setting == "checkpointing":
            model.gradient_checkpointing_enable()
        else:
            model.set_attn_implementation(setting)
        model.zero_grad()
        loss = model(**batch, keep=keep).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append(model.m33d.embeddings["depth"].projection.weight.grad.clone())
    for loss, gradient in zip(losses[1:], gradients[1:]):
        torch.testing.assert_close(loss, losses[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, gradients[0], atol=1e-5, rtol=1e-4)


def test_bad_arguments_are_named():
    config = tiny_config()
    model, batch = build(config), random_batch(config)
    misspelt = {"dept_mask" if key == "depth_mask" else key: value for key, value in batch.items()}
    with pytest.raises(ConfigError, match="depth_mask"):
        model(**misspelt)
    with pytest.raises(ConfigError, match="depth_values"):
        model(pixel_values=batch["pixel_values"])
    with pytest.raises(ConfigError, match="keep has no visible tokens"):
        model(**batch, keep={"rgb": torch.zeros(4, 3, dtype=torch.long)})
    with pytest.raises(DataError, match="channels"):
        model(**{**batch, "depth_values": batch["pixel_values"]})
    with pytest.raises(ConfigError, match="loss_counts requires"):
        model.loss_counts(**batch)
    with pytest.raises(ConfigError, match="no loss term"):
        build(tiny_config(modalities=both(UNMASKED, UNMASKED)))


def test_features_do_not_depend_on_what_stands_in_holes():
    """Holes hold anything, NaN included, in the encoder as in pre-training."""
    model, batch = M33DModel(tiny_config()).eval(), random_batch(tiny_config())
    hidden = ~batch["depth_mask"]
    assert hidden.any()
    given = {"pixel_values": batch["pixel_values"], "depth_mask": batch["depth_mask"]}
    zeros, nans = (batch["depth_values"].masked_fill(hidden, value) for value in (0.0, float("nan")))
    with torch.no_grad():
        zero, nan = (model.extract_features(**given, depth_values=depth) for depth in (zeros, nans))
        plain = model.extract_features(pixel_values=batch["pixel_values"], depth_values=zeros)
        states = model(**given, depth_values=nans).last_hidden_state
    assert torch.equal(zero["depth"], nan["depth"]) and torch.equal(plain["depth"], nan["depth"])
    assert states.isfinite().all()


def test_the_base_model_never_masks_and_takes_other_sizes_and_single_images():
    model = M33DModel(tiny_config()).eval()
    assert model(pixel_values=torch.randn(2, 3, 24, 40)).last_hidden_state.shape == (2, 1 + 15, 32)
    features = model.extract_features(torch.randn(2, 3, 32, 32), depth_values=torch.randn(2, 1, 32, 32))
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "rgb": (2, 16, 32),
        "depth": (2, 16, 32),
    }
    clips = M33DModel(tiny_config(**CLIP)).eval()
    assert clips(pixel_values=torch.randn(2, 3, 32, 32)).last_hidden_state.shape == (2, 16, 32)
    assert clips(pixel_values=torch.randn(2, 8, 3, 32, 32)).last_hidden_state.shape == (2, 64, 32)


def test_forward_exports_as_one_graph():
    config = tiny_config(**VARIANTS["plus"])
    model, batch = build(config), random_batch(config)
    output = model(**batch)
    hide = {"depth": torch.tensor([True, False, True, False])}
    exported = torch.export.export(model, (), {**batch, "keep": output.keep, "hide": hide}, strict=False).module()(
        **batch, keep=output.keep, hide=hide
    )
    torch.testing.assert_close(exported.loss, model(**batch, keep=output.keep, hide=hide).loss)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_bfloat16_trains_every_variant_at_other_sizes_and_without_valid_depth(variant, mode):
    config = tiny_config(**VARIANTS[variant])
    model = build(config)
    tables = [table for name, table in model.named_buffers() if name.endswith("positions.table")]
    wide = random_batch(tiny_config(**{**VARIANTS[variant], "image_size": (24, 40)}), batch_size=2)
    empty = random_batch(config, batch_size=1, holes=2.0)
    if mode == "weights":
        model = model.to(torch.bfloat16)
    for batch in (wide, empty):
        if mode == "weights":
            batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "autocast"):
            output = model(**batch, output_diagnostics=True)
        output.loss.backward()
        assert output.loss.dtype == torch.float32
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(torch.isfinite(table).all() for table in tables)


# That "plus" is one graph is asked in test_compile.py, of three batches.
@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plus", "shared_encoder", "multimae"])
def test_forward_and_losses_compile_without_a_graph_break(variant):
    config = tiny_config(**VARIANTS[variant])
    model, batch = build(config).eval(), random_batch(config)
    plain = model(**batch)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss = compiled(**batch, keep=plain.keep).loss
    torch.testing.assert_close(loss, model(**batch, keep=plain.keep).loss)
    loss.backward()


@pytest.mark.parametrize(
    "change",
    [
        {"depth_values": torch.zeros(4, 1, 64, 64), "depth_mask": None},
        {"depth_values": torch.zeros(2, 1, 32, 32), "depth_mask": None},
        {"depth_mask": torch.ones(4, 1, 64, 64, dtype=torch.bool)},
        {"depth_mask": torch.ones(4, 32, 32, dtype=torch.bool)},
    ],
)
def test_modalities_and_masks_of_other_shapes_are_refused(change):
    config = tiny_config()
    with pytest.raises(DataError, match="same samples, frames, height and width"):
        build(config)(**{**random_batch(config), **change})


def test_the_literal_normalisation_of_predictions_follows_the_target():
    for norm in ("pooled", "per_channel"):
        config = tiny_config(modalities=[rgb_modality(weight=1.0, target_norm=norm, normalize_prediction=True)])
        output = build(config)(**random_batch(config), output_reconstruction=True)
        pixels = random_batch(config)["pixel_values"][:, None]
        rows = torch.arange(4)[:, None]
        target = normalize_patches(patchify(pixels, 1, (8, 8)), norm, 3)[rows, output.masked["rgb"]]
        prediction = normalize_patches(output.reconstructions["rgb"], norm, 3)
        torch.testing.assert_close(output.loss, (prediction - target).square().mean())


def test_evaluation_gathers_nothing_from_other_ranks(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: pytest.fail("a collective in evaluation"))
    config = tiny_config(**VARIANTS["batch_negatives"])
    output = build(config).eval()(**random_batch(config))
    assert torch.isfinite(output.loss)


def test_holes_may_hold_nan():
    config = tiny_config(**VARIANTS["plus"])
    model, batch = build(config).eval(), random_batch(config)
    first = model(**batch)
    holes = {**batch, "depth_values": batch["depth_values"].masked_fill(~batch["depth_mask"], float("nan"))}
    assert torch.equal(model(**holes, keep=first.keep).loss, first.loss)

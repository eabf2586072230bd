"""Denoising and distillation of the authors' follow-up: numbers against independent formulas, and off means off."""

import copy

import pytest
import torch

from helpers.tiny import CLIP, both, random_batch, tiny_config
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import depth_modality, rgb_modality
from m33d_hf.modeling.losses_m33d import distillation_loss, global_embedding
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

RGB = {"role": "input", "weight": 0.0, "mask_ratio": 0.5}
DEPTH = {"mask_ratio": 0.5, "denoising_weight": 0.5, "denoising_std": 0.3}
STD = DEPTH["denoising_std"]
SEPARATE = {
    "joint_encoding": True,
    "decoder_fusion": "separate",
    "modalities": both({"mask_ratio": 0.5}, DEPTH),
}
WIRINGS = {
    "joint": {},
    "fused": {"decoder_fusion": "fused"},
    "cross": {"decoder_attention": "cross"},
    "separate": SEPARATE,
    "shared_encoder": {"encoder_sharing": "shared"},
    "without_cls": {"use_cls_token": False},
    "clip": CLIP,
    "by_sample": {"loss_reduction": "sample"},
    "beside_contrast": {"contrastive_weight": 0.1, "contrastive_position_free": True},
}


def build(**overrides):
    torch.manual_seed(0)
    return M33DForPreTraining(tiny_config(**{"modalities": both(RGB, DEPTH), **overrides}))


def noise_for(batch, seed=1):
    shape = batch["depth_values"].shape
    return {"depth": torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


def patch_rows(pixels_BCHW, index_BV, size=8):
    """Patches picked by plain loops: (B, V, size * size) of one-channel images."""
    per_row = pixels_BCHW.shape[-1] // size
    rows = []
    for image, places in zip(pixels_BCHW, index_BV.tolist()):
        cells = [(place // per_row * size, place % per_row * size) for place in places]
        rows.append(torch.stack([image[0, y : y + size, x : x + size].flatten() for y, x in cells]))
    return torch.stack(rows)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_parameter_learns_and_counts_are_known_beforehand(wiring):
    model = build(**WIRINGS[wiring], distillation_weight=0.7)
    batch = random_batch(model.config)
    batch |= {"noise": noise_for(batch), "teacher_features": model.embed_globally(**batch)}
    output = model(**batch)
    output.loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    counts = model.loss_counts(**batch, keep=output.keep)
    assert counts.keys() == output.loss_counts.keys() == model.loss_weights.keys()
    assert {"depth_noise", "distillation"} < counts.keys()
    assert all(torch.equal(count, output.loss_counts[name]) for name, count in counts.items())
    total = sum(weight * output.losses[name] for name, weight in model.loss_weights.items())
    torch.testing.assert_close(output.loss, total)


@pytest.mark.parametrize("wiring", ["joint", "fused", "cross"])
def test_the_noise_of_visible_valid_pixels_is_predicted_and_targets_stay_clean(wiring):
    model = build(**WIRINGS[wiring])
    batch = random_batch(model.config, holes=0.3)
    noise = noise_for(batch)
    output = model(**batch, noise=noise, output_reconstruction=True)
    keep, masked = output.keep["depth"], output.masked["depth"]
    predicted = output.reconstructions["depth_noise"]
    assert predicted.shape == (4, 8, 64)
    valid = patch_rows(batch["depth_mask"].float(), keep)
    errors = (predicted - patch_rows(noise["depth"], keep)) ** 2
    torch.testing.assert_close(output.losses["depth_noise"], (errors * valid).sum() / valid.sum())
    assert output.loss_counts["depth_noise"] == valid.sum()
    hidden_valid = patch_rows(batch["depth_mask"].float(), masked)
    errors = (output.reconstructions["depth"] - patch_rows(batch["depth_values"], masked)).abs()
    torch.testing.assert_close(output.losses["depth"], (errors * hidden_valid).sum() / hidden_valid.sum())


def test_what_the_encoder_sees_is_the_input_and_its_noise_and_no_hole_gets_any():
    model = build()
    plain = build(modalities=both(RGB, {"mask_ratio": 0.5}))
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = random_batch(model.config)
    noise = noise_for(batch)
    noisy = model.eval()(**batch, noise=noise, output_features=True)
    seen = (batch["depth_values"] + STD * noise["depth"]) * batch["depth_mask"]
    expected = plain.eval()(**{**batch, "depth_values": seen}, keep=noisy.keep, output_features=True)
    torch.testing.assert_close(noisy.features["depth"], expected.features["depth"])
    assert torch.equal(noisy.features["rgb"], expected.features["rgb"])
    nan_in_holes = batch["depth_values"].masked_fill(~batch["depth_mask"], float("nan"))
    again = model(**{**batch, "depth_values": nan_in_holes}, noise=noise, keep=noisy.keep)
    assert torch.equal(again.loss, noisy.loss)


def test_of_a_sample_whose_depth_is_hidden_no_noise_counts():
    model = build(modalities=both(RGB, {**DEPTH, "drop_probability": 0.5}))
    batch = random_batch(model.config, holes=0.0)
    hide = {"depth": torch.tensor([True, False, False, True])}
    output = model(**batch, noise=noise_for(batch), hide=hide)
    assert output.loss_counts["depth_noise"] == 2 * 8 * 64
    with pytest.raises(ConfigError, match="'hide'"):
        model.loss_counts(**batch, noise=noise_for(batch), keep=output.keep)


def test_modalities_without_a_mask_count_all_values_of_samples_that_are_shown():
    rgb = rgb_modality(mask_ratio=0.5, drop_probability=0.5, denoising_weight=1.0)
    model = build(modalities=[rgb, depth_modality(mask_ratio=0.5)])
    batch = random_batch(model.config)
    noise = {"rgb": torch.randn_like(batch["pixel_values"])}
    hide = {"rgb": torch.tensor([False, True, True, True])}
    assert model(**batch, noise=noise, hide=hide).loss_counts["rgb_noise"] == 8 * 192


def test_the_last_decoder_layers_shortcut_is_exact_with_noise():
    model = build()
    batch = random_batch(model.config)
    keep = model(**batch).keep
    states = model.m33d.encode(model.m33d.collect_inputs(batch, {}), keep)
    short, _ = model.decoder(states, keep, model.config.grid)
    layer = model.decoder.layers[-1]
    whole = type(layer).forward
    layer.forward = lambda tokens, num_queries=None: whole(layer, tokens)[:, -num_queries:]
    full, _ = model.decoder(states, keep, model.config.grid)
    assert set(short) == {"depth", "depth_noise"}
    for name in short:
        torch.testing.assert_close(short[name], full[name])


def test_off_means_bit_equal_and_adds_no_weight():
    off = {"denoising_weight": 0.0, "denoising_std": 9.0}
    results = []
    for modalities in (both(), both({}, off)):
        model = build(modalities=modalities)
        batch = random_batch(model.config)
        torch.manual_seed(3)
        output = model(**batch)
        output.loss.backward()
        results.append((output.loss, {n: p.grad for n, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    assert all(torch.equal(gradient, results[1][1][name]) for name, gradient in results[0][1].items())
    assert not any("noise" in name for name in results[0][1])


def test_training_draws_noise_and_evaluation_adds_none():
    model = build()
    batch = random_batch(model.config)
    keep = model(**batch).keep
    torch.manual_seed(5)
    drawn = model(**batch, keep=keep)
    torch.manual_seed(5)
    assert torch.equal(drawn.loss, model(**batch, keep=keep).loss)
    assert drawn.losses["depth_noise"] > 0.5
    first, second = (model.eval()(**batch, keep=keep) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert first.loss_counts["depth_noise"] == 0 == first.losses["depth_noise"]


def test_a_standard_deviation_does_not_change_what_predicting_nothing_costs():
    for std in (0.1, 2.0):
        model = build(modalities=both(RGB, {**DEPTH, "denoising_std": std}))
        torch.nn.init.zeros_(model.decoder.noise_heads["depth"].weight)
        batch = random_batch(model.config, batch_size=16)
        assert float(model(**batch).losses["depth_noise"].detach()) == pytest.approx(1.0, abs=0.06)


def test_global_embedding_and_distillation_against_loops():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(3, 5, 4, generator=generator) * 2, torch.randn(3, 4, generator=generator) * 3
    expected = 0.0
    for row in range(3):
        for feature in range(4):
            gap = abs(float(student[row, :, feature].max()) - float(teacher[row, feature]))
            expected += 0.5 * gap**2 if gap < 1 else gap - 0.5
    total, count = distillation_loss(global_embedding(student), teacher)
    assert float(total) == pytest.approx(expected, rel=1e-6) and count == 12


@pytest.mark.parametrize("tokens", ["all", "visible"])
def test_a_student_that_sees_what_its_teacher_sees_has_nothing_to_learn(tokens):
    model = build(modalities=both(RGB, {"mask_ratio": 0.5}), distillation_weight=1.0, distillation_tokens=tokens)
    batch = random_batch(model.config)
    keep = model.eval()(**batch).keep
    looked_at = keep if tokens == "visible" else None
    teacher = copy.deepcopy(model)
    output = model(**batch, keep=keep, teacher_features=teacher.embed_globally(looked_at, **batch))
    assert (float(output.losses["distillation"]) < 1e-10) is (tokens == "visible")
    output.loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_sees_no_noise_no_hole_and_no_positions_where_it_had_none():
    model = build(distillation_weight=1.0).eval()
    batch = random_batch(model.config)
    clean = model.embed_globally(**batch)
    assert clean["depth"].shape == (4, 32) and clean["depth"].dtype == torch.float32
    holes = batch["depth_values"].masked_fill(~batch["depth_mask"], float("nan"))
    again = model.embed_globally(**{**batch, "depth_values": holes}, noise=noise_for(batch), hide={})
    assert all(torch.equal(clean[name], again[name]) for name in clean)
    free = model.embed_globally(use_positions=False, **batch)
    flipped = {name: value.flip(-1, -2) for name, value in batch.items()}
    tokens = model.m33d.encode(model.m33d.collect_inputs(batch, {}), None, use_positions=False)
    expected = model.m33d.without_cls(tokens["rgb"]).max(dim=1).values
    torch.testing.assert_close(free["rgb"], expected)
    assert not torch.allclose(clean["rgb"], free["rgb"]) and not torch.allclose(
        clean["rgb"], model.embed_globally(**flipped)["rgb"]
    )


def test_without_a_teacher_training_stops_and_evaluation_counts_nothing():
    model = build(distillation_weight=1.0)
    batch = random_batch(model.config)
    with pytest.raises(ConfigError, match="teacher_features"):
        model(**batch)
    with pytest.raises(ConfigError, match=r"teacher_features of \['depth'\]"):
        model(**batch, teacher_features={"rgb": torch.zeros(4, 32)})
    assert model.eval()(**batch).loss_counts["distillation"] == 0


def test_half_precision_losses_are_summed_in_float32():
    model = build(distillation_weight=1.0)
    batch = random_batch(model.config)
    teacher = model.embed_globally(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch, noise=noise_for(batch), teacher_features=teacher)
    assert all(output.loss_sums[name].dtype == torch.float32 for name in ("depth_noise", "distillation"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"modalities": both(RGB, {**DEPTH, "denoising_weight": -1.0})}, "denoising_weight is -1"),
        ({"modalities": both(RGB, {**DEPTH, "denoising_std": 0.0})}, "denoising_std is 0; it must be above 0"),
        ({"modalities": both({}, {**DEPTH, "role": "target", "mask_ratio": 1.0})}, "cannot be denoised"),
        ({"modalities": both(RGB, {**DEPTH, "weight": 0.0}), "contrastive_weight": 1.0}, "shared decoder"),
        ({"distillation_weight": -0.1}, "distillation_weight is -0.1"),
    ],
)
def test_what_cannot_work_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(**overrides)


def test_noise_of_another_shape_or_modality_is_refused():
    model = build()
    batch = random_batch(model.config)
    with pytest.raises(DataError, match="one value per pixel"):
        model(**batch, noise={"depth": torch.zeros(4, 1, 16, 16)})
    with pytest.raises(ConfigError, match="noise is missing for"):
        model(**batch, noise={})
    with pytest.raises(ConfigError, match=r"\['rgb'\], which are not denoised"):
        model(**batch, noise=noise_for(batch) | {"rgb": torch.zeros(4, 3, 32, 32)})
    with pytest.raises(ConfigError, match="distillation_weight is 0"):
        model(**batch, teacher_features=model.embed_globally(**batch))

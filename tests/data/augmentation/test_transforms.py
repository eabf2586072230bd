"""Joint geometry, colour on RGB only, and the evaluation path."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from m33d_hf.data.augmentation import color, rgb_changes
from m33d_hf.data.augmentation.crops import fixed_offsets, multi_scale_crop, random_resized_crop, scale_jitter
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.randomness import Draw, Uniforms, generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.preprocessing_m33d import place

CROPS = ("random_resized", "multiscale", "random", "scale_jitter", "resize", "center")


def ramp_sample(height=60, width=80, frames=3, epoch=0, key="ramp"):
    """A clip in which every map encodes the pixel's column and row, with a hole in depth."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    rgb = torch.stack([rows, columns, columns]).to(torch.uint8).expand(frames, 3, height, width).contiguous()
    depth = (columns + 1000.0 * rows).expand(frames, 1, height, width).clone()
    depth[..., 20:30, 30:40] = math.nan
    labels = columns.to(torch.uint8).expand(frames, height, width).contiguous()
    return RGBDSample(key, rgb, depth, labels, meta={"draw": Draw(0, epoch)})


def noise_frames(frames=2, height=24, width=20):
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator_of(3), dtype=torch.uint8)


def draws(*parts):
    return Uniforms(generator_of(*parts))


# Geometry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", CROPS)
def test_rgb_depth_and_labels_move_together(crop):
    options = TransformOptions(train_crop=crop, scale=(0.5, 1.0))
    for epoch in range(6):
        moved = build_transform(options, True, 32)(ramp_sample(epoch=epoch))
        assert moved.rgb.shape == (3, 3, 32, 32) and moved.rgb.dtype == torch.uint8
        assert moved.depth.shape == (3, 1, 32, 32) and moved.segmentation.shape == (3, 32, 32)
        depth, labels = moved.depth[:, 0], moved.segmentation
        valid = ~depth.isnan()
        assert torch.equal((depth % 1000)[valid].to(torch.uint8), labels[valid])
        # Antialiased RGB and nearest labels differ by less than the width of the filter.
        known = labels != 255
        assert ((moved.rgb[:, 1].int() - labels.int())[known].abs() <= 4).all()
        rows = (depth[valid] / 1000).int()
        assert ((moved.rgb[:, 0][valid].int() - rows).abs() <= 4).all()


@pytest.mark.parametrize("crop", CROPS)
def test_all_frames_of_a_clip_move_alike(crop):
    options = TransformOptions(train_crop=crop, scale=(0.5, 1.0), color_jitter=1.0, blur=1.0)
    moved = build_transform(options, True, (24, 32))(ramp_sample())
    for map_ in (moved.rgb, moved.depth, moved.segmentation):
        assert torch.equal(map_[0].nan_to_num(-1), map_[2].nan_to_num(-1))


def test_depth_is_never_mixed_with_holes_or_other_depths():
    sample = ramp_sample()
    values = set(sample.depth[~sample.depth.isnan()].tolist())
    for epoch in range(5):
        sample.meta["draw"] = Draw(0, epoch)
        moved = build_transform(TransformOptions(), True, 48)(sample).depth
        assert set(moved[~moved.isnan()].tolist()) <= values
        assert moved.shape == (3, 1, 48, 48)


def test_a_transform_is_a_function_of_seed_epoch_key_and_view():
    transform = build_transform(TransformOptions(color_jitter=1.0), True, 32)
    base = transform(ramp_sample()).rgb
    assert torch.equal(transform(ramp_sample()).rgb, base)
    others = [ramp_sample(epoch=1), ramp_sample(key="other"), ramp_sample(), ramp_sample()]
    others[2].meta["draw"], others[3].meta["draw"] = Draw(1, 0), Draw(0, 0, view=1)
    assert all(not torch.equal(transform(sample).rgb, base) for sample in others)


def test_colour_does_not_change_the_geometry():
    plain = build_transform(TransformOptions(), True, 32)(ramp_sample())
    colourful = build_transform(TransformOptions(color_jitter=1, blur=1, grayscale=1), True, 32)(ramp_sample())
    assert torch.equal(plain.segmentation, colourful.segmentation)
    assert torch.equal(plain.depth.nan_to_num(-1), colourful.depth.nan_to_num(-1))
    assert not torch.equal(plain.rgb, colourful.rgb)


def test_flip_happens_as_often_as_asked():
    options = TransformOptions(train_crop="resize", flip=0.25)
    transform = build_transform(options, True, (60, 80))
    flipped = [bool(transform(ramp_sample(epoch=epoch)).segmentation[0, 0, 0] == 79) for epoch in range(400)]
    assert 0.18 < sum(flipped) / 400 < 0.32
    whole = build_transform(dataclasses.replace(options, flip=1.0), True, (60, 80))(ramp_sample())
    assert torch.equal(whole.rgb, ramp_sample().rgb.flip(-1))


def test_random_resized_crop_draws_areas_and_ratios_of_the_given_range():
    boxes = [random_resized_crop((300, 400), (32, 32), (0.2, 1.0), (0.75, 4 / 3), draws(i)).box for i in range(400)]
    shares = [h * w / 120000 for _, _, h, w in boxes]
    ratios = [w / h for _, _, h, w in boxes]
    assert 0.19 < min(shares) < 0.25 and max(shares) > 0.8 and min(ratios) > 0.74 and max(ratios) < 1.35
    assert all(top >= 0 and left >= 0 and top + h <= 300 and left + w <= 400 for top, left, h, w in boxes)


def test_random_resized_crop_of_a_long_strip_takes_the_centre():
    top, left, height, width = random_resized_crop((10, 400), (8, 8), (0.9, 1.0), (0.75, 4 / 3), draws(0)).box
    assert (top, height, width) == (0, 10, 13) and abs(left + width / 2 - 200) <= 1


def test_multi_scale_crop_has_videomaes_boxes_and_places():
    seen = {multi_scale_crop((256, 340), (224, 224), (1, 0.875, 0.75, 0.66), draws(i)).box for i in range(4000)}
    # int(256 * scale); 224 is the output itself. Heights and widths differ by at most one step: 10 pairs.
    sides = [256, 224, 192, 168]
    pairs = {(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1}
    assert {box[2:] for box in seen} == pairs and len(pairs) == 10
    for h, w in pairs:
        places = {box[:2] for box in seen if box[2:] == (h, w)}
        assert places == set(fixed_offsets((256, 340), (h, w)))
    assert len(set(fixed_offsets((256, 340), (192, 192)))) == 13
    assert fixed_offsets((256, 340), (192, 192))[:5] == [(0, 0), (0, 148), (64, 0), (64, 148), (32, 74)]


def test_multi_scale_crop_snaps_to_the_output_without_leaving_the_image():
    assert multi_scale_crop((226, 300), (224, 224), (1,), draws(0)).box[2:] == (224, 224)
    for seed in range(20):
        top, left, height, width = multi_scale_crop((222, 222), (224, 224), (1,), draws(seed)).box
        assert (top, left, height, width) == (0, 0, 222, 222)


def test_scale_jitter_pads_with_values_that_count_for_nothing():
    options = TransformOptions(train_crop="scale_jitter", scale=(0.5, 0.5), flip=0.0, color_jitter=1.0)
    moved = build_transform(options, True, 80)(ramp_sample())
    assert (moved.rgb[..., 30:, :] == 128).all() and (moved.rgb[..., 40:] == 128).all()
    assert moved.depth[..., 30:, :].isnan().all() and (moved.segmentation[..., 40:] == 255).all()
    assert (moved.segmentation[:, :30, :40] < 80).all()
    enlarged = scale_jitter((60, 80), (80, 80), (2.0, 2.0), draws(1))
    assert enlarged.resized == (120, 160) and enlarged.place_map(torch.zeros(60, 80), 1).shape == (80, 80)


def test_a_third_modality_follows():
    sample = ramp_sample()
    sample.meta["modalities"] = {"thermal": sample.depth.clone()}
    moved = build_transform(TransformOptions(), True, 32)(sample)
    assert torch.equal(moved.meta["modalities"]["thermal"].nan_to_num(-1), moved.depth.nan_to_num(-1))
    assert sample.meta["modalities"]["thermal"].shape[-1] == 80  # the sample given is left as it was
    sample.meta["modalities"]["thermal"] = sample.depth[..., ::2, ::2]
    with pytest.raises(DataError, match="thermal 3 frames of 30 x 40"):
        build_transform(TransformOptions(), True, 32)(sample)


def test_samples_may_lack_maps():
    transform = build_transform(TransformOptions(), True, 32)
    bare = RGBDSample("rgb", rgb=noise_frames(), meta={"draw": Draw(0)})
    assert transform(bare).depth is None and transform(bare).rgb.shape == (2, 3, 32, 32)
    deep = RGBDSample("depth", depth=torch.ones(1, 1, 40, 40), meta={"draw": Draw(0)})
    assert transform(deep).rgb is None and transform(deep).depth.shape == (1, 1, 32, 32)


# Evaluation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
def test_evaluation_is_the_shared_deterministic_path(mode):
    sample = ramp_sample()
    moved = build_transform(TransformOptions(eval_crop=mode, color_jitter=1), False, (32, 48))(sample)
    plan = place((60, 80), (32, 48), mode)
    assert torch.equal(moved.rgb, plan.place_rgb(sample.rgb))
    assert torch.equal(moved.segmentation, plan.place_map(sample.segmentation, 255))
    sample.meta.clear()  # no draw is needed
    assert torch.equal(build_transform(TransformOptions(eval_crop=mode), False, (32, 48))(sample).rgb, moved.rgb)


# Colour ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (color.adjust_brightness, TF.adjust_brightness, (0.0, 0.6, 1.4)),
        (color.adjust_contrast, TF.adjust_contrast, (0.0, 0.6, 1.4)),
        (color.adjust_saturation, TF.adjust_saturation, (0.0, 0.6, 1.4)),
        (color.adjust_hue, TF.adjust_hue, (-0.5, -0.1, 0.3, 0.5)),
    ],
)
def test_colour_means_what_it_means_in_torchvision(ours, theirs, factors):
    frames = noise_frames()
    frames[:, :, :4] = frames[:, :1, :4]  # grey pixels, without a hue
    for factor in factors:
        wanted = theirs(frames.double() / 255, factor) * 255
        # torchvision's luma weights add up to 0.9999.
        assert (ours(frames.float(), factor) - wanted).abs().max() < 0.03


def test_blur_and_grey_mean_what_they_mean_in_torchvision():
    frames = noise_frames().float()
    wanted = TF.gaussian_blur(frames.double(), [5, 5], [1.3, 1.3])
    assert (color.gaussian_blur(frames, 5, 1.3) - wanted).abs().max() < 0.01
    assert (color.grey(frames) - TF.rgb_to_grayscale(frames.double())).abs().max() < 0.1
    assert color.gaussian_blur(frames[..., :1, :2], 9, 2.0).shape == (2, 3, 1, 2)


def test_jitter_draws_within_the_strengths_in_every_order():
    orders = {tuple(draws(i).order(4)) for i in range(400)}
    assert len(orders) == 24
    frames = noise_frames().float()
    nothing = color.draw_jitter(0, 0, 0, 0, draws(0))
    assert torch.equal(color.color_jitter(frames.clone(), [nothing] * len(frames)), frames)
    flat = torch.full((200, 3, 2, 2), 100.0)
    drawn = [color.draw_jitter(0.4, 0, 0, 0, draws(i)) for i in range(200)]
    levels = color.color_jitter(flat, drawn).mean(dim=(1, 2, 3)).tolist()
    assert 60 <= min(levels) < 65 and 135 < max(levels) <= 140


def test_frames_jittered_together_are_bit_equal_to_each_alone():
    frames = torch.rand(40, 3, 17, 13, generator=torch.Generator().manual_seed(3)) * 255
    drawn = [color.draw_jitter(0.4, 0.4, 0.2, 0.1, draws(i)) if i % 3 else color.UNCHANGED for i in range(40)]
    alone = [color.color_jitter(frame[None].clone(), [one]) for frame, one in zip(frames, drawn, strict=True)]
    assert torch.equal(color.color_jitter(frames.clone(), drawn), torch.cat(alone))


@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_samples_finished_together_are_bit_equal_to_each_alone(at_once, monkeypatch):
    monkeypatch.setattr(rgb_changes, "VALUES_AT_ONCE", at_once)
    options = TransformOptions(train_crop="scale_jitter", scale=(0.5, 1.5), color_jitter=0.6, grayscale=0.3, blur=0.4)
    transform = build_transform(options, True, (30, 26))
    samples = [ramp_sample(epoch=i) for i in range(12)]
    together = transform.finish([transform.begin(sample) for sample in samples])
    for sample, found in zip(samples, together, strict=True):
        alone = transform(sample)
        assert torch.equal(found.rgb, alone.rgb) and torch.equal(found.segmentation, alone.segmentation)


def test_grayscale_makes_channels_equal():
    options = TransformOptions(train_crop="resize", flip=0, grayscale=1.0)
    rgb = build_transform(options, True, (60, 80))(ramp_sample()).rgb
    assert torch.equal(rgb[:, 0], rgb[:, 1]) and torch.equal(rgb[:, 1], rgb[:, 2])


# Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_an_image_smaller_than_a_patch_is_named(train):
    sample = RGBDSample("scene/07.png", rgb=noise_frames(1, 10, 40), meta={"draw": Draw(0)})
    with pytest.raises(DataError, match=r"scene/07.png: the image has 10 x 40 pixels .* one patch of 16 x 16"):
        build_transform(TransformOptions(), train, 32, patch_size=16)(sample)


def test_maps_of_different_sizes_are_named():
    sample = RGBDSample("a", noise_frames(1), torch.ones(1, 1, 12, 10), meta={"draw": Draw(0)})
    with pytest.raises(DataError, match=r"a: the maps differ.*rgb 1 frames of 24 x 20, depth 1 frames of 12 x 10"):
        build_transform(TransformOptions(), True, 32)(sample)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_crop", "multi_scale"),
        ("eval_crop", "centre"),
        ("resize_mode", "lanczos"),
        ("flip", 1.5),
        ("color_jitter", -0.1),
        ("brightness", -1.0),
        ("hue", 0.6),
        ("blur_kernel", 4),
        ("scale", (0.5,)),
        ("scale", (1.0, 2.0)),
        ("ratio", (2.0, 1.0)),
        ("blur_sigma", (0.0, 1.0)),
        ("multiscale_scales", ()),
    ],
)
def test_senseless_options_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"transforms\.{field}"):
        TransformOptions(**{field: value})

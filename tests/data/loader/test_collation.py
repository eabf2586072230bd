"""Batches: what is in them, that they depend on nothing but the samples, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from m33d_hf.data.augmentation.mixing import draw_mix
from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.depth.normals import surface_normals
from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.data.loader.collation import (
    ClipClassificationCollator,
    DepthCollator,
    PretrainingCollator,
    SegmentationCollator,
)
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import DataError, LabelError
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb


def config(**changes):
    return M33DConfig(
        **{
            "image_size": [16, 24],
            "patch_size": 8,
            "hidden_size": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "intermediate_size": 8,
            "decoder_hidden_size": 8,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 1,
            "modalities": [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5)],
        }
        | changes
    )


def clip_config(**changes):
    return config(**({"num_frames": 4, "tubelet_size": 2} | changes))


def sample(key="a", frames=1, height=16, width=24, draw=None, **changes):
    generator = torch.Generator().manual_seed(sum(map(ord, key)))
    depth = torch.rand(frames, 1, height, width, generator=generator) + 1
    depth[..., :4] = math.nan
    values = {
        "rgb": torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8),
        "depth": depth,
        "segmentation": torch.randint(0, 3, (frames, height, width), generator=generator, dtype=torch.uint8),
        "label": 1,
        "meta": {"draw": draw or Draw(0), "index": ord(key[0]), "skipped": []},
    }
    return RGBDSample(key, **(values | changes))


# Pre-training ------------------------------------------------------------------------------------------------


def test_image_batch_holds_normalised_rgb_standardised_depth_and_masks():
    samples = [sample("a"), sample("b")]
    batch = PretrainingCollator(config())(samples)
    assert batch["pixel_values"].shape == (2, 3, 16, 24) and batch["depth_values"].shape == (2, 1, 16, 24)
    spec = config().spec("rgb")
    assert torch.equal(batch["pixel_values"][1], normalize_rgb(samples[1].rgb, spec.channel_mean, spec.channel_std)[0])
    values, valid = standardize_depth(samples[1].depth)
    assert torch.equal(batch["depth_values"][1], values[0]) and torch.equal(batch["depth_mask"][1], valid[0])
    assert (batch["depth_values"][..., :4] == 0).all() and not batch["depth_mask"][..., :4].any()
    assert "hide" not in batch and batch["meta"]["keys"] == ["a", "b"]


def test_keep_is_ascending_and_of_the_right_count():
    batch = PretrainingCollator(config())([sample("a"), sample("b")])
    assert set(batch["keep"]) == {"rgb", "depth"}
    for keep in batch["keep"].values():
        assert keep.shape == (2, 3) and keep.dtype == torch.int64
        assert (keep.diff(dim=1) > 0).all() and keep.min() >= 0 and keep.max() < 6


def test_clip_batch_keeps_time():
    batch = PretrainingCollator(clip_config())([sample("a", 4), sample("b", 4)])
    assert batch["pixel_values"].shape == (2, 4, 3, 16, 24)
    assert batch["depth_mask"].shape == (2, 4, 1, 16, 24) and batch["depth_mask"].dtype == torch.bool


def test_normals_are_computed_from_the_depth_of_the_batch():
    """Before it is standardised, and as normal maps hold them; a hole and what lies beside it has none."""
    fields = {"channels": 3, "input_name": "normal_values", "mask_name": "normal_mask", "role": "target"}
    fields |= {"mask_ratio": 1.0, "channel_mean": [0.5] * 3, "channel_std": [0.5] * 3}
    made = config(modalities=[rgb_modality(), {"name": "depth_normals", **fields}])
    depths = {key: sample(key).depth.mul(0.1) + 2 for key in "ab"}
    batch = PretrainingCollator(made)([sample(key, depth=depth) for key, depth in depths.items()])
    assert "depth_values" not in batch
    for row, key in enumerate("ab"):
        expected = surface_normals(depths[key])
        known = expected.isfinite().all(dim=1)
        assert torch.equal(batch["normal_mask"][row], known) and not known[..., :5].any() and known.any()
        assert torch.allclose(batch["normal_values"][row][:, known[0]], expected[0][:, known[0]], atol=1e-6)
        assert (batch["normal_values"][row][:, ~known[0]] == 0).all()
    given = sample("a")
    given.meta["modalities"] = {"depth_normals": torch.zeros(1, 3, 16, 24)}
    with pytest.raises(DataError, match="a: depth_normals is computed from depth; give the source's own map another"):
        PretrainingCollator(made)([given])
    with pytest.raises(DataError, match="a: the sample has no depth"):
        PretrainingCollator(made)([sample("a", depth=None)])
    fields |= {"channels": 2, "channel_mean": None, "channel_std": None}
    with pytest.raises(DataError, match="a: depth_normals has 3 channels, but the model takes 2"):
        PretrainingCollator(config(modalities=[rgb_modality(), {"name": "depth_normals", **fields}]))([sample("a")])


@pytest.mark.parametrize("masking", ["random", "tube", "frame", "motion"])
def test_draws_do_not_depend_on_the_batch(masking):
    modalities = [
        rgb_modality(mask_ratio=0.5, masking=masking),
        depth_modality(mask_ratio=0.5, masking=masking, drop_probability=0.5),
    ]
    collate = PretrainingCollator(clip_config(modalities=modalities))
    keys = [f"k{index}" for index in range(12)]
    together = collate([sample(key, 4) for key in keys])
    hidden = together["hide"]["depth"]
    assert hidden.dtype == torch.bool and 0 < int(hidden.sum()) < 12
    for row, key in enumerate(keys):
        alone = collate([sample(key, 4)])
        for name in ("rgb", "depth"):
            assert torch.equal(alone["keep"][name][0], together["keep"][name][row])
        assert torch.equal(alone["hide"]["depth"][0], hidden[row])
        assert torch.equal(alone["depth_values"][0], together["depth_values"][row])
        assert torch.equal(alone["pixel_values"][0], together["pixel_values"][row])


def test_masks_change_with_epoch_seed_and_view():
    big = config(image_size=64, modalities=[rgb_modality(mask_ratio=0.5)])
    collate = PretrainingCollator(big)
    draws = [Draw(0, 0, 0), Draw(0, 1, 0), Draw(1, 0, 0), Draw(0, 0, 1)]
    kept = {tuple(collate([sample("a", height=64, width=64, draw=draw)])["keep"]["rgb"][0].tolist()) for draw in draws}
    assert len(kept) == 4


@pytest.mark.parametrize("shared", [True, False])
def test_shared_masks_are_shared(shared):
    keep = PretrainingCollator(config(image_size=64, share_mask=shared))(
        [sample("a", height=64, width=64), sample("b", height=64, width=64)]
    )["keep"]
    assert torch.equal(keep["rgb"], keep["depth"]) is shared


def test_roles_decide_what_is_drawn_and_loaded():
    rgb_only = PretrainingCollator(config(modalities=[rgb_modality()]))([sample(depth=None)])
    assert "depth_values" not in rgb_only and set(rgb_only["keep"]) == {"rgb"}
    target = [rgb_modality(mask_ratio=0.5), depth_modality(role="target", mask_ratio=1.0)]
    batch = PretrainingCollator(config(modalities=target))([sample()])
    assert set(batch["keep"]) == {"rgb"} and batch["depth_values"].shape == (1, 1, 16, 24)


def test_hiding_can_be_switched_off():
    modalities = [rgb_modality(), depth_modality(drop_probability=0.5, denoising_weight=0.1)]
    batch = PretrainingCollator(config(modalities=modalities), hide=False)([sample()])
    assert "hide" not in batch and "noise" not in batch


@pytest.mark.parametrize("frames", [1, 4])
def test_noise_does_not_depend_on_the_batch(frames):
    modalities = [rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, denoising_weight=0.1)]
    made = config(modalities=modalities) if frames == 1 else clip_config(modalities=modalities)
    collate = PretrainingCollator(made)
    together = collate([sample(key, frames) for key in "abcdefgh"])
    noise = together["noise"]["depth"]
    assert set(together["noise"]) == {"depth"} and noise.shape == together["depth_values"].shape
    for row, key in enumerate("abcdefgh"):
        assert torch.equal(collate([sample(key, frames)])["noise"]["depth"][0], noise[row])
    assert noise.std().item() == pytest.approx(1.0, abs=0.06) and abs(noise.mean().item()) < 0.06
    other = collate([sample("a", frames, draw=Draw(0, 1, 0))])["noise"]["depth"][0]
    assert not torch.equal(other, noise[0])
    plain = config() if frames == 1 else clip_config()
    assert "noise" not in PretrainingCollator(plain)([sample("a", frames)])


def test_a_third_modality_needs_a_config_entry_and_nothing_else():
    thermal = depth_modality(
        name="thermal", input_name="thermal_values", mask_name="thermal_mask", channel_mean=[20.0], channel_std=[5.0]
    )
    collate = PretrainingCollator(config(modalities=[rgb_modality(), thermal]))
    values = torch.full((1, 1, 16, 24), 30.0)
    values[..., 0] = math.nan
    one = sample()
    one.meta["modalities"] = {"thermal": values}
    batch = collate([one])
    assert (batch["thermal_values"][..., 1:] == 2.0).all() and (batch["thermal_values"][..., 0] == 0).all()
    assert batch["thermal_mask"][..., 1:].all() and not batch["thermal_mask"][..., 0].any()
    with pytest.raises(DataError, match=r"b: the sample has no thermal.*--data\.options\.modalities '{thermal: FOLD"):
        collate([sample("b")])


def test_all_invalid_depth_stays_finite():
    batch = PretrainingCollator(config())([sample(depth=torch.full((1, 1, 16, 24), math.nan))])
    assert (batch["depth_values"] == 0).all() and not batch["depth_mask"].any()


def test_the_model_takes_the_batch():
    from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

    model = M33DForPreTraining(config(modalities=[rgb_modality(), depth_modality(drop_probability=0.5)]))
    batch = PretrainingCollator(model.config)([sample("a"), sample("b")])
    batch.pop("meta")
    assert torch.isfinite(model(**batch).loss)


# Tasks -------------------------------------------------------------------------------------------------------


def test_segmentation_labels_are_int64_with_the_configs_ignore_index():
    one = sample()
    one.segmentation[:, :2] = 255
    batch = SegmentationCollator(config(num_labels=3))([one])
    assert batch["labels"].dtype == torch.int64 and torch.equal(batch["labels"][0], one.segmentation[0].long())
    other = SegmentationCollator(config(num_labels=3, semantic_loss_ignore_index=-100))([one])["labels"]
    assert (other[:, :2] == -100).all() and (other[:, 2:] >= 0).all()


def test_a_class_id_out_of_range_names_the_key_and_the_histogram():
    one = sample("room/3")
    one.segmentation[0, 0, :5] = 77
    with pytest.raises(LabelError, match=r"room/3: class ids outside 0 to 2 .*77: 5"):
        SegmentationCollator(config(num_labels=3))([one])


def test_depth_labels_are_metres_with_holes():
    one = sample()
    batch = DepthCollator(config())([one])
    assert batch["labels"].shape == (1, 16, 24) and set(batch) == {"pixel_values", "labels", "meta"}
    assert torch.equal(batch["labels"][0].nan_to_num(-1), one.depth[0, 0].nan_to_num(-1))


def test_classification_labels():
    collate = ClipClassificationCollator(clip_config(num_labels=2), train=False)
    batch = collate([sample("a", 4), sample("b", 4, label=0), sample("c", 4, label=None)])
    assert batch["labels"].tolist() == [1, 0, 255] and batch["labels"].dtype == torch.int64
    assert batch["pixel_values"].shape == (3, 4, 3, 16, 24)
    with pytest.raises(LabelError, match="b: label 2 is outside the model's 2 classes"):
        collate([sample("b", 4, label=2)])
    for label in (None, 255):
        with pytest.raises(LabelError, match=r"b: this training sample has no label.*drop_unlabelled"):
            ClipClassificationCollator(clip_config(num_labels=2), train=True)([sample("b", 4, label=label)])


def test_training_targets_are_smoothed_rows():
    collate = ClipClassificationCollator(clip_config(num_labels=4), MixingOptions(label_smoothing=0.1), train=True)
    batch = collate([sample("a", 4), sample("b", 4, label=3)])
    expected = [[0.025, 0.925, 0.025, 0.025], [0.025, 0.025, 0.025, 0.925]]
    torch.testing.assert_close(batch["labels"], torch.tensor(expected))
    plain = ClipClassificationCollator(clip_config(num_labels=4), train=True)([sample("a", 4)])
    assert plain["labels"].dtype == torch.float32 and plain["labels"].tolist() == [[0, 1, 0, 0]]


def test_image_models_get_images_that_are_erased_and_mixed():
    collate = ClipClassificationCollator(
        config(num_labels=2), MixingOptions(mixup=0.8), TransformOptions(erasing=1.0), train=True
    )
    batch = collate([sample("a"), sample("b", label=0)])
    assert batch["pixel_values"].shape == (2, 3, 16, 24)
    plain = ClipClassificationCollator(config(num_labels=2), train=False)([sample("a"), sample("b")])
    assert not torch.equal(batch["pixel_values"], plain["pixel_values"])


def test_a_mixed_batch_is_its_rows_and_their_partners():
    samples = [sample(key, 4, label=number % 2) for number, key in enumerate("abcde")]
    clean = ClipClassificationCollator(clip_config(num_labels=2), train=True)(samples)
    mixed = ClipClassificationCollator(clip_config(num_labels=2), MixingOptions(mixup=0.8), train=True)(samples)
    drawn = draw_mix(MixingOptions(mixup=0.8), 16, 24, 0, 0, "a", "mix")
    for row in range(5):
        expected = drawn.share * clean["pixel_values"][row] + (1 - drawn.share) * clean["pixel_values"][4 - row]
        torch.testing.assert_close(mixed["pixel_values"][row], expected)
        expected = drawn.share * clean["labels"][row] + (1 - drawn.share) * clean["labels"][4 - row]
        torch.testing.assert_close(mixed["labels"][row], expected)


def test_erasing_does_not_depend_on_the_batch_but_on_the_view():
    erasing = TransformOptions(erasing=1.0)
    collate = ClipClassificationCollator(clip_config(num_labels=2), erasing=erasing, train=True)
    together = collate([sample("a", 4), sample("b", 4)])["pixel_values"]
    assert torch.equal(collate([sample("b", 4)])["pixel_values"][0], together[1])
    assert not torch.equal(collate([sample("b", 4, draw=Draw(0, view=1))])["pixel_values"][0], together[1])
    unerased = ClipClassificationCollator(clip_config(num_labels=2), train=True)([sample("b", 4)])["pixel_values"][0]
    changed = (together[1] != unerased).all(dim=1)
    assert changed[0].any() and torch.equal(changed[0], changed[3])
    assert not torch.equal(together[1, 0][:, changed[0]], together[1, 3][:, changed[0]])


def test_lists_of_views_are_flattened():
    file = SkippedFile("x.avi", "truncated", "x")
    views = [sample("a", 4), sample("a", 4, draw=Draw(0, view=1))]
    views[0].meta["skipped"] = [file]
    dropped = RGBDSample("c", meta={"dropped": True, "skipped": [], "index": 99})
    batch = ClipClassificationCollator(clip_config(num_labels=2), train=True)([views, sample("b", 4), dropped])
    assert batch["pixel_values"].shape[0] == 3
    count, holes = batch["meta"].pop("hole_count"), batch["meta"].pop("holes")
    assert batch["meta"] == {"keys": ["a", "a", "b"], "indices": [97, 98, 99], "skipped": [file]}
    assert (count.frames, holes) == (8, []), "views of the same frames are read once"
    test = [sample("a", 4), sample("a", 4)]
    for crop, view in enumerate(test):
        view.meta.update(segment=0, crop=crop)
    batch = ClipClassificationCollator(clip_config(num_labels=2), train=False)([dropped, test])
    assert batch["meta"]["views"] == [(97, 0, 0), (97, 0, 1)]


# What every collator does ------------------------------------------------------------------------------------


def test_dropped_samples_leave_the_batch_but_not_the_account():
    file = SkippedFile("b.png", "truncated", "b")
    dropped = RGBDSample("b", meta={"dropped": True, "skipped": [file], "index": 98})
    batch = DepthCollator(config())([sample("a"), dropped])
    assert batch["labels"].shape[0] == 1
    assert batch["meta"] == {"keys": ["a"], "indices": [97, 98], "skipped": [file]}
    assert set(DepthCollator(config())([dropped])) == {"meta"}


def test_other_sizes_and_frame_counts_are_refused_by_key():
    with pytest.raises(DataError, match=r"z: the sample has 8 x 8 pixels, but the model takes 16 x 24"):
        DepthCollator(config())([sample("z", height=8, width=8)])
    with pytest.raises(DataError, match=r"z: the sample has 2 frames, but the model takes 1"):
        DepthCollator(config())([sample("z", 2)])
    free = PretrainingCollator(config(), check_size=False)([sample("z", height=32, width=40)])
    assert free["pixel_values"].shape == (1, 3, 32, 40) and free["keep"]["rgb"].shape == (1, 10)


def test_a_missing_map_is_named():
    with pytest.raises(DataError, match="z: the sample has no depth"):
        PretrainingCollator(config())([sample("z", depth=None)])
    with pytest.raises(DataError, match=r"z: the sample has no segmentation.*--data\.options\.num_classes N"):
        SegmentationCollator(config())([sample("z", segmentation=None)])

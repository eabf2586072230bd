"""RandAugment and random erasing: once per clip, only on what may be touched."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import torch

from m33d_hf.data.augmentation.clips import draw_erasing, draw_rand_augment, erase_box
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.rand_augmentation import augment_clip, draw_operations
from m33d_hf.data.augmentation.rand_geometry import follow, surround
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.finishing import EraseBoxes
from m33d_hf.data.randomness import Draw, Uniforms, generator_of, seeded
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError


def clip(frames=4, epoch=0, view=0, key="clip", **maps):
    """Frames that are all the same picture."""
    picture = torch.randint(0, 256, (1, 3, 40, 56), generator=generator_of(7), dtype=torch.uint8)
    return RGBDSample(key, picture.repeat(frames, 1, 1, 1), meta={"draw": Draw(0, epoch, view)}, **maps)


# RandAugment -------------------------------------------------------------------------------------------------


def augmented(sample, ops, magnitude):
    """The frames with the draw carried out where they are."""
    return augment_clip(sample.rgb, draw_rand_augment(sample, ops, magnitude))


def test_all_frames_get_the_same_operations():
    changed = 0
    for epoch in range(25):
        frames = augmented(clip(epoch=epoch), 4, 7)
        assert frames.dtype == torch.uint8 and frames.shape == (4, 3, 40, 56)
        assert all(torch.equal(frames[0], frames[number]) for number in range(1, 4))
        changed += not torch.equal(frames, clip().rgb)
    assert changed > 20


def test_it_is_a_function_of_seed_epoch_key_and_view():
    base = draw_rand_augment(clip(), 4, 7)
    with seeded(0, 0, "clip", 0, "randaugment"):  # as ever: a resumed run draws what it would have drawn
        assert base == draw_operations(4, 7, 40, 56)
    state = torch.get_rng_state()
    assert draw_rand_augment(clip(), 4, 7) == base and torch.equal(torch.get_rng_state(), state)
    others = [clip(epoch=1), clip(view=1), clip(key="other")]
    assert sum(draw_rand_augment(other, 4, 7) == base for other in others) <= 1


def test_strength_grows_with_the_magnitude():
    def distance(magnitude):
        moved = [augmented(clip(1, epoch=epoch), 2, magnitude).float() for epoch in range(30)]
        return sum(float((frames - clip(1).rgb).abs().mean()) for frames in moved)

    assert distance(25) > 1.3 * distance(3)


@pytest.mark.parametrize("crop", ["random", "random_resized", "scale_jitter"])
def test_it_runs_on_the_crop_and_leaves_the_geometry_draw_and_padding_alone(crop):
    options = TransformOptions(train_crop=crop, scale=(0.5, 1.0), flip=0.5)
    plain = build_transform(options, True, 24)
    both = build_transform(dataclasses.replace(options, randaugment_ops=2), True, 24)
    for epoch in range(12):
        first, untouched = clip(epoch=epoch), plain.begin(clip(epoch=epoch))
        begun = both.begin(first)
        assert (begun.flip, begun.placement) == (untouched.flip, untouched.placement)
        drawn = draw_rand_augment(first, 2, 7)
        part, seen = surround(first.rgb, follow(untouched.placement, drawn, (40, 56)))
        frames = untouched.placement.pad(augment_clip(seen.view(part), drawn), 128)
        frames = frames.flip(-1) if begun.flip else frames
        assert torch.equal(both(clip(epoch=epoch)).rgb, frames)


@pytest.mark.parametrize("maps", [{"depth": torch.ones(4, 1, 40, 56)}, {"segmentation": torch.zeros(4, 40, 56)}])
def test_a_sample_with_other_maps_is_refused(maps):
    with pytest.raises(ConfigError, match=r"clip: RandAugment moves only the RGB.*randaugment_ops 0"):
        build_transform(TransformOptions(randaugment_ops=1), True, 24)(clip(**maps))
    with pytest.raises(ConfigError, match=r"the sample has none"):
        draw_rand_augment(RGBDSample("empty"), 1, 1)


@pytest.mark.parametrize("values", [{"randaugment_ops": -1}, {"randaugment_magnitude": 31}])
def test_strange_settings_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        TransformOptions(**values)


# Erasing -----------------------------------------------------------------------------------------------------


def test_boxes_have_the_area_and_aspect_asked_for():
    options = TransformOptions(erasing=1.0, erasing_area=(0.1, 0.2), erasing_aspect=(0.5, 2.0))
    boxes = [erase_box(200, 300, options, Uniforms(generator_of(seed))) for seed in range(300)]
    shares = [h * w / 60000 for _, _, h, w in boxes]
    aspects = [h / w for _, _, h, w in boxes]
    assert 0.098 < min(shares) < 0.11 and 0.19 < max(shares) < 0.202
    assert 0.49 < min(aspects) < 0.56 and 1.8 < max(aspects) < 2.03
    assert abs(sum(math.log(aspect) for aspect in aspects) / 300) < 0.08  # symmetric in the logarithm
    assert all(top >= 0 and left >= 0 and top + h <= 200 and left + w <= 300 for top, left, h, w in boxes)


def test_boxes_come_as_often_as_asked_and_never_fill_a_frame():
    rare = TransformOptions(erasing=0.25)
    assert 0.2 < sum(erase_box(32, 32, rare, Uniforms(generator_of(i))) is not None for i in range(600)) / 600 < 0.3
    whole = TransformOptions(erasing=1.0, erasing_area=(1.0, 1.0), erasing_aspect=(1.0, 1.0))
    assert erase_box(4, 4, whole, Uniforms(generator_of(0))) is None
    assert erase_box(32, 32, TransformOptions(), Uniforms(generator_of(0))) is None


def test_noise_is_standard_normal_fresh_in_every_frame_and_only_in_the_box():
    options = TransformOptions(erasing=1.0, erasing_area=(0.2, 0.3), erasing_aspect=(1.0, 1.0))
    drawn = draw_erasing(64, 64, options, Draw(3), "k")
    assert drawn is not None
    batch = {"pixels": torch.full((2, 8, 3, 64, 64), 9.0)}
    EraseBoxes("pixels", [(1, drawn)]).apply(batch)
    untouched, erased = batch["pixels"]
    assert (untouched == 9).all()
    box = (erased != 9).all(dim=1)
    assert all(torch.equal(box[0], box[number]) for number in range(8)) and 0.18 < box[0].float().mean() < 0.32
    rows, columns = box[0].any(1).nonzero(), box[0].any(0).nonzero()
    assert int(box[0].sum()) == len(rows) * len(columns)  # a rectangle
    noise = erased.transpose(1, 2).transpose(2, 3)[box].flatten()
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
    assert not torch.equal(erased[0], erased[1])
    again = draw_erasing(64, 64, options, Draw(3), "k")
    assert again is not None and again.box == drawn.box
    cpu = torch.device("cpu")
    top, left, height, width = drawn.box
    for found in (again, drawn, pickle.loads(pickle.dumps(drawn))):  # drawn: asked a second time
        assert torch.equal(found.noise(8, cpu), erased[..., top : top + height, left : left + width])


@pytest.mark.parametrize(
    ("field", "value"), [("erasing", 1.5), ("erasing_area", (0.5, 2.0)), ("erasing_aspect", (3.0, 0.3))]
)
def test_erasing_out_of_range_is_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        TransformOptions(**{field: value})

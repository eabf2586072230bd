"""The deterministic image path."""

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.depth_m33d import resize_depth
from m33d_hf.modeling.preprocessing_m33d import (
    Placement,
    normalize_rgb,
    place,
    resize_map,
    resize_rgb,
    size_pair,
)


def random_rgb(height, width, frames=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 31), (90, 100)])
def test_resize_agrees_with_pil_up_to_rounding(mode, size):
    pixels = random_rgb(60, 80)
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    wanted = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).resize(size[::-1], resample)
    got = resize_rgb(pixels, size, mode)[0].permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - np.asarray(wanted, dtype=int)).max() <= 2


def test_resize_gives_a_frame_what_it_gives_the_clip():
    clip = random_rgb(30, 40, frames=5)
    assert torch.equal(resize_rgb(clip, (16, 16))[2:3], resize_rgb(clip[2:3], (16, 16)))


def test_resize_of_the_same_size_is_the_same_tensor():
    pixels = random_rgb(8, 9)
    assert resize_rgb(pixels, (8, 9)) is pixels and resize_map(pixels, (8, 9)) is pixels


@pytest.mark.parametrize("size", [(7, 5), (30, 33), (12, 80)])
def test_maps_take_the_nearest_pixel(size):
    depth = torch.rand(2, 1, 24, 40)
    wanted = torch.nn.functional.interpolate(depth, size, mode="nearest-exact")
    assert torch.equal(resize_map(depth, size), wanted)


def test_resized_maps_hold_only_values_that_were_there():
    depth = torch.full((1, 1, 31, 17), 2.0)
    depth[..., ::3] = 5.0
    depth[..., 1::4, :] = float("nan")
    small = resize_map(depth, (10, 40))
    assert set(small[~small.isnan()].tolist()) == {2.0, 5.0} and small.isnan().any()
    labels = torch.tensor([[0, 200], [255, 3]], dtype=torch.int64)
    assert set(resize_map(labels, (5, 5)).unique().tolist()) == {0, 3, 200, 255}


def test_center_covers_the_canvas_and_cuts_the_middle():
    plan = place((480, 640), 256)
    assert plan.resized == (256, 341) and plan.offset == (0, 42) and plan.size == (256, 256)
    assert place((100, 100), (240, 320)).resized == (320, 320)
    ramp = torch.arange(640).repeat(480, 1)
    middle = plan.place_map(ramp, 0)
    assert middle.shape == (256, 256) and abs(float(middle.float().mean()) - 319.5) < 2


def test_resize_mode_fits_each_axis():
    plan = place((480, 640), (240, 320), "resize")
    assert plan.place_rgb(random_rgb(480, 640)).shape == (1, 3, 240, 320)


def test_pad_fits_and_fills_the_rest():
    plan = place((20, 40), 30, "pad")
    assert plan.resized == (15, 30)
    rgb = plan.place_rgb(random_rgb(20, 40))
    assert rgb.shape == (1, 3, 30, 30) and (rgb[..., 15:, :] == 128).all()
    depth = plan.place_map(torch.ones(1, 1, 20, 40), float("nan"))
    assert depth[..., 15:, :].isnan().all() and (depth[..., :15, :] == 1).all()
    labels = plan.place_map(torch.zeros(1, 20, 40, dtype=torch.uint8), 255)
    assert (labels[:, 15:] == 255).all() and labels.dtype == torch.uint8


def test_normalize_agrees_with_the_float64_formula():
    pixels = random_rgb(5, 6, frames=2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = (pixels.double() / 255 - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    got = normalize_rgb(pixels, mean, std)
    assert got.dtype == torch.float32 and torch.allclose(got.double(), wanted, atol=1e-6)
    assert torch.equal(normalize_rgb(pixels, None, None), pixels.float() / 255)
    assert torch.equal(normalize_rgb(pixels[1:], mean, std), got[1:])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_picture_is_resized_into_memory_that_is_given(frames, interpolation):
    pixels = random_rgb(30, 40, frames=frames)
    by_pixel = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for box in ((0, 0, 30, 40), (3, 5, 11, 9), (2, 1, 28, 1), (7, 0, 16, 24)):
        placement = Placement(box, (16, 24), (0, 0), (16, 24))
        wanted = placement.view(pixels, interpolation)
        for given in (pixels, by_pixel):
            block = torch.full((3, frames, 16, 24, 3), 7, dtype=torch.uint8)
            out = block[1].permute(0, 3, 1, 2)
            found = placement.view(given, interpolation, planes=False, out=out)
            assert torch.equal(found, wanted) and (block[::2] == 7).all()
            assert (found.data_ptr() == out.data_ptr()) == placement.fills == (box[2:] != (16, 24))
    window = Placement((0, 0, 30, 40), (24, 32), (4, 4), (16, 24))
    assert not window.fills and torch.equal(window.view(by_pixel, planes=False, out=out), window.view(pixels))


def test_senseless_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"'centre'.*Did you mean 'center'"):
        place((4, 4), 4, "centre")
    with pytest.raises(ConfigError, match="bilinaer"):
        resize_rgb(random_rgb(4, 4), (2, 2), "bilinaer")
    for size in (0, (1, 2, 3), (4, -1), (2.5, 3)):
        with pytest.raises(ConfigError, match="image_size"):
            size_pair(size)


def test_torchvision_is_not_needed():
    code = "import sys, m33d_hf.modeling.preprocessing_m33d; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64, torch.float16])
@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
def test_a_map_is_cut_resized_and_windowed_as_by_single_steps(dtype, mode):
    values = torch.arange(2 * 40 * 50).remainder(251).view(2, 40, 50).to(dtype)
    for size in ((16, 24), (40, 50), (64, 48)):
        placement = replace(place((30, 41), size, mode), box=(5, 7, 30, 41))
        resized = resize_map(values[..., 5:35, 7:48], placement.resized)
        (top, left), (height, width) = placement.offset, size
        assert torch.equal(placement.view_map(values), resized[..., top : top + height, left : left + width])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
def test_a_map_of_another_resolution_is_placed_as_if_it_were_aligned_first(dtype, mode):
    draws = random.Random(0)
    # The last two pairs of sizes are among the few where float32 rounds to another pixel than exact arithmetic.
    for own, image in [((20, 25), (40, 50)), ((40, 25), (40, 50)), ((90, 70), (40, 50)), ((32, 300), (1555, 215))]:
        values = torch.arange(2 * own[0] * own[1]).remainder(2039).view(2, *own).to(dtype)
        aligned = resize_depth(values, image)
        box = (draws.randrange(9), draws.randrange(9), 30, 41)
        for size in ((16, 24), (30, 41), (64, 48)):
            placement = replace(place((30, 41), size, mode), box=box)
            assert torch.equal(placement.view_map(values, image), placement.view_map(aligned))
        whole = place(image, (24, 24), mode)
        assert torch.equal(whole.place_map(values, 0, image), whole.place_map(aligned, 0))


def test_resizing_takes_any_memory_layout():
    planes = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    pixels = planes.contiguous(memory_format=torch.channels_last)
    for mode in ("bilinear", "bicubic"):
        wanted = F.interpolate(planes[..., 3:33, 4:44].contiguous(), (24, 20), mode=mode, antialias=True)
        for images in (planes, pixels):
            assert torch.equal(resize_rgb(images[..., 3:33, 4:44], (24, 20), mode), wanted)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_view_is_the_window_of_what_the_kernel_makes(mode):
    draws = np.random.default_rng(5)
    for _ in range(200):
        frames, height, width = draws.integers(1, 4), draws.integers(5, 90), draws.integers(5, 90)
        pixels = torch.from_numpy(draws.integers(0, 256, (frames, height, width, 3), dtype=np.uint8))
        pixels = pixels.permute(0, 3, 1, 2)
        resized, size = tuple(map(int, draws.integers(1, 120, 2))), tuple(map(int, draws.integers(1, 100, 2)))
        offset = tuple(int(draws.integers(max(have - want, 0) + 1)) for have, want in zip(resized, size))
        placement = Placement((0, 0, int(height), int(width)), resized, offset, size)
        whole = pixels
        if resized != (height, width):
            kernel = {"bilinear": "_upsample_bilinear2d_aa", "bicubic": "_upsample_bicubic2d_aa"}[mode]
            whole = getattr(torch.ops.aten, kernel)(pixels.contiguous(), list(resized), False)
        wanted = whole[..., offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
        found = placement.view(pixels, mode)
        assert torch.equal(found, wanted)
        by_pixel = placement.view(pixels, mode, planes=False)
        assert torch.equal(by_pixel, wanted)
        missing = (size[0] - wanted.shape[-2], size[1] - wanted.shape[-1])
        padded = F.pad(wanted, (0, missing[1], 0, missing[0]), value=128)
        assert torch.equal(placement.pad(found, 128), padded) and torch.equal(placement.pad(by_pixel, 128), padded)


def test_one_image_is_resized_as_a_clip_is():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8))
    pixels = pixels.permute(0, 3, 1, 2)
    for cut in (pixels, pixels[..., 3:40, 5:50]):
        together = resize_rgb(cut, (30, 70))
        assert all(torch.equal(resize_rgb(cut[number], (30, 70)), together[number]) for number in range(2))

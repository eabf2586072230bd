"""Image processors: both backends, depth and label maps, saving, and the way back to image size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.collation import SegmentationCollator
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import DataError, DepthUnitError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD, M33DConfig, rgb_modality
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.placement_fields_m33d import placement_fields
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

BACKENDS = [M33DImageProcessor, M33DImageProcessorPil]


def _image(height: int = 20, width: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_resized_and_normalised(backend: type) -> None:
    image = _image()
    processor = backend(size={"height": 20, "width": 30})
    pixels = processor(images=[image, image], return_tensors="pt")["pixel_values"]
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    expected = (expected - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[1], expected, atol=1e-5, rtol=1e-5)
    assert backend(size={"height": 16, "width": 24})(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 24)


def test_backends_and_evaluation_agree_bit_for_bit() -> None:
    image = _image(40, 60)
    one, two = (b(size={"height": 16, "width": 24})(image, return_tensors="pt")["pixel_values"] for b in BACKENDS)
    assert torch.equal(one, two)
    rgb = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    transform = build_transform(TransformOptions(eval_crop="resize"), False, [16, 24], 8)
    collator = SegmentationCollator(M33DConfig(image_size=[16, 24], patch_size=8))
    assert torch.equal(collator.pixel_values([transform(RGBDSample("a", rgb=rgb))]), one)


def test_the_centre_crop_is_that_of_evaluation() -> None:
    image, crop = _image(37, 61), {"height": 16, "width": 16}
    labels = np.random.default_rng(0).integers(0, 9, (37, 61)).astype(np.uint8)
    rgb = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    sample = RGBDSample("a", rgb=rgb, segmentation=torch.from_numpy(labels)[None])
    sample = build_transform(TransformOptions(eval_crop="center"), False, 16, 8)(sample)
    collator = SegmentationCollator(M33DConfig(image_size=16, patch_size=8))
    for backend in BACKENDS:
        processor = backend(size={"shortest_edge": 16}, do_center_crop=True, crop_size=crop)
        batch = processor(image, segmentation_maps=labels, return_tensors="pt")
        assert torch.equal(batch["pixel_values"], collator.pixel_values([sample]))
        assert torch.equal(batch["labels"], sample.segmentation.long())


def test_unusual_options_take_the_backends_own_path() -> None:
    """Bilinear, PIL is a level away from torchvision (docs/processors.md says what other filters do)."""
    image, options = _image(40, 60), {"size": {"shortest_edge": 16, "longest_edge": 30}, "do_normalize": False}
    one, two = (b(**options)(image, return_tensors="pt")["pixel_values"] for b in BACKENDS)
    assert one.shape == (1, 3, 16, 24) and one.max() <= 1 and (one - two).abs().max() < 1.01 / 255


@pytest.mark.parametrize("resample", [2, 3])
def test_a_model_without_normalisation_gets_a_processor_without(resample: int) -> None:
    modality = rgb_modality(channel_mean=None, channel_std=None)
    image, size = _image(40, 60), [16, 24]
    rgb = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    chosen = TransformOptions(eval_crop="resize", resize_mode={2: "bilinear", 3: "bicubic"}[resample])
    sample = build_transform(chosen, False, size, 8)(RGBDSample("a", rgb=rgb))
    config = M33DConfig(image_size=size, patch_size=8, modalities=[modality])
    expected = SegmentationCollator(config).pixel_values([sample])
    assert expected.min() >= 0 and expected.max() <= 1
    for backend in BACKENDS:
        processor = backend.from_model_config(config, resample=resample)
        assert not processor.do_normalize
        assert torch.equal(processor(image, return_tensors="pt")["pixel_values"], expected)
    clip = M33DVideoProcessor.from_model_config(config, do_center_crop=False, resample=resample)
    assert torch.equal(clip(image, return_tensors="pt")["pixel_values"][:, 0], expected)


def test_grey_and_transparent_images_become_rgb() -> None:
    for mode in ("L", "RGBA"):
        for backend in BACKENDS:
            assert backend()(_image().convert(mode), return_tensors="pt")["pixel_values"].shape == (1, 3, 224, 224)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_is_standardised_over_valid_pixels_and_zero_elsewhere(backend: type) -> None:
    depth = np.random.default_rng(1).uniform(1, 3, (20, 30)).astype(np.float32)
    depth[:4] = np.nan
    processor = backend(size={"height": 20, "width": 30}, depth_standardization="full")
    batch = processor(_image(), depth=depth, return_tensors="pt")
    valid = torch.from_numpy(np.isfinite(depth))
    assert torch.equal(batch["depth_mask"][0, 0], valid)
    values = batch["depth_values"][0, 0]
    assert not values[~valid].any()
    good = torch.from_numpy(depth)[valid]
    torch.testing.assert_close(values[valid], (good - good.mean()) / good.std(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stored_depth_needs_its_unit(backend: type) -> None:
    stored = Image.fromarray(np.full((20, 30), 1500, dtype=np.uint16))
    with pytest.raises(DepthUnitError, match="depth_unit"):
        backend()(_image(), depth=stored)
    processor = backend(depth_unit="millimetre", depth_standardization="none")
    values = processor(_image(), depth=stored, return_tensors="pt")["depth_values"]
    assert values.shape == (1, 1, 224, 224) and values.eq(1.5).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_maps_follow_the_crop_and_never_mix_classes(backend: type) -> None:
    labels = np.zeros((20, 40), dtype=np.uint8)
    labels[:, 10:30] = 255
    processor = backend(size={"shortest_edge": 10}, do_center_crop=True, crop_size={"height": 10, "width": 10})
    batch = processor(_image(20, 40), segmentation_maps=Image.fromarray(labels), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 10, 10)
    assert batch["labels"].shape == (1, 10, 10) and batch["labels"].dtype == torch.int64
    assert batch["labels"].eq(255).all()  # the 10 central of 20 columns show columns 10 to 29


def test_maps_that_do_not_fit_are_refused() -> None:
    processor = M33DImageProcessorPil()
    with pytest.raises(DataError, match="one for each"):
        processor([_image(), _image()], depth=[np.ones((20, 30), np.float32)])
    with pytest.raises(DataError, match="19 x 30, but its image is 20 x 30"):
        processor(_image(), depth=np.ones((19, 30), np.float32))
    with pytest.raises(DataError, match="one channel"):
        processor(_image(), segmentation_maps=[np.ones((20, 30, 3), np.uint8)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_processors_come_back(backend: type, tmp_path: Path) -> None:
    config = M33DConfig(image_size=[32, 48], patch_size=16, min_depth=0.5, max_depth=4.0)
    processor = backend.from_model_config(config, depth_unit="tum")
    processor.save_pretrained(tmp_path)
    again = backend.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert again(_image(), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 48)
    assert (again.min_depth, again.max_depth, again.depth_unit) == (0.5, 4.0, "tum")


def test_maps_are_padded_as_pictures_are() -> None:
    depth, labels = np.full((10, 20), 2.0, np.float32), np.full((10, 20), 3, np.uint8)
    for backend in BACKENDS:
        processor = backend(**placement_fields(16, "pad"), depth_standardization="none")
        batch = processor(_image(10, 20), depth=depth, segmentation_maps=labels, return_tensors="pt")
        assert batch["labels"][0, :8].eq(3).all() and batch["labels"][0, 8:].eq(255).all()
        assert batch["depth_values"][0, 0, :8].eq(2).all() and not batch["depth_mask"][0, 0, 8:].any()

"""Fields of saved processors and the geometry that they stand for; crops against transformers' own backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import SizeDict

from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.placement_fields_m33d import placement_fields, placement_of, placement_of_clip
from m33d_hf.modeling.preprocessing_m33d import place
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

SIZES = [(40, 60), (61, 33), (25, 25), (30, 97)]
CROPS: list[dict[str, Any]] = [
    {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}},
    {"size": {"shortest_edge": 20}, "crop_size": {"height": 11, "width": 19}},
    {"size": {"height": 20, "width": 24}, "crop_size": {"height": 16, "width": 16}},
    {"do_resize": False, "size": {"height": 20, "width": 24}, "crop_size": {"height": 16, "width": 21}},
]


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_fields_stand_for_the_geometry_that_they_were_made_of(mode: str, size: tuple[int, int]) -> None:
    fields = {"do_resize": True, **placement_fields(size, mode)}
    sized = {name: SizeDict(**value) if isinstance(value, dict) else value for name, value in fields.items()}
    for image in SIZES:
        assert (
            placement_of(image, sized)
            == place(image, size, mode)
            == placement_of_clip(image, {"crop_size": None, "pad_size": None, **sized})
        )


@pytest.mark.parametrize("options", CROPS)
@pytest.mark.parametrize("image", SIZES)
def test_crops_are_those_of_transformers_and_the_same_in_all_processors(
    options: dict[str, Any], image: tuple[int, int]
) -> None:
    given: dict[str, Any] = {"do_resize": True, "do_center_crop": True, **options}
    scale = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "resample": 2}
    theirs = [
        backend(**given, **scale, do_rescale=True, do_normalize=True)(_picture(*image), return_tensors="pt")
        for backend in (TorchvisionBackend, PilBackend)
    ]
    ours = [
        kind(**given)(_picture(*image), return_tensors="pt")["pixel_values"]
        for kind in (M33DImageProcessor, M33DImageProcessorPil)
    ]
    clip = M33DVideoProcessor(**given)(_picture(*image)[None], return_tensors="pt")["pixel_values"]
    assert torch.equal(*ours) and torch.equal(clip[:, 0], ours[0])
    torch.testing.assert_close(ours[0], theirs[0]["pixel_values"], atol=1e-5, rtol=1e-5)
    levels = (ours[0] - theirs[1]["pixel_values"].float()).abs() * 255 * torch.tensor(IMAGENET_STD)[:, None, None]
    assert levels.max() < 2.1  # PIL's own rounding


@pytest.mark.parametrize("options", CROPS)
def test_maps_are_cut_where_pictures_are(options: dict[str, Any]) -> None:
    """Labels that number the columns say where the crop lies."""
    labels = np.arange(60, dtype=np.int64)[None] * np.ones((40, 1), np.int64)
    processor = M33DImageProcessor(do_center_crop=True, **options)
    found = processor(_picture(40, 60), segmentation_maps=labels, return_tensors="pt")["labels"][0]
    width, crop = {"shortest_edge": 30, "height": 24}[next(iter(options["size"]))], options["crop_size"]["width"]
    width = width if options.get("do_resize", True) else 60
    left = (width - crop) // 2
    assert found[0].tolist() == [int((left + column + 0.5) * 60 / width) for column in range(crop)]


def test_a_crop_larger_than_what_it_is_cut_from() -> None:
    options = {"size": {"shortest_edge": 20}, "crop_size": {"height": 21, "width": 20}, "do_center_crop": True}
    with pytest.raises(ConfigError, match=r"crop_size is 21 x 20 .* larger than"):
        M33DVideoProcessor(**options)(_picture(40, 60)[None])
    # transformers pads with zeros, which maps have no value for.
    assert M33DImageProcessor(**options)(_picture(40, 60), return_tensors="pt")["pixel_values"].shape[-2:] == (21, 20)
    with pytest.raises(ConfigError, match="crop_size must not be larger"):
        M33DImageProcessor(**options)(_picture(40, 60), depth=np.ones((40, 60), np.float32))
    with pytest.raises(ConfigError, match="but the picture is only 40 x 60"):
        options["crop_size"] = {"height": 41, "width": 9}
        M33DVideoProcessor(**options, do_resize=False)(_picture(40, 60)[None])


def test_what_no_picture_can_be() -> None:
    fields = {"do_resize": True, "size": SizeDict(height=8, width=8)}
    with pytest.raises(DataError, match="no pixels: 0 x 4"):
        placement_of((0, 4), fields)
    wide = {**fields, "do_center_crop": True, "crop_size": SizeDict(height=8, width=8)}
    with pytest.raises(DataError, match="at most 134,217,728 pixels"):
        placement_of((1, 3_000_000), wide)

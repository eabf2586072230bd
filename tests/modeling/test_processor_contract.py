"""What transformers asks of every processor, asked of each of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoVideoProcessor, BatchFeature

import m33d_hf
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

KINDS = [M33DImageProcessor, M33DImageProcessorPil, M33DVideoProcessor]
OPTIONS: dict[str, Any] = {
    "size": {"height": 18, "width": 20},
    "do_center_crop": True,
    "crop_size": {"height": 14, "width": 16},
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "depth_spec": {"unit": "tum"},
    "depth_standardization": "none",
}
KEYS = ["pixel_values", "depth_values", "depth_mask"]


def _items(kind: type, number: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures or clips of several sizes, and stored depth."""
    draws = np.random.default_rng(0)
    rgb, depth = [], []
    for _ in range(number):
        lead = (3,) if kind is M33DVideoProcessor else ()
        height, width = draws.integers(20, 40, 2)
        rgb.append(draws.integers(0, 256, (*lead, height, width, 3), dtype=np.uint8))
        depth.append(draws.integers(0, 20_000, (*lead, height, width)).astype(np.uint16))
    return rgb, depth


def _same(one: Any, two: Any) -> None:
    assert sorted(one) == sorted(two) == sorted(KEYS)
    for key in KEYS:
        assert torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])), key


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same_and_gives_the_same(kind: type, tmp_path: Path) -> None:
    processor = kind(**OPTIONS)
    (file,) = processor.save_pretrained(tmp_path)
    rgb, depth = _items(kind)
    expected = processor(rgb, depth=depth, return_tensors="pt")
    for again in (kind.from_pretrained(tmp_path), kind.from_json_file(file), kind.from_dict(processor.to_dict())):
        assert again.to_dict() == processor.to_dict()
        assert again.to_json_string() == processor.to_json_string()
        _same(again(rgb, depth=depth, return_tensors="pt"), expected)
    told = json.loads(Path(file).read_text(encoding="utf-8"))
    for name, value in OPTIONS.items():
        saved = told[name]
        assert value.items() <= saved.items() if isinstance(value, dict) else saved == value
    changed = kind.from_pretrained(tmp_path, image_std=[1.0, 1.0, 1.0])
    assert tuple(changed.image_std) == (1.0, 1.0, 1.0) and tuple(changed.image_mean) == (0.1, 0.2, 0.3)
    _, unused = kind.from_pretrained(tmp_path, foo=1, return_unused_kwargs=True)
    assert unused == {"foo": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_call_counts_for_that_call_alone(kind: type) -> None:
    processor, (rgb, depth) = kind(), _items(kind)
    before = processor.to_dict()
    asked = processor(rgb, depth=depth, return_tensors="pt", **OPTIONS)
    _same(asked, kind(**OPTIONS)(rgb, depth=depth, return_tensors="pt"))
    assert processor.to_dict() == before
    assert not torch.equal(
        asked["pixel_values"],
        processor(rgb, return_tensors="pt", size=OPTIONS["crop_size"], do_center_crop=False)["pixel_values"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_types_of_what_comes_back(kind: type) -> None:
    processor, (rgb, depth) = kind(**OPTIONS), _items(kind)
    expected = processor(rgb, depth=depth, return_tensors="pt")
    assert isinstance(expected, BatchFeature)
    frames = (3,) if kind is M33DVideoProcessor else ()
    for key, channels, dtype in zip(KEYS, (3, 1, 1), (torch.float32, torch.float32, torch.bool)):
        assert expected[key].dtype == dtype and expected[key].shape == (3, *frames, channels, 14, 16)
    arrays = processor(rgb, depth=depth, return_tensors="np")
    assert all(type(arrays[key]) is np.ndarray for key in KEYS)
    _same(arrays, expected)
    lists = processor(rgb, depth=depth)
    assert all(isinstance(lists[key], list) and len(lists[key]) == 3 for key in KEYS)
    _same({key: torch.stack([torch.as_tensor(each) for each in lists[key]]) for key in KEYS}, expected)
    half = processor(rgb, depth=depth, return_tensors="pt").to(torch.bfloat16)
    assert half["depth_values"].dtype == torch.bfloat16 and half["depth_mask"].dtype == torch.bool
    assert set(KEYS[:2]) <= set(processor.model_input_names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_what_its_items_are_alone(kind: type) -> None:
    processor, (rgb, depth) = kind(**OPTIONS), _items(kind)
    together = processor(rgb, depth=depth, return_tensors="pt")
    alone = [processor(item, depth=map_, return_tensors="pt") for item, map_ in zip(rgb, depth)]
    _same({key: torch.cat([one[key] for one in alone]) for key in KEYS}, together)


def test_both_backends_of_images_agree_to_the_bit() -> None:
    rgb, depth = _items(M33DImageProcessor)
    one, two = (kind(**OPTIONS)(rgb, depth=depth, return_tensors="pt") for kind in KINDS[:2])
    _same(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_instances_share_nothing(kind: type) -> None:
    one, two = kind(**OPTIONS), kind()
    before = two.to_dict()
    one.size["height"] = 99
    one.depth_spec["unit"] = "metre"
    assert two.to_dict() == before and kind().to_dict() == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_is_none_stays_none(kind: type, tmp_path: Path) -> None:
    kind(do_normalize=None).save_pretrained(tmp_path)
    assert kind.from_pretrained(tmp_path).to_dict()["do_normalize"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_auto_classes_load_the_right_class(kind: type, tmp_path: Path) -> None:
    processor = kind(**OPTIONS)
    processor.save_pretrained(tmp_path)
    m33d_hf.M33DConfig().save_pretrained(tmp_path)
    if kind is M33DVideoProcessor:
        found = [(M33DVideoProcessor, AutoVideoProcessor.from_pretrained(tmp_path))]
    else:
        found = [
            (M33DImageProcessor, AutoImageProcessor.from_pretrained(tmp_path)),
            (M33DImageProcessor, AutoImageProcessor.from_pretrained(tmp_path, backend="torchvision")),
            (M33DImageProcessorPil, AutoImageProcessor.from_pretrained(tmp_path, backend="pil")),
        ]
    for expected, loaded in found:
        assert type(loaded) is expected
        assert {**loaded.to_dict(), "image_processor_type": ""} == {**processor.to_dict(), "image_processor_type": ""}

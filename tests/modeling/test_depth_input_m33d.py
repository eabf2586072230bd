"""Depth beside pictures and clips: every way of giving it, units by a saved DepthSpec, training's path to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny import CLIP, tiny_config
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.collation import PretrainingCollator
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, DataError, DepthUnitError
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.placement_fields_m33d import placement_fields
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor

BACKENDS = [M33DImageProcessor, M33DImageProcessorPil]
SPECS = [
    DepthSpec(unit="millimetre"),
    DepthSpec(unit="tum", min_depth=0.4, max_depth=5.0, invalid_values=(0, 7777)),
    DepthSpec(unit="custom", scale=1234.5),
    DepthSpec(unit="sunrgbd"),
    DepthSpec(kind="inverse", scale=256.0),
    DepthSpec(kind="relative", invalid_values=(0,)),
]


def _rgb(*lead: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*lead, height, width, 3), dtype=np.uint8)


def _stored(*lead: int, height: int = 20, width: int = 30) -> np.ndarray:
    """Stored depth with holes."""
    generator = np.random.default_rng(1)
    values = generator.integers(1, 9000, (*lead, height, width)).astype(np.uint16)
    values[generator.random(values.shape) < 0.2] = 0
    values[..., 3, 4] = 65535
    return values


def _keys(batch: Any) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("pixel_values", "depth_values", "depth_mask")}


def _same(one: Any, two: Any) -> None:
    for name, values in _keys(two).items():
        assert torch.equal(one[name], values), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_way_of_giving_depth_of_pictures(backend: type) -> None:
    stored, processor = _stored(2), backend(size={"height": 10, "width": 12}, depth_unit="millimetre")
    images = list(_rgb(2))
    expected = processor(images, stored, return_tensors="pt")
    assert expected["depth_values"].shape == expected["depth_mask"].shape == (2, 1, 10, 12)
    metres = np.where((stored == 0) | (stored == 65535), np.nan, stored / np.float32(1000)).astype(np.float32)
    pil = [Image.fromarray(each) for each in stored]
    assert {each.mode for each in pil} == {"I;16"}
    wide = [Image.fromarray(each.astype(np.int32)) for each in stored]
    floats = [Image.fromarray(each) for each in metres]
    tensors = torch.from_numpy(stored.astype(np.int32))
    forms = (pil, wide, floats, list(stored), stored[:, None], stored[..., None], tensors, tensors[:, None],
             torch.from_numpy(stored), metres, torch.from_numpy(metres)[:, None], [pil[0], metres[1]])  # fmt: skip
    for given in forms:
        _same(processor(images, depth=given, return_tensors="pt"), expected)
    for given in (pil[0], stored[0], stored[0][None], stored[0][..., None], metres[0]):
        alone = processor(images[0], depth=given, return_tensors="pt")
        _same(alone, {name: values[:1] for name, values in _keys(expected).items()})
    with pytest.warns(FutureWarning, match="depth_maps is deprecated"):
        _same(processor(images, depth_maps=stored, return_tensors="pt"), expected)
    with pytest.raises(ConfigError, match="old name"):
        processor(images, depth=stored, depth_maps=stored)
    half = processor(images[0], depth=torch.from_numpy(metres[0]).bfloat16(), return_tensors="pt")
    assert torch.equal(half["depth_mask"], expected["depth_mask"][:1])


def test_every_way_of_giving_depth_of_clips() -> None:
    stored, clips = _stored(2, 4), _rgb(2, 4)
    processor = M33DVideoProcessor(size=12, depth_unit="millimetre")
    expected = processor(clips, depth=stored, return_tensors="pt")
    assert expected["depth_values"].shape == expected["depth_mask"].shape == (2, 4, 1, 12, 12)
    pil = [[Image.fromarray(frame) for frame in clip] for clip in stored]
    forms = (list(stored), pil, [list(clip) for clip in stored], stored[:, :, None], stored[..., None],
             torch.from_numpy(stored), [pil[0], stored[1]])  # fmt: skip
    for given in forms:
        _same(processor(clips, depth=given, return_tensors="pt"), expected)
    for given in (stored[0], stored[:1], pil[0], [pil[0]], list(stored[0]), stored[0][:, None], stored[0][..., None]):
        alone = processor(clips[0], depth=given, return_tensors="pt")
        _same(alone, {name: values[:1] for name, values in _keys(expected).items()})
    frame = processor(clips[0][0], depth=stored[0][0][None], return_tensors="pt")
    assert frame["depth_values"].shape == (1, 1, 1, 12, 12)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.unit}")
@pytest.mark.parametrize("backend", [*BACKENDS, M33DVideoProcessor])
def test_the_spec_is_saved_and_gives_the_same_tensors(backend: type, spec: DepthSpec, tmp_path: Path) -> None:
    lead = (3,) if backend is M33DVideoProcessor else ()
    processor = backend(size={"height": 10, "width": 12}, depth_spec=spec.to_dict(), depth_standardization="full")
    processor.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*preprocessor_config.json")
    told = json.loads(file.read_text())
    assert DepthSpec.from_dict(told["depth_spec"]) == spec and "depth_unit" not in told
    again = backend.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict() and again.depth_unit == spec.unit
    expected = processor(_rgb(*lead), depth=_stored(*lead), return_tensors="pt")
    _same(again(_rgb(*lead), depth=_stored(*lead), return_tensors="pt"), expected)
    _same(backend(**{**told, "depth_spec": spec})(_rgb(*lead), depth=_stored(*lead), return_tensors="pt"), expected)


def test_a_spec_decodes_by_the_formula() -> None:
    stored = _stored()
    spec = {"unit": "tum", "min_depth": 0.4, "max_depth": 1.2, "invalid_values": [0, 65535, 4000]}
    options = {"size": {"height": 20, "width": 30}, "depth_standardization": "none"}
    found = M33DImageProcessor(depth_spec=spec, **options)(_rgb(), depth=stored, return_tensors="pt")
    metres = stored.astype(np.float64) / 5000
    valid = (metres >= 0.4) & (metres <= 1.2) & ~np.isin(stored, [0, 65535, 4000])
    np.testing.assert_array_equal(found["depth_mask"][0, 0], valid)
    np.testing.assert_allclose(found["depth_values"][0, 0], np.where(valid, metres, 0), rtol=1e-6)
    # Metres need no unit; the bounds hold for them too.
    given = metres.astype(np.float32)
    floats = M33DImageProcessor(depth_spec=spec, **options)(_rgb(), depth=given, return_tensors="pt")
    valid = (metres.astype(np.float32) >= np.float32(0.4)) & (metres <= 1.2)
    np.testing.assert_array_equal(floats["depth_mask"][0, 0], valid)
    np.testing.assert_allclose(floats["depth_values"][0, 0], np.where(valid, metres, 0), rtol=1e-6)


@pytest.mark.parametrize("backend", [*BACKENDS, M33DVideoProcessor])
def test_a_call_or_loading_may_state_another_unit(backend: type, tmp_path: Path) -> None:
    lead = (2,) if backend is M33DVideoProcessor else ()
    options: dict[str, Any] = {"size": {"height": 20, "width": 30}, "depth_standardization": "none"}
    processor = backend(depth_spec={"unit": "millimetre", "max_depth": 5.0}, **options)
    processor.save_pretrained(tmp_path)
    expected = backend(depth_spec={"unit": "tum", "max_depth": 5.0}, **options)(
        _rgb(*lead), depth=_stored(*lead), return_tensors="pt"
    )
    for found in (
        processor(_rgb(*lead), depth=_stored(*lead), depth_unit="tum", return_tensors="pt"),
        backend.from_pretrained(tmp_path, depth_unit="tum")(_rgb(*lead), depth=_stored(*lead), return_tensors="pt"),
        processor(_rgb(*lead), depth=_stored(*lead), depth_spec={"unit": "tum", "max_depth": 5.0}, return_tensors="pt"),
    ):
        _same(found, expected)
    assert processor.depth_unit == "millimetre"


@pytest.mark.parametrize("backend", [*BACKENDS, M33DVideoProcessor])
def test_a_json_without_a_spec_takes_metres_and_refuses_stored_integers(backend: type, tmp_path: Path) -> None:
    lead = (2,) if backend is M33DVideoProcessor else ()
    backend(size={"height": 20, "width": 30}).save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*preprocessor_config.json")
    assert "depth_spec" not in json.loads(file.read_text())
    processor = backend.from_pretrained(tmp_path)
    with pytest.raises(DepthUnitError, match=r"no depth_spec.*depth_unit \('millimetre'"):
        processor(_rgb(*lead), depth=_stored(*lead))
    found = processor(_rgb(*lead), depth=_stored(*lead) / 1000.0, return_tensors="pt")
    assert found["depth_mask"].any()


@pytest.mark.parametrize("backend", [*BACKENDS, M33DVideoProcessor])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_spec": {"unit": "milimetre"}}, "Did you mean 'millimetre'"),
        ({"depth_spec": {"units": "millimetre"}}, "Did you mean 'unit'"),
        ({"depth_spec": {"unit": "millimetre"}, "depth_unit": "tum"}, "'tum', but depth_spec has 'millimetre'"),
        ({"depth_spec": "millimetre"}, "DepthSpec or its to_dict"),
        ({"depth_unit": "parsec"}, "one of metre"),
        ({"depth_standardization": "trimed"}, "Did you mean 'trimmed'"),
    ],
)
def test_senseless_specs_are_refused_when_they_are_stated(backend: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backend(**options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.ones((20, 29), np.float32), "20 x 29, but its image is 20 x 30"),
        (np.ones((2, 20, 30), np.float32), "2 depth maps for 1 images"),
        ([], "0 depth maps for 1 images"),
        (np.ones((20, 30), bool), "a depth map is bool"),
        (Image.fromarray(np.zeros((20, 30, 3), np.uint8)), "one channel"),
        (np.zeros((20, 30, 3), np.uint8), r"depth has one channel, .* shape \(20, 30, 3\) .* 20 x 30"),
        (np.zeros((3, 20, 30), np.uint8), r"depth has one channel, .* shape \(3, 20, 30\) .* 20 x 30"),
        ([np.zeros((20, 30, 3), np.uint8)], "one channel"),
        (np.zeros((1, 20, 30, 3), np.uint8), "one channel"),
        ("depth.png", "not str"),
    ],
)
def test_depth_that_does_not_fit_a_picture_is_refused(backend: type, depth: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        backend()(_rgb(), depth=depth)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.ones((4, 20, 29), np.float32), "clip 0 is 20 x 29, but its frames are 20 x 30"),
        (np.ones((3, 20, 30), np.float32), "clip 0 has 4 frames but 3 depth maps"),
        ([np.ones((4, 20, 30))] * 2, "depth of 2 clips for 1"),
        ([np.ones((20, 30)), np.ones((20, 29))], "differ in size"),
        (np.zeros((4, 20, 30, 3), np.uint8), r"depth has one channel, .* shape \(4, 20, 30, 3\) .* 20 x 30"),
        (np.zeros((4, 3, 20, 30), np.uint8), r"depth has one channel, .* shape \(4, 3, 20, 30\) .* 20 x 30"),
        ([np.zeros((20, 30, 3), np.uint8)] * 4, r"depth has one channel, .* shape \(20, 30, 3\) .* 20 x 30"),
        (np.zeros((20, 30, 3), np.uint8), r"depth has one channel, .* shape \(20, 30, 3\) .* 20 x 30"),
        (Image.fromarray(np.zeros((20, 30, 3), np.uint8)), r"depth has one channel, .* shape \(20, 30, 3\)"),
        (np.ones((20, 30)), "clip 0 has 4 frames but 1 depth maps"),
    ],
)
def test_depth_that_does_not_fit_a_clip_is_refused(depth: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        M33DVideoProcessor()(_rgb(4), depth=depth)


@pytest.mark.parametrize("crop", ["center", "resize", "pad"])
@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("scope", ["clip", "frame"])
def test_what_pretraining_sees_is_what_the_processor_gives(crop: str, frames: int, scope: str) -> None:
    clip = CLIP if frames > 1 else {}
    config = tiny_config(image_size=[16, 24], depth_standardization_scope=scope, **clip)
    spec = DepthSpec(unit="millimetre", max_depth=8.0)
    for size in ((20, 30), (37, 41), (12, 90)):
        rgb, stored = (make(frames, height=size[0], width=size[1]) for make in (_rgb, _stored))
        metres = torch.from_numpy(spec.decode(stored))[:, None]
        sample = RGBDSample("a", rgb=torch.from_numpy(rgb).permute(0, 3, 1, 2), depth=metres)
        sample = build_transform(TransformOptions(eval_crop=crop), False, [16, 24], 8)(sample)
        sample.meta |= {"index": 0, "draw": Draw(0, 0)}
        expected = PretrainingCollator(config, hide=False)([sample])
        fields: dict[str, Any] = {**placement_fields([16, 24], crop), "depth_spec": spec.to_dict()}
        if frames > 1:
            processor = M33DVideoProcessor.from_model_config(config, **fields)
            _same(processor(rgb, depth=stored, return_tensors="pt"), expected)
            continue
        for backend in BACKENDS:
            processor = backend.from_model_config(config, **fields)
            _same(processor(Image.fromarray(rgb[0]), depth=Image.fromarray(stored[0]), return_tensors="pt"), expected)


def test_depth_of_sampled_frames_is_that_of_the_same_frames() -> None:
    processor = M33DVideoProcessor(
        size={"height": 20, "width": 30}, num_frames=3, frame_stride=2, do_sample_frames=True,
        depth_standardization="none",
    )  # fmt: skip
    metres = np.arange(1, 11, dtype=np.float32)[:, None, None] * np.ones((1, 20, 30), np.float32)
    found = processor(_rgb(10), depth=metres, return_tensors="pt", return_metadata=True)
    numbers = found["video_metadata"][0].frames_indices
    assert numbers == [2, 4, 6]
    assert found["depth_values"][0, :, 0, 0, 0].tolist() == [number + 1.0 for number in numbers]


def _without_rgb(found: Any, expected: Any) -> None:
    assert set(found) == {"depth_values", "depth_mask"}
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_alone_of_pictures(backend: type) -> None:
    stored, processor = _stored(2), backend(size={"height": 10, "width": 12}, depth_unit="millimetre")
    expected = processor(list(_rgb(2)), stored, return_tensors="pt")
    for given in (stored, list(stored), [Image.fromarray(each) for each in stored], torch.from_numpy(stored)[:, None]):
        _without_rgb(processor(depth=given, return_tensors="pt"), expected)
    _without_rgb(processor(None, stored, return_tensors="pt"), expected)
    first = backend(size={"height": 10, "width": 12}, depth_unit="millimetre", input_data_format="channels_first")
    _without_rgb(first(depth=stored, return_tensors="pt"), expected)
    for nothing in (None, [], [None]):
        with pytest.raises(DataError, match="neither a picture nor depth is given"):
            processor(depth=nothing, return_tensors="pt")
    with pytest.raises(DataError, match="neither a picture nor depth at 1 of the list"):
        processor(depth=[stored[0], None], return_tensors="pt")
    for colour in (_rgb(), [_rgb()], _rgb(2)):
        with pytest.raises(DataError, match="one channel"):
            processor(depth=colour, return_tensors="pt")
    low = processor(depth=stored[:, :3], return_tensors="pt")
    assert low["depth_values"].shape == (2, 1, 10, 12)


def test_depth_alone_of_clips() -> None:
    stored, processor = _stored(2, 6), M33DVideoProcessor(size=12, depth_unit="millimetre")
    options: dict[str, Any] = {"num_frames": 3, "do_sample_frames": True, "return_tensors": "pt"}
    expected = processor(_rgb(2, 6), depth=stored, **options)
    for given in (list(stored), [list(clip) for clip in stored], stored[:, :, None]):
        _without_rgb(processor(depth=given, **options), expected)
    for given in (stored[0], list(stored[0]), [each[None] for each in stored[0]]):
        _without_rgb(processor(depth=given, **options), {name: expected[name][:1] for name in expected})
    for nothing in (None, [], [None], [None, None], [stored[0], None], [[None] * 6]):
        with pytest.raises(DataError, match="neither a video nor depth"):
            processor(depth=nothing, return_tensors="pt")
    for colour in (_rgb(), _rgb(2), _rgb(2, 6), [_rgb(2)], np.moveaxis(_rgb(2), -1, 1)):
        with pytest.raises(DataError, match="one channel"):
            processor(depth=colour, return_tensors="pt")
    with pytest.raises(DataError, match="empty list"):
        processor(_rgb(6), depth=[[]], return_tensors="pt")
    for few in ([None] * 5, [None, stored[0, 0]], []):
        with pytest.raises(DataError, match=r"has 6 frames but|pass one for each"):
            processor(_rgb(6), depth=few, return_tensors="pt")


def test_stored_and_metric_maps_of_one_clip() -> None:
    stored, processor = _stored(4), M33DVideoProcessor(size=12, depth_unit="millimetre")
    metres = np.where((stored == 0) | (stored == 65535), np.nan, stored / np.float32(1000)).astype(np.float32)
    expected = processor(_rgb(4), depth=stored, return_tensors="pt")
    _same(processor(_rgb(4), depth=[stored[0], *metres[1:]], return_tensors="pt"), expected)
    one = processor(_rgb(), depth=stored[0], return_tensors="pt")  # a picture is a clip of one frame
    _same(one, processor(_rgb(1), depth=stored[:1], return_tensors="pt"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_without_depth_is_one_hole(backend: type) -> None:
    stored, processor = _stored(2), backend(size={"height": 10, "width": 12}, depth_unit="millimetre")
    holes = np.where(np.arange(2)[:, None, None] == 0, stored, 0).astype(np.uint16)
    images = list(_rgb(2))
    found = processor(images, [stored[0], None], return_tensors="pt")
    _same(found, processor(images, holes, return_tensors="pt"))
    assert not found["depth_mask"][1].any() and not found["depth_values"][1].any()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.unit}")
def test_frames_without_depth_are_holes(spec: DepthSpec) -> None:
    """As the stored value that means "nothing measured" is, whatever the unit; a clip without any is all holes."""
    stored, clips = _stored(2, 4), _rgb(2, 4)
    holes = stored.copy()
    holes[0, 1:3] = holes[1] = spec.invalid_values[0]
    processor = M33DVideoProcessor(size=12, depth_spec=spec.to_dict())
    expected = processor(clips, depth=holes, return_tensors="pt")
    some = [stored[0, 0], None, None, stored[0, 3]]
    assert not expected["depth_mask"][1].any() and expected["depth_mask"][0, 0].any()
    for given in ([some, None], [some, [None] * 4]):
        _same(processor(clips, depth=given, return_tensors="pt"), expected)
    alone = processor(clips[0], depth=some, return_tensors="pt")
    _same(alone, {name: values[:1] for name, values in _keys(expected).items()})
    _without_rgb(processor(depth=some, return_tensors="pt"), alone)

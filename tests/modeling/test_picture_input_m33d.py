"""Pictures as users give them: what is read right, and what would come out wrong and is refused by name."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.web import served
from m33d_hf.errors import DataError
from m33d_hf.modeling.configuration_m33d import IMAGENET_MEAN, IMAGENET_STD
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.picture_files_m33d import read_picture
from m33d_hf.modeling.picture_input_m33d import rgb_tensor
from m33d_hf.modeling.placement_fields_m33d import placement_fields

BACKENDS = [M33DImageProcessor, M33DImageProcessorPil]
SIZE = {"height": 12, "width": 16}


def _picture(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _pixels(processor: Any, image: Any, **options: Any) -> torch.Tensor:
    return processor(image, return_tensors="pt", **options)["pixel_values"]


def _formula(unit_HWC: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) float64 of a picture in 0 to 1."""
    values = (unit_HWC.astype(np.float64) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def test_every_image_type_gives_the_same_tensor() -> None:
    array = _picture(6, 7)
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    for image in (pixels, array, Image.fromarray(array)):
        assert torch.equal(rgb_tensor(image), pixels)
    assert torch.equal(rgb_tensor(np.dstack([array, array[..., 0]])), pixels)
    assert rgb_tensor(array[..., 0]).shape == (3, 6, 7)
    assert rgb_tensor(np.stack([array, array])).shape == (2, 3, 6, 7)


def test_floats_and_odd_layouts_are_refused() -> None:
    assert torch.equal(rgb_tensor(torch.from_numpy(_picture(6, 7)[..., 0])), rgb_tensor(_picture(6, 7)[..., 0]))
    with pytest.raises(DataError, match="uint8"):
        rgb_tensor(torch.rand(3, 4, 4))
    with pytest.raises(DataError, match=r"\(5, 4, 4\)"):
        rgb_tensor(torch.zeros(5, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floats_in_0_to_1_are_not_divided_again(backend: type, dtype: type) -> None:
    unit = (_picture() / 255).astype(dtype)
    processor = backend(size={"height": 20, "width": 30})
    with pytest.raises(DataError, match="divided by 255 again: pass do_rescale=False"):
        processor(unit)
    for given in (unit, torch.from_numpy(unit).permute(2, 0, 1)):
        found = _pixels(processor, given, do_rescale=False)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), _formula(unit), atol=2e-6, rtol=2e-6)
    found = _pixels(processor, 255 * unit.astype(np.float32)).double()
    torch.testing.assert_close(found, _formula(unit), atol=2e-6, rtol=2e-6)
    black = _pixels(processor, np.zeros((20, 30, 3), np.uint8))
    assert torch.equal(_pixels(processor, np.zeros((20, 30, 3), dtype)), black)
    assert torch.equal(_pixels(processor, _picture().astype(dtype)), _pixels(processor, _picture()))


@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
@pytest.mark.parametrize("resample", [2, 3])
def test_floats_are_resized_as_pil_resizes_floats_and_both_backends_agree(mode: str, resample: int) -> None:
    unit = _picture(40, 60).astype(np.float32) / 255
    one, two = (
        _pixels(backend(**placement_fields((12, 18), mode), resample=resample), unit, do_rescale=False)
        for backend in BACKENDS
    )
    assert torch.equal(one, two)
    resized = [np.array(Image.fromarray(unit[..., c]).resize((18, 12), Image.Resampling(resample))) for c in range(3)]
    # The three geometries coincide for a canvas of the picture's own shape.
    torch.testing.assert_close(one.double(), _formula(np.stack(resized, -1).clip(0, 1)), atol=2e-5, rtol=1e-5)
    scaled = _pixels(BACKENDS[0](**placement_fields((12, 18), mode), resample=resample), 255 * unit)
    torch.testing.assert_close(one, scaled, atol=1e-5, rtol=1e-5)


def test_padding_of_floats_is_the_grey_of_8_bit_pictures() -> None:
    fields = placement_fields((16, 16), "pad")
    grey = _pixels(M33DImageProcessor(**fields), _picture(8, 16))[..., 8:, :]
    for unit, rescale in ((_picture(8, 16) / 255, False), (_picture(8, 16).astype(float), True)):
        found = _pixels(M33DImageProcessor(**fields), unit, do_rescale=rescale)[..., 8:, :]
        torch.testing.assert_close(found, grey, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((9, 9, 3), np.nan, np.float32), "NaN or infinite"),
        (np.where(np.arange(243).reshape(9, 9, 3) == 7, np.inf, 0.5), "NaN or infinite"),
        (torch.full((3, 9, 9), -0.5), "values from -0.5 to -0.5"),
        (torch.full((3, 9, 9), 300.0), "they must be in 0 to 255"),
        (np.full((9, 9, 3), 4000, np.uint16), r"uint16\. If it is a depth map, .* depth=.* by 257"),
        (torch.full((3, 9, 9), 4000, dtype=torch.int32), "integers from 4000 to 4000"),
        (np.ones((9, 9, 3), bool), "an image is bool"),
        (Image.fromarray(np.full((9, 9), 4000, np.uint16)), "'I;16', more than 8 bits. If it is a depth map"),
        (Image.fromarray(np.full((9, 9), 2.5, np.float32)), "'F', more than 8 bits"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels"),
        (torch.zeros(3, 9, 0), "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels: 4 x 0"),
        (np.zeros((2, 20, 30), np.uint8), r"shape \(2, 20, 30\), of which no axis .*expected .* C = 1, 3 or 4"),
        (torch.zeros(20, 30, 5), r"shape \(20, 30, 5\), of which no axis .*expected"),
        (np.zeros((4, 2, 20, 30), np.uint8), r"shape \(4, 2, 20, 30\), of which no axis .*expected"),
        (np.zeros((1, 2, 3, 20, 30), np.uint8), r"shape \(1, 2, 3, 20, 30\); .*Clips go to M33DVideoProcessor"),
        (np.zeros(7, np.uint8), r"shape \(7,\); expected"),
        ([], "no images"),
        ([[], []], "no images"),
        (None, "neither a picture nor depth"),
        ([_picture(), 3], "not int"),
    ],
)
def test_what_would_come_out_wrong_is_refused(backend: type, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        backend(size=SIZE)(image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_channels_that_the_stated_layout_or_the_means_contradict(backend: type) -> None:
    with pytest.raises(DataError, match=r"shape \(20, 30, 3\) with 20 channels \(channels_first\)"):
        backend(size=SIZE)(_picture(), input_data_format="channels_first")
    with pytest.raises(DataError, match="4 channels, but image_mean has 3 numbers: pass do_convert_rgb=True"):
        backend(size=SIZE, do_convert_rgb=False)(_picture(channels=4))
    stated = {"input_data_format": "channels_last", "do_convert_rgb": False}
    two = backend(size=SIZE, image_mean=[0.5] * 2, image_std=[0.25] * 2, **stated)
    assert two(_picture(channels=2), return_tensors="pt")["pixel_values"].shape == (1, 2, 12, 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_integers_that_hold_8_bits_are_8_bits(backend: type) -> None:
    expected = _pixels(backend(size=SIZE), _picture())
    assert torch.equal(_pixels(backend(size=SIZE), _picture().astype(np.int64)), expected)
    assert torch.equal(_pixels(backend(size=SIZE), torch.from_numpy(_picture()).permute(2, 0, 1).int()), expected)


def _png16(pixels_HWC: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, written by its specification (Pillow writes none in colour)."""
    height, width, _ = pixels_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels_HWC)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + checksum
    return data


@pytest.mark.parametrize("backend", BACKENDS)
def test_16_bit_colour_files_are_read_by_their_upper_8_bits(backend: type, tmp_path: Path) -> None:
    wide = np.random.default_rng(1).integers(0, 1 << 16, (20, 30, 3)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(_png16(wide))
    expected = _pixels(backend(size=SIZE), (wide >> 8).astype(np.uint8))
    for given in (path, str(path), Image.open(path)):
        assert torch.equal(_pixels(backend(size=SIZE), given), expected)
    deep = tmp_path / "depth.png"
    Image.fromarray(wide[..., 0]).save(deep)
    with pytest.raises(DataError, match="depth map"):
        backend(size=SIZE)(deep)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_that_lie_on_their_side_are_turned(backend: type, orientation: int, tmp_path: Path) -> None:
    """By the words of the EXIF standard: where the stored row 0 and column 0 are in the upright picture."""
    upright = _picture(10, 14)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: upright[:, ::1].swapaxes(0, 1)[::-1],
        7: upright[::-1, ::-1].swapaxes(0, 1), 8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    processor = backend(size={"height": 10, "width": 14})
    for given in (path, Image.open(path), [str(path)]):
        assert torch.equal(_pixels(processor, given), _pixels(processor, upright))


@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_is_repeated_and_alpha_dropped_as_training_reads_them(backend: type, tmp_path: Path) -> None:
    processor, grey, clear = backend(size=SIZE), _picture()[..., 0], _picture(channels=4)
    expected = _pixels(processor, grey[..., None].repeat(3, axis=2))
    greys = (grey, grey[..., None], grey[None], torch.from_numpy(grey), torch.from_numpy(grey)[None])
    for given in (*greys, Image.fromarray(grey)):
        assert torch.equal(_pixels(processor, given), expected)
    expected = _pixels(processor, clear[..., :3])
    path = tmp_path / "a.png"
    Image.fromarray(clear).save(path)
    np.testing.assert_array_equal(read_picture(path)[0], clear[..., :3])  # what training sees
    first = np.ascontiguousarray(clear.transpose(2, 0, 1))
    for given in (clear, first, torch.from_numpy(first), Image.fromarray(clear), path, Image.open(path)):
        assert torch.equal(_pixels(processor, given), expected)
    noted = tmp_path / "b.png"
    Image.fromarray(clear[..., :3]).save(noted, transparency=tuple(int(value) for value in clear[0, 0, :3]))
    assert torch.equal(_pixels(processor, Image.open(noted)), expected)
    assert _pixels(processor, Image.fromarray(clear).quantize(8)).shape == (1, 3, 12, 16)


@pytest.mark.parametrize("mode", ["center", "resize", "pad"])
def test_a_picture_20_000_pixels_wide(mode: str) -> None:
    wide = np.repeat(_picture(10, 200), 100, axis=1)
    found = [_pixels(backend(**placement_fields((32, 64), mode)), wide) for backend in BACKENDS]
    assert torch.equal(*found) and found[0].shape == (1, 3, 32, 64)
    if mode == "resize":
        resized = np.array(Image.fromarray(wide).resize((64, 32), Image.Resampling.BILINEAR)) / 255
        assert (found[0].double() - _formula(resized)).abs().max() < 2.1 / 255 / min(IMAGENET_STD)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_too_narrow_to_cover_the_canvas_is_refused_before_memory_is_asked_for(backend: type) -> None:
    with pytest.raises(DataError, match="1 x 20000 pixels would be resized to 224 x 4480000"):
        backend(**placement_fields(224, "center"))(Image.new("RGB", (20_000, 1)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_may_differ_within_a_batch(backend: type) -> None:
    images = [_picture(20, 30), _picture(40, 24), _picture(7, 9)]
    processor = backend(size=SIZE)
    together = _pixels(processor, images)
    assert torch.equal(together, torch.cat([_pixels(processor, image) for image in images]))
    with pytest.raises(DataError, match=r"\(3, 7, 9\).* cannot be stacked"):
        processor(images, do_resize=False, return_tensors="pt")
    assert [tuple(each.shape) for each in processor(images, do_resize=False)["pixel_values"]] == [
        (3, 20, 30), (3, 40, 24), (3, 7, 9),
    ]  # fmt: skip


def test_addresses_are_read_as_files_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(_picture(40, 60)).save(path, exif=exif)
    with served(tmp_path) as address:
        for backend in BACKENDS:
            found = _pixels(backend(size=SIZE), [f"{address}/a.jpg", path])
            assert torch.equal(found[0], found[1])
            with pytest.raises(DataError, match=r"b\.jpg: cannot be downloaded \(HTTP Error 404"):
                backend(size=SIZE)(f"{address}/b.jpg")


def test_base64_is_a_picture() -> None:
    buffer = io.BytesIO()
    Image.fromarray(_picture()).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    for backend in BACKENDS:
        for given in (text, f"data:image/png;base64,{text}"):
            assert torch.equal(_pixels(backend(size=SIZE), given), _pixels(backend(size=SIZE), _picture()))
        with pytest.raises(DataError, match="neither a file nor base64"):
            backend(size=SIZE)("no such thing")

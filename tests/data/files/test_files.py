from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from m33d_hf.data.files.files import read_map, read_rgb, size_and_orientation
from m33d_hf.errors import CorruptFileError, DataError


@pytest.fixture
def depth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (12, 17), dtype=np.uint16)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def test_16_bit_png_is_exact(tmp_path: Path, depth: np.ndarray):
    Image.fromarray(depth).save(tmp_path / "depth.png")
    values = read_map(tmp_path / "depth.png")
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values, depth)
    assert size_and_orientation(tmp_path / "depth.png")[:2] == (12, 17)


def test_pgm_is_exact_whatever_its_maximum(tmp_path: Path, depth: np.ndarray):
    small = depth % 4001
    header = b"P5\n# made by a camera\n17 12\n4000\n"
    (tmp_path / "depth.pgm").write_bytes(header + small.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_map(tmp_path / "depth.pgm"), small)
    text = "P2 17 12 65535\n" + " ".join(map(str, depth.ravel()))
    (tmp_path / "text.pgm").write_text(text)
    np.testing.assert_array_equal(read_map(tmp_path / "text.pgm"), depth)


def test_npy_float_and_channel_axes(tmp_path: Path):
    metres = np.random.default_rng(2).random((6, 7)).astype(np.float32)
    for name, array in {"a": metres, "b": metres[None], "c": metres[..., None]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read_map(tmp_path / f"{name}.npy"), metres)
    assert size_and_orientation(tmp_path / "a.npy")[:2] == (6, 7)
    picture = np.zeros((3, 6, 7), np.uint8)
    np.save(tmp_path / "rgb.npy", picture)
    assert read_rgb(tmp_path / "rgb.npy").shape == (6, 7, 3)
    assert size_and_orientation(tmp_path / "rgb.npy")[:2] == (6, 7)


def test_palette_labels_keep_their_indices(tmp_path: Path):
    labels = (np.arange(48).reshape(6, 8) % 5).astype(np.uint8)
    image = Image.fromarray(labels, mode="P")
    image.putpalette([200, 10, 10] * 256)
    image.save(tmp_path / "label.png")
    np.testing.assert_array_equal(read_map(tmp_path / "label.png"), labels)


def test_pictures_in_every_format(tmp_path: Path, picture: np.ndarray):
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "a.ppm")
    for name in ("a.png", "a.ppm"):
        np.testing.assert_array_equal(read_rgb(tmp_path / name), picture)
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "alpha.png"), picture)
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png")[..., 2], picture[..., 0])
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    assert read_rgb(tmp_path / "a.jpg").shape == picture.shape


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.3, 0.9, -1, -13])
def test_truncated_files_are_found(
    tmp_path: Path,
    picture: np.ndarray,
    suffix: str,
    kept: float,
    tolerant: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    # Some libraries set this process-wide; it must not hide a broken file from us.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.tile(picture, (4, 4, 1))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)] if kept > 0 else data[: int(kept)])
    with pytest.raises(CorruptFileError, match="truncated") as caught:
        read_rgb(path)
    assert caught.value.path == str(path)


def test_truncation_is_found_behind_a_complete_thumbnail(tmp_path: Path, picture: np.ndarray):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path)
    data = path.read_bytes()
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    path.write_bytes(data[:2] + thumbnail + data[2:])
    assert read_rgb(path).shape == picture.shape
    path.write_bytes((data[:2] + thumbnail + data[2:])[:-60])
    with pytest.raises(CorruptFileError, match="truncated"):
        read_rgb(path)


def test_flipped_bit_in_png_is_found(tmp_path: Path, depth: np.ndarray):
    path = tmp_path / "a.png"
    Image.fromarray(depth).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="checksum"):
        read_map(path)


@pytest.mark.parametrize("content", [b"", b"I am no image", b"P5\n4 4\n255\n123", b"\x89PNG\r\n\x1a\n"])
def test_rubbish_is_a_corrupt_file(tmp_path: Path, content: bytes):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError):
        read_map(path)
    with pytest.raises(CorruptFileError):
        read_rgb(path)


def test_missing_file_and_truncated_npy(tmp_path: Path):
    with pytest.raises(CorruptFileError, match="does not exist"):
        read_rgb(tmp_path / "none.png")
    with pytest.raises(CorruptFileError, match="does not exist"):
        size_and_orientation(tmp_path / "none.png")[:2]
    np.save(tmp_path / "a.npy", np.zeros((8, 8)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-40])
    with pytest.raises(CorruptFileError):
        read_map(tmp_path / "a.npy")


def test_maps_and_pictures_are_not_confused(tmp_path: Path, depth: np.ndarray, picture: np.ndarray):
    Image.fromarray(depth).save(tmp_path / "depth.png")
    Image.fromarray(picture).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="depth map"):
        read_rgb(tmp_path / "depth.png")
    with pytest.raises(DataError, match="one value per pixel"):
        read_map(tmp_path / "rgb.png")

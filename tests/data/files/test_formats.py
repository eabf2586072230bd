"""Every format that pictures and maps come in: what another program wrote is read to the bit."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.map_files import maps, metres, millimetres, npy, npz, pfm, picture, pictures, text_pgm, tiff
from m33d_hf.data.files.files import read_map, read_rgb, size_and_orientation
from m33d_hf.errors import CorruptFileError, DataError, MissingDependencyError


@pytest.mark.parametrize("name", list(maps()))
def test_maps_are_exact(tmp_path: Path, name: str):
    suffix, data = maps()[name]
    (tmp_path / f"a{suffix}").write_bytes(data)
    values = read_map(tmp_path / f"a{suffix}")
    expected = metres() if values.dtype.kind == "f" else millimetres()
    np.testing.assert_array_equal(values, expected % 40 if name == "png 8" else expected)
    assert values.dtype.isnative and values.flags.writeable
    assert size_and_orientation(tmp_path / f"a{suffix}")[:2] == values.shape
    with pytest.raises(DataError):
        read_rgb(tmp_path / f"a{suffix}") if name != "png 8" else read_map(tmp_path / "none.png")


@pytest.mark.parametrize("name", list(pictures()))
def test_pictures_are_exact_where_the_format_is(tmp_path: Path, name: str):
    suffix, data = pictures()[name]
    (tmp_path / f"a{suffix}").write_bytes(data)
    pixels = read_rgb(tmp_path / f"a{suffix}")
    if name == "jpeg":
        assert np.abs(pixels.astype(int) - picture()).mean() < 3
    else:
        np.testing.assert_array_equal(pixels, picture())
    assert size_and_orientation(tmp_path / f"a{suffix}")[:2] == picture().shape[:2]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_tiff_of_every_width(tmp_path: Path, kind: str, deflated: bool, order: str):
    values = (metres() * 40 if kind == "u1" else metres() * 6000).astype(kind)
    if kind == "u4":
        values = values + np.uint32(3_000_000_000)  # beyond a signed number
    (tmp_path / "a.tif").write_bytes(tiff(values, order, deflated))
    found = read_map(tmp_path / "a.tif")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        *((values, options) for values in (millimetres(), metres()) for options in ({}, {"tile": (16, 16)})),
        *((values, {"rowsperstrip": 3}) for values in (millimetres(), metres())),
        (millimetres(), {"predictor": True}),
    ],
)
def test_tiff_as_tifffile_writes_it(tmp_path: Path, values: np.ndarray, options: dict[str, object]):
    write_and_read_tiff(tmp_path, values, options)


@pytest.mark.extras
def test_tiff_as_imagecodecs_writes_it(tmp_path: Path):
    pytest.importorskip("imagecodecs")
    write_and_read_tiff(tmp_path, metres(), {"predictor": True})


def write_and_read_tiff(tmp_path: Path, values: np.ndarray, options: dict[str, object]) -> None:
    tifffile = pytest.importorskip("tifffile")
    for compression in (None, "zlib"):
        if compression is None and "predictor" in options:
            continue
        tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, **options)
        np.testing.assert_array_equal(read_map(tmp_path / "a.tif"), values)


@pytest.mark.extras
@pytest.mark.parametrize("compression", [1, 5, 8, 32946, 32773])
@pytest.mark.parametrize("predictor", [1, 2])
def test_tiff_as_opencv_writes_it(tmp_path: Path, compression: int, predictor: int):
    cv2 = pytest.importorskip("cv2")
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    for values in (millimetres(), metres()):
        cv2.imwrite(str(tmp_path / "a.tiff"), values, flags)
        np.testing.assert_array_equal(read_map(tmp_path / "a.tiff"), values)


def test_floating_point_predictor(tmp_path: Path):
    """Differences of bytes, as libtiff stores them."""
    image = Image.fromarray(metres())
    image.save(tmp_path / "a.tif", compression="tiff_adobe_deflate", tiffinfo={317: 3})
    assert Image.open(tmp_path / "a.tif").tag_v2[317] == 3
    np.testing.assert_array_equal(read_map(tmp_path / "a.tif"), metres())


@pytest.mark.extras
def test_pfm_as_opencv_writes_it(tmp_path: Path):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.pfm"), metres())
    np.testing.assert_array_equal(read_map(tmp_path / "a.pfm"), metres())


def test_pfm_keeps_values_and_what_is_no_number(tmp_path: Path):
    values = metres()
    values[0, 0], values[1, 1] = np.inf, np.nan
    data = pfm(values).replace(b"-1.0", b"-0.00392", 1)  # a unit that benchmarks of stereo fill in
    (tmp_path / "a.pfm").write_bytes(data)
    np.testing.assert_array_equal(read_map(tmp_path / "a.pfm"), values)
    (tmp_path / "c.pfm").write_bytes(pfm(np.tile(values, (3, 1))).replace(b"Pf\n18 39", b"PF\n18 13", 1))
    with pytest.raises(DataError, match="one value per pixel"):
        read_map(tmp_path / "c.pfm")


def test_npz_with_several_arrays(tmp_path: Path):
    np.savez(tmp_path / "a.npz", mask=np.ones((3, 4), bool), depth=metres())
    np.testing.assert_array_equal(read_map(tmp_path / "a.npz"), metres())
    np.savez_compressed(tmp_path / "b.npz", one=metres(), two=metres())
    with pytest.raises(DataError, match=r"\['one', 'two'\]; expected one, or one called depth"):
        read_map(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", ["HALF", "FLOAT", "UINT"])
def test_openexr(tmp_path: Path, kind: str):
    exr = pytest.importorskip("OpenEXR")
    values = {"HALF": metres().astype(np.float16), "FLOAT": metres(), "UINT": millimetres().astype(np.uint32)}[kind]
    header = {"type": exr.scanlineimage, "compression": exr.ZIP_COMPRESSION}
    exr.File(header, {"Z": values, "A": metres(1)}).write(str(tmp_path / "a.exr"))
    found = read_map(tmp_path / "a.exr")
    assert found.dtype == values.dtype and size_and_orientation(tmp_path / "a.exr")[:2] == values.shape
    np.testing.assert_array_equal(found, values)
    exr.File(header, {"V": values}).write(str(tmp_path / "b.exr"))
    np.testing.assert_array_equal(read_map(tmp_path / "b.exr"), values)
    exr.File(header, {"RGB": np.stack([metres()] * 3, -1)}).write(str(tmp_path / "c.exr"))
    with pytest.raises(DataError, match="the channels B, G, R"):
        read_map(tmp_path / "c.exr")
    with pytest.raises(DataError, match="found OpenEXR"):
        read_rgb(tmp_path / "c.exr")


def test_openexr_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(60))
    with pytest.raises(MissingDependencyError, match="pip install OpenEXR"):
        read_map(tmp_path / "a.exr")


def test_the_content_decides_not_the_suffix(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(tiff(millimetres()))
    np.testing.assert_array_equal(read_map(tmp_path / "a.png"), millimetres())
    for name, data in {"zip": npz(metres()), "text": b"1 2 3\n", "png": maps()["png 16"][1]}.items():
        (tmp_path / f"{name}.npy").write_bytes(data)
        with pytest.raises(CorruptFileError, match="as an array"):
            read_map(tmp_path / f"{name}.npy")


def test_several_pictures_in_one_file(tmp_path: Path):
    frames = [Image.fromarray(picture(seed)) for seed in (0, 40)]
    for name in ("a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(CorruptFileError, match=r"pictures|pages"):
            read_rgb(tmp_path / name)
    # A phone's picture with a preview behind it is one picture.
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert Image.open(tmp_path / "a.jpg").n_frames == 2
    assert read_rgb(tmp_path / "a.jpg").shape == picture().shape


@pytest.mark.parametrize("value", [256, 700, 65536, 10**6, 10**30])
def test_values_above_the_maximum_of_a_text_map_are_refused_not_wrapped(tmp_path: Path, value: int):
    values = (millimetres() % 200).astype(object)
    values[2, 3] = value
    path = tmp_path / "a.pgm"
    path.write_bytes(text_pgm(values, 255))
    with pytest.raises(CorruptFileError, match=r"states a maximum of 255|cannot be decoded"):
        read_map(path)
    if value < 65536:
        path.write_bytes(text_pgm(values, 65535))
        assert read_map(path)[2, 3] == value


def test_truncated_pixels_where_a_process_forgives_truncation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name, (suffix, data) in {**pictures(), **maps()}.items():
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data[: len(data) * 3 // 4])
        with pytest.raises(CorruptFileError):
            read_rgb(path) if name in pictures() else read_map(path)


def test_a_fortran_array_and_trailing_bytes(tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(npy(np.asfortranarray(metres())))
    np.testing.assert_array_equal(read_map(tmp_path / "a.npy"), metres())
    stream = io.BytesIO()
    np.save(stream, metres())
    np.save(stream, metres())
    (tmp_path / "b.npy").write_bytes(stream.getvalue())
    with pytest.raises(CorruptFileError, match="but the file holds"):
        read_map(tmp_path / "b.npy")


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}])
def test_big_tiff_as_tifffile_writes_it(tmp_path: Path, kind: str, order: str, options: dict[str, object]):
    tifffile = pytest.importorskip("tifffile")
    values = (np.random.default_rng(0).random((37, 53)) * 200).astype(kind)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, bigtiff=True, byteorder=order, **options)
    found = read_map(path)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype and size_and_orientation(path)[:2] == values.shape
    cut = path.read_bytes()[:-40]
    path.write_bytes(cut)
    with pytest.raises(CorruptFileError):
        read_map(path)
    tifffile.imwrite(path, np.stack([values, values]), bigtiff=True, byteorder=order)
    with pytest.raises(CorruptFileError, match="pages"):
        read_map(path)


def test_openexr_with_a_layer_of_depth(tmp_path: Path):
    exr = pytest.importorskip("OpenEXR")
    depth, other = (np.random.default_rng(seed).random((9, 11)).astype("f4") for seed in (1, 2))
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {"ViewLayer.Depth.Z": depth, "ViewLayer.Combined.R": other}) as file:
        file.write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_map(tmp_path / "a.exr"), depth)

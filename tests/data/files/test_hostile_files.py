"""Files that are none, and headers that ask for more than there is: refused at once, without their memory."""

from __future__ import annotations

import os
import socket
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save
from helpers.fuzzing import time_limit
from helpers.map_files import metres, npy, npz, pfm, png, tiff
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.depth.stores import ArrayStore
from m33d_hf.data.files.files import read_map, read_rgb, size_and_orientation
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.video_reading_m33d import read_video

HUGE = 2**31 - 1


def huge_npy() -> bytes:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


def huge_png() -> bytes:
    data = png(np.zeros((4, 4), np.uint16))
    start = data.index(b"IHDR")
    header = b"IHDR" + struct.pack(">II", HUGE, HUGE) + data[start + 12 : start + 17]
    return data[:start] + header + struct.pack(">I", zlib.crc32(header)) + data[start + 21 :]


def huge_tiff() -> bytes:
    data = tiff(np.zeros((4, 4), np.float32))
    for tag in (256, 257):
        at = data.index(struct.pack("<HHI", tag, 3, 1))
        data = data[:at] + struct.pack("<HHII", tag, 4, 1, HUGE) + data[at + 12 :]
    return data


def lying_npz(path: Path) -> None:
    """Four gigabytes and more of zeros in a few megabytes, or so its directory says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", npy(metres()))
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 24
    path.write_bytes(data[:at] + struct.pack("<I", 2**32 - 2) + data[at + 4 :])


HOSTILE = {
    "shape.npy": huge_npy(),
    "shape.png": huge_png(),
    "shape.tif": huge_tiff(),
    "shape.pfm": pfm(metres()).replace(b"18 13", b"99999999 99999999", 1),
    "shape.pgm": b"P5 99999999 99999999 65535\n" + bytes(64),
    "text.pgm": b"P2 99999999 99999999 65535\n1 2 3",
    "digits.pgm": b"P2 2 1 255\n1 " + b"9" * 5000,
    "header.pgm": b"P2 " + b"1" * 6000 + b" 1 255\n1",
    "zip.npy": npz(metres()),
    "zip.png": b"PK\x05\x06" + bytes(18),
    "archive.png": npz(metres()).replace(b"depth.npy", b"depth.txt"),
    "nested.npy": npy(metres()).replace(b"'<f4'", b"((((" + b"("[:1], 1),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_sizes_are_bounded_before_memory_is_asked_for(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with time_limit(name), pytest.raises(CorruptFileError):
        read_map(path)
    with time_limit(name), pytest.raises(CorruptFileError):
        size_and_orientation(path)[:2]
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_sparse_file_of_a_terabyte(tmp_path: Path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CorruptFileError, match=r"at most .* are read"):
        read_map(path)


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path):
    lying_npz(tmp_path / "a.npz")
    with time_limit("npz"), pytest.raises(CorruptFileError):
        read_map(tmp_path / "a.npz")
    with time_limit("npz"), pytest.raises(CorruptFileError):
        _ = ArrayStore(tmp_path / "a.npz").length


def test_an_archive_of_zeros_that_unpack_to_gigabytes(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", huge_npy() + bytes(2**24))
    with time_limit("npz"), pytest.raises(CorruptFileError):
        read_map(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
@pytest.mark.parametrize("suffix", [".png", ".npy", ".exr", ".tif", ".npz"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"frames/a{suffix}")
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        held = socket.socket(socket.AF_UNIX)
        held.bind(str(path))
        held.close()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with time_limit(kind, 5):
        for read in (read_map, read_rgb, size_and_orientation):
            with pytest.raises(CorruptFileError, match=r"is a .*, not a file"):
                read(path)
        if suffix in (".png", ".tif"):
            with pytest.raises(CorruptFileError, match="not a file"):
                read_video(path.parent, [0])
            with pytest.raises(CorruptFileError, match="not a file"):
                M33DImageProcessor()(str(path))
        if suffix in (".npy", ".npz"):
            with pytest.raises(DataError):
                _ = ArrayStore(path).length


def test_processors_name_a_damaged_file(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((8, 8, 3), np.uint8))[:-20])
    with pytest.raises(CorruptFileError, match=r"a\.png: truncated PNG"):
        M33DImageProcessor()(str(path))
    with pytest.raises(CorruptFileError, match=r"nowhere\.png: does not exist"):
        M33DImageProcessor()(str(tmp_path / "nowhere.png"))
    with pytest.raises(CorruptFileError, match="neither a file nor"):
        M33DImageProcessor()("no picture")


def test_a_run_skips_and_lists_them_like_any_other(tmp_path: Path):
    for number in range(40):
        save(tmp_path / f"color/{number:02d}.png", rgb_array(number))
        save(tmp_path / f"depth/{number:02d}.npy", depth_array(number))
    whole = (tmp_path / "depth/07.npy").read_bytes()
    # One bit in a header: the tokenizer that NumPy asks raises what nobody would expect.
    flipped = whole[:20] + bytes([whole[20] ^ 0x20]) + whole[21:]
    bad = {"03": flipped, "11": HOSTILE["shape.npy"], "17": HOSTILE["zip.npy"]}
    for name, data in bad.items():
        (tmp_path / f"depth/{name}.npy").write_bytes(data)
    (tmp_path / "color/23.png").unlink()
    os.mkfifo(tmp_path / "color/23.png")
    with time_limit("run"):
        source = FolderSource(tmp_path)
        transform = build_transform(TransformOptions(), train=True, size=16)
        dataset = SampleDataset(source, transform, num_frames=1, train=True, seed=1)
        skipped = {file.path for index in range(len(dataset)) for file in dataset[(0, index)].meta["skipped"]}
    expected = {str(tmp_path / f"depth/{name}.npy") for name in bad} | {str(tmp_path / "color/23.png")}
    assert skipped == expected


def test_a_list_that_is_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "rgb.txt")
    with time_limit("text", 5), pytest.raises(CorruptFileError, match="named pipe"):
        read_text(tmp_path / "rgb.txt")


def test_every_bit_of_an_npy_header(tmp_path: Path):
    whole = npy(metres())
    for position in range(128):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path = tmp_path / "a.npy"
            path.write_bytes(data)
            try:
                values = read_map(path)
            except DataError:
                continue
            np.testing.assert_array_equal(values, np.load(path))

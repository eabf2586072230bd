"""Damaged pictures and maps: refused by an error of ours, or decoded to what another library decodes."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from helpers.fuzzing import Outcomes, bit_flips, mutations, slices
from helpers.map_files import maps, metres, millimetres, npz, other_reader, pictures, png
from m33d_hf.data.depth.stores import FolderStore, ParquetStore
from m33d_hf.data.depth.writing import DepthVideoWriter
from m33d_hf.data.files.files import read_map, read_rgb, size_and_orientation
from m33d_hf.errors import CorruptFileError, M33DError
from m33d_hf.modeling.video_reading_m33d import probe_video, read_video


@pytest.mark.parametrize(("seed", "count"), slices(40, 400))
@pytest.mark.parametrize("name", list(maps()))
def test_damaged_maps(tmp_path: Path, name: str, seed: int, count: int):
    suffix, original = maps()[name]
    outcomes, other = Outcomes(), other_reader(name)
    path = tmp_path / f"a{suffix}"
    for damage, data in mutations(original, seed, count):
        path.write_bytes(data)
        values = outcomes.judge(damage, lambda: read_map(path))
        size = outcomes.judge(damage, lambda: size_and_orientation(path)[:2])
        if isinstance(values, M33DError):
            continue
        assert size == values.shape, damage
        judged = other(path)
        if judged is not None and np.squeeze(judged).ndim == 2:
            np.testing.assert_array_equal(values, np.squeeze(judged), err_msg=damage)
    assert outcomes["refused"] > 0


@pytest.mark.parametrize(("seed", "count"), slices(40, 400))
@pytest.mark.parametrize("name", list(pictures()))
def test_damaged_pictures(tmp_path: Path, name: str, seed: int, count: int):
    suffix, original = pictures()[name]
    outcomes, other = Outcomes(), other_reader(name)
    folder = tmp_path / "frames"
    folder.mkdir()
    path = folder / f"a{suffix}"
    for damage, data in mutations(original, seed, count):
        path.write_bytes(data)
        pixels = outcomes.judge(damage, lambda: read_rgb(path))
        # A folder of frames has the same reader.
        frame = outcomes.judge(damage, lambda: read_video(folder, [0]))
        outcomes.judge(damage, lambda: probe_video(folder))
        assert isinstance(frame, CorruptFileError) >= isinstance(pixels, CorruptFileError), damage
        if isinstance(pixels, M33DError):
            continue
        np.testing.assert_array_equal(frame[0], pixels, err_msg=damage)
        judged = other(path)
        if judged is not None and judged.shape == pixels.shape and judged.dtype == np.uint8:
            np.testing.assert_array_equal(pixels, judged, err_msg=damage)
    assert outcomes["refused"] > 0


@pytest.mark.parametrize(("seed", "count"), slices(100, 1000))
@pytest.mark.parametrize(("suffix", "original"), [(".png", png(millimetres())), (".npz", npz(metres()))])
def test_flipped_bits_in_formats_with_checksums(tmp_path: Path, suffix: str, original: bytes, seed: int, count: int):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(original)
    whole = read_map(path)
    outcomes = Outcomes()
    for damage, data in bit_flips(original, seed, count):
        path.write_bytes(data)
        values = outcomes.judge(damage, lambda: read_map(path))
        if not isinstance(values, M33DError):
            # A zip's dates, comments and the like are no data, and have no checksum.
            assert suffix == ".npz" and np.array_equal(values, whole), damage
    assert outcomes["refused"] >= count * 0.9


@pytest.mark.parametrize(("seed", "count"), slices(100, 500))
@pytest.mark.parametrize("kind", ["metric", "inverse"])
@pytest.mark.parametrize("format", ["png", "parquet"])
def test_flipped_bits_in_depth_that_was_written_here(tmp_path: Path, format: str, kind: str, seed: int, count: int):
    pytest.importorskip("pyarrow")
    writer = DepthVideoWriter(tmp_path, "v", kind, format)
    writer.append(np.stack([metres(number) + 0.5 for number in range(4)]))
    writer.finish()
    outcomes = Outcomes()
    target = tmp_path / ("v/000002.png" if format == "png" else "v.parquet")
    original = target.read_bytes()

    def read(path: Path) -> list[bytes]:
        store = FolderStore(path) if format == "png" else ParquetStore(path)
        values = store.stored(range(store.length))
        return [f"{store.quantization} {zlib.crc32(each.tobytes())}".encode() for each in values]

    whole = read(tmp_path / "v" if format == "png" else target)
    for number, (damage, data) in enumerate(bit_flips(original, seed, count)):
        # The reader remembers what a file says; damage that happens while it runs is not what is asked here.
        place = target if format == "png" else tmp_path / f"{number}.parquet"
        place.write_bytes(data)
        found = outcomes.judge(damage, partial(read, place.parent if format == "png" else place))
        if not isinstance(found, M33DError):
            assert format == "parquet" and found == whole, damage
    assert outcomes["refused"] > count * (0.9 if format == "png" else 0.2)  # a footer holds much that says nothing

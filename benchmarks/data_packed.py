"""Frames inside one large file: ScanNet's `.sens` and NYUv2's `.mat` at their original sizes, against bare decoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_files import depth_of, scene
from data_readers import installed
from PIL import Image

from m33d_hf.data.files.packed import PackedFrame, packed_frame, packed_name

COLOR, DEPTH = (968, 1296), (480, 640)
# Share of bare decoding that is aimed at.
SENS, FILLED, MEASURED = (
    "scannet .sens, colour and depth",
    "nyuv2 .mat, colour, depth and labels",
    "nyuv2 .mat, colour, measured depth and labels",
)
GOALS = {SENS: 0.8, FILLED: 0.7, MEASURED: 0.7}
# What a row of a `.mat` reads: our streams, and the arrays that hold them.
_MAT = {
    FILLED: (("rgb", "filled", "labels"), ("images", "depths", "labels")),
    MEASURED: (("rgb", "measured", "labels"), ("images", "depths", "rawDepths", "labels")),
}
Calls = dict[str, Callable[[], int]]


def write_sens(path: Path, count: int, color: tuple[int, int] = COLOR, depth: tuple[int, int] = DEPTH) -> Path:
    """A recording of `count` frames, JPEG and zlib, with identity matrices."""
    identity = np.eye(4, dtype="<f4").tobytes()
    parts = [struct.pack("<IQ", 4, 6), b"sensor", 4 * identity, struct.pack("<ii", 2, 1)]
    parts += [struct.pack("<IIIIfQ", color[1], color[0], depth[1], depth[0], 1000.0, count)]
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(scene(*color, 9 * number)).save(buffer, "JPEG", quality=92)
        picture, packed = buffer.getvalue(), zlib.compress(depth_of(*depth, 9 * number).astype("<u2").tobytes())
        parts += [identity, struct.pack("<QQQQ", number, number, len(picture), len(packed)), picture, packed]
    path.write_bytes(b"".join([*parts, struct.pack("<Q", 0)]))
    return path


def write_mat(path: Path, count: int, size: tuple[int, int] = DEPTH) -> Path:
    """The arrays of the labelled frames, deflated frame by frame as MATLAB 7.3 does, pictures on their side."""
    import h5py

    height, width = size
    shapes = {"images": (3, width, height), "depths": (width, height), "rawDepths": (width, height)}
    kinds = {"images": np.uint8, "depths": np.float32, "rawDepths": np.float32, "labels": np.uint16}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, kind in kinds.items():
            shape = shapes.get(name, (width, height))
            array = file.create_dataset(
                name, (count, *shape), kind, chunks=(1, *shape), compression="gzip", compression_opts=3
            )
            for number in range(count):
                depth = depth_of(height, width, 9 * number)
                filled = np.where(depth == 0, 2500, depth) / 1000  # `depths` has no holes, `rawDepths` has
                maps = {"images": scene(height, width, 9 * number), "labels": depth % 895, "depths": filled}
                array[number] = maps.get(name, depth / 1000).astype(kind).T
    return path


def packed_calls(folder: Path, tiny: bool) -> dict[str, Calls]:
    """Title -> what reads the same frames bare, and what our readers do; only where their libraries are installed."""
    count, color, depth = (2, (48, 64), (24, 32)) if tiny else (8, COLOR, DEPTH)
    found = {SENS: _sens_calls(write_sens(folder / "scene0000_00.sens", count, color, depth), count)}
    if installed("h5py"):
        file = write_mat(folder / "nyu_depth_v2_labeled.mat", count, depth)
        found |= {title: _mat_calls(file, count, *each) for title, each in _MAT.items()}
    return found


def _ours(path: Path, streams: tuple[str, ...], count: int) -> Callable[[], int]:
    names = [packed_name(str(path), stream, number) for number in range(count) for stream in streams]

    def read() -> int:
        for name in names:
            frame: PackedFrame | None = packed_frame(name)
            if frame is None:
                raise ValueError(f"{name} names no frame")
            frame.read()
        return count

    return read


def _sens_calls(path: Path, count: int) -> Calls:
    from m33d_hf.data.packed_formats.sens import read_index

    places = read_index(path).places.tolist()

    def bare() -> int:
        with path.open("rb") as file:
            for at, length, depth_at, depth_length in places:
                file.seek(at)
                np.array(Image.open(io.BytesIO(file.read(length))).convert("RGB"))
                file.seek(depth_at)
                np.frombuffer(zlib.decompress(file.read(depth_length)), "<u2")
        return len(places)

    return {"bare": bare, "ours": _ours(path, ("color", "depth"), count)}


def _mat_calls(path: Path, count: int, streams: tuple[str, ...], names: tuple[str, ...]) -> Calls:
    import h5py

    arrays: Any = h5py.File(path, "r")

    def bare() -> int:
        for number in range(count):
            for name in names:
                arrays[name][number]
        return count

    return {"bare": bare, "ours": _ours(path, streams, count)}


def packed_row(title: str, rates: dict[str, float]) -> dict[str, Any]:
    """A row of the table."""
    share = rates["ours"] / rates["bare"]
    told = {"files": title, "bare_per_second": rates["bare"], "ours_per_second": rates["ours"], "share": share}
    return {**told, "goal": GOALS[title], "reached": bool(share >= GOALS[title])}

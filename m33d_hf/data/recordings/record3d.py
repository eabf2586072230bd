"""Record3D's `.r3d` of an iPhone or iPad: a zip of `metadata` (JSON), `rgbd/N.jpg`, `rgbd/N.depth`, `rgbd/N.conf`.

Depth is float32 metres, (dh, dw), confidence uint8 (0 low, 1 medium, 2 high), both compressed by Apple's LZFSE, which
the package pyliblzfse unpacks. Depth shows the same view as the picture, at a smaller size. `K` is stored by columns:
fx 0 0, 0 fy 0, cx cy 1.
"""

from __future__ import annotations

import re
import statistics
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.files.json_objects import parse_json_object
from m33d_hf.data.recordings.recording import (
    About,
    Content,
    ImportOptions,
    PendingFrame,
    refuse_other_view,
    stored_picture,
    with_confidence,
)
from m33d_hf.errors import ConfigError, CorruptFileError, MissingDependencyError, first_line
from m33d_hf.modeling.picture_files_m33d import check_pixels

_METADATA = "metadata"
_PICTURE = re.compile(r"rgbd/(\d{1,9})\.jpg")
_LARGEST_METADATA = 1 << 28
_LARGEST_PICTURE = 1 << 28


class Record3DRecording:
    """See the module's text.

    Raises:
        CorruptFileError: no zip, one of another kind, or depth of another aspect ratio than the picture.
        MissingDependencyError: without pyliblzfse.
    """

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options = path, options
        self._unpack = _lzfse()
        try:
            self._zip = zipfile.ZipFile(path)
            names = set(self._zip.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise CorruptFileError(path, f"is no Record3D recording: it cannot be read as a zip ({error})") from error
        self._names = names
        self._numbers = sorted(int(found[1]) for name in names if (found := _PICTURE.fullmatch(name)))
        self.metadata = self._read_metadata()
        self.depth_size = self._size("dh", "dw")
        self.stamps = self.metadata.get("frameTimestamps") or []
        self.about = self._about()

    def _read_metadata(self) -> dict[str, Any]:
        if _METADATA not in self._names or not self._numbers:
            raise CorruptFileError(self.path, "is no Record3D recording: it needs metadata and rgbd/0.jpg, ...")
        try:
            return parse_json_object(self._member(_METADATA, _LARGEST_METADATA))
        except ValueError as error:
            raise CorruptFileError(self.path, f"its metadata is unreadable ({error})") from error

    def _size(self, height: str, width: str) -> tuple[int, int]:
        rows, columns = self.metadata.get(height), self.metadata.get(width)
        if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
            raise CorruptFileError(self.path, f"its metadata has no sizes {height} and {width}")
        check_pixels(self.path, rows, columns)
        return rows, columns

    def _about(self) -> About:
        color = self._size("h", "w")
        refuse_other_view(self.path, self.depth_size, color)
        poses = self.metadata.get("poses") or []
        announced = max(len(self.stamps), len(poses)) or len(self._numbers)
        rate = self.metadata.get("fps")
        notes = ["depth is in metres and shows the view of the picture; its calibration is the picture's, resized"]
        if not any(name.endswith(".conf") for name in self._names):
            notes.append("there are no confidence maps, so that no depth becomes a hole by its confidence")
        try:
            fx, fy, cx, cy = intrinsics_of(self.metadata)
            camera = Camera(color[1], color[0], fx, fy, cx, cy)
            calibration = Calibration(camera, camera.resized(*self.depth_size))
        except (ConfigError, KeyError, IndexError, TypeError, ValueError) as error:
            raise CorruptFileError(self.path, f"its metadata has no usable intrinsics ({error!r})") from error
        fps = float(rate) if isinstance(rate, (int, float)) and rate > 0 else None
        return About("Record3D", announced, calibration, fps=fps, notes=notes)

    def frames(self) -> Iterator[PendingFrame]:
        """See `Recording`."""
        for number in self._numbers:
            seconds = float(self.stamps[number]) if number < len(self.stamps) else None
            yield PendingFrame(number, seconds, partial(self._load, number))

    def _load(self, number: int) -> Content:
        name = f"rgbd/{number}.jpg"
        color, size = stored_picture(self._where(name), self._member(name, _LARGEST_PICTURE))
        depth = self._map(f"rgbd/{number}.depth", np.dtype("<f4"))
        if (name := f"rgbd/{number}.conf") in self._names:
            confidence = self._map(name, np.dtype("u1"))
            depth = with_confidence(depth, confidence, self.options.min_confidence, self._where(name))
        return Content(color, size, depth)

    def _where(self, name: str) -> Path:
        return Path(f"{self.path}#{name}")

    def _member(self, name: str, most: int) -> bytes:
        try:
            with self._zip.open(name) as file:
                data = file.read(most + 1)
        except KeyError as error:
            raise CorruptFileError(self._where(name), "is not in the recording") from error
        except (OSError, zipfile.BadZipFile, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise CorruptFileError(self._where(name), f"cannot be read ({first_line(error)})") from error
        if len(data) > most:
            raise CorruptFileError(self._where(name), f"has more than {most:,} bytes")
        return data

    def _map(self, name: str, kind: np.dtype[Any]) -> np.ndarray:
        height, width = self.depth_size
        expected = height * width * kind.itemsize
        packed = self._member(name, 2 * expected + 4096)
        try:
            data = self._unpack(packed)
        except Exception as error:  # of the extension module, which raises its own
            raise CorruptFileError(self._where(name), f"cannot be unpacked ({first_line(error)})") from error
        if len(data) != expected:
            raise CorruptFileError(self._where(name), f"has {len(data):,} bytes; {height} x {width} need {expected:,}")
        return np.frombuffer(data, kind).reshape(height, width).astype(kind.newbyteorder("="))


def intrinsics_of(metadata: dict[str, Any]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy: the median of the frames', which move with the focus, or those of `K`.

    Raises:
        KeyError, IndexError, TypeError, ValueError: there are none.
    """
    if each := metadata.get("perFrameIntrinsicCoeffs"):
        fx, fy, cx, cy = (statistics.median(float(frame[i]) for frame in each) for i in range(4))
        return fx, fy, cx, cy
    values = [float(value) for value in metadata["K"]]
    by_rows = not any(values[6:8])  # as other apps write the same file
    return values[0], values[4], *((values[2], values[5]) if by_rows else (values[6], values[7]))


def _lzfse() -> Callable[[bytes], bytes]:
    try:
        import liblzfse
    except ImportError as error:
        raise MissingDependencyError(
            "Record3D's depth is compressed by LZFSE; install its decoder: pip install 'm33d-hf[cameras]' (pyliblzfse)."
        ) from error
    return liblzfse.decompress  # type: ignore[no-any-return]

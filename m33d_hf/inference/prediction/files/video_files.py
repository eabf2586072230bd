"""Pictures to a video file that every player opens, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.errors import MissingDependencyError

_DEFAULT_RATE = 25.0
_CODECS = ("libx264", "libopenh264", "mpeg4")


def write_video_file(path: Path, frames: Iterable[np.ndarray], fps: float | None) -> int:
    """Write an MP4; returns the number of frames.

    Args:
        path: ends in .mp4.
        frames: (H, W, 3) uint8 of one size; an odd last row or column is repeated, since the format needs even sides.
        fps: frames per second; 25 where unknown.

    Raises:
        MissingDependencyError: PyAV is not installed. OSError: the file cannot be written.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("writing videos requires PyAV: pip install av") from error
    codec = next(name for name in _CODECS if name in av.codecs_available)
    rate = Fraction(fps or _DEFAULT_RATE).limit_denominator(1001)
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with av.open(str(temporary), "w") as container:
            stream = None
            for frame in frames:
                even = _even(frame)
                if stream is None:
                    options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {}
                    stream = container.add_stream(codec, rate=rate, options=options)
                    stream.height, stream.width, stream.pix_fmt = *even.shape[:2], "yuv420p"
                shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                container.mux(stream.encode(shown))
                count += 1
            if stream is not None:
                container.mux(stream.encode())

    write_atomically(path, write)
    return count


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

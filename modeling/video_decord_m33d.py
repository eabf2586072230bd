# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Reads video files with decord: one reader per call, closed before the call returns.

decord fills frames that do not decode with copies of their neighbours; it is told to raise instead. Its random access
is wrong in streams whose start points are numbered differently in decoding and in display order (packed or open groups
of pictures, edit lists): there, frames are counted from the start.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .errors_m33d import CorruptFileError, MissingDependencyError
from .video_pyav_m33d import available as pyav_available
from .video_times_m33d import FrameTimes, times_of

# Share of frames that decord may replace by copies before it raises; 0 would mean "any".
_NO_COPIES = 1e-9
# Decoded frames that wait to be copied, and their bytes.
_MOST_HELD, _BYTES_HELD = 16, 1 << 25
# decord tells times in seconds with the precision of float32; they are rounded to so many parts of a second.
_TICKS = 1000


@functools.cache
def _library() -> Any | None:
    """decord, loaded when a file is first to be read with it; None where it is not installed or does not load."""
    pyav_available()  # it loads PyAV, which comes before: decord's old FFmpeg would otherwise lend PyAV's its symbols
    try:
        import decord
    except (ImportError, OSError):  # OSError: a wheel whose libraries do not load
        return None
    decord.logging.set_level(decord.logging.QUIET)  # what goes wrong is in our exceptions
    return decord


def available() -> bool:
    """Whether decord is installed and loads."""
    return _library() is not None


def _errors() -> tuple[type[Exception], ...]:
    library = _library()
    if library is None:
        return (RuntimeError, OSError, IndexError)
    base = library._ffi.base  # one of the two is not exported
    return (RuntimeError, OSError, IndexError, base.DECORDError, base.DECORDLimitReachedError)


def _open(path: Path) -> Any:
    decord = _library()
    if decord is None:
        raise MissingDependencyError("reading videos with decord requires the package `decord`: pip install decord")
    try:
        # An absolute path, for FFmpeg takes a name such as "concat:a.mp4" for an address.
        reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1, fault_tol=_NO_COPIES)
    except UnicodeEncodeError as error:
        raise CorruptFileError(path, "decord cannot open it (its name is not UTF-8)") from error
    except _errors() as error:
        raise CorruptFileError(path, f"decord cannot open it ({_first_line(error)})") from error
    if len(reader) < 1:
        raise CorruptFileError(path, "holds no frames")
    return reader


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # "[12:00:01] /their/build/machine/video_reader.cc:270: [the file] what happened" -> "what happened"
    return re.sub(r"^\[[\d:]+\] \S+:\d+: (\[[^\]]*\])?\s*", "", lines[0])[:200]


def _array(frames: Any) -> np.ndarray:
    """(H, W, 3) uint8 of one frame."""
    # decord.bridge.set_bridge elsewhere in the process changes what readers return.
    array = np.asarray(frames.asnumpy() if hasattr(frames, "asnumpy") else frames)
    height, width, channels = array.shape
    if channels > 3:  # decord counts channels by the length of a row in memory: padding (width 16, 24, 48, ...) counts
        array = array.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
    return array


def stamps(path: Path) -> np.ndarray:
    """(N, 2) float64 seconds at which each promised frame begins and ends, as decord numbers them.

    Raises:
        CorruptFileError: decord cannot open the file.
    """
    reader = _open(path)
    try:
        found = reader.get_frame_timestamp(list(range(len(reader))))
    except _errors() as error:
        raise CorruptFileError(path, f"decord cannot read its timestamps ({_first_line(error)})") from error
    return np.asarray(found, dtype=np.float64).reshape(-1, 2)


def stamps_usable(stamps: np.ndarray) -> bool:
    """Whether decord's time stamps begin at 0 or later and ascend, as its random access needs."""
    starts = stamps[:64, 0]
    return bool(np.isfinite(starts).all() and starts[0] >= 0 and (np.diff(starts) > 0).all())


def times(stamps: np.ndarray, fps: float | None) -> FrameTimes | None:
    """When frames are shown, by decord's `stamps`; evenly at `fps` where those cannot be trusted."""
    starts = stamps[:, 0]
    if not len(stamps) or not np.isfinite(stamps).all() or (np.diff(starts) <= 0).any():
        return FrameTimes(len(stamps), fps) if fps and len(stamps) else None
    last = round((stamps[-1, 1] - starts[-1]) * _TICKS)
    return times_of(np.rint(starts * _TICKS).astype(np.int64).tolist(), Fraction(1, _TICKS), fps, last)


def probe(path: Path) -> tuple[int, float | None, tuple[int, int]]:
    """Promised frame count, frames per second and (height, width) of a file.

    Raises:
        CorruptFileError: decord cannot open it or decode its first frame.
        MissingDependencyError: decord is not installed.
    """
    reader = _open(path)
    fps = float(reader.get_avg_fps())
    try:
        height, width = _array(reader[0]).shape[:2]
    except _errors() as error:
        raise CorruptFileError(path, f"decord cannot decode its first frame ({_first_line(error)})") from error
    return len(reader), fps if math.isfinite(fps) and fps > 0 else None, (int(height), int(width))


def count_frames(path: Path, promised: int, seekable: bool) -> int:
    """How many of the promised frames come: the last ones are decoded (without seeking, all of them).

    Raises:
        CorruptFileError: none comes.
    """
    keys = [0]
    if seekable:
        keys = [*(int(key) for key in reversed(_open(path).get_key_indices()[-3:])), 0]
    for key in keys:
        numbers = range(key, promised)
        count = key
        try:
            for _ in decode(path, numbers, seekable):
                count += 1
        except CorruptFileError:
            if count == key:  # not one frame of this group: look at the one before
                continue
        return count
    raise CorruptFileError(path, "decord cannot decode any of its frames")


def decode(path: Path, numbers: Iterable[int], seekable: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Decode ascending frame numbers, each once, at constant memory.

    Args:
        path: the file.
        numbers: ascending frame numbers.
        seekable: decord's random access is right for this file.

    Yields:
        (number, (H, W, 3) uint8 RGB).

    Raises:
        CorruptFileError: a frame that does not decode, or of which decord would give a copy of another.
    """
    reader = _open(path)
    here, at_once, rest = -1, 1, iter(numbers)
    while chunk := list(islice(rest, at_once)):
        frames: list[Any] = []
        failure: CorruptFileError | None = None
        # Nothing between two frames: decord's thread would meanwhile decode ahead what the next seek throws away.
        for number in chunk:
            try:
                while not seekable and here < number - 1:
                    here += 1
                    reader[here]
                frames.append(reader[number])
            except _errors() as error:
                reason = f"decord cannot decode frame {number} of {len(reader)} ({_first_line(error)})"
                failure = CorruptFileError(path, reason)
                failure.__cause__ = error
                break
            here = number
        for number, frame in zip(chunk, frames, strict=False):
            try:
                array = _array(frame)
            except _errors() as error:
                raise CorruptFileError(path, f"decord cannot copy frame {number} ({_first_line(error)})") from error
            at_once = max(1, min(_MOST_HELD, _BYTES_HELD // array.nbytes))
            yield number, array
        if failure is not None:
            raise failure

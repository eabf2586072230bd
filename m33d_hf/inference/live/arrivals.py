"""Frames as they arrive: from an iterator, a file that is still being written, or any address that PyAV opens."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from m33d_hf.errors import CorruptFileError, DataError, UnreachableError, type_and_text
from m33d_hf.inference.live.lost import LostFrames
from m33d_hf.modeling.video_pyav_m33d import Pictures, VideoFile, pyav_errors

# How often a file is looked at for more (seconds).
_GLANCE = 0.05
# What tells a recording from another: its first bytes.
_HEAD = 65536
_NO_MORE: Any = object()
# FFmpeg's formats whose files hold the pictures themselves; others tell where to look (hls, concat, sdp).
_CONTAINERS = frozenset({
    "mpegts", "mpegtsraw", "mpeg", "mpegvideo", "matroska", "webm", "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "avi",
    "flv", "live_flv", "ogg", "asf", "asf_o", "nut", "mxf", "gxf", "dv", "wtv", "rm", "h261", "h263", "h264", "hevc",
    "vvc", "evc", "m4v", "vc1", "obu", "av1", "ivf", "dirac", "dnxhd", "mjpeg", "mjpeg_2000", "mpjpeg", "image2pipe",
    "yuv4mpegpipe", "rawvideo",
})  # fmt: skip
# What FFmpeg says when it was told to wait no longer.
_GIVEN_UP = "Immediate exit requested"
# Connections that end alike when all was sent and when the sender fails; of RTSP, FFmpeg does not tell them apart.
_WITHOUT_END = ("tcp:", "tls:", "unix:", "rtsp:", "rtsps:")


@dataclass
class Arrival:
    """One frame.

    Attributes:
        time: seconds of the feed's own clock; anything where that says nonsense.
        picture: makes the (H, W, 3) uint8 RGB picture; None for a frame that cannot be read.
        arrived: `time.monotonic()` when it came.
        note: what is to be told of it, such as that its size changed.
        last: one of those that a decoder gives up when no more comes: it may be there again, and whole, when the same
            file is read further.
    """

    time: Any
    picture: Callable[[], np.ndarray] | None
    arrived: float = field(default_factory=time.monotonic)
    note: str = ""
    last: bool = False


class Arrivals:
    """The frames of a source, and how it ended.

    Attributes:
        name: of the source, for people; without a password.
        notices_itself: it tells by itself that no more comes, and must be given the time to.
        ended: kind and reason, once there are no more: "finished", "closed", "stalled" or "broken"; see `Ended`.
    """

    name = "the feed"
    notices_itself = False  # that no more comes
    ended: tuple[str, str] = ("finished", "it has no more frames")

    def __iter__(self) -> Iterator[Arrival]:
        """The frames; called once, in a thread of its own."""
        raise TypeError(f"{type(self).__name__} has no frames")

    def stop(self) -> None:
        """Nobody wants more: reading ends as soon as it can."""


class GivenFrames(Arrivals):
    """(frame, time) of an iterable, as `LiveFeed.push` takes them."""

    def __init__(self, frames: Iterable[tuple[np.ndarray | None, float]]) -> None:
        self.frames = frames

    def __iter__(self) -> Iterator[Arrival]:
        frames, begun = iter(self.frames), False
        while True:
            try:
                item = next(frames, _NO_MORE)
            except Exception as error:  # of the caller's camera: whatever it is, what was seen stays
                if not begun:
                    raise
                self.ended = "broken", f"the iterator failed ({type_and_text(error)})"
                return
            if item is _NO_MORE:
                return
            if not isinstance(item, tuple) or len(item) != 2:
                raise DataError(f"an iterator to follow gave {type(item).__name__}; it must give (frame, seconds)")
            frame, seconds = item
            begun = True
            yield Arrival(seconds, None if frame is None else partial(_same, frame))


class StreamFrames(Arrivals):
    """The frames of an address that PyAV opens: rtsp, http, hls, tcp, udp, srt, a camera, a pipe.

    Args:
        address: for FFmpeg.
        patience: seconds without an answer after which FFmpeg gives up.
        options: for FFmpeg, such as {"rtsp_transport": "tcp"}.
        container: name of FFmpeg's format, where the content does not tell, such as "v4l2"; None to look.
    """

    def __init__(
        self, address: str, patience: float, options: Mapping[str, str] | None = None, container: str | None = None
    ) -> None:
        self.address, self.patience = address, patience
        self.options, self.container = dict(options or {}), container
        self.name = shown_address(address)

    def opened(self) -> VideoFile:
        """The open stream.

        Raises:
            UnreachableError: nothing answers, or what answers is no video.
        """
        # A little longer than who waits for the frames, so that it is told in one way.
        more: dict[str, Any] = {"timeout": (self.patience + 1, self.patience + 1)}
        try:
            return VideoFile(self.name, self.options, self.address, format=self.container, **more)
        except CorruptFileError as error:
            raise UnreachableError(
                f"{self.name}: {error.reason}. Check the address and that the sender runs; try it with ffplay."
            ) from None

    def __iter__(self) -> Iterator[Arrival]:
        with self.opened() as file:
            yield from self._decoded(file)
            self.ended = self.end_of(file)

    def end_of(self, file: VideoFile) -> tuple[str, str]:
        """Kind and reason of an end."""
        if file.broken and _GIVEN_UP in file.reason:
            return "stalled", f"nothing came for {self.patience + 1:g} s"
        if file.broken:
            return "broken", f"the connection broke ({file.reason})"
        pipe = not is_address(self.address) and Path(self.address).is_fifo()
        if pipe or self.address.lower().startswith(_WITHOUT_END):
            return "closed", "the sender closed the connection, and nothing tells whether all was sent"
        return "finished", "the sender closed the stream"

    def is_last(self) -> bool:
        """Whether what the decoder gives now may come again."""
        return False

    def _decoded(self, file: VideoFile) -> Iterator[Arrival]:
        pictures: Pictures | None = None
        lost, told = 0, ""
        for frame, stamp, sound in self._in_order(file):
            if frame is None:
                if pictures is not None:
                    yield Arrival(float(stamp * file.stream.time_base), None, last=self.is_last())
                continue
            if pictures is None and not sound:
                lost += 1  # joined in the middle: until the first whole picture nothing can be seen
                continue
            note = ""
            if pictures is None:
                pictures = Pictures.like(frame)
                note = f"its first {lost} frames could not be decoded; times start behind them" if lost else ""
            if sound and not pictures.fits(frame):
                size = f"{frame.height} x {frame.width}"
                note = "" if size == told else f"the picture changed to {size} pixels; it is scaled to the first size"
                told = size
            last = self.is_last()
            if last and not sound:
                return  # torn by the end of the file
            yield Arrival(frame.time, _maker(pictures, frame) if sound else None, note=note, last=last)

    def _in_order(self, file: VideoFile) -> Iterator[tuple[Any, int, bool]]:
        """(frame, stamp, whether it is sound) as they are shown; without a frame, one that never decodes."""
        order = LostFrames()
        for frame, sound in file.frames(note=order.sent):
            yield from ((each.frame, each.stamp or 0, each.sound) for each in order.take(frame, sound))
        yield from ((each.frame, each.stamp or 0, each.sound) for each in order.rest())


def _same(frame: np.ndarray) -> np.ndarray:
    return frame


def _maker(pictures: Pictures, frame: Any) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        try:
            return pictures.of(frame)
        except pyav_errors() as error:
            raise CorruptFileError("frame", f"its colours cannot be converted to RGB ({error})") from error

    return make


class GrowingFrames(StreamFrames):
    """The frames of a file that is still being written; at its end more is waited for.

    Args:
        path: a file that can be read from its beginning before it is complete: MPEG-TS, Matroska, fragmented MP4.
        patience: seconds without growth after which it counts as stalled.
        options, container: as for `StreamFrames`.
    """

    notices_itself = True

    def __init__(
        self, path: Path, patience: float, options: Mapping[str, str] | None = None, container: str | None = None
    ) -> None:
        super().__init__(str(path), patience, options, container)
        self.path, self.name = path, str(path)
        self._stop = threading.Event()
        self._file: _Growing | None = None

    def opened(self) -> VideoFile:
        """The open file, once it is there.

        Raises:
            CorruptFileError: it does not come, or is no video that can be read while it grows.
        """
        last = time.monotonic() + self.patience
        while not (self.path.is_file() and self.path.stat().st_size) and not self._stop.is_set():
            if time.monotonic() >= last:
                what = "is empty" if self.path.is_file() else "does not exist"
                raise CorruptFileError(self.path, f"{what}, after waiting {self.patience:g} s for it")
            self._stop.wait(_GLANCE)
        self._file = _Growing(self.path, self.patience, self._stop)
        try:
            return VideoFile(self.path, self.options, self._file, format=self.container)
        except CorruptFileError as error:
            self._file.close()
            raise CorruptFileError(
                self.path,
                f"{error.reason}. A file that is still being written can be read as MPEG-TS (.ts), Matroska (.mkv) or "
                "fragmented MP4; a usual MP4 only when it is complete, by --video",
            ) from None

    def __iter__(self) -> Iterator[Arrival]:
        try:
            yield from super().__iter__()
        finally:
            if self._file is not None:
                self._file.close()

    def end_of(self, file: VideoFile) -> tuple[str, str]:
        """Kind and reason of an end."""
        if self._file is not None and self._file.shrank:
            return "broken", "the file became shorter while it was read"
        if file.broken:
            return "broken", f"the file cannot be read further ({file.reason})"
        return "stalled", f"the file has not grown for {self.patience:g} s"

    def is_last(self) -> bool:
        """Whether the end of the file was reached, and no more waited for."""
        return self._file is not None and self._file.over

    def stop(self) -> None:
        """See the base class."""
        self._stop.set()


class _Growing:
    """A file for PyAV; it cannot be sought in, so that nobody looks for an end that is not there yet.

    Attributes:
        over: the end has been told.
        shrank: because the file became shorter.
    """

    def __init__(self, path: Path, patience: float, stop: threading.Event) -> None:
        self.name = str(path)
        self._file = path.open("rb")
        self._patience, self._stop = patience, stop
        self.over = self.shrank = False

    def read(self, size: int = -1) -> bytes:
        """At least a byte; none where the file does not grow any more, or nobody wants more."""
        last = time.monotonic() + self._patience
        while not self.over:
            data = self._file.read(size)
            if data:
                return data
            self.shrank = os.fstat(self._file.fileno()).st_size < self._file.tell()
            self.over = self.shrank or self._stop.is_set() or time.monotonic() >= last
            self._stop.wait(_GLANCE)
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def head_of(path: Path, size: int = _HEAD) -> tuple[int, str]:
    """(bytes, digest of the first so many, `size` at most): what tells a recording from another."""
    with path.open("rb") as file:
        data = file.read(size)
    return len(data), hashlib.blake2b(data, digest_size=16).hexdigest()


def grows(container: str | None) -> bool:
    """Whether a file of FFmpeg's format `container` (None: any that is found in it) is read on as it grows."""
    return container is None or not _CONTAINERS.isdisjoint(container.strip().lower().split(","))


def is_address(source: object) -> bool:
    """Whether a source is an address rather than a file."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]*://", source, re.IGNORECASE) is not None


def shown_address(address: str) -> str:
    """An address without user, password and query, which may hold a key."""
    if not is_address(address):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

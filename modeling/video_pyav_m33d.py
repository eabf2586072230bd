# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Reads video files with PyAV: exact frames, damage noticed, one container per call.

A scan of the packets (no decoding) gives the frames' time stamps; the last group of pictures is decoded, for headers
and packets promise frames that never come. Reading seeks to the start point before a frame and recognises frames by
their time stamps, so that an inaccurate seek costs time but never gives another frame. What the decoder flags as
damaged, or what builds on damage up to the next start point, is refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .errors_m33d import CorruptFileError, MissingDependencyError
from .video_header_m33d import announced_seconds, breaks_off, last_of_all_streams
from .video_index_m33d import VideoIndex, compact
from .video_times_m33d import SPARE_FRAMES, missing_end

try:
    import av
    import av.video.reformatter
except ImportError:
    av = None  # type: ignore[assignment]

_VERSION = int(av.__version__.split(".")[0]) if av is not None else 0
# Names and comments in old files are Latin-1 or worse; from 19 on PyAV takes them as they are.
_OPEN_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if _VERSION < 19 else {}
# From 17 on PyAV converts colours with a pool of threads by default: a child forked beside it hangs.
_CONVERT_OPTIONS: dict[str, Any] = {"threads": 1} if _VERSION >= 17 else {}
# "Decoders" that draw text: FFmpeg plays a README as an animation.
_TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")
# VP8 stores frames that are never shown as packets of their own: only decoding tells how many frames there are.
_HIDDEN_FRAME_CODECS = ("vp8",)
# Containers with an index of their own, in which decord's seeks are right (those in MPEG-TS are not).
_INDEXED = ("avi", "matroska", "mov")
# Going on is cheaper than seeking while the next start point is this close (frames).
_NEAR = 8
# Decoding from the start is the last resort for a frame; further into a file it would take minutes.
_PATIENCE = 3000
# Sound that ends this close to the announced end (seconds) shows that nothing is cut off.
_NEARLY = 0.1


def available() -> bool:
    """Whether PyAV is installed."""
    return av is not None


def _errors() -> tuple[type[Exception], ...]:
    return (av.FFmpegError, OSError, EOFError, ValueError)


class _File:
    """An open container with its video stream; closes with `with`."""

    def __init__(self, path: Path, options: dict[str, str] | None = None) -> None:
        if av is None:
            raise MissingDependencyError("reading videos with PyAV needs the package `av`: pip install av")
        self.path = path
        self.broken = False
        try:
            # An absolute path, for FFmpeg takes a name such as "concat:a.mp4" for an address.
            self.container: Any = av.open(str(path.absolute()), options=options, **_OPEN_OPTIONS)
        except _errors() as error:
            raise CorruptFileError(path, f"cannot be opened as a video ({error})") from error
        try:
            self.stream: Any = self._video_stream()
        except CorruptFileError:
            self.container.close()
            raise
        self.stream.codec_context.thread_type = "NONE"  # workers are the parallelism; errors come where they belong
        self.stream.codec_context.thread_count = 1

    def _video_stream(self) -> Any:
        cover = getattr(av.stream.Disposition, "attached_pic", 0)
        streams = [s for s in self.container.streams.video if not (cover and s.disposition & cover)]
        if not streams:
            kinds = sorted({"cover picture" if s.type == "video" else s.type for s in self.container.streams})
            raise CorruptFileError(self.path, f"holds no video stream (it holds: {', '.join(kinds) or 'nothing'})")
        best = self.container.streams.best("video")
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise CorruptFileError(self.path, "its video codec is unknown to this build of FFmpeg")
        if stream.codec_context.name in _TEXT_CODECS:
            raise CorruptFileError(self.path, "is text, not a video")
        return stream

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def packets(self) -> Iterator[Any]:
        """Packets up to the end of the file or the point where it breaks off; the last one flushes the decoder."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except _errors():
                self.broken = True  # what is missing shows as frames that do not come
                return
            if packet is None:
                return
            yield packet

    def frames(self, cut: bool = False) -> Iterator[tuple[Any, bool]]:
        """Decoded frames in display order, each with whether it is sound.

        Args:
            cut: the file breaks off somewhere: leave out what the last packet gives, which decoders take for whole.
        """
        sound = True
        held: list[tuple[Any, bool]] = []
        for packet in self.packets():
            if cut and packet.size == 0:
                return
            yield from held
            held = []
            try:
                frames = packet.decode()
            except _errors():
                sound = False  # what follows builds on what is missing
                continue
            for frame in frames:
                sound = not frame.is_corrupt and (sound or frame.key_frame)
                held.append((frame, sound))
        if not cut:
            yield from held

    def seek(self, key: tuple[int, int, int | None]) -> bool:
        """Move to a start point (`VideoIndex.keys`); False where the container cannot, or lands elsewhere.

        AVI seeks by a list of its own. Where that is damaged the stamps of what follows are wrong as well.
        """
        shown, stamp, place = key
        try:
            self.container.seek(stamp, stream=self.stream, backward=True)
            if place is not None:
                first = next(self.container.demux(self.stream), None)
                if first is None or (first.pts, first.pos) != (shown, place):
                    return False
                self.container.seek(stamp, stream=self.stream, backward=True)
        except _errors():
            return False
        return True


@dataclass
class _Packets:
    """What a walk over the packets of a stream tells; small, for an hour of video has 100,000 of them.

    Attributes:
        count: packets with content.
        stamps: time stamps of those that are shown, in decoding order.
        unstamped: number of those shown that have none.
        keys: (time stamp, decoding time stamp, place in decoding order, place in the file) of packets at which decoding
            can start.
        reordered: decoding time stamps differ from time stamps.
        damaged: a packet is flagged as damaged, or the file breaks off.
        gradual: decoding can start at a packet that is not a whole picture (H.264 that refreshes gradually).
        end: (time stamp, duration) of the packet that is shown last.
    """

    count: int = 0
    stamps: array[int] = field(default_factory=lambda: array("q"))
    unstamped: int = 0
    keys: list[tuple[int | None, int | None, int, int | None]] = field(default_factory=list)
    reordered: bool = False
    damaged: bool = False
    gradual: bool = False
    end: tuple[int, int] | None = None

    def add(self, packet: Any) -> None:
        """Take note of a packet."""
        if packet.size == 0:  # the one that flushes the decoder
            return
        if packet.is_keyframe:
            self.gradual |= packet.stream.codec_context.name == "h264" and not _has_whole_picture(packet)
            self.keys.append((packet.pts, packet.dts, self.count, packet.pos))
        if packet.pts is None:
            self.unstamped += 1
        elif not packet.is_discard:
            self.stamps.append(packet.pts)
            self.end = max(self.end or (packet.pts, 0), (packet.pts, packet.duration or 0))
        self.reordered |= packet.pts != packet.dts
        self.damaged |= packet.is_corrupt
        self.count += 1


def _has_whole_picture(packet: Any) -> bool:
    """Whether an H.264 packet holds a picture from which decoding starts clean (IDR), as its NAL units say."""
    data, extra = bytes(packet), packet.stream.codec_context.extradata or b""
    place, size = 0, (extra[4] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 4 else 0
    while place < len(data):
        if size:
            start = place + size
            place = start + int.from_bytes(data[place:start], "big")
        else:
            start = data.find(b"\0\0\1", place) + 3
            if start == 2:
                return False
            place = start
        if start < len(data) and data[start] & 31 == 5:
            return True
    return False


def scan(path: Path) -> tuple[VideoIndex, float | None, tuple[int, int]]:
    """Find the frames of a file from its packets; frames are decoded only where packets do not tell.

    Returns:
        The index, frames per second on average (None when unknown), and (height, width) of the upright picture.

    Raises:
        CorruptFileError: not a video, no video stream, or no frame decodes.
        MissingDependencyError: PyAV is not installed.
    """
    packets = _Packets()
    with _File(path) as file:
        for packet in file.packets():
            packets.add(packet)
        packets.damaged |= file.broken
        promised = file.stream.frames
        rate = file.stream.average_rate or file.stream.guessed_rate
        container = file.container.format.name.split(",")[0]
        hides = file.stream.codec_context.name in _HIDDEN_FRAME_CODECS
        tick = file.stream.time_base
        announced, shared = announced_seconds(container, file.container, file.stream, path)
    if promised not in (0, packets.count) and not _fills(packets, container, promised):
        packets.damaged |= container != "mov" or promised != _count_without_edits(path)
    if container == "gif":  # counts its frames as it goes; what a whole one has is a last byte
        packets.damaged |= _last_byte(path) != b";"
    whole = not packets.damaged
    # FFmpeg guesses the stamps of AVI files, and with B-frames it guesses wrong.
    guessed = container == "avi" and packets.reordered
    stamps = sorted(packets.stamps)
    distinct = all(a < b for a, b in pairwise(stamps))
    found = None
    if stamps and distinct and not packets.unstamped and not guessed and not hides:
        found = _from_first_frame(path, stamps)
    index, frame = found or _from_all_frames(path, whole)
    by_number = bool(found) and whole and index.count == packets.count and container in _INDEXED
    by_number &= not packets.gradual
    by_number = by_number and all(index.number_of(pts) == place for pts, _, place, _ in packets.keys)
    checked = container == "avi"
    stamped = [(pts, dts, at if checked else None) for pts, dts, _, at in packets.keys if pts is not None]
    keys = [(pts, pts if dts is None else dts, at) for pts, dts, at in stamped]
    turns = round(frame.rotation / 90) % 4
    index = replace(
        index,
        keys=tuple(sorted(keys, key=lambda key: key[:2])) if index.pts else (),
        seekable_by_number=by_number,
        container=container,
        whole=whole,
        rotation=turns,
        tick=tick,
        last=packets.end[1] if packets.end else 0,
        breaks_off=breaks_off(container, path),
    )
    # A whole MP4 may show less than its header states: its edit list leaves frames out.
    if announced is not None and not (whole and container == "mov"):
        index = replace(index, announced=_from_frame_0(path, index, float(rate or 0), announced, shared))
    size = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
    return index, float(rate) if rate else None, size


def _fills(packets: _Packets, container: str, promised: int) -> bool:
    """Whether an AVI file, whose header counts ticks and not frames, is as long as it says."""
    if container != "avi" or packets.end is None:
        return False
    stamps = sorted(packets.stamps)[-2:]
    return promised <= stamps[-1] + (stamps[-1] - stamps[0] or 1)  # the last frame is shown as long as the one before


def _from_frame_0(path: Path, index: VideoIndex, fps: float, announced: float, shared: bool) -> float | None:
    """The announced end in seconds from frame 0; None where it is that of a longer stream, which is there."""
    first = float(max(index.pts[0], 0) * index.tick) if index.pts and index.tick else 0.0
    times = index.times(fps or None)
    if shared and times is not None and missing_end(times, announced - first):
        with _File(path) as file:
            last = last_of_all_streams(file.container, _errors)
        if last >= announced - max(_NEARLY, SPARE_FRAMES / times.fps):
            return None
    return announced - first


def _count_without_edits(path: Path) -> int:
    """Packets of a file with its edit list left aside, which drops whole groups of pictures from trimmed files."""
    with _File(path, {"ignore_editlist": "1"}) as file:
        count = sum(packet.size > 0 and not packet.is_corrupt for packet in file.packets())
        return -1 if file.broken else count


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)


def _from_first_frame(path: Path, stamps: list[int]) -> tuple[VideoIndex, Any] | None:
    """The index when the packets' stamps are those of the frames: frame 0 is the first that decodes."""
    with _File(path) as file:
        frame = next((frame for frame, sound in file.frames() if sound), None)
    if frame is None:
        raise CorruptFileError(path, "not one of its frames decodes")
    if frame.pts not in stamps:
        return None
    lost = stamps.index(frame.pts)
    stamps = stamps[lost:]
    return VideoIndex(len(stamps), compact(stamps), lost=lost), frame


def _from_all_frames(path: Path, whole: bool) -> tuple[VideoIndex, Any]:
    """The index when only decoding tells: of everything between the first and the last sound frame."""
    first, begin, end, stamped = None, 0, 0, True
    stamps = array("q")
    with _File(path) as file:
        for frame, sound in file.frames(cut=not whole):
            if sound and first is None:
                first, begin = frame, len(stamps)
            stamped &= frame.pts is not None
            stamps.append(frame.pts or 0)
            end = len(stamps) if sound else end
    if first is None:
        raise CorruptFileError(path, "not one of its frames decodes")
    stamps = stamps[begin:end]
    ordered = stamped and all(a < b for a, b in pairwise(stamps))
    return VideoIndex(len(stamps), compact(stamps) if ordered else (), skipped=begin, counted=True), first


def count_frames(path: Path, index: VideoIndex) -> VideoIndex:
    """Decode the end of a file: the index without the frames at the end that do not decode.

    Raises:
        CorruptFileError: the file went bad since it was scanned.
    """
    if index.counted:
        return index
    for place in [*range(len(index.keys) - 1, -1, -1)[:3], None]:
        with _File(path) as file:
            if place is not None and not file.seek(index.keys[place]):
                continue
            frames = file.frames(cut=not index.whole)
            last = max((index.number_of(frame.pts) for frame, sound in frames if sound), default=-1)
        if last >= 0:
            cut = 0 if last + 1 < index.count else index.last
            return replace(index, count=last + 1, pts=index.pts[: last + 1], last=cut, counted=True)
    raise CorruptFileError(path, "not one of its frames decodes")


class _Cursor:
    """Walks forward through a file, seeking where that is worth it."""

    frames: Iterator[tuple[int, Any, bool]]
    ahead: tuple[int, Any, bool] | None

    def __init__(self, path: Path, index: VideoIndex, size: tuple[int, int]) -> None:
        self.path, self.index = path, index
        height, width = size if index.rotation % 2 == 0 else size[::-1]
        self.coded_size = {"height": height, "width": width}
        self.file = _File(path)
        self.reformatter = av.video.reformatter.VideoReformatter()
        self._rewind()

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.container.close()
        # The generator refers to this object, which would keep FFmpeg's memory until the next collection of cycles.
        self.frames, self.ahead = iter(()), None

    def _rewind(self) -> None:
        self.frames = self._numbered()
        self.ahead = None
        self.passed = -1  # this frame and all before it have gone by

    def _numbered(self) -> Iterator[tuple[int, Any, bool]]:
        for place, (frame, sound) in enumerate(self.file.frames()):
            number = self.index.number_of(frame.pts) if self.index.pts else place - self.index.skipped
            if number >= 0:
                yield number, frame, sound

    def _start_at(self, key: int | None) -> bool:
        """Begin at a start point, or (None) at the beginning; False where the container cannot be sought."""
        if key is None:
            self.file.container.close()
            self.file = _File(self.path)
        elif not self.file.seek(self.index.keys[key]):
            return False
        self._rewind()
        return True

    def fetch(self, number: int) -> np.ndarray:
        """Decode one frame, a later one than the last, to upright (H, W, 3) uint8.

        Raises:
            CorruptFileError: it does not decode.
        """
        key = self.index.key_before(number)
        frame = None
        if key < 0 or self.index.number_of_key(key) <= self.passed + _NEAR:
            frame = self._walk_to(number)
        # Seeks can land behind the target, and first frames after a seek may lack their references: start earlier.
        starts = [place for place in (key, key - 2) if place >= 0]
        for start in [*starts, None] if self.index.pts and number < _PATIENCE else starts:
            if frame is None and self._start_at(start) and not (start == key and self._starts_late(key)):
                frame = self._walk_to(number)
        if frame is None:
            raise CorruptFileError(self.path, f"frame {number} of {self.index.count} does not decode")
        try:
            return self._pixels(frame)
        except _errors() as error:
            reason = f"the colours of frame {number} of {self.index.count} cannot be converted to RGB ({error})"
            raise CorruptFileError(self.path, reason) from error

    def _starts_late(self, key: int) -> bool:
        """Whether the frame of a start point itself does not come: the picture builds up over the frames behind it.

        Decoders keep those frames back, but may give the first ones too early; by the next start point all is well.
        """
        self.ahead = self.ahead or next(self.frames, None)
        return self.ahead is not None and self.ahead[0] > self.index.number_of_key(key)

    def _walk_to(self, number: int) -> Any | None:
        """Decode forward to a frame; None when it does not come or is damaged."""
        while True:
            item = self.ahead or next(self.frames, None)
            self.ahead = None
            if item is None:
                return None
            found, frame, sound = item
            if found > number:
                self.ahead = item
                return None
            self.passed = found
            if found == number:
                return frame if sound else None

    def _pixels(self, frame: Any) -> np.ndarray:
        rgb = self.reformatter.reformat(frame, format="rgb24", **_CONVERT_OPTIONS, **self.coded_size)
        pixels = rgb.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self.index.rotation)) if self.index.rotation else pixels


def decode(
    path: Path, index: VideoIndex, size: tuple[int, int], numbers: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames in ascending order, each once, at constant memory.

    Args:
        path: the file.
        index: of `scan`.
        size: (height, width) of the upright picture; frames of another size (streams may change it) are scaled to it.
        numbers: ascending frame numbers.

    Yields:
        (number, (H, W, 3) uint8 RGB).

    Raises:
        CorruptFileError: a frame that does not decode, or only with damage.
    """
    with _Cursor(path, index, size) as cursor:
        for number in numbers:
            yield number, cursor.fetch(number)

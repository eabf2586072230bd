# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Scans video files with PyAV: which frames there are, and what is missing.

A walk over the packets (no decoding) gives the frames' time stamps; the last group of pictures is decoded, for headers
and packets promise frames that never come.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from .errors_m33d import CorruptFileError
from .video_header_m33d import announced_seconds, breaks_off, last_of_all_streams
from .video_index_m33d import VideoIndex, compact
from .video_pyav_m33d import VideoFile, turns_of
from .video_times_m33d import SPARE_FRAMES, missing_end

# VP8 stores frames that are never shown as packets of their own: only decoding tells how many frames there are.
HIDDEN_FRAME_CODECS = ("vp8",)
# Containers with an index of their own, in which decord's seeks are right (those in MPEG-TS are not).
_INDEXED = ("avi", "matroska", "mov")
# Where FFmpeg compares what is sought with the times at which start points are shown; elsewhere it does with those at
# which they are decoded. These are earlier where frames are reordered, and would lead to the start point before here.
_SOUGHT_BY_PTS = ("matroska", "mov")
# Sound that ends this close to the announced end (seconds) shows that nothing is cut off.
_NEARLY = 0.1


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
    with VideoFile(path) as file:
        for packet in file.packets():
            packets.add(packet)
        packets.damaged |= file.broken
        promised = file.stream.frames
        rate = file.stream.average_rate or file.stream.guessed_rate
        container = file.container.format.name.split(",")[0]
        hides = file.stream.codec_context.name in HIDDEN_FRAME_CODECS
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
    by_pts = container in _SOUGHT_BY_PTS
    keys = [(pts, pts if by_pts or dts is None else dts, at) for pts, dts, at in stamped]
    turns = turns_of(frame)
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
        with VideoFile(path) as file:
            last = last_of_all_streams(file.container)
        if last >= announced - max(_NEARLY, SPARE_FRAMES / times.fps):
            return None
    return announced - first


def _count_without_edits(path: Path) -> int:
    """Packets of a file with its edit list left aside, which drops whole groups of pictures from trimmed files."""
    with VideoFile(path, {"ignore_editlist": "1"}) as file:
        count = sum(packet.size > 0 and not packet.is_corrupt for packet in file.packets())
        return -1 if file.broken else count


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)


def _from_first_frame(path: Path, stamps: list[int]) -> tuple[VideoIndex, Any] | None:
    """The index when the packets' stamps are those of the frames: frame 0 is the first that decodes."""
    with VideoFile(path) as file:
        frame = next((frame for frame, sound in file.frames() if sound), None)
    if frame is None:
        raise CorruptFileError(path, "none of its frames can be decoded")
    if frame.pts not in stamps:
        return None
    lost = stamps.index(frame.pts)
    stamps = stamps[lost:]
    return VideoIndex(len(stamps), compact(stamps), lost=lost), frame


def _from_all_frames(path: Path, whole: bool) -> tuple[VideoIndex, Any]:
    """The index when only decoding tells: of everything between the first and the last sound frame."""
    first, begin, end, stamped = None, 0, 0, True
    stamps = array("q")
    with VideoFile(path) as file:
        for frame, sound in file.frames(cut=not whole):
            if sound and first is None:
                first, begin = frame, len(stamps)
            stamped &= frame.pts is not None
            stamps.append(frame.pts or 0)
            end = len(stamps) if sound else end
    if first is None:
        raise CorruptFileError(path, "none of its frames can be decoded")
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
        with VideoFile(path) as file:
            if place is not None and not file.seek(index.keys[place]):
                continue
            frames = file.frames(cut=not index.whole)
            last = max((index.number_of(frame.pts) for frame, sound in frames if sound), default=-1)
        if last >= 0:
            cut = 0 if last + 1 < index.count else index.last
            return replace(index, count=last + 1, pts=index.pts[: last + 1], last=cut, counted=True)
    raise CorruptFileError(path, "none of its frames can be decoded")

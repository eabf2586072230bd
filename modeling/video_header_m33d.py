# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What the header of a video file promises: how long it is. Frames are compared with that to notice what is missing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from .video_pyav_m33d import packets_of, pyav_errors

# Containers whose header states a duration; FFmpeg guesses that of others from their size or their last packets.
_STATING = ("mov", "matroska", "avi", "flv", "asf")
_WHOLE_FILE = ("matroska", "flv", "asf")  # there the duration is that of the longest stream, sound included
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_REACH = 1 << 16
_TS_PACKETS = (188, 192, 204)


def announced_seconds(container: str, opened: Any, stream: Any, path: Path) -> tuple[float | None, bool]:
    """Seconds that a file's header announces, from time stamp 0.

    Args:
        container: FFmpeg's first name of the format.
        opened, stream: PyAV's container and video stream.
        path: the file.

    Returns:
        Seconds, None where nothing is stated; and whether they may be those of another stream, such as sound.
    """
    if container not in _STATING:
        return None, False
    if container == "avi":  # FFmpeg shortens the duration of a file that is cut, the header's number of frames stays
        rate = stream.average_rate
        return (float(stream.frames / rate) if stream.frames and rate else None), False
    if stream.duration and container != "asf":
        return float(stream.duration * stream.time_base), False
    tagged = _clock_seconds(stream.metadata.get("DURATION", ""))
    if tagged is not None:
        return tagged, False
    if container == "asf":
        return _asf_seconds(path), True
    return (opened.duration / 1e6 if opened.duration else None), container in _WHOLE_FILE


def _clock_seconds(text: str) -> float | None:
    """Seconds of Matroska's "00:01:31.800000000", None for anything else."""
    parts = text.strip().split(":")
    try:
        hours, minutes, seconds = int(parts[0]), int(parts[1]), float(parts[2])
    except (ValueError, IndexError):
        return None
    found = hours * 3600 + minutes * 60 + seconds
    return found if len(parts) == 3 and 0 < found < float("inf") else None


def _asf_seconds(path: Path) -> float | None:
    """Play time in the file properties of ASF, which FFmpeg ignores where the size of the file is another."""
    with path.open("rb") as file:
        head = file.read(_ASF_REACH)
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or len(head) < place + 92 or head[place + 88] & 1:  # the flag says that the values do not count
        return None
    played = int.from_bytes(head[place + 64 : place + 72], "little") / 1e7  # in units of 100 ns, with the preroll
    seconds = played - int.from_bytes(head[place + 80 : place + 88], "little") / 1e3
    return seconds if seconds > 0 else None


def breaks_off(container: str, path: Path) -> bool:
    """Whether a file without an announced length ends inside a packet: it was cut, and nothing says how long it was.

    That is a transport stream, or an MP4 in fragments, which states the length of each fragment alone.
    """
    size = path.stat().st_size
    if container == "mpegts":
        return all(size % packet for packet in _TS_PACKETS)
    return container == "mov" and _ends_inside_a_fragment(path, size)


def _ends_inside_a_fragment(path: Path, size: int) -> bool:
    """Whether an MP4 has fragments and ends before its last box does."""
    fragments, place = False, 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # it stands in the next 64 bits
                length = int.from_bytes(head[8:16], "big")
            fragments |= head[4:8] == b"moof"
            if length == 0:  # to the end of the file
                return False
            if length < 8:  # no box
                break
            place += length
    return fragments and place != size


def last_of_all_streams(opened: Any) -> float:
    """Seconds at which the last packet of any stream ends, up to the point where the file breaks off."""
    last = Fraction(0)
    packets = packets_of(opened)
    while True:
        try:
            packet = next(packets, None)
        except pyav_errors():
            return float(last)
        if packet is None:
            return float(last)
        if packet.size and packet.pts is not None and packet.time_base:
            last = max(last, (packet.pts + (packet.duration or 0)) * packet.time_base)

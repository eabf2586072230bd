# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Reads video files with PyAV: exact frames, damage noticed, one container per call.

Reading seeks to the start point before a frame and recognises frames by the time stamps that a scan found
(video_scan_m33d), so that an inaccurate seek costs time but never gives another frame. What the decoder flags as
damaged, or what builds on damage up to the next start point, is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors_m33d import CorruptFileError, MissingDependencyError
from .video_index_m33d import VideoIndex

# "Decoders" that draw text: FFmpeg plays a README as an animation.
_TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")
# Going on is cheaper than seeking while the next start point is this close (frames).
_NEAR = 8
# Decoding from the start is the last resort for a frame; further into a file it would take minutes.
_PATIENCE = 3000


@functools.cache
def _library() -> Any | None:
    """PyAV, loaded when a video is first to be read: most runs read none; None where it is not installed."""
    try:
        import av
        import av.video.reformatter
    except ImportError:
        return None
    return av


@functools.cache
def _version() -> int:
    library = _library()
    return 0 if library is None else int(library.__version__.split(".")[0])


def _open_options() -> dict[str, Any]:
    # Names and comments in old files are Latin-1 or worse; from 19 on PyAV takes them as they are.
    return {"metadata_errors": "ignore"} if _version() < 19 else {}


def _convert_options() -> dict[str, Any]:
    # From 17 on PyAV converts colours with a pool of threads by default: a child forked beside it hangs.
    return {"threads": 1} if _version() >= 17 else {}


def available() -> bool:
    """Whether PyAV is installed."""
    return _library() is not None


def pyav_errors() -> tuple[type[Exception], ...]:
    """What PyAV raises where a file is damaged."""
    library = _library()
    ours: tuple[type[Exception], ...] = (OSError, EOFError, ValueError)
    return ours if library is None else (library.FFmpegError, *ours)


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """Packets of the streams that there were when a container was opened, of all or of those given.

    PyAV ends with an IndexError where a stream begins later, as the sound of a live recording may; it is passed over.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:  # the packet is read: the next call goes on behind it
            continue


class VideoFile:
    """An open container with its video stream; closes with `with`.

    Args:
        path: the file; with `opened`, only its name in messages.
        options: for FFmpeg.
        opened: what PyAV opens instead of the path: an address, or an object with `read`.
        more: further arguments of `av.open`, such as `timeout`.

    Attributes:
        broken: reading ended with an error.
        reason: which, in words; empty without.

    Raises:
        CorruptFileError: it cannot be opened, or holds no video.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(
        self, path: Path | str, options: dict[str, str] | None = None, opened: Any = None, **more: Any
    ) -> None:
        av = _library()
        if av is None:
            raise MissingDependencyError("reading videos with PyAV requires the package `av`: pip install av")
        # Pictures on the cover of a recording are streams too.
        self._cover = getattr(av.stream.Disposition, "attached_pic", 0)
        self.path = path
        self.broken = False
        self.reason = ""
        try:
            # An absolute path, for FFmpeg takes a name such as "concat:a.mp4" for an address.
            what = str(Path(path).absolute()) if opened is None else opened
            self.container: Any = av.open(what, options=options, **_open_options(), **more)
        except pyav_errors() as error:
            # The error of an address holds that, and with it perhaps a password.
            told = error if opened is None else _plain(error)
            raise CorruptFileError(path, f"cannot be opened as a video ({told})") from (None if opened else error)
        try:
            self.stream: Any = self._video_stream()
        except CorruptFileError:
            self.container.close()
            raise
        self.stream.codec_context.thread_type = "NONE"  # workers are the parallelism; errors come where they belong
        self.stream.codec_context.thread_count = 1

    def _video_stream(self) -> Any:
        cover = self._cover
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

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def packets(self) -> Iterator[Any]:
        """Packets up to the end of the file or the point where it breaks off; the last one flushes the decoder."""
        packets = packets_of(self.container, self.stream)
        while True:
            try:
                packet = next(packets, None)
            except pyav_errors() as error:
                self.broken, self.reason = True, _plain(error)  # what is missing shows as frames that do not come
                return
            if packet is None:
                return
            yield packet

    def frames(self, cut: bool = False, note: Callable[[Any], None] | None = None) -> Iterator[tuple[Any, bool]]:
        """Decoded frames in display order, each with whether it is sound.

        Args:
            cut: the file breaks off somewhere: leave out what the last packet gives, which decoders take for whole.
            note: is given every packet before it is decoded.
        """
        sound = True
        held: list[tuple[Any, bool]] = []
        for packet in self.packets():
            if cut and packet.size == 0:
                return
            yield from held
            held.clear()
            if note is not None:
                note(packet)
            try:
                frames = packet.decode()
            except pyav_errors():
                sound = False  # what follows builds on what is missing
                continue
            for frame in frames:
                sound = not frame.is_corrupt and (sound or frame.key_frame)
                if cut:
                    held.append((frame, sound))
                else:
                    yield frame, sound

    def seek(self, key: tuple[int, int, int | None]) -> bool:
        """Move to a start point (`VideoIndex.keys`); False where the container cannot, or lands elsewhere.

        AVI seeks by a list of its own. Where that is damaged the stamps of what follows are wrong as well.
        """
        shown, stamp, place = key
        try:
            self.container.seek(stamp, stream=self.stream, backward=True)
            if place is not None:
                first = next(packets_of(self.container, self.stream), None)
                if first is None or (first.pts, first.pos) != (shown, place):
                    return False
                self.container.seek(stamp, stream=self.stream, backward=True)
        except pyav_errors():
            return False
        return True


def _plain(error: Exception) -> str:
    """What an error says, without the address that it concerns."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


class Pictures:
    """Makes upright RGB pictures of one size of decoded frames.

    Args:
        size: (height, width) of the upright picture; frames of another size (streams may change it) are scaled to it.
        turns: quarter turns, counter-clockwise, that make a frame upright.
    """

    def __init__(self, size: tuple[int, int], turns: int) -> None:
        height, width = size if turns % 2 == 0 else size[::-1]
        self.coded_size, self.turns = {"height": height, "width": width}, turns
        library: Any = _library()  # is there: what it converts was read by it
        self.reformatter = library.video.reformatter.VideoReformatter()

    @classmethod
    def like(cls, frame: Any) -> Pictures:
        """Of the size and orientation of a frame."""
        turns = turns_of(frame)
        return cls((frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height), turns)

    def fits(self, frame: Any) -> bool:
        """Whether a frame has the size without being scaled."""
        return (frame.height, frame.width) == (self.coded_size["height"], self.coded_size["width"])

    def of(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8; raises what `pyav_errors` lists."""
        rgb = self.reformatter.reformat(frame, format="rgb24", **_convert_options(), **self.coded_size)
        pixels = rgb.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self.turns)) if self.turns else pixels


def turns_of(frame: Any) -> int:
    """Quarter turns, counter-clockwise, that make a frame upright, as its file says."""
    return round(frame.rotation / 90) % 4


class Cursor:
    """Walks forward through a file, seeking where that is worth it. Closed by `close`, or with `with`.

    Args:
        path: the file.
        index: of `scan`.
        size: (height, width) of the upright picture, see `decode`.

    Attributes:
        passed: number of the last frame that has gone by; -1 before the first.
    """

    frames: Iterator[tuple[int, Any, bool]]
    ahead: tuple[int, Any, bool] | None

    def __init__(self, path: Path, index: VideoIndex, size: tuple[int, int]) -> None:
        self.path, self.index = path, index
        self.file = VideoFile(path)
        self.pictures = Pictures(size, index.rotation)
        self._rewind()

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
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
            self.file = VideoFile(self.path)
        elif not self.file.seek(self.index.keys[key]):
            return False
        self._rewind()
        return True

    def fetch(self, number: int, wanted: bool = True) -> np.ndarray | None:
        """Decode one frame, a later one than the last, to upright (H, W, 3) uint8; to nothing unless it is wanted.

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
            raise CorruptFileError(self.path, f"frame {number} of {self.index.count} cannot be decoded")
        if not wanted:
            return None
        try:
            return self.pictures.of(frame)
        except pyav_errors() as error:
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


def decode(
    path: Path,
    index: VideoIndex,
    size: tuple[int, int],
    numbers: Iterable[int],
    wanted: Callable[[int], bool] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Decode frames in ascending order, each once, at constant memory.

    Args:
        path: the file.
        index: of `scan`.
        size: (height, width) of the upright picture; frames of another size (streams may change it) are scaled to it.
        numbers: ascending frame numbers.
        wanted: whether the pixels of a frame are; the others are decoded, but not converted to RGB.

    Yields:
        (number, (H, W, 3) uint8 RGB, or None where they are not wanted).

    Raises:
        CorruptFileError: a frame that does not decode, or only with damage.
    """
    with Cursor(path, index, size) as cursor:
        for number in numbers:
            yield number, cursor.fetch(number, wanted is None or wanted(number))

"""Whether stored features are still those of their videos: of the files, and of how these are read.

What holds for all features of a folder, the rules by which videos are read among them, is in its `features.json`. What
may change video by video are the files: every file of features tells those that it was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.sample import VideoHandle, frame_times
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import CorruptFileError
from m33d_hf.training.tasks.detection.features import FeatureStore

_BLOCK = 1 << 16
_BLOCKS = 16  # of a large file, evenly spread; smaller ones are read as a whole
_FILES = 256  # of a video whose contents are compared, evenly spread; of all of them name and size
_LONGEST = 200  # characters of a value that is shown; beyond it is a digest


class FileStamp(NamedTuple):
    """What is known of the files of a video.

    Attributes:
        quick: digest of names, sizes and times of change.
        content: digest of names, sizes and contents, of large files and of many of parts.
    """

    quick: str
    content: str


def stamp_of(files: Iterable[tuple[str, Path]]) -> FileStamp | None:
    """The stamp of files by their names, which do not depend on where the data lies; None without any."""
    listed = list(files)
    return FileStamp(_quick(listed), _content(listed)) if listed else None


def is_fresh(store: FeatureStore, source: PhaseSource, number: int, write: bool = False) -> bool:
    """Whether the features of a video are there, and its files are those that they were made of.

    Files that were only copied or touched are the same.

    Args:
        store: the features.
        source: the videos.
        number: of the video.
        write: note new times of change in the file, so that contents are not compared again.
    """
    key = source.videos[number].key
    if not store.is_whole(key):
        return False
    files, known = list(source.files(number)), store.summary(key).files
    if not files and known is None:
        return True
    if not files or known is None:
        return False
    quick = _quick(files)
    if quick == known[0]:
        return True
    stamp = FileStamp(quick, _content(files))
    if stamp.content != known[1]:
        return False
    if write:
        store.write(replace(store.read(key), files=stamp))
    return True


def reading_rules(source: PhaseSource) -> dict[str, Any]:
    """How the videos of a source are read, beyond what their files hold: plain values, a digest where videos differ."""
    by_name: dict[str, dict[str, str]] = {}
    for video in source.videos:
        rules = {**getattr(video.handle, "reading_rules", {}), "times": _times(video.handle)}
        for name, value in rules.items():
            by_name.setdefault(name, {})[video.key] = json.dumps(value, sort_keys=True)
    return {name: _told(values) for name, values in sorted(by_name.items())}


def _told(values: dict[str, str]) -> Any:
    different = set(values.values())
    if len(different) == 1 and len(only := different.pop()) <= _LONGEST:
        return json.loads(only)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _times(handle: VideoHandle) -> Any:
    """Frames per second, and a digest of the times of frames that are not evenly spaced."""
    times = frame_times(handle)
    if times is None:
        return None
    if times.starts is None:
        return times.fps
    return [times.fps, times.end, hashlib.sha256(times.starts.tobytes()).hexdigest()]


def _quick(files: Iterable[tuple[str, Path]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name, path in files:
        try:
            found = path.stat()
            told = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            told = "missing"
        state.update(f"{name}\n{told}\n".encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _content(files: Sequence[tuple[str, Path]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    looked_into = set(evenly_spaced(range(len(files)), _FILES))
    for number, (name, path) in enumerate(files):
        try:
            size = path.stat().st_size if path.is_file() else -1  # of a video, or a folder with its frames
            state.update(f"{name}\n{size}\n".encode("utf-8", "surrogatepass"))
            if size >= 0 and number in looked_into:
                _add(state, path, size)
        except OSError as error:
            raise CorruptFileError(path, f"cannot be read ({error.strerror or error})") from error
    return state.hexdigest()


def _add(state: Any, path: Path, size: int) -> None:
    with path.open("rb") as file:
        if size <= _BLOCK * _BLOCKS:
            state.update(file.read())
            return
        for block in range(_BLOCKS):
            file.seek((size - _BLOCK) * block // (_BLOCKS - 1))
            state.update(file.read(_BLOCK))

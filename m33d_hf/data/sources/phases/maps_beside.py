"""Maps of depth and labels that lie among pictures and videos: by their names they are no input of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath

from m33d_hf.data.depth.maps import depth_folder
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.layouts import maps_beside_pictures
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.modeling.video_reading_m33d import FRAME_SUFFIXES


def without_maps(folder: Path, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(inputs, depth and label maps) of files below a folder of RGB-D frames or videos."""
    relative = {file.relative_to(folder).as_posix(): file for file in files}
    maps = maps_beside_pictures(list(relative)) | _maps_of_videos(list(relative))
    return [file for name, file in relative.items() if name not in maps], [relative[name] for name in sorted(maps)]


def maps_in_words(maps: Sequence[Path]) -> str:
    """Such as "2 maps of depth or labels by name"."""
    return f"{plural(len(maps), 'map')} of depth or labels by name"


def _maps_of_videos(files: Sequence[str]) -> set[str]:
    """Those below `depth/` in a folder that is named like a video or like a folder of frames outside of it, and videos
    below `depth/` where there is any input outside.

    `scripts/extract_depth.py` writes them by the place of the video below its input: `depth/NAME`, `depth/CLASS/NAME`.
    """
    paths = [PurePosixPath(file) for file in files]
    places = {path: depth_folder(path) for path in paths}
    outside = [path for path, place in places.items() if place is None]
    videos = {path.stem for path in outside if is_video(path)}
    videos |= {path.parent.name for path in outside if path.suffix.lower() in FRAME_SUFFIXES}
    return {
        str(path)
        for path, place in places.items()
        if place is not None and (bool(videos) if is_video(path) else not videos.isdisjoint(path.parts[place + 1 : -1]))
    }


def is_video(path: PurePath) -> bool:
    """Whether a name has the suffix of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES

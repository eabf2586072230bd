"""Maps of depth and labels that lie among pictures and videos: by their names they are no input of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath

from m33d_hf.data.depth.maps import depth_folder
from m33d_hf.data.names import folded
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.layouts import maps_beside_pictures
from m33d_hf.data.sources.frames.pairing import modality_of, strip_modality
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
    below `depth/` that are themselves named so, or that lie beside a folder of RGB.

    `scripts/extract_depth.py` writes them by the place of the video below its input: `depth/NAME`, `depth/CLASS/NAME`.
    """
    paths = [PurePosixPath(file) for file in files]
    places = {path: depth_folder(path) for path in paths}
    videos, holders = set[str](), set[tuple[str, ...]]()
    for path in (path for path, place in places.items() if place is None):
        if not is_video(path) and path.suffix.lower() not in FRAME_SUFFIXES:
            continue
        videos.add(path.stem if is_video(path) else path.parent.name)
        holders |= {path.parts[:n] for n, part in enumerate(path.parts[:-1]) if modality_of(part) == "rgb"}
    bare = {_bare(name) for name in videos}
    return {
        str(path)
        for path, place in places.items()
        if place is not None
        and (
            _bare(path.stem) in bare or path.parts[:place] in holders
            if is_video(path)
            else not videos.isdisjoint(path.parts[place + 1 : -1])
        )
    }


def _bare(name: str) -> str:
    """A name without words for what it holds, `case1` of `case1_depth`, in which upper and lower case are equal."""
    return folded(strip_modality(name) or name)


def is_video(path: PurePath) -> bool:
    """Whether a name has the suffix of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES

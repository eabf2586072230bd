"""What to extract depth from: single images, or videos (files, and folders of frames), below one root."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sources.frames.layouts import leads_upwards
from m33d_hf.data.sources.frames.pairing import natural_key
from m33d_hf.data.sources.phases.maps_beside import maps_in_words, without_maps
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.data.walking import refuse_unreadable
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.output_folders.earlier_outputs import is_earlier_output, outputs_in_words
from m33d_hf.modeling.picture_files_m33d import kinds_of
from m33d_hf.modeling.video_reading_m33d import FRAME_SUFFIXES

logger = logging.getLogger(__name__)

ITEMS = ("auto", "images", "videos")
_NUMBERED = re.compile(r"\d+(?=\D*$)")
_LOOSE_NUMBERED = 3  # so many pictures whose names differ in a number alone look like frames


@dataclass(frozen=True)
class DepthItem:
    """One image or video: `rel` is its path below the root without suffix, the name of its depth."""

    rel: str
    path: Path
    is_video: bool


def list_items(
    root: str | Path, items: str = "auto", exclude: Path | None = None, metric: bool = False
) -> list[DepthItem]:
    """Everything below `root`, in natural order of the names; hidden files and `exclude` are left out.

    So are maps of depth and labels that lie there already; a line in the log counts them.

    Args:
        root: a folder, or a single file.
        items: `images` (each picture by itself), `videos` (video files; a folder of pictures is one video), or `auto`:
            whatever of pictures and video files is there, if only one of them is.
        exclude: a folder that is not an input: the output.
        metric: the depth has a unit, so that frames taken as single images cost nothing but the file layout.

    Raises:
        ConfigError: an unknown word; `auto` where it is not clear what is meant.
        DataError: nothing there, or two inputs whose depth would have the same name.
    """
    root = Path(root)
    if items not in ITEMS:
        raise ConfigError(f"--items {items!r} must be one of {', '.join(ITEMS)}.")
    if root.is_file():
        found = [DepthItem(root.stem, root, _is(root, VIDEO_SUFFIXES))]
        if not found[0].is_video and not _is(root, FRAME_SUFFIXES):
            raise DataError(f"--input {root} is neither a picture nor a video (by its suffix).")
        return found
    if not root.is_dir():
        raise DataError(f"--input {root} does not exist.")
    files, maps = without_maps(root, files_below(root, exclude))
    if maps:
        logger.warning("%s: %s left aside", root, maps_in_words(maps))
    images = [file for file in files if _is(file, FRAME_SUFFIXES)]
    videos = [file for file in files if _is(file, VIDEO_SUFFIXES)]
    if items == "auto":
        items = _settle(root, images, videos, metric)
    if items == "images":
        found = [DepthItem(_rel(root, file), file, False) for file in images]
    else:
        folders = {file.parent for file in images}
        found = [DepthItem(_rel(root, file), file, True) for file in videos]
        found += [DepthItem(root.name if f == root else f.relative_to(root).as_posix(), f, True) for f in folders]
    if not found:
        known = FRAME_SUFFIXES if items == "images" else (*VIDEO_SUFFIXES, *FRAME_SUFFIXES)
        raise DataError(
            f"--input {root} holds no {items}: {kinds_of(files)}. Supported file types: {', '.join(known)}."
        )
    _refuse_twins(found)
    return sorted(found, key=lambda item: natural_key(item.rel))


def files_below(root: Path, exclude: Path | None) -> list[Path]:
    """Every file below a folder that is neither hidden nor in `exclude`; links are followed, as in training.

    Outputs of earlier predictions and extractions below it are left out, too; a line in the log says so.

    Raises:
        DataError: a folder that cannot be read.
    """
    excluded = None if exclude is None else exclude.resolve()
    files: list[Path] = []
    outputs: list[Path] = []
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse_unreadable):
        here = Path(folder)
        subfolders[:] = [
            name
            for name in subfolders
            if name[0] != "." and (here / name).resolve() != excluded and not leads_upwards(str(here / name))
        ]
        made = [name for name in subfolders if is_earlier_output(here / name)]
        outputs += [here / name for name in made]
        subfolders[:] = [name for name in subfolders if name not in made]
        files += [here / name for name in names if name[0] != "."]
    if outputs:
        logger.warning("%s", outputs_in_words(outputs))
    return files


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def _rel(root: Path, file: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _settle(root: Path, images: list[Path], videos: list[Path], metric: bool) -> str:
    if images and videos:
        raise ConfigError(
            f"--input {root} holds {plural(len(images), 'picture')} and "
            f"{plural(len(videos), 'video file')}. Choose with --items images or --items videos (folders of "
            "pictures then count as videos too)."
        )
    if videos:
        return "videos"
    if not metric:
        _refuse_frames(images)
    return "images"


def _refuse_frames(images: list[Path]) -> None:
    """Frames of a video share one scale, single images do not: where it matters, the user says which they are."""
    series: dict[tuple[Path, str], int] = defaultdict(int)
    for file in images:
        series[file.parent, _NUMBERED.sub("#", file.stem)] += _NUMBERED.search(file.stem) is not None
    for (folder, _), count in series.items():
        if count >= _LOOSE_NUMBERED:
            raise ConfigError(
                f"{folder} holds {plural(count, 'numbered picture')}. If they are frames of a video, whose depth "
                "must have one "
                "scale, pass --items videos; if they are single images, pass --items images."
            )


def _refuse_twins(items: list[DepthItem]) -> None:
    counts = Counter(item.rel for item in items)
    twins = [str(item.path) for item in items if counts[item.rel] > 1]
    if twins:
        raise DataError(
            f"{plural(len(twins), 'input')} {agree(len(twins), 'differs', 'differ')} only in their suffix, so "
            "their depth would have the same name: "
            f"{', '.join(twins[:4])}. Rename or move some of them."
        )

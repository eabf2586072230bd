"""What to predict on: files, globs and folders, and the name that the output of each gets."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.pairing import natural_key
from m33d_hf.data.sources.phases.maps_beside import maps_in_words, without_maps
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.depth_items import files_below
from m33d_hf.inference.output_folders.earlier_outputs import earlier_outputs, outputs_in_words
from m33d_hf.inference.prediction.roots import Roots, name_roots
from m33d_hf.modeling.picture_files_m33d import kinds_of
from m33d_hf.modeling.video_reading_m33d import FRAME_SUFFIXES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A picture or a video.

    Attributes:
        name: path of its outputs below their folder, without suffix; no two items share one.
        path: the file; of a video also a folder of frames.
        is_video: whether it is one.
    """

    name: str
    path: Path
    is_video: bool


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Attributes:
        items: in natural order of their names.
        roots: the folders that names start from.
        ignored: files that are no inputs, in words: neither pictures nor videos ("2 .txt"), or the depth and label maps
            of frames; empty where there are none.
    """

    items: list[Item]
    roots: Roots
    ignored: str


def counted(items: Sequence[Item]) -> str:
    """ "12 pictures and 1 video"."""
    videos = sum(item.is_video for item in items)
    counts = {"picture": len(items) - videos, "video": videos}
    words = [plural(count, word) for word, count in counts.items() if count]
    return " and ".join(words) or "nothing"


def find_inputs(given: Sequence[str | Path], exclude: Path | None = None, frames_are_videos: bool = False) -> Inputs:
    """Every picture and video of files, globs (`**` is any number of folders) and folders (all that is below them).

    Hidden files are left out, and what earlier predictions and depth extractions below a folder wrote. A path that
    exists is taken as it stands, even if it looks like a glob.

    Args:
        given: paths and globs.
        exclude: a folder that is not an input: the output.
        frames_are_videos: the model sees clips: a folder of pictures is one video, and single pictures are refused.

    Raises:
        DataError: nothing there, or nothing that can be read.
    """
    roots: list[Path] = []
    files: list[Path] = []
    maps: list[Path] = []
    for word in given:
        root, found, aside = _expanded(str(word), exclude, frames_are_videos)
        roots.append(root)
        files += found
        maps += aside
    files = list(dict.fromkeys(Path(os.path.abspath(file)) for file in files))
    named = name_roots(roots)
    pictures, videos = (_of(files, suffixes) for suffixes in (FRAME_SUFFIXES, VIDEO_SUFFIXES))
    if frames_are_videos:
        paths = sorted({*videos, *(file.parent for file in pictures)})
    else:
        paths = sorted({*pictures, *videos})
    if not paths:
        raise DataError(
            f"--input {' '.join(map(str, given))} holds no pictures and no videos: {kinds_of(files)}. Supported file "
            f"types: {', '.join((*FRAME_SUFFIXES, *VIDEO_SUFFIXES))}."
        )
    relative = [named.relative(path) for path in paths]
    names = unique_names(relative, [path.is_dir() for path in paths])
    whole = set(videos) | {path for path in paths if path.is_dir()}
    items = [Item(name, path, path in whole) for name, path in zip(names, paths, strict=True)]
    usable = {*pictures, *videos}
    ignored = [file for file in files if file not in usable]
    beside = [file for file in dict.fromkeys(Path(os.path.abspath(file)) for file in maps) if file not in usable]
    told = [kinds_of(ignored)] * bool(ignored) + [maps_in_words(beside)] * bool(beside)
    return Inputs(sorted(items, key=lambda item: natural_key(item.name)), named, ", ".join(told))


def unique_names(paths: Sequence[PurePosixPath], whole: Sequence[bool]) -> list[str]:
    """A name for each of several different relative paths: without suffix, or with it where two would meet.

    Two meet where they are equal (whatever the case of their letters), or where one is the folder of another.

    Args:
        paths: all different.
        whole: of each, whether its suffix is part of its name anyway, as that of a folder.
    """
    names = [str(path) if keep else str(path.with_suffix("")) for path, keep in zip(paths, whole, strict=True)]
    while True:
        counts = Counter(name.casefold() for name in names)
        folders = {str(parent).casefold() for name in names for parent in PurePosixPath(name).parents}
        meets: Callable[[str], bool] = lambda name: counts[name.casefold()] > 1 or name.casefold() in folders  # noqa: B023, E731
        clashing = [number for number, name in enumerate(names) if name != str(paths[number]) and meets(name)]
        if not clashing:
            return names
        for number in clashing:
            names[number] = str(paths[number])


def _expanded(word: str, exclude: Path | None, clips: bool) -> tuple[Path, list[Path], list[Path]]:
    """(the folder that names start from, files, maps left aside below folders) of a path or glob.

    Raises:
        DataError: it names nothing.
    """
    path = Path(word).expanduser()
    if path.is_dir():
        return path, *without_maps(path, files_below(path, exclude))
    if path.exists():
        if not _of([path], (*FRAME_SUFFIXES, *VIDEO_SUFFIXES)):
            raise DataError(
                f"--input {path} is neither a picture nor a video (by its suffix). Supported file types: "
                f"{', '.join((*FRAME_SUFFIXES, *VIDEO_SUFFIXES))}."
            )
        if clips:
            _refuse_pictures(word, [path])
        return path.parent, [path], []
    if not glob.has_magic(word):
        raise DataError(f"--input {word} does not exist.")
    found = [Path(match) for match in glob.glob(str(path), recursive=True)]
    parts = Path(path).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed]) if fixed else Path(".")
    made = earlier_outputs(root)
    files = [match for match in found if match.is_file() and not _inside(match, exclude)]
    folders = [match for match in found if match.is_dir()]
    if left := {*(file.parent for file in files if made(file.parent)), *filter(made, folders)}:
        logger.warning("%s", outputs_in_words(left))
    files = [file for file in files if not made(file.parent)]
    if clips:
        _refuse_pictures(word, files)
    maps: list[Path] = []
    for folder in (folder for folder in folders if not made(folder)):
        pictures, aside = without_maps(folder, files_below(folder, exclude))
        files += pictures
        maps += aside
    if not files:
        raise DataError(f"--input {word}: no files match. In a glob, * stays within a folder and ** goes below it.")
    return root, files, maps


def _inside(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _refuse_pictures(word: str, files: Sequence[Path]) -> None:
    """Raise a DataError for single pictures where clips are needed: which others belong to them is not known."""
    if pictures := _of(files, FRAME_SUFFIXES):
        raise DataError(
            f"--input {word}: {pictures[0].name} is a picture, but this model sees clips. Give videos, or the folder "
            "that holds the frames of one."
        )


def _of(files: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in suffixes]


def refuse_output_over_input(output: Path, inputs: Inputs) -> None:
    """Raise a ConfigError where predictions would be written beside what they are made of, as the next run's input."""
    if output.resolve() in {root.resolve() for root in (*inputs.roots.names, inputs.roots.common)}:
        raise ConfigError(f"--output is the input itself ({output}); choose a separate folder for the predictions.")


def refuse_kinds_over_inputs(output: Path, kinds: Iterable[str], items: Sequence[Item]) -> None:
    """Raise a ConfigError where the folder of a kind of output holds inputs, which predictions would replace."""
    folders = [Path(os.path.abspath(output)) / kind for kind in kinds]
    for item in items:
        if folder := next((folder for folder in folders if item.path.is_relative_to(folder)), None):
            raise ConfigError(
                f"--output {output} would get predictions in {folder}, where the input {item.path} lies; choose a "
                "separate folder for the predictions."
            )

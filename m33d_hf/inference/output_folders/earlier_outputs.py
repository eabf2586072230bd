"""Folders that an earlier prediction or depth extraction wrote: below a folder of inputs they are no inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from m33d_hf.data.depth.maps import read_spec_file
from m33d_hf.data.depth.stores import read_picture_scale
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.output_folders.recorded_inputs import folders_inside, recorded_inputs
from m33d_hf.inference.output_folders.results_of import PLAN_FILE
from m33d_hf.modeling.video_reading_m33d import FRAME_SUFFIXES

# Folders of a prediction's output, of all tasks.
KINDS = frozenset({"depth", "arrays", "pictures", "videos", "points", "labels", "areas", "classes", "timelines"})


def is_earlier_output(folder: Path) -> bool:
    """Whether all files of a folder were written by a prediction, or by a depth extraction.

    Inputs may lie in the output of either, such as that of `--input F/rgb --output F`: of a prediction only the folders
    of its kinds are meant, and not at all an extraction's output that holds what it was made of.
    """
    try:
        if folder.name in KINDS and (folder.parent / PLAN_FILE).is_file():
            return True
        provenance = (read_spec_file(folder) or {}).get("provenance")
        made_by = provenance.get("made_by") if isinstance(provenance, dict) else None
        return isinstance(made_by, str) and "extract_depth" in made_by and not _holds_inputs(folder)
    except (ConfigError, OSError):  # of somebody else, or not to be read, which the caller meets again
        return False


def earlier_outputs(root: Path) -> Callable[[Path], bool]:
    """Whether a folder is, or lies in, an earlier output below `root`; each is looked at once."""
    known = {root: False}

    def made(folder: Path) -> bool:
        if folder not in known:
            known[folder] = is_earlier_output(folder) or (folder != folder.parent and made(folder.parent))
        return known[folder]

    return made


def outputs_in_words(outputs: Iterable[Path]) -> str:
    """For the log, of at least one folder; those within others are not told."""
    found = set(outputs)
    first, *others = sorted(folder for folder in found if found.isdisjoint(folder.parents))
    more = f" and {plural(len(others), 'other folder')}" if others else ""
    return f"{first}{more} left aside: made by an earlier prediction or depth extraction (give it to use it)"


def _holds_inputs(folder: Path) -> bool:
    """Whether the output of an extraction holds what it was made of, by its record, or else by what it holds."""
    sources = [source.path for source in recorded_inputs(folder).values()]
    if not sources:  # of an earlier version
        return not _is_all_extracted(folder)
    return any(not os.path.isabs(source) for source in sources) or bool(folders_inside(folder, sources))


def _is_all_extracted(folder: Path) -> bool:
    """Whether there are neither videos nor links, and no pictures but PNG with the scale that extractions write.

    One PNG of each folder is looked at.
    """
    for place, subfolders, names in os.walk(folder):
        here = Path(place)
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        files = sorted(here / name for name in names if name[0] != ".")
        maps = [file for file in files if file.suffix == ".png"]
        foreign = (file for file in files if file.suffix.lower() in (*FRAME_SUFFIXES, *VIDEO_SUFFIXES))
        if not set(foreign) <= set(maps) or any((here / name).is_symlink() for name in subfolders):
            return False
        if maps and not _has_scale(maps[0]):
            return False
    return True


def _has_scale(path: Path) -> bool:
    try:
        return read_picture_scale(path) is not None
    except DataError:
        return False

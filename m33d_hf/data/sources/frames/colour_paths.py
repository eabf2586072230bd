"""Which paths or globs name the pictures of a folder of frames and none of its maps."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.sources.frames.folder import check_modalities, find_frames
from m33d_hf.data.sources.frames.layouts import Listing, list_files, maps_beside_pictures
from m33d_hf.data.sources.videos.frames import video_of
from m33d_hf.errors import ConfigError, DataError

_DIGITS = "0123456789"


def colour_path(root: str, options: Mapping[str, Any], clips: bool = False) -> str | None:
    """The folder itself where its maps are known by their names, else a folder in it or a glob; None if there is none.

    Args:
        root: the folder.
        options: of the `folder` source, as far as they say what files hold.
        clips: only folders, as a picture alone is no clip.

    Returns:
        A path or glob that matches every picture of the frames and none of their maps.
    """
    chosen = {name: options.get(name, "auto") for name in ("rgb", "depth", "labels")}
    chosen = {name: how for name, how in chosen.items() if how not in (None, "none")}
    if "rgb" not in chosen:
        return None
    try:
        chosen |= check_modalities(options.get("modalities"))
        listing = list_files(Path(root).expanduser())
        found, unpaired, _ = find_frames(listing, chosen, {"rgb"}, options.get("association", "auto") or "none")
    except (DataError, ConfigError):
        return root  # nothing is known about it
    frames = [frame for sequence in found.values() for frame in sequence]
    pictures = {video_of(str(frame.rgb)) for frame in frames}
    maps = {file for frame in frames for file in frame.files.values() if file != frame.rgb}
    maps |= {entry.path for entry in unpaired} | set(listing.confidences())
    if not maps - maps_beside_pictures(listing.files):
        return root
    for pattern in _candidates(sorted(pictures), chosen["rgb"], clips):
        matched = _files_of(listing, pattern)
        if pictures <= matched and not maps & (matched - _known_maps(listing, pattern)):
            return f"{glob.escape(root.rstrip('/')) if glob.has_magic(pattern) else root.rstrip('/')}/{pattern}"
    return None


def _candidates(pictures: Sequence[str], how: str, clips: bool) -> Iterator[str]:
    """Paths and globs below the root that may name the pictures, the plainest first."""
    folders = {posixpath.dirname(file) for file in pictures}
    common = posixpath.commonpath(folders) if "" not in folders else ""
    if common:
        yield common
    names = {posixpath.basename(folder) for folder in folders}
    if len(names) == 1 and (name := names.pop()):
        yield f"**/{glob.escape(name)}" + ("" if clips else "/*")
    if clips:
        return
    if "*" in how:
        yield f"**/{how}"
    files = [posixpath.basename(file) for file in pictures]
    first = _common_start(files).rstrip(_DIGITS)
    last = _common_start([file[::-1] for file in files]).rstrip(_DIGITS)[::-1]
    yield f"**/{glob.escape(first)}*{glob.escape(last)}"


def _common_start(words: Sequence[str]) -> str:
    first, last = min(words), max(words)
    alike = (number for number, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(alike, min(len(first), len(last)))]


def _files_of(listing: Listing, pattern: str) -> set[str]:
    """Files that a path or glob below the root names, with all that is in folders that it names."""
    matched = set(glob.glob(pattern, root_dir=listing.root, recursive=True)) if glob.has_magic(pattern) else {pattern}
    named = {match.replace(os.sep, "/") for match in matched}
    return {file for file in listing.files if named & {file, *_above(file)}}


def _known_maps(listing: Listing, pattern: str) -> set[str]:
    """Maps that are told by their names where a whole folder is given."""
    if glob.has_magic(pattern):
        return set()
    inside = [file for file in listing.files if file.startswith(f"{pattern}/")]
    return {f"{pattern}/{file}" for file in maps_beside_pictures([file[len(pattern) + 1 :] for file in inside])}


def _above(file: str) -> Iterator[str]:
    while file := posixpath.dirname(file):
        yield file

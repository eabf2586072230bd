"""Which files of a folder must be its depth, where their names do not say so: those of 16 bits beside those of 8."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image

from m33d_hf.data.sources.frames.layouts import Listing

# The number of the frame: the last one of a name, else the first one (7_depth16).
_NUMBERS = (re.compile(r"\d+(?!.*\d)"), re.compile(r"\d+"))
_MOST_GROUPS = 16
_DEEP, _PICTURE = "deep", "picture"


@dataclass(frozen=True)
class Naming:
    """How to name pictures and depth by options of the `folder` source.

    Attributes:
        rgb, depth: patterns, or folders.
        count: files of depth.
        example: one of them.
    """

    rgb: str
    depth: str
    count: int
    example: str


def naming_by_bits(listing: Listing) -> Naming | None:
    """The names of pictures and of depth, told apart by looking into some files; None where that leaves doubts."""
    ways: tuple[Callable[[str], str | None], ...] = (
        *(partial(_name_pattern, number) for number in _NUMBERS),
        _folder_name,
    )
    return next((found for way in ways if (found := _told_apart(listing, way)) is not None), None)


def _told_apart(listing: Listing, kind_of: Callable[[str], str | None]) -> Naming | None:
    groups: dict[str, list[str]] = defaultdict(list)
    for file in listing.images():
        name = kind_of(file)
        if name is None or len(groups) > _MOST_GROUPS:
            return None
        groups[name].append(file)
    found: dict[str, list[str]] = {_DEEP: [], _PICTURE: []}
    for name, files in groups.items():
        kinds = {_kind(listing, file) for file in (files[0], files[len(files) // 2], files[-1])}
        if len(kinds) != 1 or None in kinds:
            return None
        found[str(kinds.pop())].append(name)
    if any(len(names) != 1 for names in found.values()):
        return None
    (depth,), (rgb,) = found[_DEEP], found[_PICTURE]
    return Naming(rgb, depth, len(groups[depth]), groups[depth][0])


def _name_pattern(number: re.Pattern[str], file: str) -> str | None:
    stem, suffix = posixpath.splitext(posixpath.basename(file))
    pattern = number.sub("*", stem, count=1)
    return None if pattern == stem or "*" in stem else f"{pattern}{suffix}"


def _folder_name(file: str) -> str | None:
    return posixpath.basename(posixpath.dirname(file)) or None


def _kind(listing: Listing, file: str) -> str | None:
    """By the header alone; None for what is no picture of Pillow's."""
    try:
        with Image.open(listing.root / file) as image:
            return _DEEP if image.mode.startswith(("I", "F")) else _PICTURE
    except (OSError, ValueError, SyntaxError):
        return None

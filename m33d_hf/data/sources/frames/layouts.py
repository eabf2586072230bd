"""Finds RGB, depth and label files under a root: common layouts automatically, any other by a folder or pattern.

Known without options: `color/ depth/ label/` (and the like, also `masks/`) side by side, at the root or in every
sequence's folder; siblings that differ by a word (`frame-000000.color.jpg` and `frame-000000.depth.png`, `1.png` and
`1_depth.png`); association files (`rgb.match`, `associations.txt`).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from m33d_hf.data.files.files import LABEL_SUFFIXES, MAP_SUFFIXES, RGB_SUFFIXES
from m33d_hf.data.names import composed
from m33d_hf.data.remembering import remembered
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.pairing import (
    CONFIDENCE_WORDS,
    MODALITY_WORDS,
    is_confidence,
    modality_of,
    natural_key,
    read_association,
    strip_modality,
    words_of,
)
from m33d_hf.data.walking import refuse_unreadable
from m33d_hf.errors import DataError

ASSOCIATION_NAMES = ("associations.txt", "association.txt", "associate.txt", "rgb.match", "rgbd.match")
SUFFIXES = {"rgb": RGB_SUFFIXES, "depth": MAP_SUFFIXES, "labels": LABEL_SUFFIXES}
_FOLDER_EXTRAS = ("gt", "raw", "filt", "map", "maps", "left", "registered", "aligned", "lowres")
# Folders whose names are no words of ours: ARKitScenes' pictures of the size of its depth; masks, of which only whole
# folders are labels: NAME_mask.png is also what belongs to a depth map.
_FOLDER_NAMES = {"lowres_wide": "rgb", "mask": "labels", "masks": "labels"}

Columns = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Listing:
    """Every file under a root, relative and with forward slashes, in natural order."""

    root: Path
    files: tuple[str, ...]

    def images(self) -> list[str]:
        """Files of any readable kind."""
        suffixes = tuple({suffix for group in SUFFIXES.values() for suffix in group})
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def by_composed_name(self) -> dict[str, str]:
        """Every file by its name in composed form, as a list in a text file may spell it."""
        return {composed(file): file for file in self.files}

    def confidences(self) -> list[str]:
        """Files that hold a sensor's confidence; they are not pictures, whatever their suffix."""
        # The first question spares large trees the second.
        return [file for file in self.images() if "conf" in file.lower() and _is_confidence(file)]

    def summary(self, limit: int = 8) -> str:
        """A listing of folders with the number of files of each kind."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for file in self.files:
            path = PurePosixPath(file)
            counts[str(path.parent)][path.suffix.lower() or "no suffix"] += 1
        lines = [
            f"  {'(root)' if folder == '.' else folder}: "
            + ", ".join(f"{number} {suffix}" for suffix, number in sorted(kinds.items()))
            for folder, kinds in list(counts.items())[:limit]
        ]
        if len(counts) > limit:
            lines.append(f"  ... and {len(counts) - limit} more folders")
        return "\n".join(lines) or "  (no files)"


def leads_upwards(folder: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    if not os.path.islink(folder):
        return False
    above = os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([above, os.path.realpath(folder)]) == os.path.realpath(folder)


def folders_up(root: Path, folder: str, top: Path | None = None) -> list[Path]:
    """A folder (relative to the root) and those above it, up to the root, or to `top` where the root lies below it."""
    inner, whole = PurePosixPath(folder), Path(os.path.abspath(root))
    above = () if top is None else (each for each in whole.parents if each.is_relative_to(os.path.abspath(top)))
    return [*(root / each for each in (inner, *inner.parents)), *above]


def list_files(root: Path) -> Listing:
    """List a tree once, hidden files and folders left out.

    Raises:
        DataError: the root is not a folder, or a folder below it cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is not a folder; set --data.root to an existing folder")
    return remembered(f"files below {root.absolute()}", lambda: _listed(root))


def _listed(root: Path) -> Listing:
    files = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse_unreadable):
        # Data sets are often assembled from links; a link to a folder above would be walked for ever.
        folders[:] = [
            name for name in folders if not name.startswith(".") and not leads_upwards(os.path.join(folder, name))
        ]
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        files += [prefix + name for name in names if not name.startswith(".")]
    return Listing(root, tuple(sorted(files, key=natural_key)))


def folder_modality(name: str) -> str | None:
    """Modality of a folder whose name says nothing but that: `depth`, `label-filt`, not `color_original_png`."""
    if name.lower() in _FOLDER_NAMES:
        return _FOLDER_NAMES[name.lower()]
    words = [word for word in words_of(name) if word not in _FOLDER_EXTRAS and not word.isdecimal()]
    known = {word for group in MODALITY_WORDS.values() for word in group}
    return modality_of(name) if words and all(word in known for word in words) else None


def _is_confidence(file: str) -> bool:
    folder, name = posixpath.split(file)
    # A folder's name has to say nothing else: a recording may be called anything.
    folders = ([word for word in words_of(part) if word not in _FOLDER_EXTRAS] for part in folder.split("/"))
    said = any(words and all(word in CONFIDENCE_WORDS for word in words) for words in folders)
    return said or is_confidence(posixpath.splitext(name)[0])


def readable_suffixes(wanted: Iterable[str]) -> str:
    """The readable file types, one sentence per modality."""
    return " ".join(f"{name} is read from {', '.join(_suffixes(name))}." for name in wanted)


def _suffixes(modality: str) -> tuple[str, ...]:
    return SUFFIXES.get(modality, MAP_SUFFIXES)


def _has_suffix(file: str, modality: str) -> bool:
    return file.lower().endswith(_suffixes(modality))


def _stem(file: str) -> str:
    """Name without folder and last suffix; path objects would take most of the time on a large tree."""
    return posixpath.splitext(posixpath.basename(file))[0]


def _joined(folder: str, stem: str) -> str:
    return f"{folder}/{stem}" if folder else stem


def _discover(files: Sequence[str], wanted: Sequence[str]) -> Columns:
    """Sort files into modalities by the words in their folders and names."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_folder[posixpath.dirname(file)].append(file)
    columns: Columns = {name: [] for name in wanted}
    unmarked: list[str] = []
    for folder, members in by_folder.items():
        parts = folder.split("/") if folder else []
        marks = [folder_modality(part) for part in parts]
        index = next((i for i in reversed(range(len(marks))) if marks[i] is not None), None)
        place = "/".join(part for i, part in enumerate(parts) if i != index)
        stems = {file: modality_of(_stem(file)) for file in members}
        siblings = len({stem or "rgb" for stem in stems.values()}) > 1
        for file in members:
            # A folder's name decides, unless several modalities lie in it side by side.
            modality = marks[index] if index is not None and not siblings else stems[file]
            if modality is None and siblings and not file.endswith(".npy"):
                modality = "rgb"
            if modality is None:
                unmarked.append(file)
            elif modality in columns and _has_suffix(file, modality):
                columns[modality].append((_joined(place, strip_modality(_stem(file))), file))
    if "rgb" in columns and not columns["rgb"] and not columns.get("depth"):
        # Nothing says what it holds: a plain folder of pictures.
        pictures = [file for file in unmarked if _has_suffix(file, "rgb") and not file.endswith(".npy")]
        columns["rgb"] = [(_joined(posixpath.dirname(file), strip_modality(_stem(file))), file) for file in pictures]
    return columns


def _by_folder(files: Sequence[str], folder: str, modality: str) -> list[tuple[str, str]]:
    """Files below a folder of that name, which may have several levels and lie in every sequence."""
    wanted = composed(folder).split("/")
    found = []
    for file in files:
        parts = file.split("/")[:-1]
        for start in range(len(parts) - len(wanted) + 1):
            here = [composed(part) for part in parts[start : start + len(wanted)]]
            if here == wanted and _has_suffix(file, modality):
                rest = "/".join(parts[:start] + parts[start + len(wanted) :])
                found.append((_joined(rest, strip_modality(_stem(file))), file))
                break
    return found


def _by_pattern(files: Sequence[str], pattern: str, modality: str) -> list[tuple[str, str]]:
    """Files whose last path parts match `pattern`; what its stars stand for is the name of the frame."""
    depth = pattern.count("/") + 1
    expression = re.compile(re.escape(composed(pattern)).replace(r"\*", "([^/]*)") + r"\Z")
    found = []
    for file in files:
        parts = file.split("/")
        match = expression.match(composed("/".join(parts[-depth:]))) if len(parts) >= depth else None
        if match and _has_suffix(file, modality):
            stem = ".".join(group for group in match.groups() if group)
            found.append((_joined("/".join(parts[:-depth]), stem), file))
    return found


def _asked_for(files: Sequence[str], name: str, how: str) -> list[tuple[str, str]]:
    return _by_pattern(files, how, name) if "*" in how else _by_folder(files, how.strip("/"), name)


def _across_folders(columns: Columns) -> Columns:
    """Columns of patterns without a folder, so that they also pair if every modality has its own folder.

    Folders that hold all files of one modality and none of another (`left/`, `disp/`) say what the pattern says, and
    are no part of a frame's name; folders that several modalities have (sequences) stay.
    """
    folders = {name: [posixpath.dirname(frame).split("/") for frame, _ in found] for name, found in columns.items()}
    if any(set(map(tuple, one)) & set(map(tuple, other)) for one, other in combinations(folders.values(), 2)):
        return columns  # they share a folder: names are already those of frames
    found: Columns = {}
    for name, entries in columns.items():
        others = {part for other, paths in folders.items() if other != name for path in paths for part in path}
        own = set.intersection(*(set(path) for path in folders[name])) - others
        for frame, file in entries:
            *path, stem = frame.split("/")
            kept = "/".join(part for part in path if part not in own)
            found.setdefault(name, []).append((_joined(kept, stem), file))
    return found


def maps_beside_pictures(files: Sequence[str]) -> set[str]:
    """Files that are depth, labels or confidence by their names, where others are RGB by theirs; else none.

    Args:
        files: relative to one root, with forward slashes.
    """
    listing = Listing(Path(), tuple(files))
    columns = _discover(listing.images(), list(SUFFIXES))
    if not columns["rgb"]:
        return set()  # nothing tells them apart
    return {file for name in ("depth", "labels") for _, file in columns[name]} | set(listing.confidences())


def find_columns(listing: Listing, chosen: dict[str, str]) -> Columns:
    """Files of each modality with the name of their frame.

    Args:
        chosen: modality -> `auto`, a folder name, or a pattern with `*`; modalities left out are not looked for.
            Patterns without a folder pair within a folder, and across folders that tell modalities apart.

    Raises:
        DataError: a requested folder or pattern that matches nothing.
    """
    files = listing.images()
    confident = set(listing.confidences())
    pictures = [file for file in files if file not in confident]
    further = {name: _asked_for(files, name, how) for name, how in chosen.items() if name not in SUFFIXES}
    taken = {file for entries in further.values() for _, file in entries}
    pictures = [file for file in pictures if file not in taken] if taken else pictures
    columns = _discover(pictures, [name for name, how in chosen.items() if how == "auto"])
    for name, how in chosen.items():
        if how == "auto":
            continue
        columns[name] = further[name] if name in further else _asked_for(files, name, how)
        if not columns[name]:
            raise DataError(
                f"option {name}={how!r} matches no {' / '.join(_suffixes(name))} file under {listing.root}. "
                f"Found:\n{listing.summary()}"
            )
    free = [name for name, how in chosen.items() if "*" in how and "/" not in how]
    if len(free) > 1:
        columns |= _across_folders({name: columns[name] for name in free})
    return {name: columns[name] for name in chosen}


def find_associations(listing: Listing, association: str) -> list[str]:
    """Association files under the root: those of a known name (`auto`), or of the given name in any folder.

    Raises:
        DataError: a requested name that does not exist.
    """
    if association == "none":
        return []
    if association != "auto":
        found = [file for file in listing.files if file == association or file.endswith(f"/{association}")]
        if not found:
            raise DataError(f"association file {association!r} was not found under {listing.root}")
        return found
    best: dict[PurePosixPath, str] = {}
    for file in listing.files:
        path = PurePosixPath(file)
        if path.name in ASSOCIATION_NAMES:
            held = best.get(path.parent, file)
            best[path.parent] = min(held, file, key=lambda f: ASSOCIATION_NAMES.index(PurePosixPath(f).name))
    return list(best.values())


def rows_of_association(
    listing: Listing, association: str, wanted: Sequence[str], required: Collection[str] | None = None
) -> tuple[dict[str, dict[str, str]], list[Unpaired]]:
    """Frames that an association file names: name -> files that exist; missing files are returned as leftovers.

    Args:
        listing: the files that there are.
        association: the file that names pairs.
        wanted: modalities to read.
        required: those that a frame needs; None: all that its line names.
    """
    folder = PurePosixPath(association).parent
    present = listing.by_composed_name()
    rows: dict[str, dict[str, str]] = {}
    missing: list[Unpaired] = []
    for row in read_association(listing.root / association):
        named = {name: (folder / file).as_posix() for name, file in row.items() if name in wanted}
        files = {name: present.get(composed(file), file) for name, file in named.items()}
        absent = [file for file in named.values() if composed(file) not in present]
        missing += [Unpaired(file, f"named in {association} but missing") for file in absent]
        files = {name: file for name, file in files.items() if composed(file) in present}
        if (absent and not (required and set(required) <= files.keys())) or not files:
            continue
        first = PurePosixPath(next(files[name] for name in ("rgb", "depth", "labels") if name in files))
        name = (folder / strip_modality(first.stem)).as_posix()
        if name in rows and rows[name] != files:
            raise DataError(f"{listing.root / association}: two lines name the frame {name!r}")
        rows[name] = files
    return rows, missing

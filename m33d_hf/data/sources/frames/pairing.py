"""Which files belong together: by name, by an association file, or by timestamp.

File lists are paths relative to one root, with forward slashes, so that keys and digests are the same everywhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.names import composed
from m33d_hf.data.source import Unpaired
from m33d_hf.errors import DataError

# Words in a file or folder name that say what it holds.
MODALITY_WORDS = {
    "rgb": ("rgb", "color", "colors", "colour", "image", "images", "img", "jpg"),
    "depth": ("depth", "depths", "depthmap", "disp", "disparity"),
    "labels": ("label", "labels", "semantic", "semantics", "seg", "segm", "segmentation", "annotation", "annotations"),
}
# How sure a sensor is of its depth: no picture, though it is stored as one.
CONFIDENCE_WORDS = ("confidence", "confidences")
_NOISE_WORDS = ("gt", "sync", "map", "filt")
_SEPARATORS = re.compile(r"[._\-\s]+")
_SPLIT_KEEPING_SEPARATORS = re.compile(f"({_SEPARATORS.pattern})")
_DIGITS = re.compile(r"\d+")
_NUMBERS = re.compile(r"(\d+)")
# Seconds; a millisecond, and what rounding to milliseconds adds. Frames are ten times as far apart.
MAX_STAMP_DISTANCE = 0.0015
_STAMPED = re.compile(r"(.*?)(\d+\.\d{2,9})")
_MODALITY_OF_WORD = {word: name for name, words in MODALITY_WORDS.items() for word in words}


def words_of(stem: str) -> list[str]:
    """`frame-000003.color` -> ['frame', '000003', 'color'], lower case."""
    return [word for word in _SEPARATORS.split(stem.lower()) if word]


def modality_of(stem: str) -> str | None:
    """Name of the only modality that the words of `stem` mention; None if they mention none or several."""
    found = {_MODALITY_OF_WORD[word] for word in words_of(stem) if word in _MODALITY_OF_WORD}
    # "depth_label" is no more depth than label; "rgb_depth" could be either.
    return found.pop() if len(found) == 1 else None


def is_confidence(stem: str) -> bool:
    """Whether a file's name says that it holds confidence: by that word, or as `conf_00012`."""
    words = words_of(stem)
    if any(word in CONFIDENCE_WORDS for word in words):
        return True
    return "conf" in words and all(word == "conf" or word.isdecimal() for word in words)


def strip_modality(stem: str) -> str:
    """A name without the words that say what the file holds: `frame-03.color` -> `frame-03`."""
    if not any(word in _MODALITY_OF_WORD for word in words_of(stem)):
        return stem
    parts = _SPLIT_KEEPING_SEPARATORS.split(stem)
    dropped = [part.lower() in _MODALITY_OF_WORD or part.lower() in _NOISE_WORDS for part in parts[::2]]
    # A dropped word takes the separator behind it along.
    kept = [part for i, part in enumerate(parts) if not dropped[i // 2]]
    return "".join(kept).strip("._- ")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame 2 before frame 10, the same on every platform."""
    parts = _NUMBERS.split(text)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _frame_name(path: str, tolerant: bool) -> str:
    """Folder and bare name of a frame; with `tolerant`, digits count as numbers (`00007` is `7`).

    An accented letter may be one character or two (composed or decomposed, as some systems store names): it is one.
    """
    folder, _, stem = composed(path).rpartition("/")
    if tolerant:
        stem = _DIGITS.sub(lambda digits: str(int(digits[0])), stem)
    return f"{folder}/{stem}" if folder else stem


def _group(entries: Sequence[tuple[str, str]], tolerant: bool) -> dict[str, list[tuple[str, str]]]:
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for entry in entries:
        groups[_frame_name(entry[0], tolerant)].append(entry)
    return groups


def pair_by_name(
    columns: Mapping[str, Sequence[tuple[str, str]]],
) -> tuple[dict[str, dict[str, str]], list[Unpaired]]:
    """Pair files of several modalities by the names of their frames.

    Args:
        columns: modality -> (name of the frame with its folder, file) pairs.

    Returns:
        (rows, leftovers): rows map a frame's name (as its first modality spells it) to its files, in natural
        order; leftovers are files whose frame lacks one of the modalities that were found.

    Raises:
        DataError: two files of one modality claim the same frame (`1.png` and `1.jpg`).
    """
    # Numbers are compared as numbers unless one folder really holds both 7 and 007.
    tolerant = all(len(group) == 1 for entries in columns.values() for group in _group(entries, True).values())
    names: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for modality, entries in columns.items():
        for key, group in _group(entries, tolerant).items():
            if len(group) > 1:
                files = ", ".join(sorted(file for _, file in group))
                raise DataError(
                    f"these {modality} files claim the same frame: {files}. Choose the folder with the option "
                    f"{modality!r}, or list the pairs with the option 'association'."
                )
            names.setdefault(key, group[0][0])
            rows[key][modality] = group[0][1]
    present = [modality for modality, entries in columns.items() if entries]
    leftovers = [
        Unpaired(file, f"its frame has no {' and no '.join(missing)}")
        for row in rows.values()
        for file in row.values()
        if (missing := [modality for modality in present if modality not in row])
    ]
    ordered = sorted(rows, key=lambda key: natural_key(names[key]))
    return {names[key]: rows[key] for key in ordered}, leftovers


def read_table(path: Path) -> list[list[str]]:
    """Lines of a text file as words, split at spaces, tabs or commas, without comments.

    Raises:
        CorruptFileError: missing or not text.
    """
    lines = (line.split("#", 1)[0].replace(",", " ").split() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def is_number(word: str) -> bool:
    """Whether a word of a table is a timestamp rather than a file name."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _column_modality(words: Sequence[str]) -> str | None:
    """What a column of file names holds, according to the first name whose folders or stem say so."""
    path = PurePosixPath(words[0])
    for part in (path.stem, *reversed(path.parts[:-1])):
        if (found := modality_of(part)) is not None:
            return found
    return None


def read_association(path: Path) -> list[dict[str, str]]:
    """Read pairs of file names, one pair per line, in either order, with or without timestamps.

    Returns:
        rows of modality -> file name as written in the file.

    Raises:
        CorruptFileError: missing or not text.
        DataError: lines of different length, or columns that do not tell which is RGB and which is depth.
    """
    rows = [[word for word in line if not is_number(word)] for line in read_table(path)]
    if not rows:
        raise DataError(f"{path}: the association file names no files")
    if (width := len(rows[0])) not in (2, 3) or any(len(row) != width for row in rows):
        line = next((i for i, row in enumerate(rows) if len(row) != width), 0)
        raise DataError(
            f"{path}: each line must name two files (RGB and depth) or three (labels too); entry {line + 1} names "
            f"{len(rows[line])}: {' '.join(rows[line])}"
        )
    names = [_column_modality([row[column] for row in rows]) for column in range(width)]
    if width == 2 and names.count(None) == 1:
        known = next(name for name in names if name is not None)
        names[names.index(None)] = "depth" if known == "rgb" else "rgb"
    if None in names or len(set(names)) < width:
        raise DataError(
            f"{path}: cannot tell which column is RGB and which is depth from {' '.join(rows[0])!r}; put the word "
            "'depth' and 'rgb' (or 'color') into the folder or file names"
        )
    return [dict(zip(map(str, names), row)) for row in rows]


def pair_by_stamp(
    rows: dict[str, dict[str, str]], leftovers: list[Unpaired]
) -> tuple[dict[str, dict[str, str]], list[Unpaired], int]:
    """Pair the leftovers of `pair_by_name` whose names end in timestamps that differ by at most a millisecond.

    ARKitScenes names pictures and depth by separate timestamps (`41069021_305.377.png`, `41069021_305.378.png`), which
    belong together.

    Returns:
        (rows in natural order, leftovers, number of pairs that were made).
    """
    lonely: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for name, row in rows.items():
        if len(row) == 1 and (stamp := _STAMPED.fullmatch(composed(name))) is not None:
            lonely[stamp[1], next(iter(row))].append((float(stamp[2]), name))
    joined: set[str] = set()
    pairs = 0
    for (prefix, modality), entries in lonely.items():
        partners = lonely.get((prefix, "depth"), []) if modality == "rgb" else []
        stamps = [stamp for stamp, _ in entries], [stamp for stamp, _ in partners]
        for i, j in match_timestamps(*stamps, MAX_STAMP_DISTANCE):
            rows[entries[i][1]] |= rows.pop(partners[j][1])
            joined |= set(rows[entries[i][1]].values())
            pairs += 1
    rest = [entry for entry in leftovers if entry.path not in joined]
    return {name: rows[name] for name in sorted(rows, key=natural_key)}, rest, pairs


def match_timestamps(first: Sequence[float], second: Sequence[float], max_difference: float) -> list[tuple[int, int]]:
    """Pair two lists of seconds one to one: the closest pair first, none further apart than `max_difference`.

    Returns:
        (index in first, index in second), in the order of `first`.
    """
    order = sorted(range(len(second)), key=lambda j: second[j])
    ordered = [second[j] for j in order]
    candidates: list[tuple[float, int, int]] = []
    start = 0
    for i in sorted(range(len(first)), key=lambda i: first[i]):
        while start < len(ordered) and ordered[start] < first[i] - max_difference:
            start += 1
        for position in range(start, len(ordered)):
            difference = abs(ordered[position] - first[i])
            if ordered[position] - first[i] > max_difference:
                break
            candidates.append((difference, i, order[position]))
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    pairs = []
    for _, i, j in sorted(candidates):
        if i not in taken_first and j not in taken_second:
            taken_first.add(i)
            taken_second.add(j)
            pairs.append((i, j))
    return sorted(pairs)

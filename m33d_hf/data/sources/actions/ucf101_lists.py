"""The text files that come with UCF-101: `classInd.txt`, `trainlist01.txt`, `testlist01.txt` and the like.

Copies of them differ: line ends are CRLF or LF, test lists come with and without a label, HandstandPushups is spelled
in two ways. A label counts from 1, as in `classInd.txt`, and must agree with the folder of its line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.names import folded
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.randomness import seed_of
from m33d_hf.data.sources.frames.splits import canonical_split
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import DataError, nearest_name_hint

CLASS_FILE = "classInd.txt"
# Where the official archive lands beside the videos, seen from the root or from the folder of the videos itself.
LIST_FOLDERS = (".", "ucfTrainTestlist", "../ucfTrainTestlist")
_LABELLED = re.compile(r"(?P<path>.*\S)[\s,;]+(?P<label>\d+)")
_NUMBERED = re.compile(r"(?P<number>\d+)[\s,;.:]+(?P<name>\S.*)")
_GROUP = re.compile(r"_(g\d+)_c\d+$")


@dataclass(frozen=True)
class Listed:
    """One line of a list.

    Attributes:
        path: the video as listed, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi".
        label: 0-based class id.
        file: the list's name.
        line: 1-based.
    """

    path: str
    label: int
    file: str
    line: int

    @property
    def key(self) -> str:
        """The path without suffix."""
        return without_suffix(self.path)

    @property
    def group(self) -> str:
        """Class folder and gNN: clips cut from one longer video; the key where the name has no gNN."""
        found = _GROUP.search(self.key)
        return f"{PurePosixPath(self.path).parent}/{found[1]}" if found else self.key


def without_suffix(path: str) -> str:
    """The path without the suffix of a video file; a folder of frames may have a dot in its name."""
    bare, dot, suffix = path.rpartition(".")
    return bare if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else path


def list_name(split: str, index: int) -> str:
    """`trainlist01.txt` for ("train", 1)."""
    return f"{split}list{index:02d}.txt"


def has_lists(root: Path) -> bool:
    """Whether `classInd.txt` lies in one of the usual places."""
    return any((root / folder / CLASS_FILE).is_file() for folder in LIST_FOLDERS)


def find_lists(root: Path, lists: str | Path | None) -> Path:
    """The folder that holds `classInd.txt`.

    Args:
        root: of the data.
        lists: a folder, see `stated_places`; None looks in the root and in ucfTrainTestlist in or beside it.

    Raises:
        DataError: it was not found.
    """
    if lists is not None:
        candidates = stated_places(root, lists)
    else:
        candidates = [(root / folder).resolve() for folder in LIST_FOLDERS]
    for folder in candidates:
        if (folder / CLASS_FILE).is_file():
            return folder
    raise DataError(
        f"no {CLASS_FILE} in {', '.join(map(str, candidates))}. UCF-101's train/test lists (the archive "
        "ucfTrainTestlist) define the classes; give their folder with --data.options.lists FOLDER. Clips of your own "
        "need none where at least two folders of videos, one for each class, lie in the root."
    )


def read_classes(path: Path) -> list[str]:
    """Class names in id order from lines "1 ApplyEyeMakeup", or from bare names, one a line.

    Raises:
        CorruptFileError: not a text file.
        DataError: no class, two classes with one name or number, numbers that are not 1, 2, 3 and so on.
    """
    lines = _lines(path)
    if not lines:
        raise DataError(f"{path}: no class found")
    matches = [_NUMBERED.fullmatch(text) for _, text in lines]
    numbered = all(match is not None for match in matches)
    names: dict[int, str] = {}
    where: dict[str, tuple[int, str]] = {}
    for position, ((line, text), match) in enumerate(zip(lines, matches, strict=True), 1):
        number, name = (int(match["number"]), match["name"]) if numbered and match else (position, text)
        if not numbered and match:
            raise DataError(
                f"{path}, line {line}: {text!r} has a number, but other lines have none; number all lines or none"
            )
        plain = folded(name)
        if plain in where:
            first, other = where[plain]
            raise DataError(
                f"{path}: lines {first} and {line} name the same class ({other!r} and {name!r}); give every class its "
                "own name"
            )
        if number in names:
            raise DataError(f"{path}, line {line}: the number {number} already belongs to {names[number]!r}")
        names[number] = name
        where[plain] = (line, name)
    if sorted(names) != list(range(1, len(names) + 1)):
        wrong = next(number for number in sorted(names) if not 1 <= number <= len(names))
        raise DataError(f"{path}: {len(names)} classes must be numbered 1 to {len(names)}, found the number {wrong}")
    return [names[number] for number in sorted(names)]


def read_list(path: Path, names: Sequence[str]) -> list[Listed]:
    """Videos of a train or test list.

    Raises:
        CorruptFileError: not a text file.
        DataError: a line without a class folder, an unknown class, a label against its folder, or a video twice.
    """
    ids = {folded(name): number for number, name in enumerate(names)}
    entries: list[Listed] = []
    seen: dict[str, int] = {}
    for line, text in _lines(path):
        match = _LABELLED.fullmatch(text)
        listed = (match["path"] if match else text).replace("\\", "/")
        parts = PurePosixPath(listed).parts
        if len(parts) < 2 or ".." in parts:
            raise DataError(f"{path}, line {line}: {text!r} is not Class/video.avi, optionally followed by a label")
        folder, video = parts[-2:]
        label = ids.get(folded(folder))
        if label is None:
            hint = nearest_name_hint(folder, list(names))
            raise DataError(f"{path}, line {line}: the class {folder!r} is not in {CLASS_FILE}.{hint}")
        if match:
            _check_label(path, line, int(match["label"]), label, names)
        entry = Listed(f"{folder}/{video}", label, path.name, line)
        plain = folded(entry.key)
        if plain in seen:
            raise DataError(f"{path}: lines {seen[plain]} and {line} list the same video, {entry.path}; keep one")
        seen[plain] = line
        entries.append(entry)
    if not entries:
        raise DataError(f"{path}: no video found")
    return entries


def select_entries(
    folder: Path, names: Sequence[str], split: str | None, index: int, validation_fraction: float | None
) -> tuple[list[Listed], str]:
    """The lines of one split, and a sentence on where they come from.

    Raises:
        ConfigError: an unknown split.
        DataError: a missing list, or a video in both lists.
    """
    wanted = None if split in (None, "all") else canonical_split(str(split))
    train_file, test_file = (folder / list_name(part, index) for part in ("train", "test"))
    lists = {file.name: read_list(file, names) for file in (train_file, test_file) if file.is_file()}
    train, test = lists.get(train_file.name, []), lists.get(test_file.name, [])
    _refuse_overlap(train, test)
    needed = {
        None: (train_file, test_file),
        "train": (train_file,),
        "validation": (test_file,) if validation_fraction is None else (train_file,),
        "test": (test_file,),
    }[wanted]
    for file in needed:
        if file.name not in lists:
            raise DataError(
                f"{folder} has {CLASS_FILE}, but no {file.name}, which the split {wanted or 'all'!r} is read from. "
                "Add it, choose another pair of lists with --data.options.split_index, or name the folder of the "
                "lists with --data.options.lists."
            )
    entries, how = _part_of(train, test, wanted, validation_fraction)
    shared = {entry.group for entry in train} & {entry.group for entry in test}
    if shared:
        example = min(shared)
        how += (
            f"; WARNING: {plural(len(shared), 'group')} ({example} ...), clips of one longer video, are in both lists"
        )
    return entries, how


def _part_of(
    train: list[Listed], test: list[Listed], wanted: str | None, validation_fraction: float | None
) -> tuple[list[Listed], str]:
    """The lines of `wanted` (None: all) of lists that are there, and a sentence on them."""
    if wanted is None:
        return [*train, *test], f"{plural(len(train) + len(test), 'video')} of {train[0].file} and {test[0].file}"
    if wanted == "test" or (wanted == "validation" and validation_fraction is None):
        how = f"split {wanted}: {plural(len(test), 'video')} of {test[0].file}"
        return test, how + (" (the official lists have no validation part)" if wanted == "validation" else "")
    if validation_fraction is None:
        return train, f"split train: {plural(len(train), 'video')} of {train[0].file}"
    held = hold_out(train, validation_fraction)
    kept = [entry for entry in train if (entry.group in held) == (wanted == "validation")]
    if not kept:
        raise DataError(f"split {wanted!r} is empty: {train[0].file} has too few groups for {validation_fraction}")
    drawn = f"{len(kept)} of {plural(len(train), 'video')} of {train[0].file}"
    return kept, f"split {wanted}: {drawn}, drawn by whole groups"


def hold_out(entries: Iterable[Listed], fraction: float) -> set[str]:
    """Groups to validate on: of each class `fraction` of its groups, at least one, never all."""
    by_class: dict[int, set[str]] = {}
    for entry in entries:
        by_class.setdefault(entry.label, set()).add(entry.group)
    held: set[str] = set()
    for groups in by_class.values():
        order = sorted(groups, key=lambda group: (seed_of("ucf101 validation", group), group))
        count = min(max(math.floor(fraction * len(order) + 0.5), 1), len(order) - 1)
        held.update(order[:count])
    return held


def _refuse_overlap(train: Sequence[Listed], test: Sequence[Listed]) -> None:
    trained = {folded(entry.key): entry for entry in train}
    both = [(trained[folded(entry.key)], entry) for entry in test if folded(entry.key) in trained]
    if both:
        first, second = both[0]
        raise DataError(
            f"{plural(len(both), 'video')} {agree(len(both), 'is', 'are')} in both lists, the first is "
            f"{second.path} ({first.file}, line {first.line}, and "
            f"{second.file}, line {second.line}): a test on training videos proves nothing. Remove them from one of "
            "the lists."
        )


def _check_label(path: Path, line: int, stated: int, label: int, names: Sequence[str]) -> None:
    if stated == label + 1:
        return
    says = f"is {names[stated - 1]!r}" if 1 <= stated <= len(names) else f"is not a class (there are 1 to {len(names)})"
    counts = " Do its labels start at 0? They must start at 1." if stated == label else ""
    raise DataError(
        f"{path}, line {line}: the label {stated} {says} in {CLASS_FILE}, but the folder says {names[label]!r} "
        f"({label + 1}).{counts} Correct the line, or remove the label column: the folder is sufficient."
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """(1-based number, text) of the lines that hold something, without blanks around it."""
    stripped = ((number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1))
    return [(number, line) for number, line in stripped if line]

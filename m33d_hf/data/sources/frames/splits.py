"""Which sequences or frames belong to train, validation and test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.names import composed
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.errors import ConfigError, DataError, MissingSplitError, nearest_name_hint

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
DEFAULT_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
# With fewer sequences than this a split by sequence would be too coarse.
_FEW_SEQUENCES = 5
# Of few sequences one is held out whole if its share of the frames is within these borders: it must be enough to judge
# by, and leave enough to learn from. (One of three of equal length is.) Otherwise each one is cut into stretches.
_ONE_HELD_OUT = (0.1, 0.35)
AS_STRETCHES = "as one stretch of frames"  # how the sentence on such a split ends
_NAMED = 5  # sequences of a split that are listed

Sequences = dict[str, list[Frame]]
Item = TypeVar("Item")


@dataclass(frozen=True)
class SplitChoice:
    """The split that a source is asked for: its name, and a list, fractions or a validation split that define it.

    See `select_split`, and `validation.split_by_validation` for the last two fields.
    """

    name: str | None
    listed: str | Mapping[str, str] | None = None
    fractions: Mapping[str, float] | None = None
    validation: str | float | Sequence[str] | None = None
    seed: int = 0


def canonical_split(split: str) -> str:
    """`val` -> `validation`; an unknown name is a ConfigError with a hint."""
    for name, aliases in SPLIT_NAMES.items():
        if split.lower() in aliases:
            return name
    known = [alias for aliases in SPLIT_NAMES.values() for alias in aliases]
    raise ConfigError(f"split {split!r} is not one of {', '.join(known)}.{nearest_name_hint(split, known)}")


def select_split(
    root: Path,
    sequences: Sequences,
    split: str | None,
    split_list: str | Mapping[str, str] | None = None,
    fractions: Mapping[str, float] | None = None,
    whole: bool = False,
) -> tuple[Sequences, str]:
    """Keep one split: from a list file, else from folders named after splits, else by fractions.

    Args:
        split: `train`, `validation` (`val`) or `test`; None or `all` keeps everything.
        split_list: file of sequence or frame names, one per line, or a mapping split -> file. Without it, `<split>.txt`
            and `splits/<split>.txt` under the root are used if present.
        fractions: shares of train, validation and test, adding up to at most 1. With five or more sequences, whole
            sequences are taken (in an order drawn from their names), otherwise stretches of consecutive frames:
            neighbours look alike, so a random draw would test on what was trained on. None is 80, 10 and 10 %: one
            sequence for validation and test together (of 6 or 7) is for validation; and of fewer than five sequences,
            one is the validation split if it holds between 10 and 35 % of the frames (the shortest of those that do),
            all others are for training, and there is no test split.
        whole: never cut a sequence into stretches, however few there are.

    Returns:
        (sequences, one sentence on how they were chosen).

    Raises:
        ConfigError: an unknown split, or impossible fractions.
        DataError: an empty split, or training and evaluation lists that share frames.
    """
    if split is None or split == "all":
        return sequences, "all frames, not split"
    name = canonical_split(split)
    listed = _list_file(root, name, split_list)
    if listed is not None:
        kept = _from_list(sequences, listed)
        _refuse_shared(root, sequences, name, kept, listed, split_list)
        return kept, f"split {name} as listed in {listed.name}"
    folders = {PurePosixPath(key).parts[0].lower() for key in sequences}
    named = {known for known, aliases in SPLIT_NAMES.items() if folders & set(aliases)}
    if fractions is None and named:
        if name not in named:
            there = ", ".join(sorted(named))
            raise MissingSplitError(f"{root} has folders for {there}, but none for the split {name!r}")
        aliases = SPLIT_NAMES[name]
        kept = {k: v for k, v in sequences.items() if PurePosixPath(k).parts[0].lower() in aliases}
        return kept, f"split {name} from the folder of that name"
    alone = None if whole or fractions is not None else one_to_hold_out(sequences)
    if alone is not None:
        return _without_one(sequences, name, alone)
    return _by_fraction(sequences, name, fractions or DEFAULT_FRACTIONS, 1 if whole else _FEW_SEQUENCES)


def one_to_hold_out(sequences: Sequences) -> str | None:
    """Which of two to four sequences is held out whole; None with more or fewer, or where none is of a fit length."""
    total = sum(map(len, sequences.values()))
    low, high = (border * total for border in _ONE_HELD_OUT)
    fit = [key for key, frames in sequences.items() if low <= len(frames) <= high]
    return min(fit, key=lambda key: (len(sequences[key]), key)) if fit and len(sequences) < _FEW_SEQUENCES else None


def _without_one(sequences: Sequences, name: str, alone: str) -> tuple[Sequences, str]:
    if name == "test":
        raise MissingSplitError(
            f"split 'test' is empty: {plural(len(sequences), 'sequence')} {agree(len(sequences), 'is', 'are')} "
            f"too few for a third split. {alone} is the "
            "validation split; for shares of every sequence, pass --data.options.split_fractions."
        )
    kept = {key: frames for key, frames in sequences.items() if (key == alone) == (name == "validation")}
    return kept, f"split {name}: {len(kept)} of {plural(len(sequences), 'sequence')} ({', '.join(kept)})"


def _list_file(root: Path, name: str, split_list: str | Mapping[str, str] | None) -> Path | None:
    if isinstance(split_list, Mapping):
        by_name = {canonical_split(key): value for key, value in split_list.items()}
        if name not in by_name:
            raise MissingSplitError(f"split_list has no file for {name!r}; it has files for {', '.join(by_name)}")
        split_list = by_name[name]
    if split_list is not None:
        for path in stated_places(root, split_list):
            if path.is_file():
                return path
        raise DataError(f"split list {str(split_list)!r} was found neither under {root} nor in the current folder")
    candidates = (root / folder / f"{alias}.txt" for folder in (".", "splits") for alias in SPLIT_NAMES[name])
    return next((path for path in candidates if path.is_file()), None)


def _entries(path: Path, sequences: Sequences) -> set[str]:
    """What the lines of a list name: the whole text where something is called so, else the first word."""
    lines: list[tuple[list[str], str]] = []
    for text in read_text(path).split("\n"):
        words = text.split("#", 1)[0].replace(",", " ").split()
        if words:
            places = (text.strip().strip("/"), text.split("#", 1)[0].strip().strip("/"))
            lines.append(([composed(place) for place in places], composed(words[0].strip("/"))))
    known = _known(sequences, {place for places, _ in lines for place in places})
    return {next((place for place in places if place in known), word) for places, word in lines}


def _known(sequences: Sequences, among: set[str]) -> set[str]:
    """Which of some names are those of a sequence, a frame or a file."""
    found = {name for key in sequences for name in _sequence_names(key) if name in among}
    if len(found) < len(among):  # there may be millions of frames
        found.update(
            name for frames in sequences.values() for frame in frames for name in _frame_names(frame) if name in among
        )
    return found


def _named(sequences: Sequences, entries: set[str], among: Collection[str] | None = None) -> Sequences:
    """The frames that some entries of a list name, by sequence: all of one where an entry names it.

    An entry that names a sequence names no frame: frames are called 1 in every sequence, and a sequence may be too.

    Args:
        sequences: all that there are.
        entries: of the list.
        among: keys of those that are asked for; None for all.
    """
    whole = {name for key in sequences for name in _sequence_names(key)} & entries
    single = entries - whole
    found = {}
    for key, frames in sequences.items():
        if among is not None and key not in among:
            continue
        if not whole.isdisjoint(_sequence_names(key)):
            found[key] = frames
        elif single and (chosen := [frame for frame in frames if not single.isdisjoint(_frame_names(frame))]):
            found[key] = chosen
    return found


def _sequence_names(key: str) -> set[str]:
    """What a list may call a sequence: its name, and the folders that it lies in."""
    parts = PurePosixPath(key).parts
    return {composed("/".join(parts[: i + 1])) for i in range(len(parts))}


def _frame_names(frame: Frame) -> set[str]:
    """What a list may call a frame of its own: its key and its files, with and without folders and suffix."""
    names = {frame.key, frame.key.rpartition("/")[2]}
    for file in (frame.rgb, frame.depth):
        if file is not None:
            folder, slash, name = file.rpartition("/")
            dot = name.rfind(".")
            stem = name[:dot] if 0 < dot < len(name) - 1 else name  # as pathlib has it, in a tenth of the time
            names |= {file, name, f"{folder}{slash}{stem}"}
    return {composed(each) for each in names}


def list_of(root: Path, split: str | None, split_list: str | Mapping[str, str] | None = None) -> Path | None:
    """The list file used by `select_split`, if any."""
    return None if split is None or split == "all" else _list_file(root, canonical_split(split), split_list)


def missing_entries(
    root: Path, sequences: Sequences, split: str | None, split_list: str | Mapping[str, str] | None = None
) -> list[str]:
    """Sorted entries of the list file used by `select_split` that match nothing in `sequences`."""
    path = list_of(root, split, split_list)
    if path is None:
        return []
    entries = _entries(path, sequences)
    return sorted(entries - _known(sequences, entries))


@dataclass(frozen=True)
class InVain:
    """Entries of a list that match nothing.

    Attributes:
        file: the list.
        entries: of it, sorted.
        where: what was looked through, for the sentence.
    """

    file: Path
    entries: Sequence[str]
    where: str = "that is used"

    @property
    def words(self) -> str:
        """A part of a sentence; empty where each entry matches something."""
        if not self.entries:
            return ""
        match, entries = agree(len(self.entries), "matches", "match"), agree(len(self.entries), "entry", "entries")
        return f"{len(self.entries)} {entries} of the list {match} nothing {self.where}, the first: {self.entries[0]}"


def _from_list(sequences: Sequences, path: Path) -> Sequences:
    entries = _entries(path, sequences)
    kept = _named(sequences, entries)
    if not kept:
        example = next(iter(sequences.values()))[0].key if sequences else "none"
        raise DataError(
            f"{path}: nothing in it ({plural(len(entries), 'entry')}, first: {sorted(entries)[:1]}) is a sequence, "
            "frame or "
            f"file found here (sequences {sorted(sequences)[:3]}, a frame {example!r})"
        )
    return kept


def _refuse_shared(
    root: Path,
    sequences: Sequences,
    name: str,
    kept: Sequences,
    file: Path,
    split_list: str | Mapping[str, str] | None,
) -> None:
    """Refuse lists that put a frame into both training and evaluation; validation and test may share frames.

    Raises:
        DataError: the list of the training split and this one have frames in common.
    """
    stated = isinstance(split_list, Mapping)
    others = ("validation", "test") if name == "train" else ("train",)
    for other in others:
        if split_list is not None and not (stated and other in {canonical_split(key) for key in split_list}):
            continue  # a single file names one split, whichever is asked for
        path = _list_file(root, other, split_list)
        if path is None:
            continue
        entries = _entries(path, sequences)
        both = list(_named({**sequences, **kept}, entries, kept))
        if both:
            raise DataError(
                f"{len(both)} of {len(kept)} sequences are in {file} and in {path}, the first is {both[0]!r}: an "
                "evaluation on training data proves nothing. Remove them from one of the lists."
            )


def _by_fraction(sequences: Sequences, name: str, fractions: Mapping[str, float], few: int) -> tuple[Sequences, str]:
    if not isinstance(fractions, Mapping) or not all(isinstance(v, int | float) for v in fractions.values()):
        raise ConfigError(
            f"split_fractions is {fractions!r}; give a share per split, such as {{train: 0.8, test: 0.2}}"
        )
    shares = {canonical_split(key): float(value) for key, value in fractions.items()}
    if name not in shares:
        raise MissingSplitError(f"split_fractions has no share for {name!r}: {dict(fractions)}")
    if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"split_fractions must be positive and add up to at most 1: {dict(fractions)}")
    before = sum(shares.get(other, 0.0) for other in list(SPLIT_NAMES)[: list(SPLIT_NAMES).index(name)])
    span = (before, before + shares[name])
    share = f"{shares[name]:.0%}"
    if len(sequences) >= few:
        order = sorted(sequences, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
        chosen = set(_validated(order, name) if fractions is DEFAULT_FRACTIONS else _cut(order, span))
        kept = {key: frames for key, frames in sequences.items() if key in chosen}
        how = f"split {name}: {len(kept)} of {plural(len(sequences), 'sequence')}, drawn from their names"
        how += "" if fractions is DEFAULT_FRACTIONS else f" for a share of {share}"
        how += f": {', '.join(kept)}" if len(kept) <= _NAMED else ""
    else:
        kept = {key: _cut(frames, span) for key, frames in sequences.items()}
        kept = {key: frames for key, frames in kept.items() if frames}
        how = f"split {name}: {share} of each sequence, {AS_STRETCHES}"
    if not kept:
        total = f"{sum(len(frames) for frames in sequences.values())} frames in "
        raise MissingSplitError(
            f"split {name!r} is empty: {share} of "
            f"{'' if len(sequences) >= few else total}{plural(len(sequences), 'sequence')}. "
            "List its sequences in a file (--data.options.split_list), give it a larger share "
            "(--data.options.split_fractions), or read everything (split all)."
        )
    return kept, how


def _validated(order: list[str], name: str) -> list[str]:
    """One of the default splits; where there is one sequence for validation and test together, validation has it."""
    train, validation = DEFAULT_FRACTIONS["train"], DEFAULT_FRACTIONS["validation"]
    rest = _cut(order, (train, 1.0))
    seen = _cut(order, (train, train + validation)) or rest[:1]
    return {"train": _cut(order, (0.0, train)), "validation": seen, "test": rest[len(seen) :]}[name]


def _cut(items: list[Item], span: tuple[float, float]) -> list[Item]:
    # Rounding half up at shared borders: splits never overlap and never leave an item out between them.
    low, high = (math.floor(border * len(items) + 0.5 + 1e-9) for border in span)
    return items[low:high]

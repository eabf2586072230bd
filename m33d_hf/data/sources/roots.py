"""Several folders read as one source: `--data.root '[A, B]'`, every item once, each folder by its own rules."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from m33d_hf.data.names import composed
from m33d_hf.data.plural import plural
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.splits import InVain, canonical_split
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.data.sources.stated_units import Build, build_each, leave_out
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint


def name_roots(roots: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> folder: that of the folder, with as many of the folders above it as tell it from the others.

    Raises:
        ConfigError: no folder, one that is given twice or lies inside another one, whatever links lead there, or two
            whose whole paths make the same name.
    """
    folders = [Path(os.path.abspath(Path(root).expanduser())) for root in roots]
    if not folders:
        raise ConfigError("data.root is an empty list; name at least one folder.")
    twice = next((folder for place, folder in enumerate(folders) if folder in folders[:place]), None)
    if twice is not None:
        raise ConfigError(f"data.root names {str(twice)!r} twice.")
    _refuse_nested(folders)
    parts = [folder.parts[1:] or (folder.anchor,) for folder in folders]
    lengths = []
    for mine in parts:
        others = [each for each in parts if each is not mine]
        fits = (n for n in range(1, len(mine) + 1) if all(each[-n:] != mine[-n:] for each in others))
        lengths.append(next(fits, len(mine)))
    while True:
        names = ["_".join(mine[-length:]) for mine, length in zip(parts, lengths, strict=True)]
        alike = [place for place, name in enumerate(names) if names.count(name) > 1]  # a_b of c/a_b, and of a/b
        if not alike:
            return dict(zip(names, folders, strict=True))
        longer = [place for place in alike if lengths[place] < len(parts[place])]
        if not longer:
            told = " and ".join(repr(str(folders[place])) for place in alike if names[place] == names[alike[0]])
            raise ConfigError(
                f"data.root names {told}, which both would be called {names[alike[0]]!r}; rename one of the folders."
            )
        for place in longer:
            lengths[place] += 1


def _refuse_nested(folders: Sequence[Path]) -> None:
    """Refuse folders of which one holds another: its items would occur twice, also on both sides of a split.

    Raises:
        ConfigError: naming both.
    """
    resolved = [folder.resolve() for folder in folders]
    for inner, place in zip(folders, resolved, strict=True):
        for outer, other in zip(folders, resolved, strict=True):
            if inner is not outer and place.is_relative_to(other):
                how = "the same folder as" if place == other else "a folder inside"
                raise ConfigError(
                    f"data.root names {str(inner)!r}, which is {how} {str(outer)!r}: its items would occur twice, and "
                    "could be on both sides of a split. Leave one of them out."
                )


def held_out(validation: Any, names: Mapping[str, Path]) -> dict[str, list[str] | None]:
    """What `data.options.validation` says of each folder: its sequences, None for the whole folder, [] for none of it.

    Args:
        validation: FOLDER or FOLDER/SEQUENCE, as text with commas or as a list.
        names: of the folders.

    Raises:
        ConfigError: an entry that begins with no folder's name.
    """
    words = validation.split(",") if isinstance(validation, str) else [str(word) for word in validation]
    held: dict[str, list[str] | None] = {name: [] for name in names}
    spelled = {composed(name): name for name in names}
    for word in filter(None, (word.strip().strip("/") for word in words)):
        name, _, sequence = word.partition("/")
        name = name if name in names else spelled.get(composed(name), name)
        if name not in names:
            raise ConfigError(
                f"validation names {word!r}; with several folders write FOLDER or FOLDER/SEQUENCE, where FOLDER is one "
                f"of {', '.join(names)}.{nearest_name_hint(name, names)}"
            )
        own = held[name]
        held[name] = None if not sequence or own is None else [*own, sequence]
    return held


def read_roots(
    roots: Mapping[str, Path],
    split: str | None,
    options: Mapping[str, Any],
    build: Callable[[str, str | None, dict[str, Any]], Source],
    others: Sequence[Build] = (),
) -> RootsSource:
    """The same source in several folders; a folder of which `validation` leaves nothing for the split is left out.

    Args:
        roots: from `name_roots`.
        split: of each folder; None as the source has it.
        options: of the source; their `validation` may name whole folders, as `held_out` describes.
        build: (folder, split, options) to a source.
        others: of further folders that the options serve, as `build_each` takes them.

    Raises:
        ConfigError: as `held_out`, or a test split where `validation` defines the other two; or units of sequences that
            no folder has.
        DataError: no folder has anything for the split. Others as `build` and `RootsSource`.
    """
    validation = options.get("validation")
    named = validation is not None and not isinstance(validation, int | float)
    held = held_out(validation, roots) if named else {}
    part = None if split in (None, "all") else canonical_split(str(split))
    if named and part == "test":
        raise ConfigError("the option validation defines the splits train and validation; there is no split 'test'")
    builds: dict[str, Build] = {}
    left_out: list[Build] = []
    for name, folder in roots.items():
        own, wanted = dict(options), split
        whole = named and not held[name]  # all of the folder is for validation, or all of it for training
        if whole:
            del own["validation"]
            wanted = "all"
        elif named:
            own["validation"] = held[name]
        each = partial(_build_without, build, str(folder), wanted, own)
        if whole and part is not None and (part == "validation") != (held[name] is None):
            left_out.append(each)
        else:
            builds[name] = each
    if not builds:
        raise DataError(f"the split {split!r} is empty: validation is {validation!r} of the folders {', '.join(roots)}")
    return RootsSource(build_each(builds, (*left_out, *others)))


def _build_without(
    build: Callable[[str, str | None, dict[str, Any]], Source],
    folder: str,
    split: str | None,
    options: Mapping[str, Any],
    patterns: Collection[str],
) -> Source:
    return build(folder, split, leave_out(options, patterns))


class RootsSource(MixtureSource):
    """Sources of one kind in several folders, every item once and in order.

    Keys are FOLDER/KEY. Each folder is split by itself, and its depth has its own unit.

    Args:
        members: name of the folder -> its source.

    Raises:
        ConfigError: sources of annotated long videos, which know one folder only.
        DataError: folders whose depth, classes or maps differ.
    """

    name = "roots"
    group_word = "sequences"
    _pair = "the folders {} and {} of data.root"

    def __init__(self, members: Mapping[str, Source]) -> None:
        long = next((name for name, source in members.items() if source.videos is not None), None)
        if long is not None:
            raise ConfigError(
                f"data.root: the source {members[long].name!r} cuts long videos and reads one folder only; give one."
            )
        nowhere = _in_vain_everywhere(members)
        super().__init__(members, [float(len(source)) for source in members.values()])
        self.notes = [*self.notes, *nowhere]
        folders = [str(source.root) for source in members.values() if source.root is not None]
        self.root = Path(os.path.commonpath(folders)) if folders else None
        # Absolute, so that lists of files name the folder in which each lies.
        self.unpaired = [
            Unpaired(str((source.root or Path()) / entry.path), entry.reason, entry.damaged)
            for source in members.values()
            for entry in source.unpaired
        ]

    def _shares(self) -> list[str]:
        counts = zip(self.members, self.counts, strict=True)
        told = ", ".join(f"{name} ({plural(count, 'item')})" for name, count in counts)
        return [f"{plural(len(self.members), 'folder')}: {told}"]

    def groups(self) -> list[str] | None:
        """FOLDER/SEQUENCE of every item; of sources without sequences, as a mixture."""
        if not all(isinstance(source, FrameSource) for source in self.members.values()):
            return super().groups()
        frames = [(name, source) for name, source in self.members.items() if isinstance(source, FrameSource)]
        return [f"{name}/{sequence}" for name, source in frames for sequence in source.sequence_names()]

    def _digest_of(self, members: Mapping[str, str]) -> str:
        # Of the folders' digests and names; where they lie does not count.
        state = [list(member) for member in members.items()]
        return hashlib.sha256(json.dumps(["roots", state]).encode()).hexdigest()


def _in_vain_everywhere(members: Mapping[str, Source]) -> list[str]:
    """Notes on what a list of several folders names and none of them has, instead of what each of them says itself."""
    by_list: dict[Path, list[tuple[FrameSource, InVain]]] = {}
    for source in members.values():
        if isinstance(source, FrameSource) and source.in_vain is not None:
            by_list.setdefault(source.in_vain.file.resolve(), []).append((source, source.in_vain))
    told = []
    for file, found in by_list.items():
        if len(found) == 1:
            continue
        for source, own in found:
            if own.entries:
                source.notes = [note.removesuffix(f"; {own.words}") for note in source.notes]
        nowhere = set.intersection(*(set(own.entries) for _, own in found))
        if nowhere:
            told.append(f"{file.name}: {InVain(file, sorted(nowhere), 'in any folder').words}")
    return told

"""Inputs from several folders: what the names of each folder's files begin with, short and distinct."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Roots:
    """The folders that inputs were looked for in, none inside of another.

    Attributes:
        names: folder -> what the names of its files begin with; empty where it is the only one.
        common: the folder that holds them all.
    """

    names: Mapping[Path, PurePosixPath]
    common: Path

    def relative(self, path: Path) -> PurePosixPath:
        """An absolute path as the output names it, suffix included."""
        root = next(root for root in self.names if path.is_relative_to(root))
        relative = self.names[root] / path.relative_to(root).as_posix()
        return relative if relative.parts else PurePosixPath(path.name)

    def rule(self) -> str | dict[str, str]:
        """What two calls into one folder must have in common, as one name must not mean two inputs; a JSON value."""
        if all((self.common / name) == root for root, name in self.names.items()):
            return str(self.common)  # names say where the files are, and other folders below it may be added
        return {str(name): str(root) for root, name in self.names.items()}

    def __str__(self) -> str:
        """For the user."""
        told = [str(root) for root in self.names]
        return " and ".join(told) if len(told) < 4 else f"{', '.join(told[:2])} and {len(told) - 2} other folders"


def name_roots(roots: Sequence[Path]) -> Roots:
    """Names for folders: as few of their last parts as tell them apart.

    Args:
        roots: folders, at least one; a folder inside of another one is named by that.
    """
    absolute = list(dict.fromkeys(Path(os.path.abspath(root)) for root in roots))
    outer = [root for root in absolute if not any(root != other and root.is_relative_to(other) for other in absolute)]
    if len(outer) == 1:
        return Roots({outer[0]: PurePosixPath()}, outer[0])
    common = Path(os.path.commonpath(outer))
    parts = {root: root.relative_to(common).parts for root in outer}
    most = max(map(len, parts.values()))
    shorter = ({root: own[-count:] for root, own in parts.items()} for count in range(1, most))
    chosen = next((names for names in shorter if _distinct(list(names.values()))), parts)
    return Roots({root: PurePosixPath(*own) for root, own in chosen.items()}, common)


def _distinct(names: Sequence[tuple[str, ...]]) -> bool:
    """Whether no name is, or begins, another one; the case of letters does not count, as on some systems' disks."""
    folded = [tuple(part.casefold() for part in name) for name in names]
    return not any(other[: len(name)] == name for name, other in permutations(folded, 2))

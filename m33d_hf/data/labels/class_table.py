"""Names of classes together with the numbers that annotations write for them.

A list of names gives the id of each class, but not the numbers used in annotation files, which may be permuted or start
at 1. Classes are therefore passed on (from training to evaluation, from a run to its output folder) as a `ClassTable`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.data.labels.name_files import read_name_file
from m33d_hf.errors import ConfigError

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.0+)?")


def number_of(text: str) -> int | None:
    """The whole number that an annotation writes for a class, also as "2.0"; None for a name."""
    return int(text.partition(".")[0]) if _WHOLE_NUMBER.fullmatch(text) else None


@dataclass(frozen=True)
class ClassTable:
    """Classes in id order, with their numbers in annotations.

    Attributes:
        names: name of each class, by id.
        numbers: stored number -> id; None where no numbers are known, so that annotations must hold names.
        assumed: True if it was not given for this data: it defines the meaning of numbers, but names in annotations
            count.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int] | None = None
    assumed: bool = False

    def onto(self, names: Sequence[str]) -> ClassTable:
        """The same numbers for classes in the order of `names`; numbers of missing names are left out."""
        order = {name: number for number, name in enumerate(names)}
        if self.numbers is None:
            return ClassTable(tuple(names))
        known = {stored: self.names[number] for stored, number in self.numbers.items()}
        return ClassTable(tuple(names), {stored: order[name] for stored, name in known.items() if name in order})

    def spelled(self) -> str:
        """`0 = second, 1 = third, 2 = first`, in the order of the numbers; empty without numbers."""
        if self.numbers is None:
            return ""
        return ", ".join(f"{stored} = {self.names[number]}" for stored, number in sorted(self.numbers.items()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        numbers = None if self.numbers is None else [[stored, number] for stored, number in self.numbers.items()]
        return {"names": list(self.names), "numbers": numbers}

    @classmethod
    def from_dict(cls, plain: Any) -> ClassTable:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: anything else.
        """
        if not isinstance(plain, Mapping) or not isinstance(plain.get("names"), list):
            raise ValueError("it is not a class table")
        names, numbers = plain["names"], plain.get("numbers")
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name is not text")
        if numbers is None:
            return cls(tuple(names))
        pairs = [tuple(pair) for pair in numbers if isinstance(pair, list) and len(pair) == 2]
        whole = all(type(value) is int for pair in pairs for value in pair)
        if len(pairs) != len(numbers) or not whole or not all(0 <= number < len(names) for _, number in pairs):
            raise ValueError("a number refers to no class")
        return cls(tuple(names), dict(pairs))


def read_class_table(given: str | Path | Sequence[str] | Mapping[int, str] | ClassTable, *roots: Path) -> ClassTable:
    """Read the class table given by the user.

    Args:
        given: names in the order of their numbers from 0; number -> name; or a file (see `read_name_file`; bare names
            are numbered from 0), as it stands or under one of the roots. Ids follow the order in which the names are
            stated.
        roots: folders of data.

    Raises:
        ConfigError: a missing file, files of that name under two roots that differ, or keys that are not integers.
        DataError: a file that gives one number to two names, or one name to two numbers.
        CorruptFileError: a file that is not text.
    """
    if isinstance(given, ClassTable):
        return given
    if isinstance(given, str | Path):
        return _read_file(given, roots)
    if isinstance(given, Mapping):
        stored = [number for key in given if (number := number_of(str(key).strip())) is not None]
        if len(stored) != len(given):
            wrong = next(key for key in given if number_of(str(key).strip()) is None)
            raise ConfigError(f"phase_names maps numbers to names, but {wrong!r} is not an integer")
        if len(set(stored)) != len(stored):
            raise ConfigError(f"phase_names has two names for one number: {dict(given)}")
        names = tuple(str(name).strip() for name in given.values())
        return ClassTable(names, {number: place for place, number in enumerate(stored)})
    return _counted([str(name).strip() for name in given])


def _counted(names: Sequence[str]) -> ClassTable:
    return ClassTable(tuple(names), {number: number for number in range(len(names))})


def _read_file(given: str | Path, roots: Sequence[Path]) -> ClassTable:
    own = Path(given).expanduser()
    # Under the data first, so that a run means the same wherever it is started.
    places = dict.fromkeys(root / own for root in roots)
    files = [place for place in places if place.is_file()] or [place for place in [own] if place.is_file()]
    if not files:
        shown = " nor ".join(f"under {root}" for root in dict.fromkeys(roots)) or "elsewhere"
        raise ConfigError(
            f"phase_names={str(given)!r} was not found as a file {shown}, nor in the current folder; to give a list of "
            "names, write it in brackets: --data.options.phase_names '[Preparation, ClippingCutting]'"
        )
    tables = {file: _table_in(file) for file in files}
    first = next(iter(tables))
    for file, table in tables.items():
        if table != tables[first]:
            raise ConfigError(
                f"phase_names={str(given)!r} is {first} and {file}, which differ ({tables[first].spelled()} there, "
                f"{table.spelled()} here); give the full path, and if evaluation data is numbered differently, also "
                "pass --data.eval_options.phase_names"
            )
    return tables[first]


def _table_in(file: Path) -> ClassTable:
    stated = read_name_file(file)
    return _counted(stated.names) if stated.numbers is None else ClassTable(stated.names, stated.numbers)

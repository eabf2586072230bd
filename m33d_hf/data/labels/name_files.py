"""Files that name classes: bare names, or names with the numbers that stand for them in labels and annotations."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.data.files.text_files import read_text
from m33d_hf.errors import CorruptFileError, DataError

VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "invalid", "background/void"}
_BEFORE = re.compile(r"(?P<number>-?[0-9]{1,18})(?:\s*[\t,;:]\s*|\.?\s+)(?P<name>\S.*)")
_BEHIND = re.compile(r"(?P<name>\S.*?)\s*[\t,;]\s*(?P<number>-?[0-9]{1,18})")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NAME_COLUMNS = ("name", "class_name", "classname", "class", "category", "phase", "label")


@dataclass(frozen=True)
class StatedNames:
    """The classes named in a file.

    Attributes:
        names: of the classes, as the file orders them.
        numbers: stored number -> id, the place in `names`; None where the file holds bare names.
        void: stored numbers whose name says that they are not a class.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int] | None = None
    void: tuple[int, ...] = ()


def read_name_file(file: Path) -> StatedNames:
    """Read bare names, one a line; number and name a line, in either order; a table with a header; or JSON (a list of
    names, number -> name or name -> number). Lines that begin with "# " are remarks.

    Raises:
        DataError: a number with two names, a name with two numbers, numbers on some lines only, no name at all.
        CorruptFileError: a file that is neither text nor JSON.
    """
    text = read_text(file)
    if file.suffix.lower() == ".json":
        return _of_json(text, file)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not re.match(r"#(\s|$)", line)]
    if not lines:
        raise DataError(f"{file} is empty; write one name, or a number and a name, per line")
    if lines[0][1][0] in "{[":
        raise DataError(
            f"{file} looks like JSON; rename it to .json, or write one name, or a number and a name, per line"
        )
    columns = _of_columns(lines)
    if columns is not None:
        return _numbered(columns, file)
    for form in (_BEFORE, _BEHIND):
        matches = [form.fullmatch(line) for _, line in lines]
        if form is _BEHIND and not all(matches[1:]):
            continue  # a name may end in a comma and a number; where all do, it is a table
        if any(matches):
            return _numbered(_of_lines(lines, matches, file), file)
    return StatedNames(tuple(line for _, line in lines))


def _of_lines(
    lines: Sequence[tuple[int, str]], matches: Sequence[re.Match[str] | None], file: Path
) -> Iterator[tuple[str, int, str]]:
    """(where, number, name) of every line below a header."""
    for place, ((line, text), match) in enumerate(zip(lines, matches, strict=True)):
        if match is None and place == 0 and re.search(r"[\t,;]", text):
            continue  # a header
        if match is None:
            raise DataError(
                f"{file}, line {line}: {text!r} has no number, but other lines have; number all lines or none"
            )
        yield f"line {line}", int(match["number"]), match["name"]


def _of_columns(lines: Sequence[tuple[int, str]]) -> list[tuple[str, int, str]] | None:
    """The rows of a table of three columns or more whose header tells the names; None of any other file."""
    mark = next((mark for mark in "\t,;" if mark in lines[0][1]), None)
    if mark is None or len(lines) < 2:
        return None
    try:
        rows = list(csv.reader([line for _, line in lines], delimiter=mark, skipinitialspace=True))
    except csv.Error:
        return None
    header = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
    if len(header) < 3 or len(rows) != len(lines) or any(len(row) != len(header) for row in rows):
        return None
    numbers = [i for i in range(len(header)) if all(_WHOLE.fullmatch(row[i].strip()) for row in rows[1:])]
    named = [header.index(name) for name in _NAME_COLUMNS if name in header and header.index(name) not in numbers]
    if not numbers or not named or _WHOLE.fullmatch(header[numbers[0]]):
        return None
    found = zip(lines[1:], rows[1:], strict=True)
    return [(f"line {line}", int(row[numbers[0]]), row[named[0]].strip()) for (line, _), row in found]


def _of_json(text: str, file: Path) -> StatedNames:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(file, f"is not valid JSON ({error})") from error
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        return StatedNames(tuple(name.strip() for name in given))
    if isinstance(given, dict) and given:
        pairs = [_pair(key, value) for key, value in given.items()]
        if None not in pairs:
            rows = [pair for pair in pairs if pair is not None]
            return _numbered([(f"{name!r}", number, name) for number, name in rows], file)
    raise DataError(f'{file}: holds no names; write ["wall", "floor"], {{"1": "wall"}} or {{"wall": 1}}')


def _pair(key: str, value: Any) -> tuple[int, str] | None:
    """(number, name) of an entry of a JSON object, whichever is the key."""
    if isinstance(value, str) and _WHOLE.fullmatch(key.strip()):
        return int(key), value.strip()
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18
    return (value, key.strip()) if whole and key.strip() else None


def _numbered(rows: Sequence[tuple[str, int, str]] | Iterator[tuple[str, int, str]], file: Path) -> StatedNames:
    """Check and sort out (where, number, name)."""
    names: dict[str, int] = {}
    numbers: dict[int, int] = {}
    void: list[int] = []
    for where, stored, name in rows:
        name = name.strip("\"'").strip() or name
        if stored in numbers or stored in void:
            raise DataError(f"{file}, {where}: the number {stored} already has a name; give every number one name")
        if name in names:
            raise DataError(f"{file}, {where}: {name!r} already has a number; give every name its own")
        if name.casefold() in VOID_NAMES:  # its number then belongs to no class
            void.append(stored)
        else:
            numbers[stored] = names[name] = len(names)
    if not names:
        raise DataError(f"{file} does not name any class")
    return StatedNames(tuple(names), numbers, tuple(void))

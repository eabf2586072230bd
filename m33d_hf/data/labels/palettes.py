"""Palette files: which colour stands for which class in colour-coded label maps."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.labels.name_files import VOID_NAMES
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, CorruptFileError, LabelError

_COLUMNS = {
    "name": ("name", "class", "label", "class_name", "category", "classes", "title"),
    "id": ("train_id", "trainid", "id", "index", "class_id", "classid", "label_id", "value"),
    "hex": ("hex", "color", "colour", "rgb"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_FORMS = (
    "A palette has lines 'R G B name', 'name R G B' or '#RRGGBB name'; or is a table with the columns name, r, g, b "
    '(and id); or JSON such as {"road": [128, 64, 128]}. R, G and B are integers from 0 to 255.'
)
_ANNOTATED = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+):[^:]*:[^:]*")  # label:color_rgb:parts:actions
_SHOWN = 6


class Entry(NamedTuple):
    """One colour: (R, G, B), and name and number where they are given."""

    colour: tuple[int, int, int]
    name: str | None = None
    number: int | None = None


class Palette:
    """Colours of classes 0 .. C - 1, and colours without a class.

    Args:
        entries: in the order of the classes, or with numbers that say it. A name such as "void" or "unlabelled", or the
            number -1 or 255, stands for no class.

    Attributes:
        names: of the classes; None where the entries have none.
        num_classes: C.

    Raises:
        ConfigError: colours or names given twice, some entries without name or number, no class at all.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for what in ("name", "number"):
            given = [getattr(entry, what) is not None for entry in entries]
            if any(given) and not all(given):
                lacking = given.index(False) + 1
                raise ConfigError(f"The palette: entry {lacking} has no {what} but others have one. {_FORMS}")
        classes = [entry for entry in entries if not _is_void(entry)]
        if classes and classes[0].number is not None:
            classes.sort(key=lambda entry: entry.number or 0)
        for what in ("name", "number"):
            _refuse_twice(what, [getattr(entry, what) for entry in classes])
        _refuse_twice("colour", [entry.colour for entry in dict.fromkeys(entries)])
        if not 1 <= len(classes) <= IGNORE_INDEX:
            raise ConfigError(f"The palette has {len(classes)} classes; label maps hold 1 to {IGNORE_INDEX}. {_FORMS}")
        self.num_classes = len(classes)
        named = [entry.name for entry in classes if entry.name is not None]
        self.names = named or None
        ids = {_packed(entry.colour): IGNORE_INDEX for entry in entries}
        ids.update({_packed(entry.colour): number for number, entry in enumerate(classes)})
        self._codes = np.array(sorted(ids), dtype=np.int32)
        self._ids = np.array([ids[int(code)] for code in self._codes], dtype=np.uint8)

    def class_ids(self, colours: np.ndarray, where: object, unmapped: str) -> np.ndarray:
        """Colours (H, W, 3) uint8 -> class ids (H, W) uint8, 255 without a class.

        Args:
            colours: of a label map.
            where: names it in errors.
            unmapped: "refuse", or "ignore" for colours that the palette does not hold.

        Raises:
            LabelError: colours that are not in the palette; names the most common ones with their pixel counts.
        """
        wide = colours.astype(np.int32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[place] == codes
        ids = self._ids[place]
        if known.all():
            return ids
        if unmapped != "ignore":
            raise LabelError(self._unknown(codes[~known], codes.size, where))
        return np.where(known, ids, np.uint8(IGNORE_INDEX))

    def _unknown(self, codes: np.ndarray, pixels: int, where: object) -> str:
        values, counts = np.unique(codes, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_SHOWN]
        shown = ", ".join(f"{_unpacked(int(values[i]))} in {counts[i]} pixels" for i in order)
        more = f" and {len(values) - _SHOWN} more colours" if len(values) > _SHOWN else ""
        return (
            f"{where}: {len(codes)} of {pixels} pixels have a colour that is not in the palette: {shown}{more}. "
            "Complete the palette, or pass --data.options.label_unmapped ignore if they have no class. JPEG and "
            "resizing with interpolation mix colours: do not use them for label maps."
        )

    def to_dict(self) -> dict[str, int]:
        """Colour as "#rrggbb" -> class id; what a source's digest depends on."""
        return {f"#{int(code):06x}": int(number) for code, number in zip(self._codes, self._ids, strict=True)}


def read_palette(given: str | Path | Mapping[Any, Any] | Sequence[Any]) -> Palette:
    """A palette from a file (JSON, a table with a header, or lines of colour and name), or from JSON's content.

    Raises:
        CorruptFileError: a file that is neither text nor JSON.
        ConfigError: content that is not a palette; says which entry.
    """
    if not isinstance(given, str | Path):
        return Palette(_entries_of_json(given, "the palette"))
    path = Path(given)
    text = read_text(path)
    if path.suffix.lower() == ".json":
        try:
            return Palette(_entries_of_json(json.loads(text), path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise CorruptFileError(path, f"is not valid JSON ({error})") from error
    return Palette(_entries_of_text(text, path))


def _is_void(entry: Entry) -> bool:
    return (entry.name or "").strip().lower() in VOID_NAMES or entry.number in (-1, IGNORE_INDEX)


def _refuse_twice(what: str, values: Sequence[Any]) -> None:
    for value in values:
        if value is not None and values.count(value) > 1:
            raise ConfigError(
                f"The palette holds the {what} {value!r} twice; give every class its own name and colour."
            )


def _packed(colour: tuple[int, int, int]) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _unpacked(code: int) -> tuple[int, int, int]:
    return code >> 16, (code >> 8) & 255, code & 255


def _colour(value: Any) -> tuple[int, int, int] | None:
    """(R, G, B) of "#RRGGBB", "R, G, B", "(R, G, B)" or three numbers; None of anything else."""
    if isinstance(value, str):
        found = _HEX.fullmatch(value.strip())
        if found is not None and (value.strip().startswith("#") or not value.strip().isdigit()):
            return _unpacked(int(found[1], 16))
        value = re.split(r"[\s,;]+", value.strip().strip("()[]").strip())
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    numbers = [_whole(part) for part in value]
    red, green, blue = (-1 if number is None else number for number in numbers)
    return (red, green, blue) if all(0 <= each <= 255 for each in (red, green, blue)) else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,6}", value.strip()) else None


def _entries_of_json(content: Any, where: object) -> list[Entry]:
    if isinstance(content, Mapping):
        rows = [_entry_of_pair(str(key), value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        rows = [_entry_of_row(row) for row in content]
    else:
        raise ConfigError(f"{where} holds {type(content).__name__}. {_FORMS}")
    for number, row in enumerate(rows):
        if row is None:
            raise ConfigError(f"{where}: entry {number + 1} is not a colour with a name. {_FORMS}")
    return [row for row in rows if row is not None]


def _entry_of_pair(key: str, value: Any) -> Entry | None:
    """{"road": [128, 64, 128]}, {"0": [128, 64, 128]}, {"#804080": "road"}, {"128, 64, 128": 0}, or {"0": {"name": ...,
    "color": ...}}; a whole number is the number of a class, never its name."""
    colour, whole = _colour(value), _whole(key)
    if colour is not None:
        return Entry(colour, key) if whole is None else Entry(colour, None, whole)
    if isinstance(value, str | int) and (colour := _colour(key)) is not None:
        whole = _whole(value)
        return Entry(colour, str(value)) if whole is None else Entry(colour, None, whole)
    if isinstance(value, Mapping):
        return _entry_of_row({**({"name": key} if whole is None else {"id": whole}), **value})
    return None


def _entry_of_row(row: Any) -> Entry | None:
    if not isinstance(row, Mapping):
        colour = _colour(row)
        return None if colour is None else Entry(colour)
    cells = {what: _cell(row, names) for what, names in _COLUMNS.items()}
    colour = _colour(cells["hex"]) if cells["hex"] is not None else _colour([cells[c] for c in "rgb"])
    if colour is None or not isinstance(cells["name"], str | None):
        return None
    number = None if cells["id"] is None else _whole(cells["id"])
    if cells["id"] is not None and number is None:
        return None
    return Entry(colour, cells["name"].strip() if cells["name"] is not None else None, number)


def _cell(row: Mapping[Any, Any], names: Sequence[str]) -> Any:
    """The first of `names` that a row has, whatever its capitals."""
    lowered = {str(key).strip().lower().replace(" ", "_"): value for key, value in row.items()}
    return next((lowered[name] for name in names if name in lowered), None)


def _entries_of_text(text: str, path: Path) -> list[Entry]:
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"\s*#(?![0-9a-fA-F]{6}\b)", line)]
    if not lines:
        raise ConfigError(f"{path} has no colours. {_FORMS}")
    mark = next((mark for mark in "\t,;" if mark in lines[0]), None)
    header = [cell.strip().lower().replace(" ", "_") for cell in _cells(lines[0], mark)]
    if any(name in header for name in _COLUMNS["r"]) or (mark and any(name in header for name in _COLUMNS["hex"])):
        rows = [dict(zip(header, _cells(line, mark), strict=False)) for line in lines[1:]]
        found = [_entry_of_row(row) for row in rows]
        lines = lines[1:]
    else:
        found = [_entry_of_line(line) for line in lines]
    for line, entry in zip(lines, found, strict=True):
        if entry is None:
            raise ConfigError(f"{path}: {line.strip()[:80]!r} is not a colour with a name. {_FORMS}")
    return [entry for entry in found if entry is not None]


def _cells(line: str, mark: str | None) -> list[str]:
    if mark is None:
        return line.split()
    try:
        return next(csv.reader(io.StringIO(line), delimiter=mark, skipinitialspace=True), [])
    except csv.Error:
        return []


def _entry_of_line(line: str) -> Entry | None:
    """A colour at the start or at the end of a line, and the rest as its name; None where that is not clear.

    Before a name and a colour, `0 road 128 64 128`, a whole number is the number of the class. More than three numbers
    at the start of a line, or a fourth after or before a colour that could be its transparency, are not clear.
    """
    annotated = _ANNOTATED.fullmatch(line.strip())
    if annotated is not None:
        colour = _colour(annotated["colour"])
        return None if colour is None else Entry(colour, annotated["name"].strip())
    words = [word for word in re.split(r"[\s,;]+", line.strip()) if word]
    found = set()
    for length in (1, 3):
        for start in {0, max(0, len(words) - length)}:
            part = words[start : start + length]
            hexadecimal = length == 1 and part[0].startswith("#")
            colour = _colour(part[0] if hexadecimal else part)
            if colour is not None:
                found.add(_named(colour, words[:start], words[start + length :]))
    return found.pop() if len(found) == 1 else None


def _named(colour: tuple[int, int, int], before: list[str], behind: list[str]) -> Entry | None:
    """An entry of a colour and the words around it; None where a number beside it may be part of the colour."""
    words = before or behind
    if behind and _whole(behind[0]) is not None:
        return None  # R G B A name
    if len(before) > 1 and _whole(before[0]) is not None:
        return None if _whole(before[-1]) is not None else Entry(colour, " ".join(before[1:]), _whole(before[0]))
    return Entry(colour, " ".join(words) or None)

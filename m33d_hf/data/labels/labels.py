"""Turns stored label values into class ids 0 .. C - 1 and 255 = ignore, and refuses values that are neither."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.files.text_files import read_text
from m33d_hf.data.labels.label_pictures import read_colours, read_numbers
from m33d_hf.data.labels.name_files import VOID_NAMES, read_name_file
from m33d_hf.data.labels.palettes import Palette, read_palette
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, CorruptFileError, LabelError, nearest_name_hint

# In tables, of stored values without a class; where there are 255 classes also the last of them.
_REFUSED = 254


def _existing(path: str | Path, root: Path) -> Path:
    for candidate in stated_places(root, path):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError) as error:
            raise ConfigError(f"{str(path)[:80]!r} is not the name of a file ({error})") from error
    raise ConfigError(f"file {str(path)!r} was found neither in {root} nor in the current folder")


def read_label_map(value: Mapping[Any, Any] | Sequence[int] | str | Path, root: Path) -> dict[int, int]:
    """Stored value -> class id, from a mapping, a list (position = class) or a file of either (JSON or text)."""
    given: Any = _read_map_file(_existing(value, root)) if isinstance(value, str | Path) else value
    try:
        if isinstance(given, Mapping):
            return {int(stored): int(class_id) for stored, class_id in given.items()}
        return {int(stored): class_id for class_id, stored in enumerate(given)}
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"label_map must map stored values to class ids, both integers ({error})") from error


def _read_map_file(path: Path) -> Any:
    """JSON as it is; text as a list of its first column, or a mapping when every line holds two numbers."""
    text = read_text(path)
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise CorruptFileError(path, f"is not valid JSON ({error})") from error
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    pairs = all(len(row) == 2 and row[1].removeprefix("-").isdecimal() for row in rows)
    return {row[0]: row[1] for row in rows} if pairs else [row[0] for row in rows]


class LabelRules:
    """How stored label values become class ids.

    A stored value in `ignore` (and 255) becomes 255; otherwise `mapping`, or without one `value - offset`, gives
    the class id, which must lie in 0 .. num_classes - 1.

    Args:
        num_classes: C, at most 255 (255 means ignore).
        names: class names in id order, or None.
        offset: subtracted from stored values; 1 for labels that count from one.
        ignore: stored values without a class.
        mapping: stored value -> class id; excludes `offset`.
        unmapped: `refuse` or `ignore` stored values that `mapping`, or colours that `palette`, does not hold.
        palette: labels are colours; excludes `offset`, `ignore` and `mapping`.
    """

    def __init__(
        self,
        num_classes: int,
        names: list[str] | None = None,
        offset: int = 0,
        ignore: Iterable[int] = (),
        mapping: Mapping[int, int] | None = None,
        unmapped: str = "refuse",
        palette: Palette | None = None,
    ) -> None:
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ConfigError(f"num_classes is {num_classes}; label maps can hold 1 to {IGNORE_INDEX} classes")
        if mapping is not None and offset:
            raise ConfigError("give label_map or label_offset, not both")
        if unmapped not in ("refuse", "ignore"):
            raise ConfigError(f"label_unmapped is {unmapped!r}; it must be 'refuse' or 'ignore'")
        if mapping and not all(0 <= i < num_classes or i == IGNORE_INDEX for i in mapping.values()):
            raise ConfigError(f"label_map has class ids outside 0 .. {num_classes - 1}: {dict(mapping)}")
        self.num_classes = num_classes
        self.names = names
        self.offset = offset
        self.ignore = frozenset(int(value) for value in ignore)
        self.mapping = None if mapping is None else dict(mapping)
        self.unmapped = unmapped
        self.palette = palette
        self._table: bytes | None = None

    def read(self, path: Path) -> np.ndarray:
        """The class ids (H, W) uint8 of a label map's file.

        Raises:
            CorruptFileError: missing, truncated or undecodable.
            LabelError: values or colours outside the classes.
        """
        return self.read_both(path)[1]

    def read_both(self, path: Path) -> tuple[np.ndarray | None, np.ndarray]:
        """The stored values of a label map's file, None where they are colours, and its class ids; raises as `read`."""
        if self.palette is not None:
            return None, self.palette.class_ids(read_colours(path), path, self.unmapped)
        stored = read_numbers(path)
        return stored, self.apply(stored, path)

    @property
    def ignores_255_silently(self) -> bool:
        """Whether a stored 255 is ignored although no option mentions it."""
        return self.palette is None and IGNORE_INDEX not in self.ignore and IGNORE_INDEX not in (self.mapping or {})

    def apply(self, stored: np.ndarray, where: object) -> np.ndarray:
        """Stored (H, W) -> (H, W) uint8.

        Raises:
            LabelError: values outside the classes; names `where` and the histogram.
        """
        if stored.dtype.kind == "f":
            raise LabelError(f"{where}: labels are stored as {stored.dtype}; they must be integers")
        looked_up = self._look_up(stored) if stored.dtype == np.uint8 else None
        return self._searched(stored, where) if looked_up is None else looked_up

    def _look_up(self, stored: np.ndarray) -> np.ndarray | None:
        """`apply` of uint8 by a table, a fiftieth of the time of sorting; None where a value is or may be refused."""
        if self._table is None:
            ids = [self._class_of(value) for value in range(256)]
            self._table = bytes(_REFUSED if each < 0 else each for each in ids)
        values = bytearray(np.ascontiguousarray(stored)).translate(self._table)
        return None if _REFUSED in values else np.frombuffer(values, np.uint8).reshape(stored.shape)

    def _searched(self, stored: np.ndarray, where: object) -> np.ndarray:
        values, inverse, counts = np.unique(stored, return_inverse=True, return_counts=True)
        ids = np.array([self._class_of(int(value)) for value in values])
        if (ids < 0).any():
            wrong = [int(value) for value in values[ids < 0]]
            histogram = ", ".join(f"{value}: {count}" for value, count in zip(values, counts))
            raise LabelError(
                f"{where}: label values {_short(wrong)} are outside the {self.num_classes} classes"
                f"{f' (label_offset {self.offset})' if self.offset else ''} and not ignored. Pixels per stored "
                f"value: {{{_short_text(histogram)}}}. Set num_classes, label_offset (1 if labels count from one), "
                "label_ignore (values without a class, for example 0 = void) or label_map."
            )
        return ids.astype(np.uint8)[inverse].reshape(stored.shape)

    def _class_of(self, value: int) -> int:
        """Class id of a stored value, 255 = ignore, -1 = refused."""
        if value in self.ignore or (value == IGNORE_INDEX and value not in (self.mapping or {})):
            return IGNORE_INDEX
        if self.mapping is not None:
            return self.mapping.get(value, IGNORE_INDEX if self.unmapped == "ignore" else -1)
        class_id = value - self.offset
        return class_id if 0 <= class_id < self.num_classes else -1

    def to_dict(self) -> dict[str, Any]:
        """The values that enter the digest of a source."""
        mapping = None if self.mapping is None else sorted(self.mapping.items())
        if self.palette is not None:
            return {"palette": self.palette.to_dict(), "unmapped": self.unmapped}
        return {
            "num_classes": self.num_classes,
            "offset": self.offset,
            "ignore": sorted(self.ignore),
            "mapping": mapping,
            "unmapped": self.unmapped,
        }


def _short(values: list[int]) -> str:
    return str(values) if len(values) <= 12 else f"{values[:12]} and {len(values) - 12} more"


def _short_text(text: str, limit: int = 600) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."


def build_label_rules(
    root: Path,
    num_classes: int | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    label_offset: int = 0,
    label_ignore: Iterable[int] | int = (),
    label_map: Mapping[Any, Any] | Sequence[int] | str | Path | None = None,
    label_unmapped: str = "refuse",
    palette: Mapping[Any, Any] | Sequence[Any] | str | Path | None = None,
) -> LabelRules | None:
    """Rules from a source's options; None if the number of classes is not given.

    Args:
        root: of the data, under which files are looked for too.
        num_classes, label_offset, label_ignore, label_unmapped: see `LabelRules`.
        class_names: a list, or a file (see `read_name_file`), whose numbers are the stored values.
        label_map: see `read_label_map`.
        palette: see `read_palette`.

    Raises:
        ConfigError: options that contradict each other.
    """
    label_ignore = () if label_ignore is None else label_ignore
    _check_options(num_classes, class_names, label_offset, label_ignore)
    if palette is not None:
        if label_map is not None or label_offset or label_ignore not in ((), []):
            raise ConfigError(
                "give either palette, or label_map, label_offset and label_ignore; in a palette, name a colour without "
                "a class void"
            )
        return _rules_of_palette(root, palette, num_classes, class_names, label_unmapped)
    mapping: Mapping[int, int] | None = None if label_map is None else read_label_map(label_map, root)
    ignore = [label_ignore] if isinstance(label_ignore, int) else list(label_ignore)
    names: list[str] | None = None
    if isinstance(class_names, str | Path):
        stated = read_name_file(_existing(class_names, root))
        names = list(stated.names)
        if mapping is None and not label_offset and num_classes in (None, len(names)):
            mapping, ignore = stated.numbers, [*ignore, *stated.void]
    elif class_names is not None:
        names = [str(name) for name in class_names]
    if num_classes is None:
        if names is not None:
            num_classes = len(names)
        elif mapping:
            num_classes = 1 + max((i for i in mapping.values() if i != IGNORE_INDEX), default=0)
        else:
            return None
    if names is not None and len(names) != num_classes:
        raise ConfigError(f"num_classes is {num_classes}, but class_names holds {plural(len(names), 'name')}")
    return LabelRules(num_classes, names, label_offset, ignore, mapping, label_unmapped)


def without_classes(rules: LabelRules | None, ignored: str | Sequence[str | int] | None) -> LabelRules | None:
    """Rules without some classes: their pixels become 255, and the classes that stay are numbered anew, in order.

    Args:
        rules: None stays None.
        ignored: names or ids, as text with commas or as a list; None for none.

    Raises:
        ConfigError: no rules to take classes from, a palette, an unknown class, or none left.
    """
    if ignored is None:
        return rules
    if rules is None:
        raise ConfigError("ignore_classes needs one of num_classes, class_names and label_map")
    if rules.palette is not None:
        raise ConfigError("ignore_classes does not go with palette: name those colours without a class void there")
    words = ignored.split(",") if isinstance(ignored, str) else list(ignored)
    known = rules.names or [str(number) for number in range(rules.num_classes)]
    words = [word for word in (str(word).strip() for word in words) if word]
    # A file of names may hold "void", which is no class anyway.
    gone = {_class_number(word, known) for word in words if word in known or word.casefold() not in VOID_NAMES}
    kept = [number for number in range(rules.num_classes) if number not in gone]
    if not kept:
        raise ConfigError(f"ignore_classes names all {rules.num_classes} classes")
    anew = {old: new for new, old in enumerate(kept)}
    stored = {number + rules.offset: number for number in range(rules.num_classes)}
    stored = {value: number for value, number in stored.items() if value != IGNORE_INDEX and value not in rules.ignore}
    before = stored if rules.mapping is None else rules.mapping
    mapping = {value: anew.get(number, IGNORE_INDEX) for value, number in before.items()}
    names = None if rules.names is None else [rules.names[number] for number in kept]
    return LabelRules(len(kept), names, 0, rules.ignore, mapping, rules.unmapped)


def _class_number(word: str, names: Sequence[str]) -> int:
    """Id of a class by its name, or by the id itself."""
    if word in names:
        return list(names).index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise ConfigError(
        f"ignore_classes names {word!r}, which is none of the {len(names)} classes.{nearest_name_hint(word, names)}"
    )


def _check_options(num_classes: Any, class_names: Any, label_offset: Any, label_ignore: Any) -> None:
    """Raise a ConfigError for values of another kind than the option's."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31

    if not (num_classes is None or whole(num_classes)) or not whole(label_offset):
        raise ConfigError(f"num_classes {num_classes!r} and label_offset {label_offset!r} must be integers")
    several = isinstance(label_ignore, Iterable) and not isinstance(label_ignore, str | Mapping)
    if not (all(whole(value) for value in label_ignore) if several else whole(label_ignore)):
        raise ConfigError(f"label_ignore is {label_ignore!r}; it must be a stored value or a list of them")
    if class_names is not None and not isinstance(class_names, str | Path | Sequence):
        raise ConfigError(f"class_names is {class_names!r}; it must be a list of names or the file that holds them")


def _rules_of_palette(
    root: Path,
    given: Mapping[Any, Any] | Sequence[Any] | str | Path,
    num_classes: int | None,
    class_names: str | Path | Sequence[str] | None,
    unmapped: str,
) -> LabelRules:
    palette = read_palette(_existing(given, root) if isinstance(given, str | Path) else given)
    names = palette.names
    if class_names is not None:
        if names is not None:
            raise ConfigError(
                "the palette already names its classes; leave class_names out, or remove the names from the palette"
            )
        if isinstance(class_names, str | Path):
            names = list(read_name_file(_existing(class_names, root)).names)
        else:
            names = [str(name) for name in class_names]
    for what, count in (("num_classes is", num_classes), ("class_names holds", names and len(names))):
        if count is not None and count != palette.num_classes:
            raise ConfigError(f"{what} {count}, but the palette has {palette.num_classes} classes (without void)")
    return LabelRules(palette.num_classes, names, unmapped=unmapped, palette=palette)


def check_label_files(files: Iterable[Path], rules: LabelRules) -> None:
    """Read some label maps before the first step, so that a wrong class count is found at the start.

    Raises:
        LabelError: values outside the classes. Unreadable files are skipped here and reported by the reader.
    """
    for file in files:
        try:
            rules.read(file)
        except CorruptFileError:
            continue

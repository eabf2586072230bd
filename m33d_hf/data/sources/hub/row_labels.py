"""Class numbers of the rows of a table by others: which column holds them, and what a value of it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m33d_hf.data.sources.hub.columns import Columns, Rows
from m33d_hf.errors import ConfigError, LabelError

_LOOKED_AT = 16  # rows, for one that has a label
_SHOWN = 40
_WAY_OUT = "To read none, pass --data.options.label none."


def class_of(value: Any, column: str | None, where: Callable[[int], Path], row: int) -> int | None:
    """The class number that a row holds; None of a row without one.

    Args:
        value: of the column.
        column: its name.
        where: a row, for messages; it is only asked for one, as finding it takes longer than all else here.
        row: number of the row.

    Raises:
        LabelError: of `where`: something else than a whole number.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    number = _whole(value)
    if number is None:
        told = f"the column {column!r} holds {_shown(value)}, which is no class number. {_WAY_OUT}"
        raise LabelError(f"{where(row)}: {told}")
    return number


def settle_label(
    rows: Rows, columns: Columns, stated: Mapping[str, str | None], names: Sequence[str] | None, root: str | Path
) -> tuple[Columns, list[str]]:
    """The columns without one of labels that holds text or pictures, if nobody asked for it; and a note that says so.

    Args:
        rows: the table.
        columns: as chosen.
        stated: option -> what the user says.
        names: of the classes, which the user states.
        root: for messages.

    Raises:
        ConfigError: the column that the user names, or has named the classes of, holds no class numbers.
    """
    column = columns.label
    if column is None or (wrong := _no_number(rows, column)) is None:
        return columns, []
    if stated.get("label") != "auto" or names is not None:
        raise ConfigError(f"{root}: the column {column!r} (label) holds {wrong}, which is no class number. {_WAY_OUT}")
    return replace(columns, label=None), [f"the column {column!r} is not read: it holds {wrong}, no class numbers"]


def _no_number(rows: Rows, column: str) -> str | None:
    """What the column holds, if these are no whole numbers."""
    schema = getattr(rows, "schema", None)
    if schema is not None:
        import pyarrow.types as kinds

        kind = schema.field(column).type
        if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
            return "pictures or lists"  # which are not fetched for this
    for row in range(min(len(rows), _LOOKED_AT)):
        value = rows.read([row], [column])[0].get(column)
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            return None if _whole(value) is not None else _shown(value)
    return None


def _whole(value: Any) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _shown(value: Any) -> str:
    if isinstance(value, bytes | bytearray) and not value.isascii():
        return "a picture or other bytes"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

"""Tables as CSV: the only place that decides how a table of results is written."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any


def csv_text(header: Sequence[Any], rows: Iterable[Sequence[Any]], digits: int | None = None) -> str:
    """A table as CSV: commas, quotes where they are needed, a line feed after every line.

    Args:
        header: names of the columns.
        rows: values, as long as the header each.
        digits: decimals of floating-point numbers, of which NaN is an empty cell; None writes them as Python does.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows if digits is None else ([_rounded(value, digits) for value in row] for row in rows))
    return text.getvalue()


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):  # numpy's float64 is one
        return "" if math.isnan(value) else f"{value:.{digits}f}"
    return value

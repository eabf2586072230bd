"""A model's figures beside those of predictions that look at nothing, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_TITLE = "on the evaluation data"
_NARROWEST = 8  # letters of a column


def floor_table(names: Sequence[str], rows: Mapping[str, Sequence[float]]) -> list[str]:
    """A heading and a line for each row, in columns.

    Args:
        names: of the metrics.
        rows: whose figures -> a figure per metric.
    """
    lines = {_TITLE: list(names)} | {title: [f"{value:.3f}" for value in values] for title, values in rows.items()}
    wide = max(map(len, lines))
    widths = [max(_NARROWEST, len(name)) for name in names]
    return [
        "  ".join([title.ljust(wide), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for title, cells in lines.items()
    ]

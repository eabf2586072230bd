"""Pictures of tables and answers, drawn from results.json alone. Bars are 95 % intervals of differences, and ranges of
seeds where levels are shown; every caption says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from m33d_hf.errors import MissingDependencyError
from m33d_hf.experiments.report.answers import answers
from m33d_hf.experiments.report.contrasts import Difference, Pair, compare_family
from m33d_hf.experiments.report.results import (
    Results,
    TableEntry,
    cell,
    column_entry,
    cost,
)
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.document import Paragraph, Picture
from m33d_hf.visualization.seeds import Seeds, grid_figure, lines_figure, rows_figure, scatter_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple["Figure", str]
DOTS = "Circles: seeds; diamond: their mean; bar: from the least to the most seed."
INTERVALS = (
    "Circles: seeds, paired; diamond and bar: the difference and its 95 % interval, before Holm's adjustment, with the"
    " noise of all rows of the column."
)
RATIOS = re.compile(r"(\d?\.\d+)\s*/\s*(\d?\.\d+)")
MOST_PANELS = 3
TERA = 1e12
FLOOR = "trivial floor"


def draw(folder: Path, name: str, drawn: Drawn | None) -> list[Picture]:
    """Save as `folder`/figures/`name`.png; nothing where there is nothing to draw."""
    if drawn is None:
        return []
    figure, caption = drawn
    return [Picture(save_figure(figure, folder / "figures" / f"{name}.png"), caption)]


def all_pictures(results: Results, folder: Path) -> dict[str, list[Picture | Paragraph]]:
    """Table id, or "answers" -> its pictures. Without matplotlib (a bare GPU machine) one paragraph says so instead."""
    try:
        found: dict[str, list[Picture | Paragraph]] = {
            table["id"]: [*table_pictures(results, table, folder)] for table in results["tables"]
        }
        return {**found, "answers": [*draw(folder, "answers", answers_picture(results))]}
    except MissingDependencyError as error:
        words = (
            f"There are no pictures here: {error}. `--report_only` draws them from results.json where it is installed."
        )
        return {"answers": [Paragraph(words, "warning")]}


def table_pictures(results: Results, table: TableEntry, folder: Path) -> list[Picture]:
    """What belongs beside a table: lines for numbers of labels, a grid for mask ratios, rows of dots for the rest."""
    makers: list[tuple[str, Callable[[Results, TableEntry], Drawn | None]]] = [(table["id"], rows_of)]
    if table["id"] == "figure_2":
        makers = [(table["id"], lines_over_labels)]
    elif len(_ratios(table)) > 3:
        makers.append((f"{table['id']}_grid", ratio_grid))
    elif table["id"] in ("table_8", "parts"):
        makers.append((f"{table['id']}_differences", differences_to_first))
    if table["id"] in ("table_3", "parts"):
        makers.append((f"{table['id']}_cost", cost_and_quality))
    return [picture for name, make in makers for picture in draw(folder, name, make(results, table))]


def _title(results: Results, column: str) -> str:
    return str(column_entry(results, column)["title"])


def _levels(results: Results, columns: list[str]) -> dict[str, tuple[str, float]]:
    entries = [column_entry(results, name) for name in columns]
    return {e["title"]: (FLOOR, 100 * e["floor"]) for e in entries if e.get("floor") is not None}


def rows_of(results: Results, table: TableEntry) -> Drawn | None:
    """A row of dots per row of the table, a panel per column."""
    panels = {
        _title(results, name): [Seeds(r["label"], cell(results, r["variant"], name).values) for r in table["rows"]]
        for name in table["columns"]
    }
    if not any(row.values for rows in panels.values() for row in rows):
        return None
    split = column_entry(results, table["columns"][0])["split"]
    figure = rows_figure(panels, f"percent, {split} split", _levels(results, table["columns"]))
    return figure, f"{table['title']}. {DOTS}"


def lines_over_labels(results: Results, table: TableEntry) -> Drawn | None:
    """Metric against the number of labels, a line per row and a panel per metric."""
    panels: dict[str, dict[str, list[tuple[float, tuple[float, ...]]]]] = {}
    levels: dict[str, tuple[str, float]] = {}
    for name in table["columns"]:
        column = column_entry(results, name)
        if column.get("labels"):
            title = re.sub(r",\s*\d+ labels?\b", "", column["title"])
            for row in table["rows"]:
                points = panels.setdefault(title, {}).setdefault(row["label"], [])
                points.append((float(column["labels"]), cell(results, row["variant"], name).values))
            if column.get("floor") is not None:
                levels[title] = (FLOOR, 100 * column["floor"])
    if not any(values for series in panels.values() for points in series.values() for _, values in points):
        return None
    figure = lines_figure(panels, "labelled frames", levels)
    return figure, (
        f"{table['title']}. Lines join means; bars reach from the least to the most seed, dashes are seeds; marks at"
        " one number of labels are moved apart sideways to be seen."
    )


def _ratios(table: TableEntry) -> dict[str, tuple[float, float]]:
    """Variant -> (RGB, depth) mask ratio, for rows labelled such as ".2 / .8"."""
    found = {row["variant"]: RATIOS.fullmatch(row["label"].strip()) for row in table["rows"]}
    return {name: (float(match[1]), float(match[2])) for name, match in found.items() if match}


def ratio_grid(results: Results, table: TableEntry) -> Drawn | None:
    """Mask ratios of RGB and depth against each other, in the table's first column."""
    column = table["columns"][0]
    cells = {ratios: cell(results, variant, column).values for variant, ratios in _ratios(table).items()}
    if not any(cells.values()):
        return None
    title = _title(results, column)
    figure = grid_figure(cells, title, "masked share of depth", "masked share of RGB", "not in\nthe paper")
    return figure, f"{table['title']}: mean ± standard deviation over seeds, {title}."


def difference_row(label: str, found: Difference) -> Seeds:
    """A row of a picture of differences."""
    known = found.estimate
    interval = None if known is None else (known.low, known.points, known.high)
    return Seeds(label, tuple(found.paired.values()), interval)


def differences_to_first(results: Results, table: TableEntry) -> Drawn | None:
    """Every row minus the first, with 95 % intervals."""
    first, *others = table["rows"]
    panels: dict[str, list[Seeds]] = {}
    for name in table["columns"]:
        found = compare_family(results, [Pair(row["variant"], first["variant"], name) for row in others])
        panels.setdefault(_title(results, name), []).extend(
            difference_row(row["label"], one) for row, one in zip(others, found, strict=True)
        )
    if not any(row.values for rows in panels.values() for row in rows):
        return None
    figure = rows_figure(panels, f"points above {first['label']}", zero=True)
    return figure, f"{table['title']}: difference to “{first['label']}”. {INTERVALS}"


def cost_and_quality(results: Results, table: TableEntry) -> Drawn | None:
    """Pre-training FLOPs against the metric, a panel per column."""
    panels: dict[str, dict[str, tuple[float, tuple[float, ...]]]] = {}
    for name in table["columns"][:MOST_PANELS]:
        for row in table["rows"]:
            known = cost(results, row["variant"])
            trained = any(entry["variant"] == row["variant"] for entry in results["pretraining"])
            values = cell(results, row["variant"], name).values
            if values and (known is not None or not trained):
                flops = 0.0 if known is None else known.flops / TERA
                panels.setdefault(_title(results, name), {})[row["label"]] = (flops, values)
    if not panels:
        return None
    figure = scatter_figure(panels, "pre-training TFLOPs")
    return figure, f"{table['title']}: what pre-training costs and gives. Bars reach from the least to the most seed."


def answers_picture(results: Results) -> Drawn | None:
    """Every comparison of every question with its 95 % interval."""
    rows = []
    for found in answers(results):
        rows.append(Seeds(f"{found.text}{' (primary)' if found.primary else ''}", (), heading=True))
        for comparison in found.comparisons:
            for one in comparison.differences:
                rows.append(difference_row(f"{comparison.text}: {_title(results, one.pair.column)}", one))
    if not any(row.values for row in rows):
        return None
    figure = rows_figure({"Differences": rows}, "percentage points", zero=True, panel_width=4.6, label_width=78)
    return figure, f"The comparisons behind the answers, in their order. {INTERVALS}"

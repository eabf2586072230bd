"""Pictures of tables and answers, drawn from results.json alone. Bars are 95 % intervals, of differences or of means;
every caption says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from m33d_hf.errors import MissingDependencyError
from m33d_hf.experiments.report.answers import answers
from m33d_hf.experiments.report.contrasts import Difference, Pair, column_model, compare_family, half_width
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
MEANS = (
    "bar: its 95 % interval for these seeds, with the noise of all rows of the column (of two rows whose bars meet, the"
    " difference may still be told from nothing: see the answers)."
)
DOTS = f"Circles: seeds; diamond: their mean; {MEANS}"
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


def _means(results: Results, table: TableEntry, column: str) -> list[Seeds]:
    """The table's rows: seeds with the 95 % interval of their mean, where the noise is known."""
    model, found = column_model(results, column), []
    for row in table["rows"]:
        seeds = Seeds(row["label"], cell(results, row["variant"], column).values)
        half = model.half_width_of_mean(len(seeds.values))
        interval = None if half is None else (seeds.mean - half, seeds.mean, seeds.mean + half)
        found.append(replace(seeds, interval=interval))
    return found


def rows_of(results: Results, table: TableEntry) -> Drawn | None:
    """A row of dots per row of the table, a panel per column."""
    panels = {_title(results, name): _means(results, table, name) for name in table["columns"]}
    if not any(row.values for rows in panels.values() for row in rows):
        return None
    split = column_entry(results, table["columns"][0])["split"]
    figure = rows_figure(panels, f"percent, {split} split", _levels(results, table["columns"]))
    return figure, f"{table['title']}. {DOTS}"


def lines_over_labels(results: Results, table: TableEntry) -> Drawn | None:
    """Metric against the number of labels, a line per row and a panel per metric."""
    panels: dict[str, dict[str, list[tuple[float, Seeds]]]] = {}
    levels: dict[str, tuple[str, float]] = {}
    for name in table["columns"]:
        column = column_entry(results, name)
        if column.get("labels"):
            title = re.sub(r",\s*\d+ labels?\b", "", column["title"])
            for row in _means(results, table, name):
                panels.setdefault(title, {}).setdefault(row.label, []).append((float(column["labels"]), row))
            if column.get("floor") is not None:
                levels[title] = (FLOOR, 100 * column["floor"])
    if not any(found.values for series in panels.values() for points in series.values() for _, found in points):
        return None
    figure = lines_figure(panels, "labelled frames", levels)
    return figure, (
        f"{table['title']}. Lines join means; dashes are seeds; {MEANS} Marks at one number of labels are moved apart"
        " sideways to be seen."
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
    half = half_width(results, table, column)
    interval = "" if half is None else f" The 95 % interval of a difference of two cells is ± {half:.1f}."
    return figure, f"{table['title']}: mean ± standard deviation over seeds, {title}.{interval}"


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
    panels: dict[str, dict[str, tuple[float, Seeds]]] = {}
    for name in table["columns"][:MOST_PANELS]:
        for row, found in zip(table["rows"], _means(results, table, name), strict=True):
            known = cost(results, row["variant"])
            trained = any(entry["variant"] == row["variant"] for entry in results["pretraining"])
            if found.values and (known is not None or not trained):
                flops = 0.0 if known is None else known.flops / TERA
                panels.setdefault(_title(results, name), {})[row["label"]] = (flops, found)
    if not panels:
        return None
    figure = scatter_figure(panels, "pre-training TFLOPs")
    return figure, f"{table['title']}: what pre-training costs and gives. Dashes are seeds; {MEANS}"


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

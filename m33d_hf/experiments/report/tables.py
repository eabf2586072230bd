"""Tables of results, as blocks for Markdown and HTML, and every number in them from results.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m33d_hf.experiments.report.answers import declared
from m33d_hf.experiments.report.comparison import Cell
from m33d_hf.experiments.report.contrasts import Difference, half_width, rounded_up
from m33d_hf.experiments.report.results import (
    DONE,
    TEST,
    Results,
    TableEntry,
    cell,
    column_entry,
    cost,
    entries,
    floor_of,
    labels,
    table_cells,
)
from m33d_hf.visualization.document import Block, Heading, Paragraph, Table, flops_text

COST_HEADER = ("steps", "FLOPs", "CPU s")
NOISE = "95 % interval of a difference"


def cell_text(found: Cell) -> str:
    """Mean and standard deviation (n - 1) in percent; what is missing is said."""
    if found.mean is None:
        return "failed" if found.failed else "not run"
    spread = f" ± {found.std:.1f}" if found.std is not None else " (one seed)"
    return f"{found.mean:.1f}{spread}" + (f" ({found.failed} failed)" if found.failed else "")


def result_table(results: Results, table: TableEntry) -> Table:
    """Mean ± standard deviation of every row, floors, how sure a difference is, and what pre-training cost."""
    columns = [column_entry(results, name) for name in table["columns"]]
    rows = []
    for row in table["rows"]:
        texts = [cell_text(cell(results, row["variant"], column["id"])) for column in columns]
        rows.append([row["label"], *texts, *cost_texts(results, row["variant"])])
    quiet = [len(rows)]
    rows.append([NOISE, *(noise_text(results, table, column["id"]) for column in columns), "", "", ""])
    if any(column.get("floor") is not None for column in columns):
        quiet.append(len(rows))
        rows.append(["trivial floor", *floor_texts(columns), "", "", ""])
    header = ["pre-training", *(column["title"] for column in columns), *COST_HEADER]
    return Table(header, rows, quiet=quiet, note=_note(results, table))


def noise_text(results: Results, table: TableEntry, column: str) -> str:
    """Half of the 95 % interval of a difference between two complete rows."""
    found = half_width(results, table, column)
    return "unknown" if found is None else f"± {rounded_up(found):.1f}"


def floor_texts(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Trivial floors in percent; empty where there is none."""
    return ["" if column.get("floor") is None else f"{100 * column['floor']:.1f}" for column in columns]


def overview_table(
    results: Results, tables: Sequence[TableEntry], columns: Sequence[str], reference: Sequence[str] = ("scratch",)
) -> Table:
    """Chosen columns of several tables side by side, each cell with its verdict against the reference; rows of one
    label are one row, and its cost is not told.

    Args:
        columns: ids; those that no table has are left out.
        reference: variants against which a declared comparison is printed in a cell.
    """
    shown = [(table, name) for name in columns for table in tables if name in table["columns"]]
    known = {(one.pair.better, one.pair.column): one for one in declared(results) if one.pair.than in reference}
    names = list(dict.fromkeys(row["label"] for table in tables for row in table["rows"]))
    rows = [[label, *(_cell_of(results, known, table, name, label) for table, name in shown)] for label in names]
    described = [column_entry(results, name) for _, name in shown]
    rows.append(["trivial floor", *floor_texts(described)])
    said = [_note(results, {**table, "columns": [name]}) for table, name in shown]
    header = ["pre-training", *(column["title"] for column in described)]
    named = labels(results)
    against = " or ".join(f"“{label}”" for label in dict.fromkeys(named[r] for r in reference if r in named))
    means = " ".join(dict.fromkeys(said)).replace("Mean ± standard deviation", "Mean")
    note = f"{means} A verdict is against {against}, in percentage points; a cell has none where none was declared."
    return Table(header, rows, quiet=[len(names)], note=note)


def _cell_of(
    results: Results, known: Mapping[tuple[str, str], Difference], table: TableEntry, column: str, label: str
) -> str:
    """The cell of the row called `label`; empty where the table has none."""
    for row in table["rows"]:
        if row["label"] == label:
            found, verdict = cell(results, row["variant"], column), known.get((row["variant"], column))
            mean = cell_text(found) if found.mean is None else f"{found.mean:.1f}"
            return mean if verdict is None else f"{mean}, {verdict.text()}"
    return ""


def _note(results: Results, table: TableEntry) -> str:
    """How many seeds stand behind the cells."""
    counts = {c.n for name in table["columns"] for c in table_cells(results, table, name).values() if c.n}
    n = " to ".join(str(value) for value in sorted({min(counts), max(counts)})) if counts else "0"
    splits = " and ".join(dict.fromkeys(column_entry(results, name)["split"] for name in table["columns"]))
    said = "" if max(counts, default=0) > 1 else " Without two seeds nothing is said about differences."
    return f"Mean ± standard deviation over pre-training seeds, {splits} split, n = {n}.{said}"


def cost_texts(results: Results, variant: str) -> tuple[str, str, str]:
    """Steps, FLOPs and seconds of a variant's pre-training; "-" for what is not pre-trained."""
    known = cost(results, variant)
    if known is None:
        trained = any(entry["variant"] == variant for entry in results["pretraining"])
        return ("failed", "failed", "failed") if trained else ("-", "-", "-")
    return f"{known.steps:.0f}", flops_text(known.flops), f"{known.cpu_seconds:.0f}"


def seeds_table(results: Results, table: TableEntry) -> Table:
    """The long form: n, range of the seeds, every seed and every fine-tuning of every cell."""
    rows = []
    for row in table["rows"]:
        for name in table["columns"]:
            found = cell(results, row["variant"], name)
            span = f"{found.min:.2f} to {found.max:.2f}" if found.n else "-"
            numbers = ["-" if value is None else f"{value:.2f}" for value in (found.mean, found.std)]
            seeds = _seeds_text(entries(results, row["variant"], name))
            rows.append([row["label"], column_entry(results, name)["title"], str(found.n), *numbers, span, seeds])
    return Table(["pre-training", "column", "n", "mean", "std", "range", "seed: its fine-tunings"], rows, left=(1, 6))


def _seeds_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Every seed with the values of its fine-tunings, which would pass for seeds without its name."""
    by_seed: dict[int, list[str]] = {}
    for entry in found:
        by_seed.setdefault(entry["seed"], []).append(_seed_text(entry))
    return " / ".join(f"{seed}: {', '.join(values)}" for seed, values in by_seed.items()) or "not run"


def _seed_text(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['value']:.2f}" if entry["status"] == DONE else str(entry["status"])


def table_blocks(results: Results, table: TableEntry) -> list[Block]:
    """Title, note and table."""
    blocks: list[Block] = [Heading(table["title"])]
    if table.get("note"):
        blocks.append(Paragraph(table["note"]))
    return [*blocks, result_table(results, table)]


def seed_texts(results: Results, table: TableEntry) -> list[list[str]]:
    """Label and, per column, the mean with each seed in brackets, of every row."""
    return [[row["label"], *(cell(results, row["variant"], name).text() for name in table["columns"])]
            for row in table["rows"]]  # fmt: skip


def floors_text(results: Results) -> str:
    """What the trivial floors are, one sentence per kind."""
    texts = dict.fromkeys(_floor_words(column) for column in results["columns"] if column.get("floor_text"))
    return f"Trivial floors: {'; '.join(texts)}." if texts else ""


def _floor_words(column: Mapping[str, Any]) -> str:
    """How it was found, and where unless that is where the column was measured. Chance has no split."""
    judged = column.get("floor_split", TEST)
    elsewhere = judged != column["split"] and column["metric"] != "top1"
    return column["floor_text"] + (f", judged on the {judged} split" if elsewhere else "")


def pretraining_table(results: Results) -> Table:
    """What every pre-training cost, mean over seeds."""
    names = labels(results)
    rows = []
    for variant, found in _pretrainings(results).items():
        done = sum(entry["status"] == DONE for entry in found)
        seeds = str(done) + (f" ({len(found) - done} failed)" if done < len(found) else "")
        sizes = " / ".join(dict.fromkeys(f"{e['parameters']:,}" for e in found if e.get("parameters"))) or "-"
        rows.append([names.get(variant, variant), f"`{variant}`", seeds, *cost_texts(results, variant), sizes])
    header = ["pre-training", "id", "n", *COST_HEADER, "encoder parameters"]
    return Table(header, rows, left=(1,), note="Cost with everything that the run starts from, mean over seeds.")


def diagnostics_table(results: Results) -> Table | None:
    """What the losses taught, seed by seed; None where nothing was diagnosed."""
    names = labels(results)
    keys = list(dict.fromkeys(key for entry in results["pretraining"] for key in entry.get("diagnostics") or {}))
    rows = []
    for variant, found in _pretrainings(results).items():
        known = [entry.get("diagnostics") or {} for entry in found if entry["status"] == DONE]
        texts = [_diagnosed(known, key, floor_of(results, variant, key)) for key in keys]
        if any(text != "-" for text in texts):
            rows.append([names.get(variant, variant), *texts])
    if not rows:
        return None
    note = "One figure per seed; behind a loss its floor, what a prediction that looks at nothing reaches."
    return Table(["pre-training", *(key.replace("_", " ") for key in keys)], rows, note=note)


def _diagnosed(known: Sequence[Mapping[str, Any]], key: str, floor: float | None) -> str:
    """A figure per seed, a loss of known floor with three places and the floor behind it."""
    digits = ".2g" if floor is None else ".3f"
    text = " / ".join(f"{found[key]:{digits}}" for found in known if found.get(key) is not None)
    return (text + ("" if floor is None else f" (floor {floor:.3f})")) if text else "-"


def _pretrainings(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """Variant -> its entries, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in results["pretraining"]:
        found.setdefault(entry["variant"], []).append(entry)
    return found


def grid_table(results: Results) -> Table | None:
    """The recipe grid on validation; None where none was run."""
    grid = results.get("grid") or []
    if not grid:
        return None
    names = labels(results)
    titles = {column["id"]: column["title"] for column in results["columns"]}
    rows = []
    for entry in grid:
        values = "; ".join(f"{titles.get(k, k)}: {100 * v:.1f}" for k, v in (entry.get("values") or {}).items())
        text = values if entry["status"] == DONE else str(entry["status"])
        rows.append([entry["label"], names.get(entry["variant"], entry["variant"]), str(entry["seed"]), text])
    note = "On the validation split, with a seed that no table uses. What was chosen here is in the recipes."
    return Table(["setting", "pre-training", "seed", "validation"], rows, left=(1, 3), note=note)


def environment_table(results: Results) -> Table:
    """Machine and versions."""
    return Table(["", ""], [[name, str(value)] for name, value in results.get("environment", {}).items()], left=(1,))


def budget_warning(results: Results) -> list[Block]:
    """That nothing can be learnt from a demo with a small budget."""
    if results["budget"] == "full":
        return []
    words = "a test of the machinery: far too few steps for any of the numbers below to mean anything."
    return [Paragraph(f"**Budget `{results['budget']}`.** This is {words}", "warning")]

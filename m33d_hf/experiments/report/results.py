"""results.json of the reproduction: cells, spreads and differences, plain and paired by seed.

Values in the file are fractions; everything here is in percent or percentage points. The rule of what counts as a
difference is `comparison`'s, with the spread taken over the rows of one table's column. The same
seed index means the same labelled frames and the same order of data for every row, so differences are also given
seed by seed: how many seeds agree in sign says something that the difference of means does not.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import ConfigError, CorruptFileError, M33DError
from m33d_hf.experiments.report.comparison import BETTER, WORSE, Cell, compare, largest_range, percent

Results = Mapping[str, Any]
TableEntry = Mapping[str, Any]
RESULTS = "results.json"
DONE = "done"  # the status of a finished row
# What reading a value of another kind, or a picture's archive, ends in.
_STRANGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, EOFError, BadZipFile, zlib.error)


def load_results(folder: Path) -> Results:
    """Read `folder`/results.json.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no results.json: let a run finish first, pass its folder with --output_dir, or run the "
            "command from the folder that the path is relative to."
        )
    try:
        return read_sealed_json(path)
    except CorruptFileError as error:
        raise ConfigError(f"{error}. Run the same command again: finished rows are kept.") from error


@contextmanager
def understood(what: Path) -> Iterator[None]:
    """Name the file or folder whose content cannot be told, where it is not what the block expects.

    Files of earlier versions, and those that somebody changed, may hold anything.

    Raises:
        ConfigError: instead of what the block stumbles over.
    """
    try:
        yield
    except M33DError:
        raise
    except _STRANGE as error:
        raise ConfigError(
            f"{what} is not a file that this version writes ({type(error).__name__}: {error}). Run the same command "
            "again with --fresh, or restore an unchanged copy."
        ) from error


@dataclass(frozen=True)
class Cost:
    """What pre-training a variant cost, with everything it starts from; means over finished seeds.

    Attributes:
        steps: of the optimiser.
        flops: forward and backward, by formula.
        cpu_seconds: of the processor.
    """

    steps: float
    flops: float
    cpu_seconds: float


@dataclass(frozen=True)
class Difference:
    """How much better one variant is than another in a column.

    Attributes:
        better, than, column: ids.
        points: difference of means in percentage points; None without a finished seed on either side.
        verdict: "better", "worse", "within the spread", or "unknown" (a failed seed, one seed only, no rows).
        spread: what the difference was held against; None where unknown.
        paired: seed -> difference, for the seeds that both sides finished.
    """

    better: str
    than: str
    column: str
    points: float | None
    verdict: str
    spread: float | None
    paired: Mapping[int, float]

    @property
    def agreeing(self) -> int:
        """Seeds whose own difference has the sign of the difference of means."""
        if not self.points:
            return 0
        return sum(value * self.points > 0 for value in self.paired.values())

    @property
    def paired_cell(self) -> Cell:
        """The differences seed by seed, for their mean, standard deviation and range."""
        return Cell(tuple(self.paired.values()))

    @property
    def beyond(self) -> bool:
        """Whether it exceeds the spread, one way or the other."""
        return self.verdict in (BETTER, WORSE)

    def text(self) -> str:
        """For sentences: signed points, with the verdict where it is not beyond the spread."""
        if self.points is None:
            return "unknown"
        return f"{self.points:+.1f}" + ("" if self.beyond else f" ({self.verdict})")


def entries(results: Results, variant: str, column: str) -> list[Mapping[str, Any]]:
    """Rows of a variant in a column by seed, finished or not."""
    found = [row for row in results["rows"] if (row["variant"], row["column"]) == (variant, column)]
    return sorted(found, key=lambda row: row["seed"])


def cell(results: Results, variant: str, column: str) -> Cell:
    """The seeds of a variant in a column; finished ones in percent."""
    rows = entries(results, variant, column)
    done = [percent(row["value"]) for row in rows if row["status"] == DONE]
    return Cell(tuple(done), len(rows) - len(done))


def column_entry(results: Results, column: str) -> Mapping[str, Any]:
    """The description of a column.

    Raises:
        ConfigError: no such column.
    """
    return _named(results["columns"], column, "column")


def table_entry(results: Results, table: str) -> TableEntry:
    """The description of a table.

    Raises:
        ConfigError: no such table.
    """
    return _named(results["tables"], table, "table")


def _named(entries: Sequence[Mapping[str, Any]], name: str, kind: str) -> Mapping[str, Any]:
    for entry in entries:
        if entry["id"] == name:
            return entry
    known = ", ".join(entry["id"] for entry in entries)
    raise ConfigError(f"results.json has no {kind} {name!r}; it has: {known}. Run scripts/reproduce.py again.")


def variants_of(table: TableEntry) -> list[str]:
    """In the order of the table."""
    return [row["variant"] for row in table["rows"]]


def labels(results: Results) -> dict[str, str]:
    """Variant -> what tables and figures call it."""
    return {entry["id"]: entry["label"] for entry in results["variants"]}


def table_cells(results: Results, table: TableEntry, column: str) -> dict[str, Cell]:
    """Variant -> cell, in the order of the table."""
    return {variant: cell(results, variant, column) for variant in variants_of(table)}


def table_spread(results: Results, table: TableEntry, column: str) -> float | None:
    """Largest range between the seeds of one row of the table; None where no row has two finished seeds."""
    return largest_range(table_cells(results, table, column).values())


def spread(results: Results, better: str, than: str, column: str) -> float | None:
    """What a difference of two variants is held against.

    The largest spread of the tables that show both in that column, so that no table tells another tale than the
    answer; where none shows both, the largest range of any variant in the column.
    """
    tables = [t for t in results["tables"] if column in t["columns"] and {better, than} <= set(variants_of(t))]
    if tables:
        known = [value for t in tables if (value := table_spread(results, t, column)) is not None]
        return max(known, default=None)
    everyone = dict.fromkeys(row["variant"] for row in results["rows"] if row["column"] == column)
    return largest_range(cell(results, variant, column) for variant in everyone)


def difference(results: Results, better: str, than: str, column: str, table: TableEntry | None = None) -> Difference:
    """Compare two variants in a column.

    Args:
        table: whose spread counts; None = `spread`'s choice.
    """
    limit = spread(results, better, than, column) if table is None else table_spread(results, table, column)
    points, verdict = compare(cell(results, better, column), cell(results, than, column), limit)
    return Difference(better, than, column, points, verdict, limit, paired(results, better, than, column))


def paired(results: Results, better: str, than: str, column: str) -> dict[int, float]:
    """Seed -> difference in percentage points, for the seeds that both finished."""
    left, right = ({row["seed"]: percent(row["value"]) for row in entries(results, variant, column)
                    if row["status"] == DONE} for variant in (better, than))  # fmt: skip
    return {seed: left[seed] - right[seed] for seed in left if seed in right}


def best(results: Results, table: TableEntry, column: str) -> str | None:
    """The variant that is better than every other row of the table beyond the spread, if there is one."""
    cells = table_cells(results, table, column)
    limit = largest_range(cells.values())
    for name, left in cells.items():
        others = [right for other, right in cells.items() if other != name and (right.n or right.failed)]
        if others and all(compare(left, right, limit)[1] == "better" for right in others):
            return name
    return None


def cost(results: Results, variant: str) -> Cost | None:
    """Cost of pre-training a variant; None where no seed of it finished or it is not pre-trained."""
    done = [entry for entry in results["pretraining"] if entry["variant"] == variant and entry["status"] == DONE]
    if not done:
        return None
    keys = ("steps", "flops", "cpu_seconds")
    return Cost(*(sum(float(entry.get(key, 0.0)) for entry in done) / len(done) for key in keys))


def diagnostic(results: Results, variant: str, key: str) -> list[float]:
    """A diagnostic of every finished pre-training of a variant, in the order of seeds."""
    found = [entry.get("diagnostics", {}).get(key) for entry in results["pretraining"] if entry["variant"] == variant]
    return [float(value) for value in found if value is not None]


def failures(results: Results) -> list[tuple[str, str]]:
    """(what, error) of everything that did not finish: data and floors, pre-trainings, the recipe grid, rows."""
    found: dict[str, str] = {}
    for part, kind in (("data", "data"), ("pretraining", "pretrain"), ("grid", "grid"), ("rows", "row")):
        for entry in results.get(part) or []:
            if entry["status"] != DONE:
                name = entry.get("id") or f"{kind}-{entry['variant']}-s{entry['seed']}"
                found.setdefault(name, entry.get("error") or str(entry["status"]))
    return list(found.items())

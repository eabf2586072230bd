"""results.json: its rows, columns, tables and pre-trainings.

Values in the file are fractions; everything here is in percent. What a difference is worth is told by `contrasts`.
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
from m33d_hf.errors import ConfigError, CorruptFileError, M33DError, type_and_text
from m33d_hf.experiments.report.comparison import Cell, percent

Results = Mapping[str, Any]
TableEntry = Mapping[str, Any]
RESULTS = "results.json"
DONE = "done"  # the status of a finished row
TEST = "test"  # the split that earlier versions judged trivial floors on, wherever their columns were
LEFT = 0.99  # a loss below this share of its floor has left it
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
            f"{what} is not a file that this version writes ({type_and_text(error)}). Run the same command "
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


def entries(results: Results, variant: str, column: str) -> list[Mapping[str, Any]]:
    """Rows of a variant in a column by seed, finished or not."""
    found = [row for row in results["rows"] if (row["variant"], row["column"]) == (variant, column)]
    return sorted(found, key=lambda row: row["seed"])


def _by_seed(results: Results, variant: str, column: str) -> dict[int, float | None]:
    """Pre-training seed -> percent, the mean over its fine-tunings; None where one of them failed."""
    found: dict[int, list[float | None]] = {}
    for row in entries(results, variant, column):
        found.setdefault(row["seed"], []).append(percent(row["value"]) if row["status"] == DONE else None)
    return {seed: _mean(values) for seed, values in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def seed_values(results: Results, variant: str, column: str) -> dict[int, float]:
    """Pre-training seed -> percent, for the seeds that finished with all of their fine-tunings."""
    return {seed: value for seed, value in _by_seed(results, variant, column).items() if value is not None}


def cell(results: Results, variant: str, column: str) -> Cell:
    """The pre-training seeds of a variant in a column; finished ones in percent."""
    found = _by_seed(results, variant, column).values()
    return Cell(tuple(value for value in found if value is not None), sum(value is None for value in found))


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


def floor_of(results: Results, variant: str, key: str) -> float | None:
    """What a prediction that looks at nothing reaches in a loss of a pre-training; None where it is not known."""
    for entry in results["pretraining"]:
        if entry["variant"] == variant and key in (entry.get("loss_floors") or {}):
            return float(entry["loss_floors"][key])
    return None


def stuck_pretraining(results: Results, variant: str) -> bool:
    """Whether no loss of a pre-training came 1 % below its floor, mean over seeds. One without a floor counts as
    learnt, so this is said of pre-trainings alone that have a floor for everything they are trained for."""
    entries_ = [entry.get("diagnostics") or {} for entry in results["pretraining"] if entry["variant"] == variant]
    keys = dict.fromkeys(key for known in entries_ for key in known if key.startswith("loss/"))
    for key in keys:
        floor, values = floor_of(results, variant, key), diagnostic(results, variant, key)
        if floor is None or sum(values) / len(values) < LEFT * floor:
            return False
    return bool(keys)


def failures(results: Results) -> list[tuple[str, str]]:
    """(what, error) of everything that did not finish: data and floors, pre-trainings, the recipe grid, rows.

    A run is told once, however many columns it fills and variants start from it; files of earlier versions do not say
    which run an entry is of, and have one of each entry.
    """
    found: dict[str, tuple[str, str]] = {}
    for part, kind in (("data", "data"), ("pretraining", "pretrain"), ("grid", "grid"), ("rows", "row")):
        for entry in results.get(part) or []:
            if entry["status"] != DONE:
                name = entry.get("id") or f"{kind}-{entry['variant']}-s{entry['seed']}"
                run = entry.get("job") or name
                found.setdefault(run, (name if part == "pretraining" else run, entry.get("error") or entry["status"]))
    return [(name, str(error)) for name, error in found.values()]

"""Several runs of one task beside each other: what differs in their settings, their metrics, curves and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.markers import MARKER
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.data.plural import plural
from m33d_hf.errors import CheckpointError, ConfigError, MissingDependencyError
from m33d_hf.training.processes.guards import is_in_use
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.differences import flatten
from m33d_hf.training.run.metric_names import eval_name, larger_is_better
from m33d_hf.training.run.reporting import CONFIG, METRICS, read_rows, short_commit
from m33d_hf.training.run.resume import BESIDE_THE_DATA
from m33d_hf.training.showing.stale import PICTURES
from m33d_hf.training.showing.story import (
    best_row,
    evaluations,
    is_plain,
    metric_values,
    named,
    number_text,
    run_curves,
)
from m33d_hf.training.tasks.base import build_task
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.document import Block, Heading, Paragraph, Picture, Table, to_html

PAGE, CURVES = "comparison.html", "curves.png"
# Where a run writes is no setting that could explain a result.
_NO_SETTINGS = ("output_dir", "resume", "dry_run", "replay", "eval_only")
_JUDGED_ON = ("data.source", "data.root", "data.eval_root", "data.eval_split", "data.max_eval_samples")
_LONGEST = 80  # letters of a value in a table


@dataclass(frozen=True)
class ComparedRun:
    """One run as its output folder tells it.

    Attributes:
        name: short name, unique among the compared runs.
        folder: its output folder.
        task: its name.
        settings: dotted key -> value of the resolved recipe, and what it ran on ("data digest", versions, ...).
        history: rows of metrics.jsonl.
        step, total_steps: done and planned.
        state: "finished", "running" or "stopped".
    """

    name: str
    folder: Path
    task: str
    settings: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    step: int
    total_steps: int
    state: str

    @property
    def heading(self) -> str:
        """Name, with how far the run came unless it came to its end."""
        return (
            self.name if self.state == "finished" else f"{self.name} ({self.state}, {self.step} of {self.total_steps})"
        )


def compare_runs(folders: Sequence[Path], output: Path) -> tuple[list[str], list[Path]]:
    """Write comparison.html and curves.png; returns lines for the terminal and the files.

    Args:
        folders: output folders of at least two runs of one task.
        output: folder to write to.

    Raises:
        CheckpointError: a folder that holds no run, or whose files cannot be read.
        ConfigError: fewer than two folders, one of them twice, or runs of different tasks.
    """
    runs = read_runs(folders)
    metric = _judged_by(runs[0])
    differing, metrics = settings_table(runs), metrics_table(runs, metric)
    warnings, written = cautions(runs), list[Path]()
    try:
        histories = {run.name: run.history for run in runs}
        written.append(save_figure(run_curves(histories, None if metric is None else metric[0]), output / CURVES))
    except MissingDependencyError as error:
        warnings.append(f"no curves: {error}")
    blocks: list[Block] = [Heading(f"{plural(len(runs), 'run')}: {', '.join(run.name for run in runs)}", 1)]
    blocks += [Paragraph(text, "warning") for text in warnings]
    blocks += [Heading("Settings that differ"), differing or Paragraph("None.")]
    blocks += [Heading("Metrics of the last evaluation"), metrics or Paragraph("No run has been evaluated yet.")]
    blocks += [Heading("Curves"), *(Picture(path, "Over optimizer steps.") for path in written)] if written else []
    blocks += _pictures(runs)
    output.mkdir(parents=True, exist_ok=True)
    written.append(write_text_atomically(output / PAGE, to_html(blocks, "Comparison of runs")))
    lines = [*(f"WARNING: {text}" for text in warnings), "settings that differ:", *_as_text(differing, "none")]
    return [*lines, "metrics of the last evaluation:", *_as_text(metrics, "no run has been evaluated yet")], written


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """See `compare_runs`."""
    if len(folders) < 2:
        raise ConfigError(f"a comparison takes at least two output folders; got {len(folders)}.")
    resolved = [folder.expanduser().resolve() for folder in folders]
    twice = next((folder for folder in resolved if resolved.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice; name each run once.")
    runs = [_read(folder, name) for folder, name in zip(resolved, _names(resolved), strict=True)]
    tasks = {run.task: run.folder for run in reversed(runs)}
    if len(tasks) > 1:
        told = "; ".join(f"{folder} is a run of {task}" for task, folder in tasks.items())
        raise ConfigError(f"runs of different tasks have no metrics in common: {told}. Compare runs of one task.")
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many parents as tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> ComparedRun:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} does not exist; pass the output folder of a run (its --output_dir).")
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} holds no run: it has no {CONFIG}, which every run writes at its start. Pass the folder that was "
            "its --output_dir."
        )
    try:
        told: Any = read_sealed_json(folder / CONFIG)
        args, total = told["args"], int(told["plan"]["total_steps"])
        task = str(args["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read ({error}); the run cannot be compared.") from error
    history = read_rows(folder / METRICS)
    state = "running" if is_in_use(folder) else "finished" if (folder / MARKER).is_file() else "stopped"
    step = max((int(row["step"]) for row in history), default=0)
    return ComparedRun(name, folder, task, _settings(told, args), history, step, total, state)


def _settings(told: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """All that may explain a result, flat."""
    model = dict(args.get("model") or {})
    if isinstance(model.get("modalities"), list):  # by name: a list differs as a whole
        model["modalities"] = {str(entry.get("name")): entry for entry in model["modalities"]}
    found = flatten({**args, "model": model})
    for key in ("effective_batch", "world_size", "data_digest", *BESIDE_THE_DATA, "device"):
        if key in told:
            found[key] = told[key]
    if isinstance(told.get("commit"), str):
        found["commit"] = short_commit(told["commit"], 12)
    found |= {f"version of {name}": version for name, version in (told.get("versions") or {}).items()}
    return {key: value for key, value in found.items() if key not in _NO_SETTINGS}


def settings_table(runs: Sequence[ComparedRun]) -> Table | None:
    """Settings that are not the same in all runs; None where there are none."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    rows = []
    for key in keys:
        values = [_value_text(run.settings.get(key, "(absent)")) for run in runs]
        if len(set(values)) > 1:
            rows.append([f"`{key}`", *(f"`{_shortened(text)}`" for text in values)])
    return Table(["setting", *(run.heading for run in runs)], rows, left=range(1, len(runs) + 1)) if rows else None


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _judged_by(run: ComparedRun) -> tuple[str, bool] | None:
    """The metric that judges runs of this task, and its direction."""
    stated, greater = run.settings.get("evaluation.metric"), run.settings.get("evaluation.greater_is_better")
    task = build_task(run.task)
    if stated in (None, "null"):
        chosen = task.metric
    else:
        chosen = json.loads(str(stated)) if str(stated).startswith('"') else str(stated)
    if chosen is None:
        return None
    name = eval_name(chosen)
    if greater not in (None, "null"):
        return name, str(greater).lower() == "true"
    own = task.metric is not None and name == eval_name(task.metric)
    return name, task.greater_is_better if own else larger_is_better(name)


def metrics_table(runs: Sequence[ComparedRun], metric: tuple[str, bool] | None) -> Table | None:
    """Metrics of each run's last evaluation, and its best value of the metric that judges it; None without any."""
    lasts = [evaluations(run.history)[-1:] for run in runs]
    if not any(lasts):
        return None
    values = [metric_values(rows[0]) if rows else {} for rows in lasts]
    names = [name for name in dict.fromkeys(n for each in values for n in each) if is_plain(name)]
    lines = [["step", *(str(rows[0]["step"]) if rows else "-" for rows in lasts)]]
    note = ""
    if metric is not None:
        key, greater = metric
        bests = [best_row(run.history, key, greater) for run in runs]
        found = [row[key] for row in bests if row is not None]
        top = (max(found) if greater else min(found)) if found else None
        texts = ["-" if row is None else f"{number_text(row[key])} (step {row['step']})" for row in bests]
        marked = [f"**{text}**" if row is not None and row[key] == top else text
                  for text, row in zip(texts, bests, strict=True)]  # fmt: skip
        lines.append([f"best {named(key.removeprefix('eval/'))}", *marked])
        note = f"Bold: the {'largest' if greater else 'smallest'} best value."
    lines += [[named(name), *(number_text(each.get(name)) for each in values)] for name in names]
    return Table(["metric", *(run.heading for run in runs)], lines, note=note)


def cautions(runs: Sequence[ComparedRun]) -> list[str]:
    """What a reader must know before comparing."""
    found = []
    for run in runs:
        place = f"step {run.step} of {run.total_steps}"
        if run.state == "running":
            found.append(f"{run.folder} is still running ({place}): its numbers are not final.")
        elif run.state == "stopped":
            found.append(f"{run.folder} stopped at {place}; start the same command again to finish it.")
    found += [f"{run.folder} has no evaluation yet." for run in runs if not evaluations(run.history)]
    usual = flatten(RunArguments().to_dict())
    judged = [key for key in _JUDGED_ON if len({str(run.settings.get(key, usual[key])) for run in runs}) > 1]
    if judged:
        found.append(f"the runs may have been evaluated on different data ({', '.join(judged)} differ).")
    return found


def _pictures(runs: Sequence[ComparedRun]) -> list[Block]:
    """The last picture of predictions of every run."""
    blocks: list[Block] = []
    for run in runs:
        drawn = sorted((run.folder / PICTURES).glob("evaluation_step_*.png"))
        if drawn:
            step = int(drawn[-1].stem.split("_")[2])
            blocks.append(Picture(drawn[-1], f"{run.heading}: predictions after {step} steps."))
    return [Heading("Predictions"), *blocks] if blocks else []


def _as_text(table: Table | None, otherwise: str) -> list[str]:
    """A table for the terminal."""
    if table is None:
        return [f"  {otherwise}"]
    rows = [[_bare(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [f"  {line.rstrip()}" for line in lines]


def _bare(cell: str) -> str:
    """Without the marks of code and of bold text around it."""
    for mark in ("`", "**"):
        if len(cell) > 2 * len(mark) and cell.startswith(mark) and cell.endswith(mark):
            return cell[len(mark) : -len(mark)]
    return cell

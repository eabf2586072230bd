"""Label-efficiency curves (Figure 2 of the paper) of finished fine-tunings: a metric over the labelled samples used."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.markers import is_complete
from m33d_hf.errors import CheckpointError, ConfigError, nearest_name_hint
from m33d_hf.inference.reconstruction_pictures import run_arguments
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.metric_names import eval_name
from m33d_hf.training.run.reporting import CONFIG, METRICS, read_rows
from m33d_hf.training.tasks.base import build_task
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.seeds import Seeds, lines_figure

TASKS = ("semantic_segmentation", "depth_estimation", "video_classification", "action_detection")
SAME = ("task", "data.source", "data.root", "data.eval_root", "data.eval_split", "evaluation.depth_protocol")
SCRATCH = "from scratch"


@dataclass(frozen=True)
class LabelPoint:
    """One finished fine-tuning.

    Attributes:
        run: its output folder.
        series: what it was started from, a name.
        samples: labelled training samples used (images, clips or videos).
        seed: of the run.
        value: the metric in the run's last evaluation.
    """

    run: str
    series: str
    samples: int
    seed: int
    value: float


def save_label_curves(folders: Sequence[Path], output: Path, metric: str | None = None) -> list[Path]:
    """Write label_curves.png and label_curves.csv of runs that differ in their labels, seeds and starting weights.

    A line per `init_from`, through the means of its seeds; bars from the worst to the best seed.

    Args:
        folders: output folders of finished fine-tunings of one task, evaluated on the same data.
        output: folder of the two files.
        metric: any that the runs' evaluations report; by default the task's own.

    Returns:
        The paths of the picture and of the table, whose rows are sorted by starting weights, samples and seed.

    Raises:
        CheckpointError: a folder without a finished and evaluated run.
        ConfigError: runs that cannot be compared, or a metric that they do not report.
    """
    runs = {folder: run_arguments(folder, tasks=TASKS) for folder in folders}
    if len(runs) < len(folders):
        raise ConfigError("one of the folders is given twice.")
    _check_comparable(runs)
    what = next(iter(runs.values()))
    chosen = eval_name(metric or build_task(what.task).metric or "loss")
    names = _series_names([run.init_from for run in runs.values()])
    points = [
        LabelPoint(str(folder), names[run.init_from], _labelled(folder), run.seed, _last_value(folder, chosen))
        for folder, run in runs.items()
    ]
    points.sort(key=lambda point: (point.series, point.samples, point.seed))
    title = f"{chosen.removeprefix('eval/')} on {what.data.source}, {what.data.eval_split or what.data.train_split}"
    figure = lines_figure({title: _lines(points)}, "labelled training samples")
    table = output / "label_curves.csv"
    write_text_atomically(table, _csv(points, chosen))
    return [save_figure(figure, output / "label_curves.png"), table]


def _check_comparable(runs: dict[Path, RunArguments]) -> None:
    """One task, evaluated on the same data by the same protocol."""
    first, *others = runs.items()
    for folder, args in others:
        for key in SAME:
            here, there = _value(args, key), _value(first[1], key)
            if here != there:
                both = f"{key} is {here} here and {there} there"
                raise ConfigError(f"{folder} cannot be drawn in one figure with {first[0]}: {both}.")


def _value(args: Any, key: str) -> Any:
    for part in key.split("."):
        args = getattr(args, part)
    return args


def _series_names(origins: Sequence[str | None]) -> dict[str | None, str]:
    """A name for every origin; two spellings of one path have the same."""
    paths = {origin: PurePath(os.path.normpath(origin)) for origin in origins if origin is not None}
    ends = shortest_ends(list(dict.fromkeys(paths.values())))
    return {None: SCRATCH, **{origin: ends[path] for origin, path in paths.items()}}


def shortest_ends(paths: Sequence[PurePath]) -> dict[PurePath, str]:
    """The shortest ends, in whole names, that tell paths apart, which all differ."""
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        ends = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(ends)) == len(ends):
            return dict(zip(paths, ends, strict=True))
    return {path: path.as_posix() for path in paths}


def _labelled(folder: Path) -> int:
    """Training samples of the run.

    Raises:
        CheckpointError: no readable train_config.json.
    """
    try:
        return int(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["plan"]["num_samples"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not say how many samples were used ({error!r}).") from error


def _last_value(folder: Path, metric: str) -> float:
    rows = [row for row in read_rows(folder / METRICS) if row.get("kind") == "eval"]
    if not rows or not is_complete(folder):
        why = "was never evaluated" if rows == [] else "has not finished"
        raise CheckpointError(f"The run in {folder} {why}; a curve needs the last evaluation of a finished run.")
    value = rows[-1].get(metric)
    if value is None or not math.isfinite(float(value)):
        known = sorted(name for name in rows[-1] if name.startswith("eval/"))
        hint = nearest_name_hint(metric, known)
        raise ConfigError(f"The last evaluation of {folder} has no finite {metric}. It has {', '.join(known)}.{hint}")
    return float(value)


def _lines(points: Sequence[LabelPoint]) -> dict[str, list[tuple[float, Seeds]]]:
    """Series -> (samples, its seeds), in order of samples."""
    series: dict[str, dict[int, list[float]]] = {}
    for point in points:
        series.setdefault(point.series, {}).setdefault(point.samples, []).append(point.value)
    return {
        name: [(float(count), Seeds(name, values)) for count, values in found.items()] for name, found in series.items()
    }


def _csv(points: Sequence[LabelPoint], metric: str) -> str:
    header = ["run", "init_from", "labelled_samples", "seed", metric.removeprefix("eval/")]
    return csv_text(header, ([point.run, point.series, point.samples, point.seed, point.value] for point in points))

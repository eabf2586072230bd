"""The demo's pictures, drawn from results.json and the arrays that rows left under pictures/."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from m33d_hf.errors import DataError
from m33d_hf.experiments.report.figures import Drawn, draw
from m33d_hf.experiments.report.results import DONE, Results, labels
from m33d_hf.visualization.curves import Curve, curves_figure, smooth
from m33d_hf.visualization.document import Block, Heading, Paragraph

SMOOTHING = 5
SHOWN = 4  # frames of those that were kept
# Of a reconstruction, as the row keeps them and `ReconstructionViews` takes them.
PARTS = ("target", "visible", "reconstruction", "valid")


def kept_arrays(folder: Path, name: str) -> NpzFile:
    """What a row left to be drawn; to be closed.

    Args:
        folder: of results.json.
        name: of the file, as results.json has it.

    Raises:
        DataError: it is not there.
    """
    path = folder / name
    if not path.is_file():
        raise DataError(f"{path}, which results.json names, is missing: copy the run's folder {path.parent.name} too.")
    found: NpzFile = np.load(path)
    return found


def picture_blocks(results: Results, folder: Path) -> list[Block]:
    """Curves, reconstructions and predictions with their captions; what is missing is said."""
    blocks: list[Block] = [Heading("Learning curves")]
    blocks += _one(folder, "curves_pretraining", _pretraining_curves, results)
    blocks += _one(folder, "curves_finetuning", _finetuning_curves, results)
    blocks.append(Heading("Reconstructions"))
    for entry in _with_pictures(results["pretraining"]):
        blocks += _one(folder, f"reconstruction_{entry['method']}", _reconstruction, entry, folder)
    blocks.append(Heading("Predictions on test frames"))
    for column in _pictured_columns(results):
        blocks += _one(folder, f"predictions_{column['task']}", _predictions, results, column, folder)
    return blocks


def _one(folder: Path, name: str, make: Callable[..., Drawn | None], *arguments: Any) -> list[Block]:
    nothing = Paragraph(f"There is nothing to draw for {name.replace('_', ' ')}.")
    return [*draw(folder, name, make(*arguments))] or [nothing]


def _with_pictures(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["status"] == DONE and entry.get("picture")]


def _pretraining_curves(results: Results) -> Drawn | None:
    """One panel per loss term; a second stage continues at the step where the first ended."""
    panels: dict[str, list[Curve]] = {}
    seeds = results["seeds"]
    for entry in results["pretraining"]:
        offset = 0
        for stage in entry.get("stages", []):
            for term, points in stage.get("curve", {}).items():
                steps = [offset + step for step, _ in points]
                values = smooth([value for _, value in points], SMOOTHING)
                variant = seeds.index(entry["seed"])
                panels.setdefault(f"{term} loss", []).append(Curve(steps, values, entry["method"], variant))
            offset += stage["steps"]
    if not panels:
        return None
    caption = (
        "Pre-training losses by term (unweighted, smoothed over 5 log points), seed 0 solid, seed 1 dashed; the second"
        " stage of a method starts where its first ended. Losses of different targets cannot be compared."
    )
    return curves_figure(panels, groups=list(labels(results))), caption


def _finetuning_curves(results: Results) -> Drawn | None:
    """The validation metric of every row, a panel per column with its floor."""
    panels: dict[str, list[Curve]] = {}
    levels: dict[str, tuple[str, float]] = {}
    for column in results["columns"]:
        title, curves = column["title"], panels.setdefault(column["title"], [])
        for row in results["rows"]:
            if row["column"] == column["id"] and row.get("curve"):
                steps, values = zip(*row["curve"], strict=True)
                variant = results["seeds"].index(row["seed"])
                curves.append(Curve(steps, [100 * value for value in values], row["method"], variant))
        if column["floor"] is not None:
            levels[title] = ("trivial floor (test)", 100 * column["floor"])
    if not any(panels.values()):
        return None
    caption = (
        "Fine-tuning from RGB alone: metric on the validation split while training, one line per seed. Nothing was"
        " chosen by these curves; the table holds the last step, on the test split."
    )
    return curves_figure(panels, groups=list(labels(results)), levels=levels), caption


def _reconstruction(entry: Mapping[str, Any], folder: Path) -> Drawn | None:
    from m33d_hf.modeling.configuration_m33d import M33DConfig
    from m33d_hf.visualization.reconstruction import CAPTION, ReconstructionViews, reconstruction_figure

    with kept_arrays(folder, entry["picture"]) as arrays:
        config = M33DConfig.from_dict(json.loads(str(arrays["config"])))
        names = [spec.name for spec in config.specs if f"{spec.name}/target" in arrays]
        count = len(arrays[f"{names[0]}/target"])
        parts = {name: [arrays[f"{name}/{part}"] for part in PARTS] for name in names}
        truth = {name: bool(arrays[f"{name}/statistics_from_truth"]) for name in names}
    samples = [
        {name: ReconstructionViews(a[i], b[i], c[i], d[i], truth[name]) for name, (a, b, c, d) in parts.items()}
        for i in range(count)
    ]
    figure = reconstruction_figure(samples, config, f"{entry['method']}, seed {entry['seed']}: test frames")
    unit = " Depth is shown in the standardised values the model works on, holes in grey." if "depth" in names else ""
    return figure, f"**{entry['method']}.** {CAPTION}{unit}"


def _pictured_columns(results: Results) -> list[Mapping[str, Any]]:
    """One column per task: the one with most labels."""
    best: dict[str, Mapping[str, Any]] = {}
    for column in results["columns"]:
        if column["task"] not in best or column["labels"] > best[column["task"]]["labels"]:
            best[column["task"]] = column
    return list(best.values())


def _predictions(results: Results, column: Mapping[str, Any], folder: Path) -> Drawn | None:
    from m33d_hf.visualization.dense import depth_figure, segmentation_figure

    rows = _with_pictures([row for row in results["rows"] if row["column"] == column["id"]])
    if not rows:
        return None
    predictions: dict[str, Any] = {}
    for row in rows:
        with kept_arrays(folder, row["picture"]) as arrays:
            images, labels = arrays["images"][:SHOWN], arrays["labels"][:SHOWN]
            predictions[row["method"]] = arrays["predictions"][:SHOWN]
    title = f"{column['says']}, seed {rows[0]['seed']}"
    if column["task"] == "depth_estimation":
        figure = depth_figure(images, labels, predictions, title)
        return figure, "Depth in metres predicted from RGB; one colour scale per row, set by the truth; holes are grey."
    figure = segmentation_figure(images, labels, predictions, results["class_names"], title)
    return figure, "Classes predicted from RGB. Colours of objects are drawn independently of their class."

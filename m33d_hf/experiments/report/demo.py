"""report.html and report.md of the demo: every sentence and figure is computed, so both can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.clock import clock
from m33d_hf.experiments.report.demo_figures import picture_blocks
from m33d_hf.experiments.report.expectations import judge
from m33d_hf.experiments.report.results import (
    DONE,
    Difference,
    Results,
    cost,
    diagnostic,
    difference,
    failures,
    labels,
    table_spread,
)
from m33d_hf.experiments.report.tables import budget_warning, environment_table, seed_texts
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, Table, flops_text, write_both

TITLE = "m33d-hf demo: what RGB-D pre-training is worth on rendered rooms"
TASK_NAMES = {"depth_estimation": "depth", "semantic_segmentation": "segmentation"}
METRIC_NAMES = {"delta1": "δ1", "miou": "mIoU"}
DIAGNOSTICS = {
    "retrieval_accuracy_depth": "retrieval, matching depth",
    "retrieval_accuracy_mismatched_depth": "retrieval, another sample's depth",
    "retrieval_chance_depth": "retrieval, chance",
    "matching_accuracy_depth": "matching accuracy (chance .5)",
    "depth_loss_visible": "depth loss, depth patches visible",
    "depth_loss_hidden": "depth loss, depth map hidden",
}


def write_reports(results: Results, folder: Path) -> tuple[Path, Path]:
    """Draw the figures, write report.html and report.md; return their paths."""
    blocks: list[Block] = [Heading(TITLE, 1), *_warnings(results), Bullets(summary(results), "lead"), _setting(results)]
    blocks += [*_tables(results), *_expectations(results), *_diagnostics(results), *picture_blocks(results, folder)]
    blocks += [*_cost(results), *_caveats(results), Heading("Environment"), environment_table(results)]
    return write_both(blocks, TITLE, folder / "report.html", folder / "report.md")


def _warnings(results: Results) -> list[Block]:
    failed = failures(results)
    words = f"**{len(failed)} jobs did not finish.** Their errors are listed under Cost."
    return [*budget_warning(results), *([Paragraph(words, "warning")] if failed else [])]


def _pairs(results: Results) -> list[tuple[str, str]]:
    """(method, other) worth a sentence: all over scratch, all over mae, plus over m33d."""
    names = labels(results)
    trained = [name for name in names if name != "scratch"]
    pairs = [(name, "scratch") for name in trained if "scratch" in names]
    pairs += [(name, "mae") for name in trained if name != "mae" and "mae" in names]
    return pairs + ([("m33d_plus", "m33d")] if {"m33d", "m33d_plus"} <= set(names) else [])


def _differences(results: Results, method: str, other: str) -> list[Difference]:
    return [difference(results, method, other, column["id"]) for column in results["columns"]]


def summary(results: Results) -> list[str]:
    """Plain sentences from the numbers: what helped beyond the spread, what did not, what hurt."""
    words = {
        "better": "**Helped beyond the spread:** {}.",
        "within the spread": "**Made no difference beyond the spread:** {}.",
        "worse": "**Was worse beyond the spread:** {}.",
        "unknown": "**Cannot be said** (rows failed, or only one seed)**:** {}.",
    }
    sorted_out: dict[str, list[str]] = {verdict: [] for verdict in words}
    for method, other in _pairs(results):
        found = _differences(results, method, other)
        for verdict, texts in sorted_out.items():
            named = [
                column["short"] + ("" if d.points is None else f" {d.points:+.1f}")
                for d, column in zip(found, results["columns"], strict=True)
                if d.verdict == verdict
            ]
            if named:
                texts.append(f"{method} over {other}: {', '.join(named)}")
    sentences = [words[verdict].format("; ".join(texts)) for verdict, texts in sorted_out.items() if texts]
    if not sorted_out["better"]:
        sentences.insert(0, "**Nothing helped beyond the spread.**")
    rule = "a difference of means (in percentage points) larger than the largest difference between two seeds of any"
    read = "Read `depth 200 +1.2` as: 1.2 percentage points more with 200 labels (depth: δ1, segmentation: mIoU)."
    return [*sentences, f"*Beyond the spread* is {rule} method in the same column. {read}"]


def _setting(results: Results) -> Block:
    settings = results["settings"]
    frames = settings["frames"]
    steps = {entry["method"]: entry["steps"] for entry in results["pretraining"] if entry["status"] == DONE}
    seeds = " and ".join(str(seed) for seed in results["seeds"])
    return Paragraph(
        f"Procedurally rendered RGB-D rooms, {settings['image_size']}x{settings['image_size']} pixels:"
        f" {frames['train']} training, {frames['validation']} validation and {frames['test']} test frames from"
        f" different seeds. Every method pre-trains a {settings['parameters']:,}-parameter RGB encoder for the same"
        f" {max(steps.values(), default=0)} steps (stages 1 and 2 together) of {settings['batch_size']} unlabelled"
        " frames; FLOPs differ and are printed below. Every row is then fine-tuned from RGB alone by one committed"
        " recipe per task, the same for scratch, and evaluated once on test after its last step. Seeds"
        f" {seeds}; a seed changes weights, order, masks and which frames are labelled (the same ones for every"
        " method)."
    )


def _tables(results: Results) -> list[Block]:
    """The methods with floors and spread, and percentage points between pairs of them."""
    (table,) = results["tables"]
    columns, titles = results["columns"], [column["title"] for column in results["columns"]]
    rows = [[*texts, *_pretraining_cost(results, texts[0])] for texts in seed_texts(results, table)]
    quiet = len(rows)
    line = ["" if column["floor"] is None else f"{100 * column['floor']:.1f}" for column in columns]
    rows.append(["trivial floor", *line, "", ""])
    spreads = [table_spread(results, table, column["id"]) for column in columns]
    rows.append(["spread", *("" if s is None else f"{s:.1f}" for s in spreads), "", ""])
    how = "; ".join(f"{TASK_NAMES[task]}: {floor['how']}" for task, floor in results.get("floors", {}).items())
    note = (
        "**Mean** (each seed), percent, on the test split; higher is better. Spread: the largest difference between two"
        f" seeds of one method. Trivial floors: {how}."
    )
    header = ["pre-training", *titles, "pre-training steps", "pre-training FLOPs"]
    points = []
    for method, other in _pairs(results):
        texts = ["?" if d.points is None else f"**{d.points:+.1f}**" if d.beyond else f"{d.points:+.1f}"
                 for d in _differences(results, method, other)]  # fmt: skip
        points.append([f"{method} - {other}", *texts])
    read = "Differences of means in percentage points; **bold** beyond the spread."
    main = Table(header, rows, quiet=(quiet, quiet + 1), note=note)
    return [Heading("Results"), main, Table(["difference", *titles], points, note=read)]


def _pretraining_cost(results: Results, method: str) -> tuple[str, str]:
    """Steps and FLOPs of one seed."""
    known = cost(results, method)
    return ("0", "0") if known is None else (f"{known.steps:.0f}", flops_text(known.flops))


def _expectations(results: Results) -> list[Block]:
    rows = [[o.text, o.because, f"**{o.verdict}**", o.detail] for o in judge(results)]
    note = "Written before the first run (`m33d_hf/experiments/expectations.yaml`); the verdicts are computed by rule."
    header = ["expected", "because", "came out", "numbers"]
    return [Heading("Expected beforehand, and what came out"), Table(header, rows, left=(1, 2, 3), note=note)]


def _diagnostics(results: Results) -> list[Block]:
    names = [method for method in labels(results) if any(diagnostic(results, method, key) for key in DIAGNOSTICS)]
    rows = []
    for key, title in DIAGNOSTICS.items():
        texts = [" / ".join(f"{v:.3f}" for v in diagnostic(results, name, key)) or "-" for name in names]
        rows.append([title, *texts])
    text = (
        "What the losses actually teach, measured on test frames, one figure per seed. **Retrieval**: how often the"
        " most similar depth patch of a frame is the one at the same place. If it works as well with *another* frame's"
        " depth map, the contrastive loss has been solved by position, not by content. **Matching**: does a depth map"
        f" belong to this image? {results.get('matching_note', '')} **Depth loss** on masked depth patches, with the"
        " visible depth patches given and with the whole depth map hidden: a small first figure with a large second one"
        " says that depth was copied from depth, not inferred from RGB."
    )
    return [Heading("Diagnostics"), Paragraph(text), Table(["", *names], rows)]


def _cost(results: Results) -> list[Block]:
    rows = []
    for entry in results["pretraining"]:
        stages = " + ".join(f"{stage['steps']}" for stage in entry.get("stages", []))
        rows.append(["pre-training", entry["method"], str(entry["seed"]), "", stages, *_spent(entry)])
    for row in results["rows"]:
        names = [
            TASK_NAMES[row["task"]],
            row["method"],
            *(str(row.get(key, "")) for key in ("seed", "labels", "steps")),
        ]
        rows.append([*names, *_spent(row)])
    rendering = results.get("rendering_seconds")
    drawn = "" if rendering is None else f" Rendering took {rendering:.0f} s."
    note = (
        "Seconds of one process with one thread, validation included; FLOPs are those of training (forward and"
        f" backward, two per multiply-add), counted by formula.{drawn}"
    )
    header = ["", "pre-training", "seed", "labels", "steps", "test metric %", "seconds", "FLOPs"]
    took = clock(results["wall_seconds"])
    total = f"Everything together took **{took}** (h:mm:ss) with {results['workers']} processes."
    blocks: list[Block] = [Heading("Cost"), Paragraph(total), Table(header, rows, left=(1,), note=note)]
    failed = failures(results)
    if failed:
        blocks += [Heading("What failed", 3), Bullets([f"`{name}`: {error}" for name, error in failed])]
    return blocks


def _spent(entry: Mapping[str, Any]) -> Sequence[str]:
    if entry["status"] != DONE:
        return (f"**{entry['status']}**", "", "")
    metric = f"{METRIC_NAMES[entry['metric']]} {100 * entry['value']:.1f}" if "value" in entry else ""
    return metric, f"{entry['seconds']:.1f}", flops_text(entry["flops"])


def _caveats(results: Results) -> list[Block]:
    seeds = (
        f"{len(results['seeds'])} seeds are a spread, not a confidence interval; by chance alone one of several"
        " comparisons will look larger than it is."
    )
    return [Heading("To keep in mind"), Bullets([*results.get("history", []), seeds, *results["caveats"]])]

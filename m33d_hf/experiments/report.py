"""report.html and report.md from results.json: every sentence and figure is computed, so both can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.experiments.document import Block, Bullets, Heading, Paragraph, Table, to_html, to_markdown
from m33d_hf.experiments.expectations import judge
from m33d_hf.experiments.figures import picture_blocks
from m33d_hf.experiments.progress import clock
from m33d_hf.experiments.results import (
    METRIC_NAMES,
    METRICS,
    TASK_NAMES,
    Results,
    cell,
    column_spread,
    columns,
    diagnostic,
    difference,
    failures,
    methods,
)
from m33d_hf.experiments.running import load_results

TITLE = "m33d-hf demo: what RGB-D pre-training is worth on rendered rooms"
DIAGNOSTICS = {
    "retrieval_accuracy_depth": "retrieval, matching depth",
    "retrieval_accuracy_mismatched_depth": "retrieval, another sample's depth",
    "retrieval_chance_depth": "retrieval, chance",
    "matching_accuracy_depth": "matching accuracy (chance .5)",
    "depth_loss_visible": "depth loss, depth patches visible",
    "depth_loss_hidden": "depth loss, depth map hidden",
}


def write_report(folder: Path) -> tuple[Path, Path]:
    """Read `folder`/results.json, draw the figures, write report.html and report.md; return their paths."""
    results = load_results(folder)
    blocks = report_blocks(results, folder)
    page, text = folder / "report.html", folder / "report.md"
    page.write_text(to_html(blocks, TITLE), encoding="utf-8")
    text.write_text(to_markdown(blocks, folder), encoding="utf-8")
    return page, text


def report_blocks(results: Results, folder: Path) -> list[Block]:
    """The whole report in order."""
    blocks: list[Block] = [Heading(TITLE, 1), *_warnings(results)]
    blocks += [Bullets(summary(results), "lead"), *_setting(results)]
    blocks += [*_main_table(results), *_expectations(results), *_diagnostics(results)]
    blocks += picture_blocks(results, folder)
    return [*blocks, *_cost(results), *_caveats(results), *_environment(results)]


def _warnings(results: Results) -> list[Block]:
    blocks: list[Block] = []
    if results["budget"] != "full":
        words = "a test of the machinery: far too few steps for any of the numbers below to mean anything."
        blocks.append(Paragraph(f"**Budget `{results['budget']}`.** This is {words}", "warning"))
    failed = failures(results)
    if failed:
        blocks.append(
            Paragraph(f"**{len(failed)} jobs did not finish.** Their errors are listed under Cost.", "warning")
        )
    return blocks


def _pairs(results: Results) -> list[tuple[str, str]]:
    """(method, other) worth a sentence: all over scratch, all over mae, plus over m33d."""
    names = methods(results)
    trained = [name for name in names if name != "scratch"]
    pairs = [(name, "scratch") for name in trained if "scratch" in names]
    pairs += [(name, "mae") for name in trained if name != "mae" and "mae" in names]
    return pairs + ([("m33d_plus", "m33d")] if {"m33d", "m33d_plus"} <= set(names) else [])


def summary(results: Results) -> list[str]:
    """Plain sentences from the numbers: what helped beyond the spread, what did not, what hurt."""
    sorted_out: dict[str, list[str]] = {"better": [], "within the spread": [], "worse": [], "unknown": []}
    for method, other in _pairs(results):
        found = [difference(results, method, other, column) for column in columns(results)]
        for verdict, texts in sorted_out.items():
            named = [
                column.short + ("" if d.points is None else f" {d.points:+.1f}")
                for d, column in zip(found, columns(results), strict=True)
                if d.verdict == verdict
            ]
            if named:
                texts.append(f"{method} over {other}: {', '.join(named)}")
    words = {
        "better": "**Helped beyond the spread:** {}.",
        "within the spread": "**Made no difference beyond the spread:** {}.",
        "worse": "**Was worse beyond the spread:** {}.",
        "unknown": "**Cannot be said** (rows failed, or only one seed)**:** {}.",
    }
    sentences = [words[verdict].format("; ".join(texts)) for verdict, texts in sorted_out.items() if texts]
    if not sorted_out["better"]:
        sentences.insert(0, "**Nothing helped beyond the spread.**")
    rule = "a difference of means (in percentage points) larger than the largest difference between two seeds of any"
    read = "Read `depth 200 +1.2` as: 1.2 percentage points more with 200 labels (depth: δ1, segmentation: mIoU)."
    return [*sentences, f"*Beyond the spread* is {rule} method in the same column. {read}"]


def _setting(results: Results) -> list[Block]:
    settings = results["settings"]
    frames = settings["frames"]
    steps = {entry["method"]: entry["steps"] for entry in results["pretraining"] if entry["status"] == "done"}
    seeds = " and ".join(str(seed) for seed in results["seeds"])
    return [
        Paragraph(
            f"Procedurally rendered RGB-D rooms, {settings['image_size']}x{settings['image_size']} pixels:"
            f" {frames['train']} training, {frames['validation']} validation and {frames['test']} test frames from"
            f" different seeds. Every method pre-trains a {settings['parameters']:,}-parameter RGB encoder for the same"
            f" {max(steps.values(), default=0)} steps (stages 1 and 2 together) of {settings['batch_size']} unlabelled"
            " frames; FLOPs differ and are printed below. Every row is then fine-tuned from RGB alone by one committed"
            " recipe per task, the same for scratch, and evaluated once on test after its last step. Seeds"
            f" {seeds}; a seed changes weights, order, masks and which frames are labelled (the same ones for every"
            " method)."
        )
    ]


def _main_table(results: Results) -> list[Block]:
    cost = _pretraining_cost(results)
    rows = []
    for method in methods(results):
        steps, flops = cost.get(method, ("0", "0"))
        rows.append([method, *(cell(results, method, column).text() for column in columns(results)), steps, flops])
    quiet = len(rows)
    floors = results.get("floors", {})
    line = [f"{100 * floors[c.task]['value']:.1f}" if c.task in floors else "" for c in columns(results)]
    rows.append(["trivial floor", *line, "", ""])
    spreads = [column_spread(results, column) for column in columns(results)]
    rows.append(["spread", *("" if s is None else f"{s:.1f}" for s in spreads), "", ""])
    how = "; ".join(f"{TASK_NAMES[task]}: {floor['how']}" for task, floor in floors.items())
    note = (
        "**Mean** (each seed), percent, on the test split; higher is better. Spread: the largest difference between two"
        f" seeds of one method. Trivial floors: {how}."
    )
    header = ["pre-training", *(c.title for c in columns(results)), "pre-training steps", "pre-training FLOPs"]
    table = Table(header, rows, quiet=(quiet, quiet + 1), note=note)
    return [Heading("Results"), table, _differences_table(results)]


def _differences_table(results: Results) -> Table:
    """Percentage points between pairs of methods; bold beyond the spread."""
    rows = []
    for method, other in _pairs(results):
        found = [difference(results, method, other, column) for column in columns(results)]
        points = ["?" if d.points is None else f"{d.points:+.1f}" for d in found]
        bold = [d.verdict in ("better", "worse") for d in found]
        rows.append([f"{method} - {other}", *(f"**{p}**" if b else p for p, b in zip(points, bold, strict=True))])
    note = "Differences of means in percentage points; **bold** beyond the spread."
    return Table(["difference", *(c.title for c in columns(results))], rows, note=note)


def _pretraining_cost(results: Results) -> dict[str, tuple[str, str]]:
    """Steps and FLOPs per method, of one seed."""
    found = {}
    for entry in results["pretraining"]:
        if entry["status"] == "done" and entry["method"] not in found:
            found[entry["method"]] = (str(entry["steps"]), flops_text(entry["flops"]))
    return found


def flops_text(flops: float) -> str:
    """FLOPs with a unit, three digits."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops:.0f} FLOP"


def _expectations(results: Results) -> list[Block]:
    rows = [[o.text, o.because, f"**{o.verdict}**", o.detail] for o in judge(results)]
    note = "Written before the first run (`m33d_hf/experiments/expectations.yaml`); the verdicts are computed by rule."
    header = ["expected", "because", "came out", "numbers"]
    return [Heading("Expected beforehand, and what came out"), Table(header, rows, left=(1, 2, 3), note=note)]


def _diagnostics(results: Results) -> list[Block]:
    names = [method for method in methods(results) if any(diagnostic(results, method, key) for key in DIAGNOSTICS)]
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
            str(row["seed"]),
            str(row["labels"]),
            str(row.get("steps", "")),
        ]
        rows.append([*names, *_spent(row)])
    rendering = results.get("rendering_seconds")
    drawn = "" if rendering is None else f" Rendering took {rendering:.0f} s."
    note = (
        "Seconds of one process with one thread, validation included; FLOPs are those of training (forward and"
        f" backward, two per multiply-add), counted by formula.{drawn}"
    )
    header = ["", "pre-training", "seed", "labels", "steps", "test metric %", "seconds", "FLOPs"]
    total = f"Everything together took **{clock(results['wall_seconds'])}** (m:ss) with {results['workers']} processes."
    blocks: list[Block] = [Heading("Cost"), Paragraph(total), Table(header, rows, left=(1,), note=note)]
    failed = failures(results)
    if failed:
        blocks += [Heading("What failed", 3), Bullets([f"`{name}`: {error}" for name, error in failed])]
    return blocks


def _spent(entry: Mapping[str, Any]) -> Sequence[str]:
    if entry["status"] != "done":
        return (f"**{entry['status']}**", "", "")
    metric = ""
    if "value" in entry:
        metric = f"{METRIC_NAMES[METRICS[entry['task']]]} {100 * entry['value']:.1f}"
    return metric, f"{entry['seconds']:.1f}", flops_text(entry["flops"])


def _caveats(results: Results) -> list[Block]:
    items = [
        *results.get("history", []),
        f"{len(results['seeds'])} seeds are a spread, not a confidence interval; by chance alone one of several"
        " comparisons will look larger than it is.",
        "The images are small and rendered, the encoder is tiny, fine-tuning is short: part of any gain over scratch is"
        " speed of convergence, which longer fine-tuning would take back.",
        "Steps are equal, FLOPs are not: a step on two modalities costs more than one on RGB.",
        "The fine-tuning recipe was committed before this run and is the same for every row; no checkpoint is chosen on"
        " the test split.",
        "None of this is a claim about ScanNet or NYUv2; the paper's own figures are in"
        " `m33d_hf/recipes/paper_results.yaml`, marked as the paper's.",
    ]
    return [Heading("To keep in mind"), Bullets(items)]


def _environment(results: Results) -> list[Block]:
    environment = results["environment"]
    rows = [[name, str(value)] for name, value in environment.items()]
    return [Heading("Environment"), Table(["", ""], rows, left=(1,))]

"""report.html and report.md of the demo: every sentence and figure is computed, so both can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.clock import clock
from m33d_hf.experiments.report.answers import answer_table, answers, short_answers
from m33d_hf.experiments.report.contrasts import RULE
from m33d_hf.experiments.report.demos.answer import lead, top_blocks
from m33d_hf.experiments.report.demos.figures import picture_blocks
from m33d_hf.experiments.report.expectations import judge
from m33d_hf.experiments.report.figures import answers_picture, draw
from m33d_hf.experiments.report.results import DONE, Results, cost, diagnostic, failures, labels
from m33d_hf.experiments.report.tables import (
    NOISE,
    budget_warning,
    environment_table,
    floor_texts,
    noise_text,
    seed_texts,
)
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
    blocks: list[Block] = [Heading(TITLE, 1), *_warnings(results), *top_blocks(results, folder)]
    blocks += [Heading("In words"), Bullets(short_answers(results)), _setting(results)]
    blocks += [
        *_answers(results, folder),
        *_tables(results),
        *_expectations(results),
        *_diagnostics(results),
        *picture_blocks(results, folder),
    ]
    blocks += [*_cost(results), *_caveats(results), Heading("Environment"), environment_table(results)]
    return write_both(blocks, TITLE, folder / "report.html", folder / "report.md")


def _warnings(results: Results) -> list[Block]:
    failed = failures(results)
    words = f"**{len(failed)} jobs did not finish.** Their errors are listed under Cost."
    return [*budget_warning(results), *([Paragraph(words, "warning")] if failed else [])]


def summary(results: Results) -> list[str]:
    """What stands on top, then a sentence per declared question, from the numbers."""
    return [*lead(results), *short_answers(results)]


def _setting(results: Results) -> Block:
    settings = results["settings"]
    frames = settings["frames"]
    steps = {entry["method"]: entry["steps"] for entry in results["pretraining"] if entry["status"] == DONE}
    *others, last = (str(seed) for seed in results["seeds"])
    seeds = f"Seeds {', '.join(others)} and {last}" if others else f"Seed {last}"
    return Paragraph(
        f"Procedurally rendered RGB-D rooms, {settings['image_size']}x{settings['image_size']} pixels:"
        f" {frames['train']} training, {frames['validation']} validation and {frames['test']} test frames from"
        f" different seeds. Every method pre-trains a {settings['parameters']:,}-parameter RGB encoder for the same"
        f" {max(steps.values(), default=0):,} steps (stages 1 and 2 together) of {settings['batch_size']} unlabelled"
        " frames; FLOPs differ and are printed below. Every row is then fine-tuned from RGB alone by one committed"
        " recipe per task, the same for scratch, and evaluated once on test after its last step."
        f" {seeds}; a seed changes weights, order, masks and which frames are"
        " labelled (the same ones for every method)."
    )


def _answers(results: Results, folder: Path) -> list[Block]:
    """Every declared difference as a picture and with its numbers."""
    blocks: list[Block] = [Heading("Differences"), *draw(folder, "answers", answers_picture(results))]
    for found in answers(results):
        blocks += [Heading(found.text, 3), answer_table(results, found)]
    return [*blocks, Paragraph(RULE)]


def _tables(results: Results) -> list[Block]:
    """The methods with floors, and how sure a difference between two of them is."""
    (table,) = results["tables"]
    columns = results["columns"]
    rows = [[*texts, *_pretraining_cost(results, texts[0])] for texts in seed_texts(results, table)]
    quiet = len(rows)
    rows.append(["trivial floor", *floor_texts(columns), "", ""])
    rows.append([NOISE, *(noise_text(results, table, column["id"]) for column in columns), "", ""])
    how = "; ".join(f"{TASK_NAMES[task]}: {floor['how']}" for task, floor in results.get("floors", {}).items())
    note = f"**Mean** (each seed), percent, on the test split; higher is better. Trivial floors: {how}."
    header = ["pre-training", *(column["title"] for column in columns), "pre-training steps", "pre-training FLOPs"]
    return [Heading("Results"), Table(header, rows, quiet=(quiet, quiet + 1), note=note)]


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
        f"{len(results['seeds'])} seeds make wide intervals: what shows no difference here may differ all the same, by"
        " as much as its interval says."
    )
    return [Heading("To keep in mind"), Bullets([*results.get("history", []), seeds, *results["caveats"]])]

"""video.html and video.md from results.json: tables of the video experiment, every sentence computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.experiments.comparison import BETTER, WORSE, Cell, compare, largest_range
from m33d_hf.experiments.document import Block, Bullets, Heading, Paragraph, Picture, Table, to_html, to_markdown
from m33d_hf.experiments.jobs import DONE
from m33d_hf.experiments.progress import clock
from m33d_hf.experiments.running import load_results

Results = Mapping[str, Any]
TITLE = "m33d-hf on clips: actions, and phases of whole videos, on rendered rooms"
PHASE_METRICS = {"map": "mAP", "frame_accuracy": "frame accuracy", "edit": "edit", "f1_50": "F1@50"}


def write_video_report(folder: Path) -> tuple[Path, Path]:
    """Read `folder`/results.json, write video.html and video.md; return their paths."""
    results = load_results(folder)
    blocks = report_blocks(results, folder)
    page, text = folder / "video.html", folder / "video.md"
    page.write_text(to_html(blocks, TITLE), encoding="utf-8")
    text.write_text(to_markdown(blocks, folder), encoding="utf-8")
    return page, text


def report_blocks(results: Results, folder: Path) -> list[Block]:
    """The whole report in order."""
    blocks: list[Block] = [Heading(TITLE, 1)]
    if results["budget"] != "full":
        words = "a test of the machinery: far too few steps for any of the numbers below to mean anything."
        blocks.append(Paragraph(f"**Budget `{results['budget']}`.** This is {words}", "warning"))
    failed = failures(results)
    if failed:
        words = "; ".join(f"{name}: {error}" for name, error in failed)
        blocks.append(Paragraph(f"**{len(failed)} jobs did not finish.** {words}", "warning"))
    blocks += [Bullets(summary(results), "lead"), *_setting(results), *_actions(results), *_phases(results)]
    return [*blocks, *_pictures(results, folder), *_cost(results)]


def failures(results: Results) -> list[tuple[str, str]]:
    """(job, error) of everything that did not finish."""
    return [(row["id"], row.get("error", "unknown error")) for row in results["rows"] if row["status"] != DONE]


def cell(results: Results, task: str, method: str, fraction: float, metric: str) -> Cell:
    """The seeds of a method in a column, in percent."""
    rows = [r for r in results["rows"] if (r["task"], r["method"], r["fraction"]) == (task, method, fraction)]
    done = [100 * row["metrics"][metric] for row in rows if row["status"] == DONE]
    return Cell(tuple(done), len(rows) - len(done))


def spread(results: Results, task: str, fraction: float, metric: str) -> float | None:
    """Largest range between the seeds of one method in a column, over the methods."""
    return largest_range(cell(results, task, method, fraction, metric) for method in results["methods"])


def _verdict(results: Results, task: str, fraction: float, metric: str, method: str, other: str) -> str | None:
    """Signed points of `method` over `other` where they exceed the column's spread."""
    left, right = (cell(results, task, name, fraction, metric) for name in (method, other))
    points, verdict = compare(left, right, spread(results, task, fraction, metric))
    return f"{method} over {other} {points:+.1f}" if verdict in (BETTER, WORSE) else None


def summary(results: Results) -> list[str]:
    """What is beyond the spread between seeds, in percentage points."""
    methods = list(results["methods"])
    pairs = [(name, other) for i, name in enumerate(methods) for other in methods[:i]]
    sentences = []
    for task, metric, title in (
        ("actions", "top1", "top-1"),
        ("phases", "clipwise/map", "clip-wise mAP"),
        ("phases", "map", "Bi-GRU mAP"),
    ):
        found = []
        for fraction in results["fractions"][task]:
            verdicts = [_verdict(results, task, fraction, metric, *pair) for pair in pairs]
            found += [f"{text} at {fraction:.0%} labels" for text in verdicts if text]
        said = "; ".join(found) if found else "nothing"
        sentences.append(f"**{title}, beyond the spread between seeds:** {said}.")
    return [*sentences, _gain(results)]


def _gain(results: Results) -> str:
    """What the whole video adds to one clip."""
    fraction = max(results["fractions"]["phases"])
    texts = []
    for method in results["methods"]:
        clip, video = (cell(results, "phases", method, fraction, f"{part}map").mean for part in ("clipwise/", ""))
        if clip is not None and video is not None:
            texts.append(f"{method} {clip:.1f} to {video:.1f}")
    ceiling = results.get("ceiling")
    known = (
        ""
        if ceiling is None
        else (
            f" Whoever knows the activity of a clip for certain still names only {100 * ceiling:.1f} % of the phases."
        )
    )
    return f"**From one clip to the whole video** (mAP, {fraction:.0%} labels): {', '.join(texts) or 'unknown'}.{known}"


def _setting(results: Results) -> list[Block]:
    budget = results["settings"]
    clips, videos = budget["clips"], budget["videos"]
    text = (
        f"{clips['train']} clips of ten motions and {videos['train']} procedures (long videos of phases, in which one "
        f"activity occurs in two phases) are rendered for training, {clips['test']} clips and {videos['test']} "
        f"procedures for the test. Pre-training: {budget['pretraining_steps']} steps on RGB-D clips without labels. "
        f"Fine-tuning from RGB alone: {budget['action_steps']} steps on actions, {budget['phase_steps']} on phases of "
        "single clips, then the Bi-GRU over the features of all clips of a video. One recipe for every row; the last "
        "weights count, and nothing is chosen on the test split. Phases are labelled by whole videos, actions by clips."
    )
    return [Heading("Setting"), Paragraph(text)]


def _table(results: Results, task: str, columns: Sequence[tuple[str, float, str]], note: str) -> Table:
    """Methods in rows; columns are (title, fraction, metric)."""
    rows = [[name, *(cell(results, task, name, f, metric).text() for _, f, metric in columns)]
            for name in results["methods"]]  # fmt: skip
    return Table(["pre-training", *(title for title, _, _ in columns)], rows, note=note)


def _actions(results: Results) -> list[Block]:
    columns = [(f"top-1 %, {f:.0%} labels", f, "top1") for f in results["fractions"]["actions"]]
    note = "Mean, and each seed in brackets. Ten classes of equal frequency: chance is 10 %."
    return [Heading("Actions"), _table(results, "actions", columns, note)]


def _phases(results: Results) -> list[Block]:
    fractions = results["fractions"]["phases"]
    blocks: list[Block] = [Heading("Phases")]
    floor = results.get("floor", {}).get("map")
    known = "" if floor is None else f" The place of a clip in its video alone, unseen: {100 * floor:.1f} %."
    for part, title in (("clipwise/", "by clip"), ("", "Bi-GRU")):
        columns = [(f"mAP % {title}, {f:.0%} labels", f, f"{part}map") for f in fractions]
        note = "Mean over phases; each seed in brackets. Shape of Table 2."
        blocks.append(_table(results, "phases", columns, note + (known if not part else "")))
    most = max(fractions)
    for part, title in (("clipwise/", "by clip"), ("", "Bi-GRU")):
        columns = [(f"{name} % {title}", most, f"{part}{metric}") for metric, name in PHASE_METRICS.items()]
        blocks.append(_table(results, "phases", columns, f"{most:.0%} of the labels."))
    return blocks


def _pictures(results: Results, folder: Path) -> list[Block]:
    """Confusion matrices and timelines that the runs of the first seed wrote, of the last method."""
    blocks: list[Block] = []
    for task, pattern in (("actions", "confusion_matrix.png"), ("phases", "evaluation/timeline_*.png")):
        fraction = max(results["fractions"][task])
        rows = [r for r in results["rows"] if (r["task"], r["fraction"]) == (task, fraction) and r["status"] == DONE]
        if rows:
            row = [r for r in rows if r["seed"] == rows[0]["seed"]][-1]
            found = sorted(Path(row["folder"]).glob(pattern))[:2]
            blocks += [Picture(path, f"{task}, {row['method']}, seed {row['seed']}: {path.stem}") for path in found]
    return [Heading("Pictures"), *blocks] if blocks else []


def _cost(results: Results) -> list[Block]:
    environment = results["environment"]
    words = ", ".join(f"{name} {value}" for name, value in environment.items())
    text = f"{clock(results['wall_seconds'])} with {results['workers']} one-thread processes. {words}."
    caveat = (
        "Two seeds are a spread and not an interval, and part of any gap at this length is speed of convergence. "
        "Rendered rooms say nothing about surgery."
    )
    return [Heading("Cost and limits"), Paragraph(text), Paragraph(caveat)]

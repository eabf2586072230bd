"""report.html of a run, one file with its pictures inside: written at its start, every evaluation and its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.clock import clock
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.skips import FILE_NAME, count_skipped, read_skipped
from m33d_hf.data.plural import plural
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.recipes import leaves
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.showing.next_commands import NextCommand
from m33d_hf.training.showing.story import (
    best_row,
    classes_table,
    evaluations,
    inputs_table,
    metric_values,
    metrics_table,
    number_text,
)
from m33d_hf.training.showing.videos_table import videos_table
from m33d_hf.visualization.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Paragraph,
    Picture,
    Table,
    to_html,
)

REPORT = "report.html"
_MOST_SKIPPED = 20


@dataclass
class RunStory:
    """What is told of a run.

    Attributes:
        args: its arguments.
        state: "running", "finished" or why it ended.
        step, total_steps: optimizer steps done and planned.
        history: rows of metrics.jsonl.
        description: lines of the run about itself and its data.
        chosen_by: name ("eval/...") of the metric that judges the run, and whether larger is better; None without.
        by_inputs: words for a set of `evaluation.inputs` -> metrics; empty where one set was judged.
        pictures: (file, caption), in order.
        commands: what to type next.
        warnings: what went wrong without ending the run.
        seconds, drawing_seconds: time of the run so far, and of it that of pictures and reports.
    """

    args: RunArguments
    state: str
    step: int
    total_steps: int
    history: Sequence[Mapping[str, Any]]
    description: Sequence[str] = ()
    chosen_by: tuple[str, bool] | None = None
    by_inputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Sequence[tuple[Path, str]] = ()
    commands: Sequence[NextCommand] = ()
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    drawing_seconds: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)


def write_report(story: RunStory) -> Path:
    """Write report.html into the output folder, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder = Path(story.args.output_dir)
    task = story.args.task
    words = "Pre-training" if task == PRETRAINING else task.replace("_", " ").capitalize()
    title = f"{words}: {folder.resolve().name}"
    blocks: list[Block] = [Heading(title, 1), Bullets(_summary(story), "lead")]
    blocks += [Paragraph(text, "warning") for text in story.warnings]
    blocks += _pictures(story) + _metrics(story) + _next(story) + _settings(story) + _skipped(folder)
    blocks += _environment(story)
    return write_text_atomically(folder / REPORT, to_html(blocks, title))


def _summary(story: RunStory) -> list[str]:
    done = f"{story.step} of {plural(story.total_steps, 'step')}"
    unit = "h:mm:ss" if story.seconds >= 3600 else "m:ss"
    state = f"{story.state[:1].upper()}{story.state[1:]}"
    took = f"{clock(story.seconds)} ({unit})"
    texts = [f"**{state}**: {done}, {took} since the last start." if story.total_steps else f"**{state}** in {took}."]
    rows = evaluations(story.history)
    if rows:
        values = metric_values(rows[-1])
        shown = ", ".join(f"{name} {number_text(value)}" for name, value in values.items() if "/" not in name)
        texts.append(f"Last evaluation (step {rows[-1]['step']}): {shown}.")
    if story.chosen_by is not None and rows:
        name, greater = story.chosen_by
        best = best_row(story.history, name, greater)
        if best is not None:
            which = "largest" if greater else "smallest"
            texts.append(f"Best {name}: **{number_text(best[name])}** at step {best['step']} (the {which} counts).")
    data = story.args.data
    if story.args.eval_only:
        return [*texts, f"Data: {data.source}, {_evaluated_on(story.args)}.", *story.description]
    place = f" in `{data.root}`" if data.root else ""
    texts.append(f"Data: {data.source}{place}; evaluated on {_evaluated_on(story.args)}.")
    texts += [line for line in story.description if line.strip()]
    return texts


def _evaluated_on(args: RunArguments) -> str:
    if args.data.eval_root is not None:
        return f"`{args.data.eval_root}`"
    return "nothing" if args.data.eval_split is None else f"the split {args.data.eval_split}"


def _pictures(story: RunStory) -> list[Block]:
    found = [Picture(path, caption) for path, caption in story.pictures if path.is_file()]
    return [Heading("Pictures"), *found] if found else []


def _metrics(story: RunStory) -> list[Block]:
    blocks: list[Block] = []
    table = metrics_table(story.history)
    if table is not None:
        blocks += [Heading("Metrics"), table]
        if story.by_inputs:
            blocks += [Heading("By inputs, on the same samples", 3), inputs_table(story.by_inputs)]
        classes = classes_table(evaluations(story.history)[-1])
        if classes is not None:
            blocks += [Heading("By class, last evaluation", 3), classes]
    videos = videos_table(Path(story.args.output_dir))
    if videos is not None:
        blocks += [Heading("By video, last evaluation", 3), videos]
    return blocks


def _next(story: RunStory) -> list[Block]:
    blocks: list[Block] = [Heading("What to type next")] if story.commands else []
    for each in story.commands:
        blocks += [Paragraph(f"{each.purpose[:1].upper()}{each.purpose[1:]}:"), Code(each.line)]
    return blocks


def _settings(story: RunStory) -> list[Block]:
    given, usual = dict(leaves(story.args.to_dict())), dict(leaves(RunArguments().to_dict()))
    lines = {key: json.dumps(value, default=str) for key, value in given.items()}
    changed = [[f"`{key}`", f"`{lines[key]}`"] for key in given if key not in usual or given[key] != usual[key]]
    short = [row for row in changed if len(row[1]) < 200]
    whole = "\n".join(f"{key}: {text}" for key, text in lines.items())
    return [
        Heading("Settings"),
        Paragraph("Where they differ from the defaults:"),
        Table(["setting", "value"], short, left=(1,)),
        Code(whole, f"All {len(lines)} settings, as resolved"),
    ]


def _skipped(folder: Path) -> list[Block]:
    files = read_skipped(folder / FILE_NAME)
    if not files:
        return [Heading("Skipped files"), Paragraph("None.")]
    rows = [[f"`{file.path}`", file.reason] for file in files[:_MOST_SKIPPED]]
    more = f"The first {_MOST_SKIPPED} of {len(files)}." if len(files) > _MOST_SKIPPED else ""
    counted = count_skipped(folder)
    return [Heading("Skipped files"), Paragraph(f"{counted}."), Table(["file", "reason"], rows, left=(1,), note=more)]


def _environment(story: RunStory) -> list[Block]:
    versions = ", ".join(f"{name} {version}" for name, version in (story.environment.get("versions") or {}).items())
    commit, device = story.environment.get("commit"), story.environment.get("device")
    texts = [f"Versions: {versions}." if versions else "", f"Commit: {commit}." if commit else ""]
    texts.append(f"Device: {device}." if device else "")
    share = 100 * story.drawing_seconds / max(story.seconds, 1e-9)
    texts.append(f"Pictures and this page took {story.drawing_seconds:.1f} s, {share:.1f} % of the run.")
    return [Heading("Environment"), Bullets([text for text in texts if text])]

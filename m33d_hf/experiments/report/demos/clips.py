"""video.html and video.md: tables of the video experiment, every sentence computed."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

from m33d_hf.data.clock import clock
from m33d_hf.experiments.report.answers import answer_blocks, short_answers
from m33d_hf.experiments.report.conditions import condition_lines
from m33d_hf.experiments.report.contrasts import RULE
from m33d_hf.experiments.report.demos.answer import lead, top_blocks
from m33d_hf.experiments.report.figures import answers_picture, draw
from m33d_hf.experiments.report.results import DONE, Results, cell, column_entry, failures
from m33d_hf.experiments.report.tables import budget_warning, seed_texts
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, Picture, Table, write_both

TITLE = "m33d-hf on clips: actions, and phases of whole videos, on rendered rooms"


def write_reports(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write video.html and video.md; return their paths."""
    blocks: list[Block] = [Heading(TITLE, 1), *budget_warning(results)]
    failed = failures(results)
    if failed:
        words = "; ".join(f"{name}: {error}" for name, error in failed)
        blocks.append(Paragraph(f"**{len(failed)} jobs did not finish.** {words}", "warning"))
    blocks += [*top_blocks(results, folder), Heading("In words"), Bullets(_in_words(results))]
    blocks += [*_setting(results), *_tables(results)]
    blocks += [*answer_blocks(results), *draw(folder, "answers", answers_picture(results)), Paragraph(RULE)]
    blocks += [*_pictures(results, folder), *_cost(results)]
    return write_both(blocks, TITLE, folder / "video.html", folder / "video.md")


def summary(results: Results) -> list[str]:
    """What stands on top, a sentence per declared question, and what the whole video adds."""
    return [*lead(results), *_in_words(results)]


def _in_words(results: Results) -> list[str]:
    return [*condition_lines(results), *short_answers(results), _gain(results)]


def _gain(results: Results) -> str:
    """What the whole video adds to one clip."""
    texts = []
    for method in results["methods"]:
        clip, video = (cell(results, method, f"phases-{part}-map").mean for part in ("clip", "video"))
        if clip is not None and video is not None:
            texts.append(f"{method} {clip:.1f} to {video:.1f}")
    share, ceiling = max(results["fractions"]["phases"]), results.get("ceiling")
    known = ""
    if ceiling is not None:
        known = (
            f" Whoever knows the activity of a clip for certain still names only {100 * ceiling:.1f} % of the phases."
        )
    return f"**From one clip to the whole video** (mAP, {share:.0%} labels): {', '.join(texts) or 'unknown'}.{known}"


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


def _tables(results: Results) -> list[Block]:
    """The tables in order, under a heading where their title changes."""
    blocks: list[Block] = []
    floor = results.get("floor", {}).get("map")
    known = "" if floor is None else f" The place of a clip in its video alone, unseen: {100 * floor:.1f} %."
    titles = [""]
    for table in results["tables"]:
        if table["title"] != titles[-1]:
            titles.append(table["title"])
            blocks.append(Heading(table["title"]))
        header = ["pre-training", *(column_entry(results, name)["title"] for name in table["columns"])]
        note = table["note"] + (known if table["id"] == "phases-video" else "")
        blocks.append(Table(header, seed_texts(results, table), note=note))
    return blocks


def _pictures(results: Results, folder: Path) -> list[Block]:
    """Confusion matrix and timelines of the first seed and the last method: copied from its runs, where they are still
    beside the results."""
    blocks: list[Block] = []
    figures = folder / "figures"
    for task, pattern in (("actions", "confusion_matrix.png"), ("phases", "evaluation/timeline_*.png")):
        fraction = max(results["fractions"][task])
        rows = [r for r in results["data"] if (r["task"], r["fraction"]) == (task, fraction) and r["status"] == DONE]
        if rows:
            row = [r for r in rows if r["seed"] == rows[0]["seed"]][-1]
            for path in sorted((folder / row["folder"]).glob(pattern))[:2]:
                figures.mkdir(exist_ok=True)
                copyfile(path, figures / f"{task}_{path.name}")
            caption = f"{task}, {row['method']}, seed {row['seed']}: "
            kept = sorted(figures.glob(f"{task}_*.png"))
            blocks += [Picture(path, caption + path.stem.removeprefix(f"{task}_")) for path in kept]
    return [Heading("Pictures"), *blocks] if blocks else []


def _cost(results: Results) -> list[Block]:
    words = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    text = f"{clock(results['wall_seconds'])} with {results['workers']} one-thread processes. {words}."
    caveat = (
        "Two seeds make wide intervals, and part of any gap at this length is speed of convergence. "
        "Rendered rooms say nothing about surgery."
    )
    return [Heading("Cost and limits"), Paragraph(text), Paragraph(caveat)]

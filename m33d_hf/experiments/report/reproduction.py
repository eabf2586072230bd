"""tables.md, answers.md, figures/ and report.html from results.json alone."""

from __future__ import annotations

import re
from pathlib import Path

from m33d_hf.data.clock import clock
from m33d_hf.experiments.report.answers import answer_blocks, short_answers
from m33d_hf.experiments.report.contrasts import RULE
from m33d_hf.experiments.report.figures import all_pictures
from m33d_hf.experiments.report.paper import paper_blocks
from m33d_hf.experiments.report.results import Results, failures
from m33d_hf.experiments.report.tables import (
    diagnostics_table,
    environment_table,
    floors_text,
    grid_table,
    pretraining_table,
    seeds_table,
    table_blocks,
)
from m33d_hf.training.run.reporting import short_commit
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, to_html, to_markdown

TITLE = "The paper's tables in shape, on rendered rooms"
READ = "Numbers are percentage points: the ends of 95 % intervals of differences, one way or the other."
CAVEAT = (
    "Small rendered pictures, a tiny encoder and short training: part of any gain over scratch is speed of convergence"
    "{long}, equal steps are not equal FLOPs, and none of it is a claim about ScanNet, NYUv2, UCF-101 or OR-AR."
)
# Of `scripts/few_labels.py`, whose data are a user's own.
FEW_LABELS = "few-labels"
FEW_LABELS_TITLE = "Few labels: what the starts are worth on this data"
FEW_LABELS_CAVEAT = (
    "Of this data, this encoder and this length of training alone: part of any gain over scratch may be speed of"
    " convergence."
)
LONG_FORM = (
    "n, mean, std and range are of seeds of pre-training, each the mean of its fine-tunings; behind a seed its"
    " fine-tunings stand one by one."
)
LONG = " (the long fine-tuning column tells how much)"


def write_reports(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write tables.md, answers.md, figures/ and report.html into `folder`.

    Returns:
        Paths of the page and of the tables.
    """
    page, text, said = (folder / name for name in ("report.html", "tables.md", "answers.md"))
    pictures = all_pictures(results, folder)
    head = [*warnings(results), Paragraph(_what(results)), Paragraph(RULE)]
    asked: list[Block] = [*answer_blocks(results), *pictures["answers"]]
    tables: list[Block] = []
    for table in results["tables"]:
        tables += [*table_blocks(results, table), *pictures.get(table["id"], [])]
    rest = [*_recipes(results), *paper_blocks(results), *_long_form(results), *_machine(results)]
    title = FEW_LABELS_TITLE if results["name"] == FEW_LABELS else TITLE
    text.write_text(to_markdown([Heading(title, 1), *head, *tables, *rest], folder), encoding="utf-8")
    said.write_text(to_markdown([Heading("Questions and answers", 1), *head, *asked], folder), encoding="utf-8")
    lead: list[Block] = [Bullets(summary(results), "lead")] if results.get("questions") else []
    html = to_html([Heading(title, 1), *lead, *head, *tables, *asked, *rest], title)
    page.write_text(html, encoding="utf-8")
    return page, text


def summary(results: Results) -> list[str]:
    """A sentence per question, and how to read it."""
    return [*short_answers(results), READ] if results.get("questions") else []


def warnings(results: Results) -> list[Block]:
    """That a budget is too small to mean anything, and that something failed."""
    blocks: list[Block] = []
    if results["budget"] in ("small", "smoke"):
        words = (
            "It shows that everything runs; it is too short, and has too few seeds, for its numbers to mean anything."
        )
        blocks.append(Paragraph(f"**Budget `{results['budget']}`.** {words}", "warning"))
    failed = failures(results)
    if failed:
        words = f"**{len(failed)} of the runs did not finish;** they are listed at the end of the tables."
        blocks.append(Paragraph(words, "warning"))
    return blocks


def _what(results: Results) -> str:
    has_long = any("long" in column["id"] for column in results["columns"])
    caveat = FEW_LABELS_CAVEAT if results["name"] == FEW_LABELS else CAVEAT.format(long=LONG if has_long else "")
    return " ".join(filter(None, [how_made(results), floors_text(results), caveat]))


def how_made(results: Results) -> str:
    """Command, cost, seeds and commit in a sentence."""
    environment = results.get("environment", {})
    seeds = ", ".join(str(seed) for seed in results["seeds"])
    commit = environment.get("commit", "unknown")
    return (
        f"`{results.get('command', 'make reproduce')}`: {clock(results['wall_seconds'])} (h:mm:ss) with"
        f" {results['workers']} processes, {clock(results.get('cpu_seconds', 0.0))} of CPU time in all; seeds {seeds};"
        f" commit `{short_commit(commit, 12)}`."
    )


def _recipes(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("Pre-trainings"), pretraining_table(results)]
    diagnosed = diagnostics_table(results)
    if diagnosed is not None:
        blocks += [Heading("Diagnostics of the pre-trainings", 3), diagnosed]
    grid = grid_table(results)
    if grid is not None:
        blocks += [Heading("Recipes, chosen on validation"), grid]
    if results.get("history"):
        blocks += [Heading("What was tried"), Bullets(list(results["history"]))]
    return blocks


def _long_form(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("Every seed and fine-tuning"), Paragraph(LONG_FORM)]
    for table in results["tables"]:
        blocks += [Heading(table["title"], 3), seeds_table(results, table)]
    return blocks


def _machine(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("Machine and versions"), environment_table(results)]
    failed = failures(results)
    if failed:
        items = [f"`{name}`: {one_line(error)}" for name, error in failed]
        blocks += [Heading("What failed"), Bullets(items)]
    return blocks


def one_line(text: str) -> str:
    """An error as code on one line of Markdown: no line breaks, no backticks; shortened after 300 characters."""
    flat = re.sub(r"\s+", " ", text).replace("`", "'").strip()
    return f"`{flat if len(flat) <= 300 else flat[:299] + '…'}`"

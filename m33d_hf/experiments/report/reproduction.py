"""tables.md, answers.md, figures/ and report.html from results.json alone, and what the documents show of them."""

from __future__ import annotations

import re
from pathlib import Path

from m33d_hf.data.clock import clock
from m33d_hf.errors import ConfigError
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
    overview_table,
    pretraining_table,
    result_table,
    seeds_table,
    table_blocks,
)
from m33d_hf.training.run.reporting import short_commit
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, to_html, to_markdown

TITLE = "The paper's tables in shape, on rendered rooms"
BEGIN, END = "<!-- rooms-results:begin -->", "<!-- rooms-results:end -->"
SHOWN_TABLES = ("table_3", "table_5", "clips")
README_COLUMNS = ("semseg-200", "semseg-200-long", "depth-200", "actions")
AGAINST = ("scratch", "clips-scratch")
READ = "Numbers are percentage points: the ends of 95 % intervals of differences, one way or the other."
CAVEAT = (
    "Small rendered pictures, a tiny encoder and short training: part of any gain over scratch is speed of convergence"
    " (the long fine-tuning column tells how much), equal steps are not equal FLOPs, and none of it is a claim about"
    " ScanNet, NYUv2, UCF-101 or OR-AR."
)


def write_reports(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write tables.md, answers.md, figures/ and report.html into `folder`.

    Returns:
        Paths of the page and of the tables.
    """
    page, text, said = (folder / name for name in ("report.html", "tables.md", "answers.md"))
    pictures = all_pictures(results, folder)
    head = [*_warnings(results), Paragraph(_what(results)), Paragraph(RULE)]
    asked: list[Block] = [*answer_blocks(results), *pictures["answers"]]
    tables: list[Block] = []
    for table in results["tables"]:
        tables += [*table_blocks(results, table), *pictures.get(table["id"], [])]
    rest = [*_recipes(results), *paper_blocks(results), *_long_form(results), *_machine(results)]
    text.write_text(to_markdown([Heading(TITLE, 1), *head, *tables, *rest], folder), encoding="utf-8")
    said.write_text(to_markdown([Heading("Questions and answers", 1), *head, *asked], folder), encoding="utf-8")
    lead: list[Block] = [Bullets(summary(results), "lead")] if results.get("questions") else []
    html = to_html([Heading(TITLE, 1), *lead, *head, *tables, *asked, *rest], TITLE)
    page.write_text(html, encoding="utf-8")
    return page, text


def summary(results: Results) -> list[str]:
    """A sentence per question, and how to read it."""
    return [*short_answers(results), READ] if results.get("questions") else []


def _warnings(results: Results) -> list[Block]:
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
    """Command, cost, seeds and commit in a sentence or two."""
    environment = results.get("environment", {})
    seeds = ", ".join(str(seed) for seed in results["seeds"])
    commit = environment.get("commit", "unknown")
    return (
        f"`{results.get('command', 'make reproduce')}`: {clock(results['wall_seconds'])} (h:mm:ss) with"
        f" {results['workers']} processes, {clock(results.get('cpu_seconds', 0.0))} of CPU time in all; seeds {seeds};"
        f" commit `{short_commit(commit, 12)}`. {floors_text(results)} {CAVEAT}"
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
    blocks: list[Block] = [Heading("Every seed")]
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


def evidence_section(results: Results, folder: str = "../results/rooms") -> str:
    """The part of docs/evidence.md between the markers, markers included: main tables and answers.

    Args:
        folder: of the committed results, relative to the document.
    """
    blocks: list[Block] = [*_warnings(results), Paragraph(_what(results))]
    for table in results["tables"]:
        if table["id"] in SHOWN_TABLES:
            blocks += [Paragraph(f"**{table['title']}.**"), result_table(results, table)]
    blocks += [Bullets(short_answers(results)), Paragraph(READ)] if results.get("questions") else []
    links = f"All tables, every seed and the pictures: [tables]({folder}/tables.md), [answers]({folder}/answers.md)."
    return _between_markers([*blocks, Paragraph(f"{RULE} {links}")])


def readme_section(results: Results) -> str:
    """The README's one table, markers included."""
    chosen = [table for table in results["tables"] if table["id"] in SHOWN_TABLES]
    return _between_markers([*_warnings(results), overview_table(results, chosen, README_COLUMNS, AGAINST)])


def _between_markers(blocks: list[Block]) -> str:
    return f"{BEGIN}\n{to_markdown(blocks, Path('.'))}{END}"


def update_documents(root: Path, results: Results) -> list[Path]:
    """Put `readme_section` and `evidence_section` between the markers of README.md and docs/evidence.md.

    Args:
        root: folder of the repository.

    Returns:
        The files that changed.

    Raises:
        ConfigError: results of another plan or budget, a file that is not there, or not exactly one pair of markers in
            it; nothing is written then.
    """
    found = results["name"], results["budget"]
    if found != ("reproduction", "full"):
        raise ConfigError(
            f"the documents show the full reproduction, but these are results of {found[0]}, budget {found[1]}."
        )
    sections = {root / "README.md": readme_section, root / "docs" / "evidence.md": evidence_section}
    texts = {path: _with_section(path, section(results)) for path, section in sections.items()}
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    return changed


def _with_section(path: Path, section: str) -> str:
    """Text of a document with `section` between its markers."""
    if not path.is_file():
        raise ConfigError(f"there is no {path} for --update_readme; run the command from the root of the repository.")
    text = path.read_text(encoding="utf-8")
    before, _, after = text.partition(BEGIN)
    if (text.count(BEGIN), text.count(END), after.count(END)) != (1, 1, 1):
        raise ConfigError(f"{path} must have one line {BEGIN} and, after it, one line {END} for --update_readme.")
    return before + section + after.partition(END)[2]

"""What README.md and docs/evidence.md show of a plan's committed results, between markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.answers import Answer, answers, short_answers
from m33d_hf.experiments.report.conditions import condition_lines
from m33d_hf.experiments.report.reproduction import READ, how_made, warnings
from m33d_hf.experiments.report.results import Results
from m33d_hf.experiments.report.tables import floors_text, overview_table, result_table
from m33d_hf.visualization.document import Block, Bullets, Paragraph, to_markdown

README, EVIDENCE = "README.md", "docs/evidence.md"
COMMITTED = Path("results")  # holds a folder for every plan that was run in full
ARCHIVE = COMMITTED / "archive"
AGAINST = ("scratch", "clips-scratch")
_ROOMS, _LONGER, _HERE = "rooms/tables.md", "longer/tables.md", "README.md"
_REPORTS = {"demo": ("report.md",), "demo-video": ("video.md",)}  # what a plan writes, where it is not as others
# Plan -> (words, file of the archive) of what was measured before in its place; None where there was nothing.
SUPERSEDED: dict[str, tuple[str, str] | None] = {
    "core": ("the main rows with one fine-tuning per encoder, berHu and 384 test frames", _LONGER),
    "parts": ("the parts in the short run", _ROOMS),
    "masks": ("Table 6 of the short run", _ROOMS),
    "initialisation": ("Table 7 of the short run", _ROOMS),
    "labels": ("Figure 2 of the short run, where no number of labels was trained to convergence", _ROOMS),
    "clips_labels": ("Table 2 of the short run, where no number of labels was trained to convergence", _ROOMS),
    "clips": ("motions beside a VideoMAE that had learnt nothing", _ROOMS),
    "temporal": None,
    "rgbd": None,
    "own_method": None,
    "own_clips": None,
    "search": None,
    "confirm": None,
    "confirm_single": None,
    "mae_masks": None,
    "search_hidden": None,
    "search_normals": None,
    "confirm_normed": None,
    "confirm_rivals": None,
    "confirm_rooms": None,
    "clips_normed": None,
    "rgbd_sets": None,
    "rgbd_clips": None,
    "labels_long": None,
    "clips_search": None,
    "clips_confirm": None,
    "gpu": ("half a run with one seed", _HERE),
    "demo": ("two seeds, of which no results.json was kept", _HERE),
    "demo-video": ("two seeds, of which no results.json was kept", _HERE),
}
FORMS = {"video": "demo-video"}  # the name in results.json, where it is not the plan's


def committed_folder(root: Path, plan: str) -> Path:
    """Where the committed results of a plan lie."""
    return root / COMMITTED / plan


def update_documents(root: Path, plan: str, results: Results | None) -> list[Path]:
    """Put what the documents show of a plan between its markers: evidence.md of every plan, README.md of the first.

    Args:
        root: folder of the repository.
        plan: a key of `SUPERSEDED`.
        results: as tables (`as_tables`); None = the plan was not run in full yet, and the documents say so.

    Returns:
        The files that changed.

    Raises:
        ConfigError: a plan that no document shows, results of another plan or budget, a file that is not there, or not
            exactly one pair of markers in it; nothing is written then.
    """
    _check(plan, results)
    sections: dict[str, Callable[[str, Results | None], str]] = {EVIDENCE: evidence_section}
    if plan == next(iter(SUPERSEDED)):
        sections = {README: readme_section, **sections}
    texts = {root / name: _with_section(root / name, plan, make(plan, results)) for name, make in sections.items()}
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    return changed


def _check(plan: str, results: Results | None) -> None:
    if plan not in SUPERSEDED:
        raise ConfigError(f"no document shows the plan {plan!r}; --update_readme knows: {', '.join(SUPERSEDED)}.")
    if results is None:
        return
    found = FORMS.get(results["name"], results["name"]), results["budget"]
    if found != (plan, "full"):
        raise ConfigError(
            f"the documents show the plan {plan} with the budget full, but these are results of the plan {found[0]}"
            f" with the budget {found[1]}."
        )


def evidence_section(plan: str, results: Results | None) -> str:
    """The part of docs/evidence.md on a plan, markers included: command and commit, all tables and answers, links."""
    if results is None:
        return _between_markers(plan, [Paragraph(_not_run(plan, ".."))])
    blocks: list[Block] = [*warnings(results), Paragraph(f"{how_made(results)} {floors_text(results)}".strip())]
    for table in results["tables"]:
        blocks += [Paragraph(f"**{table['title']}.**"), result_table(results, table)]
    said = [*condition_lines(results), *short_answers(results)]
    blocks += [Bullets(said), Paragraph(READ)] if results.get("questions") else []
    return _between_markers(plan, [*blocks, Paragraph(_links(plan, ".."))])


def readme_section(plan: str, results: Results | None) -> str:
    """The part of README.md on the first plan, markers included: what it is judged by, and one table."""
    if results is None:
        return _between_markers(plan, [Paragraph(_not_run(plan, "."))])
    table = results["tables"][0]
    shown = overview_table(results, [table], table["columns"], AGAINST)
    judged = [Paragraph(_said(found)) for found in answers(results) if found.primary]
    return _between_markers(plan, [*warnings(results), *judged, shown, Paragraph(how_made(results))])


def _said(found: Answer) -> str:
    """A question with the verdict and interval of every comparison, in percentage points."""
    parts = [f"{one.text}: {difference.text()}" for one in found.comparisons for difference in one.differences]
    return f"**{found.text}** In percentage points, {'; '.join(parts)}."


def _not_run(plan: str, up: str) -> str:
    earlier = SUPERSEDED[plan]
    said = f"**The plan `{plan}` has not been run in full yet.**"
    if earlier is None:
        return f"{said} Nothing was measured before in its place."
    return f"{said} Superseded by it, and no evidence: [{earlier[0]}]({_path(up, ARCHIVE / earlier[1])})."


def _links(plan: str, up: str) -> str:
    """To everything that was written of committed results."""
    names = _REPORTS.get(plan, ("tables.md", "answers.md"))
    shown = ", ".join(f"[{name.removesuffix('.md')}]({_path(up, COMMITTED / plan / name)})" for name in names)
    return f"All numbers, every seed and the pictures: {shown}."


def _path(up: str, place: Path) -> str:
    return place.as_posix() if up == "." else f"{up}/{place.as_posix()}"


def markers(plan: str) -> tuple[str, str]:
    """The lines between which a document shows a plan."""
    return f"<!-- results-{plan}:begin -->", f"<!-- results-{plan}:end -->"


def _between_markers(plan: str, blocks: Sequence[Block]) -> str:
    begin, end = markers(plan)
    return f"{begin}\n{to_markdown(list(blocks), Path('.'))}{end}"


def _with_section(path: Path, plan: str, section: str) -> str:
    """Text of a document with `section` between its markers."""
    if not path.is_file():
        raise ConfigError(f"there is no {path} for --update_readme; run the command from the root of the repository.")
    text, (begin, end) = path.read_text(encoding="utf-8"), markers(plan)
    before, _, after = text.partition(begin)
    if (text.count(begin), text.count(end), after.count(end)) != (1, 1, 1):
        raise ConfigError(f"{path} must have one line {begin} and, after it, one line {end} for --update_readme.")
    return before + section + after.partition(end)[2]

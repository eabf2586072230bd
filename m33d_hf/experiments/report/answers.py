"""The questions behind the reproduction, answered by rule from the rows, as far as the spread allows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m33d_hf.experiments.report.comparison import BETTER, UNKNOWN, WITHIN, WORSE
from m33d_hf.experiments.report.results import Difference, Results, cell, column_entry, difference, labels
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, Table

HEADER = ("comparison", "column", "points", "paired ± std", "seeds agreeing", "spread", "verdict")


@dataclass(frozen=True)
class Comparison:
    """One of a question's comparisons, in all of its columns.

    Attributes:
        text: what is compared, as written in the plan.
        question: that it belongs to.
        differences: one per column.
    """

    text: str
    question: str
    differences: Sequence[Difference]

    @property
    def verdict(self) -> str:
        """Over the columns; see `overall`."""
        return _plainly(overall([found.verdict for found in self.differences]), self.question)


@dataclass(frozen=True)
class Answer:
    """A question with its comparisons."""

    id: str
    text: str
    because: str
    comparisons: Sequence[Comparison]

    @property
    def verdict(self) -> str:
        """One comparison's verdict, or each one's with its text."""
        if len(self.comparisons) == 1:
            return self.comparisons[0].verdict
        return "; ".join(f"{found.text}: {found.verdict}" for found in self.comparisons) or "nothing was compared"


def overall(verdicts: Sequence[str]) -> str:
    """Columns' verdicts in words, such as "in part, better beyond the spread in 2 of 3 columns; within it in 1".

    "yes" needs every column beyond the spread, "in part" one and none the other way round; "no" needs one the other
    way round and none in favour; "not shown" is all the rest that is known.
    """
    counts = {verdict: list(verdicts).count(verdict) for verdict in (BETTER, WORSE, WITHIN, UNKNOWN)}
    total, columns = len(verdicts), "column" if len(verdicts) == 1 else "columns"
    tail = [f"within it in {counts[WITHIN]}"] if counts[WITHIN] else []
    tail += [f"unknown in {counts[UNKNOWN]}"] if counts[UNKNOWN] else []
    if not total or counts[UNKNOWN] == total:
        return "unknown"
    if counts[BETTER] and counts[WORSE]:
        first = f"mixed: better beyond the spread in {counts[BETTER]}, worse in {counts[WORSE]} of {total} {columns}"
    elif counts[BETTER]:
        word = "yes" if counts[BETTER] == total else "in part"
        first = f"{word}, better beyond the spread in {counts[BETTER]} of {total} {columns}"
    elif counts[WORSE]:
        first = f"no, worse beyond the spread in {counts[WORSE]} of {total} {columns}"
    else:
        first, tail = f"not shown: within the spread in {counts[WITHIN]} of {total} {columns}", tail[1:]
    return "; ".join([first, *tail])


def _plainly(verdict: str, question: str) -> str:
    """Without "yes" and "no" where the question asks "what", not "whether"."""
    if re.match(r"(what|how|which)\b", question, re.IGNORECASE):
        return verdict.removeprefix("yes, ").removeprefix("in part, ").removeprefix("no, ")
    return verdict


def answer(results: Results, question: Mapping[str, Any]) -> Answer:
    """Compare what the question names."""
    comparisons = []
    for entry in question["compare"]:
        found = [difference(results, entry["better"], entry["than"], column) for column in entry["columns"]]
        names = labels(results)
        text = entry.get("text") or " over ".join(names.get(entry[k], entry[k]) for k in ("better", "than"))
        comparisons.append(Comparison(text, question["text"], found))
    return Answer(question["id"], question["text"], question.get("because", ""), comparisons)


def answers(results: Results) -> list[Answer]:
    """Every question of the file."""
    return [answer(results, question) for question in results.get("questions", [])]


def points_text(found: Difference) -> str:
    """Signed points and the spread that they were held against."""
    if found.points is None:
        return "unknown"
    return f"{found.points:+.1f} against {'unknown' if found.spread is None else f'{found.spread:.1f}'}"


def difference_texts(results: Results, found: Difference) -> list[str]:
    """The cells of `HEADER` after the comparison's name."""
    mean, std = found.paired_cell.mean, found.paired_cell.std
    pairs = "-" if mean is None else f"{mean:+.2f}" + ("" if std is None else f" ± {std:.2f}")
    agreeing = f"{found.agreeing} of {len(found.paired)}" if found.paired else "-"
    points = "unknown" if found.points is None else f"{found.points:+.2f}"
    spread = "unknown" if found.spread is None else f"{found.spread:.2f}"
    verdict = f"**{found.verdict}**" if found.verdict in (BETTER, WORSE) else found.verdict
    if found.verdict == UNKNOWN:
        verdict += f" ({_why_unknown(results, found)})"
    return [column_entry(results, found.column)["title"], points, pairs, agreeing, spread, verdict]


def _why_unknown(results: Results, found: Difference) -> str:
    cells = [cell(results, variant, found.column) for variant in (found.better, found.than)]
    if any(c.failed for c in cells):
        return "a seed failed"
    if any(not c.n for c in cells):
        return "not run"
    return "one seed"


def answer_blocks(results: Results) -> list[Block]:
    """Every question with its verdict and the numbers behind it."""
    blocks: list[Block] = []
    for found in answers(results):
        blocks += [Heading(found.text), _verdicts(found)]
        if found.because:
            blocks.append(Paragraph(f"Asked because: {found.because}"))
        rows = [
            [comparison.text, *difference_texts(results, d)]
            for comparison in found.comparisons
            for d in comparison.differences
        ]
        blocks.append(Table(HEADER, rows, left=(1, 6)))
    return blocks


def _verdicts(found: Answer) -> Block:
    """The verdict, or one line per comparison."""
    if len(found.comparisons) == 1:
        return Paragraph(f"**{found.verdict[:1].upper()}{found.verdict[1:]}.**")
    return Bullets([f"{comparison.text}: **{comparison.verdict}**" for comparison in found.comparisons])


def short_answers(results: Results) -> list[str]:
    """A sentence per question: each comparison's verdict, with points and spread of the columns that decide it."""
    sentences = []
    for found in answers(results):
        parts = []
        for comparison in found.comparisons:
            named = f"*{comparison.text}*: " if len(found.comparisons) > 1 else ""
            parts.append(f"{named}{comparison.verdict}{_deciding(results, comparison)}")
        sentences.append(f"**{found.text}** {'. '.join(part[:1].upper() + part[1:] for part in parts)}.")
    return sentences


def _deciding(results: Results, comparison: Comparison) -> str:
    """The columns beyond the spread with their points; the extremes where there is none; nothing where unknown."""
    beyond = [d for d in comparison.differences if d.verdict in (BETTER, WORSE)]
    if beyond:
        named = [f"{column_entry(results, d.column)['title']} {points_text(d)}" for d in beyond]
        return f" ({'; '.join(named)})"
    points = [d.points for d in comparison.differences if d.points is not None and d.verdict == WITHIN]
    if not points:
        return ""
    least, most = f"{min(points):+.1f}", f"{max(points):+.1f}"
    return f" ({least})" if least == most else f" ({least} to {most})"

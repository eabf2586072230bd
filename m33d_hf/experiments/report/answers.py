"""The questions that a plan declares, answered by `contrasts` from the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m33d_hf.experiments.report.comparison import BETTER, UNDECIDED, UNKNOWN, WORSE
from m33d_hf.experiments.report.conditions import condition_blocks
from m33d_hf.experiments.report.contrasts import Difference, Pair, compare_family, rounded_down, rounded_up
from m33d_hf.experiments.report.results import Results, column_entry, labels
from m33d_hf.visualization.document import Block, Bullets, Heading, Paragraph, Table

HEADER = ("comparison", "column", "points", "95 % interval", "p", "p, Holm", "p, own pairs", "n", "verdict")
PRIMARY = "Primary: declared before the run as what it is judged by."


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
        """Over the columns; see `overall`. One column's is the verdict itself."""
        return _plainly(overall(self.differences), self.question)


@dataclass(frozen=True)
class Answer:
    """A question with its comparisons, which are one family.

    Attributes:
        primary: whether the plan is judged by it.
    """

    id: str
    text: str
    because: str
    comparisons: Sequence[Comparison]
    primary: bool = False

    @property
    def verdict(self) -> str:
        """One comparison's verdict, or each one's with its text."""
        if len(self.comparisons) == 1:
            return self.comparisons[0].verdict
        return "; ".join(f"{found.text}: {found.verdict}" for found in self.comparisons) or "nothing was compared"


def overall(differences: Sequence[Difference]) -> str:
    """Columns' verdicts in words, such as "in part, better in 2 of 3 columns; no difference larger than 1.3 in 1".

    "yes" needs every column to be better, "in part" one and none worse; "no" needs one that is worse and none that is
    better; "not shown" is all the rest that is known.
    """
    verdicts = [found.verdict for found in differences]
    counts = {verdict: verdicts.count(verdict) for verdict in (BETTER, WORSE, UNDECIDED, UNKNOWN)}
    total, columns = len(verdicts), "column" if len(verdicts) == 1 else "columns"
    bound = rounded_up(max((found.bound for found in differences if found.verdict == UNDECIDED), default=0.0))
    tail = [f"no difference larger than {bound:.1f} in {counts[UNDECIDED]}"] if counts[UNDECIDED] else []
    tail += [f"no verdict in {counts[UNKNOWN]}"] if counts[UNKNOWN] else []
    if not total or counts[UNKNOWN] == total:
        return "no verdict" + _reasons(differences)
    if counts[BETTER] and counts[WORSE]:
        first = f"mixed: better in {counts[BETTER]}, worse in {counts[WORSE]} of {total} {columns}"
    elif counts[BETTER]:
        word = "yes" if counts[BETTER] == total else "in part"
        first = f"{word}, better in {counts[BETTER]} of {total} {columns}"
    elif counts[WORSE]:
        first = f"no, worse in {counts[WORSE]} of {total} {columns}"
    else:
        first = f"not shown: no difference larger than {bound:.1f} in {counts[UNDECIDED]} of {total} {columns}"
        tail = tail[1:]
    return "; ".join([first, *tail])


def _reasons(differences: Sequence[Difference]) -> str:
    """Why nothing is said, in brackets."""
    found = list(dict.fromkeys(one.why for one in differences if one.why))
    return f" ({'; '.join(found)})" if found else ""


def _plainly(verdict: str, question: str) -> str:
    """Without "yes" and "no" where the question asks "what", not "whether"."""
    if re.match(r"(what|how|which)\b", question, re.IGNORECASE):
        return verdict.removeprefix("yes, ").removeprefix("in part, ").removeprefix("no, ")
    return verdict


def answer(results: Results, question: Mapping[str, Any]) -> Answer:
    """Compare what the question names; all of it is one family."""
    names = labels(results)
    pairs = [[Pair(entry["better"], entry["than"], column) for column in entry["columns"]]
             for entry in question["compare"]]  # fmt: skip
    found = iter(compare_family(results, [pair for group in pairs for pair in group]))
    comparisons = []
    for entry, group in zip(question["compare"], pairs, strict=True):
        text = entry.get("text") or " over ".join(names.get(entry[k], entry[k]) for k in ("better", "than"))
        comparisons.append(Comparison(text, question["text"], [next(found) for _ in group]))
    because, primary = question.get("because", ""), bool(question.get("primary"))
    return Answer(question["id"], question["text"], because, comparisons, primary)


def answers(results: Results) -> list[Answer]:
    """Every question of the file, the primary ones first."""
    found = [answer(results, question) for question in results.get("questions", [])]
    return sorted(found, key=lambda one: not one.primary)


def declared(results: Results) -> Iterator[Difference]:
    """Every comparison that was declared, with its verdict."""
    for found in answers(results):
        for comparison in found.comparisons:
            yield from comparison.differences


def difference_texts(results: Results, found: Difference) -> list[str]:
    """The cells of `HEADER` after the comparison's name."""
    title, verdict = column_entry(results, found.pair.column)["title"], found.text()
    if found.verdict in (BETTER, WORSE):
        verdict = f"**{verdict}**"
    if found.estimate is None:
        return [title, "-", "-", "-", "-", "-", str(found.n), verdict]
    known = found.estimate
    interval = f"{rounded_down(known.low, 2):+.2f} to {rounded_up(known.high, 2):+.2f}"
    ps = ["-" if p is None else p_text(p) for p in (known.p, found.p_adjusted, found.p_paired)]
    return [title, f"{known.points:+.2f}", interval, *ps, str(found.n), verdict]


def p_text(p: float) -> str:
    """Such as ".013" and "<.001"."""
    return "<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)


def answer_table(results: Results, found: Answer) -> Table:
    """The numbers behind a verdict."""
    rows = [
        [comparison.text, *difference_texts(results, one)]
        for comparison in found.comparisons
        for one in comparison.differences
    ]
    return Table(HEADER, rows, left=(1, 8))


def answer_blocks(results: Results) -> list[Block]:
    """The plan's conditions, then every question with its verdict and the numbers behind it."""
    blocks: list[Block] = condition_blocks(results)
    for found in answers(results):
        blocks += [Heading(found.text), _verdicts(found)]
        if found.primary:
            blocks.append(Paragraph(PRIMARY))
        if found.because:
            blocks.append(Paragraph(f"Asked because: {found.because}"))
        blocks.append(answer_table(results, found))
    return blocks


def _verdicts(found: Answer) -> Block:
    """The verdict, or one line per comparison."""
    if len(found.comparisons) == 1:
        return Paragraph(f"**{found.verdict[:1].upper()}{found.verdict[1:]}.**")
    return Bullets([f"{comparison.text}: **{comparison.verdict}**" for comparison in found.comparisons])


def short_answers(results: Results) -> list[str]:
    """A sentence per question: each comparison's verdict, with the columns that decide it."""
    sentences = []
    for found in answers(results):
        parts = []
        for comparison in found.comparisons:
            named = f"*{comparison.text}*: " if len(found.comparisons) > 1 else ""
            parts.append(f"{named}{comparison.verdict}{_deciding(results, comparison)}")
        sentences.append(f"**{found.text}** {'. '.join(part[:1].upper() + part[1:] for part in parts)}.")
    return sentences


def _deciding(results: Results, comparison: Comparison) -> str:
    """The columns that are better or worse, with their intervals; the differences' extremes where there is none."""
    decided = [one for one in comparison.differences if one.verdict in (BETTER, WORSE)]
    if decided:
        named = [f"{column_entry(results, one.pair.column)['title']}: {one.text()}" for one in decided]
        return f" ({'; '.join(named)})"
    known = [one.estimate.points for one in comparison.differences if one.estimate and one.verdict == UNDECIDED]
    if not known:
        return ""
    least, most = f"{min(known):+.1f}", f"{max(known):+.1f}"
    return f" (measured {least})" if least == most else f" (measured {least} to {most})"

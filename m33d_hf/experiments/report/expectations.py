"""Expectations written beforehand and their outcomes, judged by rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.comparison import BETTER, UNDECIDED, UNKNOWN, WORSE
from m33d_hf.experiments.report.contrasts import Pair, compare_family
from m33d_hf.experiments.report.results import Results, cell, column_entry, diagnostic, labels

FILE = Path(__file__).parents[1] / "expectations.yaml"
HELD, NOT_HELD = "held", "not held"
PARTLY, NOT_MEASURED = "held in part", "not measured"
SOMETIMES = "held in some seeds"


@dataclass(frozen=True)
class Outcome:
    """One expectation beside what came out.

    Attributes:
        id, text, because: as written.
        verdict: one of the words above; for an open question, what came out.
        detail: the numbers.
    """

    id: str
    text: str
    because: str
    verdict: str
    detail: str


def load_expectations(path: Path = FILE) -> list[dict[str, Any]]:
    """Read and check the file.

    Raises:
        ConfigError: an entry without text, or with none or several of compare, check and floors.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        kinds = {"compare", "check", "floors"} & set(entry)
        if len(kinds) != 1 or not {"id", "text", "because"} <= set(entry):
            raise ConfigError(
                f"{path}: {entry.get('id', entry)} requires id, text, because and one of compare, check, floors"
            )
    return list(entries)


def judge(results: Results, expectations: Sequence[Mapping[str, Any]] | None = None) -> list[Outcome]:
    """Judge every expectation against the results; left out are those of methods and diagnostics not run."""
    outcomes = []
    for written in load_expectations() if expectations is None else expectations:
        entry = _asked(written, labels(results), _diagnosed(results))
        if entry is None:
            continue
        if "compare" in entry:
            verdict, detail = _compare(results, **entry["compare"])
        elif "check" in entry:
            verdict, detail = _check(results, **entry["check"])
        else:
            verdict, detail = _floors(results)
        outcomes.append(Outcome(entry["id"], entry["text"], entry["because"], verdict, detail))
    return outcomes


def _diagnosed(results: Results) -> dict[str, set[str]]:
    """Method -> the diagnostics that any of its finished pre-trainings has; without methods of which none finished, as
    their expectations are told as not measured."""
    found: dict[str, set[str]] = {}
    for entry in results["pretraining"]:
        if entry.get("diagnostics"):
            found.setdefault(entry["variant"], set()).update(entry["diagnostics"])
    return found


def _asked(
    entry: Mapping[str, Any], methods: Collection[str], diagnosed: Mapping[str, Collection[str]]
) -> Mapping[str, Any] | None:
    """The part of an expectation that is about `methods` and what was `diagnosed` of them; None where there is none."""
    if "compare" in entry:
        named = [name for name in entry["compare"]["methods"] if name in methods]
        if not named or entry["compare"]["than"] not in methods:
            return None
        return {**entry, "compare": {**entry["compare"], "methods": named}}
    if "check" in entry:
        check = entry["check"]
        bounds = [check.get(key, {}) for key in ("at_least", "at_most")]
        asked = [(check["method"], check["key"])]
        asked += [(bound.get("method", check["method"]), bound["key"]) for bound in bounds if "key" in bound]
        known = all(name in methods and key in diagnosed.get(name, (key,)) for name, key in asked)
        return entry if known else None
    return entry


def _compare(results: Results, methods: Sequence[str], than: str, expect: str) -> tuple[str, str]:
    pairs = [Pair(method, than, column["id"]) for column in results["columns"] for method in methods]
    found = compare_family(results, pairs)
    who = (lambda method: f"{method}, ") if len(methods) > 1 else lambda method: ""
    detail = "; ".join(f"{who(d.pair.better)}{column_entry(results, d.pair.column)['says']}: {d.text()}" for d in found)
    verdicts = [d.verdict for d in found]
    known = [verdict for verdict in verdicts if verdict != UNKNOWN]
    if not known:
        return NOT_MEASURED, detail
    if expect == "open":
        return f"open: {_count(known)}", detail
    if all(verdict == BETTER for verdict in verdicts):
        return HELD, detail
    if BETTER not in known:  # one that is unknown leaves open what it would have been
        return NOT_HELD if WORSE in known else UNDECIDED, detail
    return f"{PARTLY} ({known.count(BETTER)} of {len(verdicts)})", detail


def _count(verdicts: Sequence[str]) -> str:
    """Such as "better in 1, no difference shown in 2"."""
    words = [word for word in (BETTER, WORSE, UNDECIDED) if word in verdicts]
    if len(words) == 1:
        return f"{words[0]} in all {len(verdicts)}"
    return ", ".join(f"{word} in {verdicts.count(word)}" for word in words)


def _check(
    results: Results,
    method: str,
    key: str,
    at_least: Mapping[str, Any] | None = None,
    at_most: Mapping[str, Any] | None = None,
) -> tuple[str, str]:
    """Hold a diagnostic against a bound in every seed."""
    bound = at_least if at_least is not None else at_most or {}
    left = diagnostic(results, method, key)
    if "value" in bound:
        right = [float(bound["value"])] * len(left)
        name = f"{bound['value']:g}"
    else:
        other, factor = bound.get("method", method), float(bound["times"])
        right = [factor * value for value in diagnostic(results, other, bound["key"])]
        name = f"{factor:g} x {bound['key']}" + (f" of {other}" if other != method else "")
    if not left or len(left) != len(right):
        return NOT_MEASURED, f"{key} of {method}: not measured in every seed"
    pairs = list(zip(left, right, strict=True))
    held = [a >= b if at_least is not None else a <= b for a, b in pairs]
    word = "at least" if at_least is not None else "at most"
    detail = "; ".join(f"{a:.3f} ({word} {b:.3f} = {name})" for a, b in pairs)
    if all(held):
        return HELD, detail
    return (SOMETIMES if any(held) else NOT_HELD), detail


def _floors(results: Results) -> tuple[str, str]:
    """Every finished row against the trivial floor of its task."""
    above, below, parts = 0, 0, []
    for column in results["columns"]:
        values = [value for name in labels(results) for value in cell(results, name, column["id"]).values]
        if column["floor"] is None or not values:
            continue
        limit = 100 * column["floor"]
        above += sum(value > limit for value in values)
        below += sum(value <= limit for value in values)
        parts.append(f"{column['says']}: lowest {min(values):.1f}, floor {limit:.1f}")
    if not parts:
        return NOT_MEASURED, f"no floors of {', '.join(dict.fromkeys(c['task'] for c in results['columns']))}"
    verdict = HELD if not below else (NOT_HELD if not above else f"{PARTLY} ({above} of {above + below})")
    return verdict, "; ".join(parts)

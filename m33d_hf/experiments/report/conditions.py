"""What must have been learnt before anything is concluded: bounds on losses of pre-trainings that a plan declares.

A baseline that still sits near its trivial floor is no baseline, however many points another one is ahead. The rule of
`stuck_pretraining` refuses those that learnt nothing at all; a condition asks for more, of the rows that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.report.results import Results, floor_of, labels
from m33d_hf.visualization.document import Block, Bullets, Heading

ALL, OWN = "all", "own"  # what waits for a condition: every comparison of the plan, or those of its row
KEYS = {"variant", "loss", "below", "gates"}


def check_conditions(conditions: Sequence[Mapping[str, Any]], known: Sequence[str]) -> None:
    """Whether they can be judged.

    Args:
        conditions: as in a plan's YAML.
        known: names of its pre-trainings.

    Raises:
        ConfigError: a condition with other keys, of a row that the plan has not, or that gates something else.
    """
    for condition in conditions:
        if set(condition) != KEYS or condition["gates"] not in (ALL, OWN) or condition["variant"] not in known:
            raise ConfigError(
                f"the condition {dict(condition)} must have {', '.join(sorted(KEYS))}, a variant of the plan, and gates"
                f" {ALL} or {OWN}."
            )


def met(results: Results, condition: Mapping[str, Any]) -> bool:
    """Whether the loss of every declared seed is below the bound; False where one failed or has none."""
    values = _losses(results, condition)
    return bool(values) and all(value is not None and value < float(condition["below"]) for value in values)


def _losses(results: Results, condition: Mapping[str, Any]) -> list[float | None]:
    """By declared seed."""
    variant, key = condition["variant"], condition["loss"]
    known = {
        entry["seed"]: (entry.get("diagnostics") or {}).get(key)
        for entry in results["pretraining"]
        if entry["variant"] == variant
    }
    found = [known.get(seed) for seed in results["seeds"]]
    return [None if value is None else float(value) for value in found]


def unmet_condition(results: Results, sides: Sequence[str]) -> str:
    """Why two rows are not compared; empty where nothing speaks against it.

    Args:
        sides: the variants that would be compared.
    """
    for condition in results.get("conditions") or []:
        if (condition["gates"] == ALL or condition["variant"] in sides) and not met(results, condition):
            return _text(results, condition)
    return ""


def _text(results: Results, condition: Mapping[str, Any]) -> str:
    """Such as "the loss rgb of VideoMAE (RGB) must be below .950 and is .961 / .949"."""
    name = labels(results).get(condition["variant"], condition["variant"])
    values = _losses(results, condition)
    told = ["not known" if value is None else _short(value) for value in values]
    found = " / ".join(told) if any(value is not None for value in values) else "not known"
    loss = condition["loss"].removeprefix("loss/")
    return f"the {loss} loss of {name} must be below {_short(float(condition['below']))} and is {found}"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def condition_lines(results: Results) -> list[str]:
    """A sentence per condition with its losses, floor and outcome."""
    lines = []
    for condition in results.get("conditions") or []:
        floor = floor_of(results, condition["variant"], condition["loss"])
        beside = "" if floor is None else f" (a constant reaches {_short(floor)})"
        what = "any verdict" if condition["gates"] == ALL else "a verdict on this row"
        outcome = "met" if met(results, condition) else "**not met**"
        lines.append(f"Before {what}, {_text(results, condition)}{beside}: {outcome}.")
    return lines


def condition_blocks(results: Results) -> list[Block]:
    """The sentences under a heading; nothing where the plan declares no condition."""
    lines = condition_lines(results)
    return [Heading("Conditions"), Bullets(lines)] if lines else []

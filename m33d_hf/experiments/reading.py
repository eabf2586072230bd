"""results.json of any form as tables, which all reports are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.plan import PLANS, Plan, load_content
from m33d_hf.experiments.report.results import DONE, Results

OTHER_FORMS = {"demo": "demo", "video": "demo-video"}


def as_tables(results: Results) -> Results:
    """The same results with `variants`, `columns`, `tables` and a row per variant, column and seed.

    The tables' own form is returned as it is, but for floors of losses, which earlier versions did not write. In the
    others the plan's YAML says which column a row's metric fills;
    what else a form holds is kept, and under `data` what else may have failed.

    Raises:
        ConfigError: rows that the plan knows no column for.
    """
    if results["name"] not in OTHER_FORMS:
        return {**results, "pretraining": _with_floors(results)}
    content = load_content(OTHER_FORMS[results["name"]])
    measured = [row for row in results["rows"] if row["method"]]
    items = dict.fromkeys(_measurement(row) for row in measured)
    known = content["columns"].items()
    strange = set(items) - {column["of"] for _, column in known}
    if strange:
        names = ", ".join(sorted(strange))
        raise ConfigError(f"results.json has rows of {names}, but the plan {content['name']} has no column for them.")
    columns = {name: column for item in items for name, column in known if column["of"] == item}
    variants = list(dict.fromkeys(row["method"] for row in measured))
    return {
        **results,
        "data": results["rows" if results["name"] == "video" else "jobs"],
        "columns": [_column(results, content, name) for name in columns],
        "variants": [{"id": name, "label": name} for name in variants],
        "tables": list(_tables(content, columns, variants)),
        "pretraining": [{**entry, "variant": entry["method"]} for entry in results.get("pretraining", [])],
        "rows": [cell for name, column in columns.items() for cell in _cells(measured, name, column)],
        "caveats": content.get("caveats", []),
        "questions": list(_questions(content, columns, variants)),
    }


def _with_floors(results: Results) -> list[Mapping[str, Any]]:
    """The pre-trainings with their losses' floors; those that the plan has no more stay as they are."""
    found, plan = results["pretraining"], None
    if results["name"] in PLANS:
        plan = Plan(load_content(results["name"]), results["budget"], Path())
    if plan is None or plan.budget_name not in plan.content["budgets"]:
        return list(found)
    lacking = {entry["variant"] for entry in found if "loss_floors" not in entry}
    trained = {name for name, entry in plan.content["pretraining"].items() if "recipe" in entry}
    known = {name: plan.loss_floors(name) for name in lacking & trained}
    return [{"loss_floors": known.get(entry["variant"], {}), **entry} for entry in found]


def _measurement(row: Mapping[str, Any]) -> str:
    return f"{row['task']}-{row['labels'] if 'labels' in row else row['fraction']:g}"


def _cells(measured: list[Mapping[str, Any]], name: str, column: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in measured:
        if _measurement(row) == column["of"]:
            value = None
            if row["status"] == DONE:
                value = row["value"] if "value" in row else row["metrics"][column["metric"]]
            yield {**row, "variant": row["method"], "column": name, "value": value}


def _column(results: Results, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    column = content["columns"][name]
    how = content["measurements"][column["of"]]
    floor = results.get("floors", {}).get(how.get("task"), {})
    known = {"labels": how.get("labels"), "fraction": how.get("fraction"), "task": how.get("task")}
    known |= {"floor": floor.get("value"), "floor_text": floor.get("how", ""), "split": "test"}
    return {"id": name, **column, **known}


def _questions(content: Mapping[str, Any], columns: Mapping[str, Any], variants: list[str]) -> Iterator[dict[str, Any]]:
    """What the plan declares of the rows that are there."""
    for question in content["questions"]:
        compare = [
            {**entry, "columns": [name for name in entry["columns"] if name in columns]}
            for entry in question["compare"]
            if {entry["better"], entry["than"]} <= set(variants)
        ]
        if compare:
            yield {**question, "compare": compare}


def _tables(content: Mapping[str, Any], columns: Mapping[str, Any], variants: list[str]) -> Iterator[dict[str, Any]]:
    for table in content["tables"]:
        shown = [name for name in columns if name in table["columns"]]
        if shown:
            yield {**table, "columns": shown, "rows": [{"variant": name, "label": name} for name in variants]}

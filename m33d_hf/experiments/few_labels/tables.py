"""What the runs of a study of few labels gave, in the form of the tables of every plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from m33d_hf.data.plural import plural
from m33d_hf.experiments.collected import kept, wall_seconds
from m33d_hf.experiments.few_labels.jobs import row_name
from m33d_hf.experiments.few_labels.study import METRICS, Amount, Start, Study
from m33d_hf.experiments.report.reproduction import FEW_LABELS
from m33d_hf.experiments.report.results import DONE

BUDGET = "full"  # of results.json; studies have no other
NOTE = "The same steps for every share of labels; the last step counts, nothing is chosen."


def results_of(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """results.json, in the tables' form.

    Args:
        rows: of the jobs, by id.
    """
    columns = [{"id": column_id(study, amount, metric), "metric": metric, "title": f"{said} %, {amount.title}",
                "split": "evaluation", **_floor(study, rows, amount, metric)}
               for metric, said in METRICS[study.task] for amount in study.amounts]  # fmt: skip
    ids = [str(column["id"]) for column in columns]
    unlike = unlike_words(study, rows)
    return {
        "name": FEW_LABELS, "budget": BUDGET, "command": study.command, "seeds": list(study.seeds),
        "settings": {"task": study.task, "words": list(study.words), "pretraining": list(study.pretraining_words),
                     **({"temporal": list(study.temporal_words)} if study.temporal_words else {})},
        "wall_seconds": wall_seconds(rows),
        "cpu_seconds": sum(float(row.get("cpu_seconds", 0.0)) for row in rows.values()),
        "columns": columns, "variants": [{"id": start.name, "label": start.name} for start in study.starts],
        "tables": [{"id": "few_labels", "title": "Few labels", "paper": None, "columns": ids,
                    "note": " ".join([NOTE, *labelled_words(study, rows), *pretrained_words(study, rows), *unlike]),
                    "rows": [{"variant": start.name, "label": start.name, "group": ""} for start in study.starts]}],
        "questions": list(_questions(study, unlike)),
        "history": [], "grid": [], "data": [],
        "pretraining": list(_pretrained(study, rows)), "rows": list(_cells(study, rows)),
    }  # fmt: skip


def column_id(study: Study, amount: Amount, metric: str) -> str:
    """Of an amount of labels and a metric; the first metric of a task is not named."""
    return amount.id if metric == METRICS[study.task][0][0] else f"{amount.id}-{metric}"


def _rows_of(study: Study, rows: Mapping[str, Mapping[str, Any]], start: Start, amount: Amount) -> list[Any]:
    """Those that are there of a start and an amount of labels."""
    names = [row_name(start.name, amount, seed, draw)
             for seed, draw in product(study.seeds_of(start), range(study.draws))]  # fmt: skip
    return [rows[name] for name in names if name in rows]


def _floor(
    study: Study, rows: Mapping[str, Mapping[str, Any]], amount: Amount, metric: str
) -> dict[str, float | str | None]:
    """What a prediction reaches that looks at nothing but the labels of a row, in the mean of an amount's rows; None
    where their evaluations tell none (`evaluation.floor`)."""
    key, found = f"floor/{metric}", [row for start in study.starts for row in _rows_of(study, rows, start, amount)]
    floors = [float(row["metrics"][key]) for row in found if key in row.get("metrics", {})]
    if not floors:
        return {"floor": None, "floor_text": ""}
    return {"floor": sum(floors) / len(floors), "floor_text": "a prediction that looks at the labels alone"}


def labelled_words(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How much was labelled, as counted by the runs: scenes and videos are drawn whole, so that a share is rounded.

    Args:
        rows: of the jobs, by id; those of earlier versions counted nothing.
    """
    said = []
    for amount in study.amounts:
        found = [row["data"] for start in study.starts for row in _rows_of(study, rows, start, amount) if "data" in row]
        said += [f"{amount.title}: {counted}" for counted in _counted(found)]
    return [f"Trained on: {'; '.join(said)}."] if said else []


def pretrained_words(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How much pre-trainings learnt from, which may be more than what is labelled; arguments as `labelled_words`."""
    names = [f"pretrain-{start.name}-s{seed}" for start in study.starts if start.method for seed in study.seeds]
    found = [rows[name]["data"] for name in names if "data" in rows.get(name, {})]
    return [f"Pre-trained on: {counted}." for counted in _counted(found)]


def _counted(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What runs were trained on, in words; nothing where nobody counted it."""
    counts, of = sorted({data["samples"] for data in found}), {data.get("samples_in_source") for data in found}
    if not counts:
        return []
    drawn = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    whole = sorted({drawn_whole for data in found if (drawn_whole := _wholes(data))})
    wholes = f" ({whole[0]})" if len(whole) == 1 else ""
    total = f" of {of.pop()}" if len(of) == 1 and None not in of else ""
    return [f"{drawn}{total} samples{wholes}"]


def _wholes(data: Mapping[str, Any]) -> str:
    """How many of the scenes or videos, which are drawn whole; empty where nobody counted them."""
    if data.get("sequences"):
        drawn, there = data["sequences"]
        return f"{drawn} of {plural(there, 'sequence')}"
    drawn, there = data.get("videos"), data.get("videos_in_source")
    return f"{drawn} of {plural(there, 'video')}" if drawn and there else ""


def unlike_words(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where starts differ in more than their weights; none where all have one encoder.

    Arguments as those of `labelled_words`.
    """
    encoders: dict[str, list[str]] = {}
    known: dict[str, dict[str, Any]] = {}
    for start in study.starts:
        for amount in study.amounts:
            for row in _rows_of(study, rows, start, amount):
                if "encoder" in row:
                    key = json.dumps(row["encoder"], sort_keys=True)
                    known[key] = row["encoder"]
                    encoders.setdefault(key, [])
                    encoders[key] += [] if start.name in encoders[key] else [start.name]
    if len(known) < 2:
        return []
    first = next(iter(known.values()))
    differ = [name for name in first if any(each[name] != first[name] for each in known.values())]
    listed = "; ".join(
        f"{', '.join(encoders[key])}: {', '.join(f'{name} {each[name]}' for name in differ)}"
        for key, each in known.items()
    )
    return [
        f"**The starts differ in more than their weights** ({listed}), so that no difference is due to pre-training "
        "alone. To compare weights, give --model.KEY VALUE for each of these, of the checkpoint."
    ]


def _questions(study: Study, unlike: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One for each metric; the first one decides. `unlike`: see `unlike_words`."""
    first, *others = [start.name for start in study.starts]
    for number, (metric, said) in enumerate(METRICS[study.task]):
        ids = [column_id(study, amount, metric) for amount in study.amounts]
        compare = [{"better": name, "than": first, "columns": ids, "text": f"{name} over {first}"} for name in others]
        text = f"Is it better than {first}, with few labels{'' if number == 0 else f', by {said}'}?"
        because = " ".join(["Declared by the command line, before the run.", *unlike])
        question = {"id": "labels" if number == 0 else metric, "text": text, "because": because, "compare": compare}
        yield question | ({"primary": True} if number == 0 else {})


def _pretrained(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for start in study.starts:
        for seed in study.seeds if start.method else ():
            row = rows[f"pretrain-{start.name}-s{seed}"]
            found = kept(row, "status", "error", "steps", "seconds", "cpu_seconds", "flops", "loss_floors")
            losses = {key: value for key, value in row.get("metrics", {}).items() if key.startswith("loss/")}
            yield {"variant": start.name, "seed": seed, "diagnostics": losses, **found}


def _cells(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for start in study.starts:
        for seed in study.seeds_of(start):
            for amount, draw, (metric, _) in product(study.amounts, range(study.draws), METRICS[study.task]):
                name, column = row_name(start.name, amount, seed, draw), column_id(study, amount, metric)
                row = rows[name]
                value = row["metrics"][metric] if row["status"] == DONE else None
                what = {"id": name, "variant": start.name, "column": column, "seed": seed, "draw": draw}
                yield {**what, "value": value, **kept(row, "status", "error", "steps", "seconds", "cpu_seconds")}

"""Measured numbers for the card, its model-index and .eval_results; only from eval_results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from m33d_hf.data.plural import plural
from m33d_hf.hub.options import PublishOptions
from m33d_hf.hub.source import Evaluation, Source
from m33d_hf.training.tasks.task_inputs import inputs_in_words

_DETAILS = ("per_image/", "iou/", "ap/", "clipwise/", "floor/")
_COUNT = "samples"  # how many were measured, which the protocol says
# data.source -> (type for the Hub, name for people); the package's readers know what they read.
_DATASETS = {
    "rooms": ("rooms", "rendered rooms of m33d-hf"),
    "procedures": ("procedures", "rendered procedures of m33d-hf"),
    "scannet": ("scannet", "ScanNet"),
    "nyuv2": ("nyuv2", "NYUv2"),
    "sunrgbd": ("sunrgbd", "SUN RGB-D"),
    "ucf101": ("ucf101", "UCF-101"),
}


def dataset_of(results: Mapping[str, Any], options: PublishOptions) -> tuple[str, str]:
    """Type and name of evaluation data; those of a user are not named unless the user names them."""
    kind, name = _DATASETS.get(str(results.get("source")), ("own", "own data, not named by the publisher"))
    return kind, options.dataset_name or name


def headline(source: Source, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics worth a row, the main ones first."""
    plain = {name: value for name, value in metrics.items() if name != _COUNT and not name.startswith(_DETAILS)}
    first = [name for name in source.kind.main if name in plain]
    return {name: plain[name] for name in [*first, *(name for name in plain if name not in first)]}


def protocol_of(results: Mapping[str, Any], given: Sequence[str] = ()) -> str:
    """A line on how the numbers were measured.

    Args:
        results: content of eval_results.json.
        given: inputs of the model; empty where the evaluation did not choose them.
    """
    words = [f"split {results.get('split')}", f"{results.get('samples')} samples"]
    if given:
        words.append(f"given {inputs_in_words(given)}")
    if results.get("depth_protocol"):
        words.append(f"depth protocol {results['depth_protocol']}")
    if results.get("eval_crop"):
        words.append(f"eval_crop {results['eval_crop']}")
    clips, crops = results.get("num_segments", 1), results.get("num_crops", 1)
    if (clips, crops) != (1, 1):
        words.append(f"{plural(clips, 'clip')} x {crops} crops a video")
    if results.get("seed") is not None:
        words.append(f"seed {results['seed']}")
    return ", ".join(words)


def model_index(source: Source, options: PublishOptions) -> list[EvalResult]:
    """Entries for the card's model-index; those of an input set bear it in their names."""
    task = source.kind.pipeline or source.kind.task.replace("_", "-")
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset_of(each.results, options)[0],
            dataset_name=dataset_of(each.results, options)[1],
            dataset_split=str(each.results.get("split")),
            metric_type=name,
            metric_name=f"{name} ({inputs_in_words(given)})" if given else name,
            metric_value=value,
        )
        for each in source.evaluations
        for given, metrics in _measured(each, options)
        for name, value in headline(source, metrics).items()
    ]


def _measured(each: Evaluation, options: PublishOptions) -> list[tuple[tuple[str, ...], dict[str, float]]]:
    """(inputs, metrics) of each input set; one, of no inputs, where the evaluation chose none.

    A stock class sees RGB alone, so that only what was measured with that is said of it.
    """
    if not each.rounds:
        return [((), each.metrics)]
    return [(given, metrics) for given, metrics in each.rounds if given == ("rgb",) or not options.as_stock]


def benchmark_entries(source: Source, options: PublishOptions) -> list[dict[str, Any]]:
    """Content of .eval_results/m33d.yaml; empty unless the user names the Hub's benchmark that was measured."""
    if options.benchmark is None or not source.evaluations:
        return []
    dataset, _, task = options.benchmark.partition(":")
    each = source.evaluations[0]
    measured = _measured(each, options)
    if not measured:
        return []
    given, metrics = max(measured, key=lambda pair: len(pair[0]))  # all inputs, else the first: as `metrics` there
    (name, value), *_ = headline(source, metrics).items()
    notes = f"{name}; {protocol_of(each.results, given)}"
    return eval_result_entries_to_yaml([EvalResultEntry(dataset_id=dataset, task_id=task, value=value, notes=notes)])


def result_rows(source: Source, options: PublishOptions) -> list[dict[str, Any]]:
    """For the card's tables: one entry an evaluation, with a row for each of its input sets."""
    found = [_row(source, each, options) for each in source.evaluations]
    return [row for row in found if row["rows"]]


def _row(source: Source, each: Evaluation, options: PublishOptions) -> dict[str, Any]:
    results = each.results
    warnings = len(results.get("warnings") or ())
    rows = {given: headline(source, metrics) for given, metrics in _measured(each, options)}
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    texts = {
        inputs_in_words(given): {name: f"{metrics[name]:.4f}" if name in metrics else "-" for name in names}
        for given, metrics in rows.items()
    }
    return {
        "dataset": dataset_of(results, options)[1],
        "protocol": protocol_of(results, () if len(rows) > 1 else next(iter(rows), ())),
        "names": names,
        "rows": texts,
        "commit": results.get("commit") or "unknown",
        "hardware": results.get("device") or "unknown",
        "seconds": results.get("seconds"),
        "warnings": warnings,
    }


def training_time(rows: Sequence[Mapping[str, Any]], batch: int | None) -> float | None:
    """Seconds of training steps by the logged speed, without evaluations and checkpoints; None where nothing tells."""
    seconds, before = 0.0, 0
    for row in rows:
        speed = row.get("samples_per_second")
        if row.get("kind") == "train" and isinstance(speed, int | float) and speed > 0 and batch:
            seconds += (row["step"] - before) * batch / speed
            before = row["step"]
    return seconds or None

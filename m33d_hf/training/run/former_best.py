"""Whether the best weights that lie in a run's folder may be compared with what the run finds now.

A resumed run may be evaluated on other data or by another protocol, and a run that was killed before its first
checkpoint leaves best weights to whatever starts in its folder next: their metrics are of another scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.training.processes.saved_state import args_are_plain
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.run.resume import FREE, fact_differences

EVAL_DIGEST = "eval_digest"  # of the evaluation data, in the state of `best`
_JUDGING = ("data.eval_", "data.max_eval_samples", "evaluation.")
# Of these, what decides when and what is evaluated besides, not what an evaluation finds.
_CADENCE = ("evaluation.every_", "evaluation.at_end", "evaluation.floor", "evaluation.diagnostics", "evaluation.inputs",
            "evaluation.metric", "evaluation.greater_is_better")  # fmt: skip


def evaluation_differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "key: before -> now" for what makes the metrics of two evaluations incomparable; empty where nothing does.

    Args:
        former: state of the best weights.
        now: facts of the run, as in `run_facts`, with `EVAL_DIGEST`; without it folders are compared by name.
    """
    if not isinstance(former.get("args"), Mapping) or not args_are_plain(former["args"]):
        return ["its state.json does not say how it was trained"]
    free = [*(key for key in FREE if key not in _JUDGING), *_CADENCE]
    if now["args"].get("task") != PRETRAINING:  # whose retrieval compares the samples of a batch
        free.append("evaluation.batch_size")
    digests = [facts.get(EVAL_DIGEST) for facts in (former, now)]
    if None in digests:  # of an earlier version
        return fact_differences(former, now, free)
    found = fact_differences(former, now, [*free, "data.eval_root"])
    return found if digests[0] == digests[1] else [*found, f"{EVAL_DIGEST}: {digests[0]} -> {digests[1]}"]

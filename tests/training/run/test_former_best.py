"""checkpoints/best is compared with evaluations of its own kind alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import mark_complete
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.resume import EVAL_DIGEST, FORMER, evaluation_differences, fact_differences

# Nothing that a run finds is better.
PERFECT = 0.0


def stopped(folder: Path, task: TinyTask | None = None, **changes: Any) -> None:
    """A run that was ended with a best checkpoint whose error is made out to be 0."""
    train(tiny_arguments(folder, evaluation__every_steps=4, **changes), task or StoppingTask(7))
    edit(folder, lambda state: state["metrics"].update({"eval/rmse": PERFECT}))


def edit(folder: Path, change: Any) -> None:
    best = folder / "checkpoints" / "best"
    state = read_state(best)
    change(state)
    (best / "state.json").write_text(json.dumps(state))
    (best / "COMPLETE").unlink()
    mark_complete(best)


def best_error(folder: Path) -> float:
    found = CheckpointStore(folder).best()
    assert found is not None
    return float(read_state(found)["metrics"]["eval/rmse"])


def continued(folder: Path, **changes: Any) -> float:
    train(tiny_arguments(folder, evaluation__every_steps=6, **changes), TinyTask())
    return best_error(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__max_eval_samples": 5},
        {"evaluation__depth_protocol": "eigen"},
        {"data__eval_options": {"bad": [2]}},
        {"evaluation__num_crops": 3},
    ],
)
def test_other_evaluations_do_not_compete(tmp_path: Path, caplog: Any, changes: dict[str, Any]) -> None:
    stopped(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert continued(tmp_path, **changes) > PERFECT
    (key,) = changes
    told = [line for line in caplog.messages if "cannot be compared with this run's evaluations" in line]
    assert len(told) == 1 and key.replace("__", ".") in told[0]


def test_the_same_evaluations_do(tmp_path: Path, caplog: Any) -> None:
    """Also at other steps, in other batches, and from a folder that was moved."""
    stopped(tmp_path)
    with caplog.at_level(logging.WARNING):
        same = {"evaluation__batch_size": 3, "data__eval_root": "moved", "evaluation__floor": True}
        assert continued(tmp_path, **same) == PERFECT
    assert "cannot be compared" not in caplog.text


def test_a_best_of_an_earlier_version_still_competes(tmp_path: Path) -> None:
    stopped(tmp_path)
    edit(tmp_path, lambda state: state.pop(EVAL_DIGEST))
    assert continued(tmp_path) == PERFECT


@pytest.mark.parametrize("pictures", ["the same", "others"])
@pytest.mark.parametrize("saved", [True, False])
def test_a_best_whose_digests_had_labels_still_competes(tmp_path: Path, pictures: str, saved: bool) -> None:
    """As those of an earlier version, by which a pre-training's labels were part of its data; before the first
    checkpoint of the run, and after it."""
    now = {"data": "tiny-24", "eval": "tiny-7" if pictures == "the same" else "tiny-9"}

    class WithoutLabels(TinyTask):
        def data_digest(self, dataset: Any) -> str:
            return "without labels"

        def former_digest(self, dataset: Any) -> str:
            return now["data"]

        def eval_digest(self, dataset: Any) -> str:
            dataset.source.digest = lambda: now["eval"]
            return "without labels"

    if saved:
        stopped(tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            stopped(tmp_path, StoppingTask(7, "crash"))
        edit(tmp_path, lambda state: state["metrics"].update({"eval/rmse": PERFECT}))
    train(tiny_arguments(tmp_path, evaluation__every_steps=6), WithoutLabels())
    assert (best_error(tmp_path) == PERFECT) is (pictures == "the same")


@pytest.mark.parametrize("changes", [{}, {"seed": 4}])
def test_a_best_without_a_checkpoint_is_of_its_own_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A kill after the first evaluation and before the first checkpoint; the next start is from step 0."""
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path, StoppingTask(7, "crash"))
    edit(tmp_path, lambda state: state["metrics"].update({"eval/rmse": PERFECT}))
    assert not CheckpointStore(tmp_path).step_folders()
    assert (continued(tmp_path, **changes) == PERFECT) is not bool(changes)


def test_batches_count_where_an_evaluation_compares_their_samples() -> None:
    args = tiny_arguments("run").to_dict()
    facts = {"args": args, "data_digest": "a", "effective_batch": 4, EVAL_DIGEST: "b"}
    now = {**facts, "args": {**args, "evaluation": {**args["evaluation"], "batch_size": 9}}}
    assert evaluation_differences(facts, now) == []
    for each in (facts, now):
        each["args"]["task"] = "pretraining"
    assert evaluation_differences(facts, now) == ["evaluation.batch_size: 32 -> 9"]
    assert evaluation_differences(facts, {**facts, EVAL_DIGEST: "c"}) == [f"{EVAL_DIGEST}: b -> c"]
    assert evaluation_differences({"metrics": {}}, now)


def test_a_digest_of_an_earlier_version_counts_on_either_side() -> None:
    facts = {"args": tiny_arguments("run").to_dict(), "data_digest": "labelled", "effective_batch": 4}
    now = {**facts, "data_digest": "bare", f"{FORMER}data_digest": "labelled"}
    assert fact_differences(facts, now) == fact_differences(now, facts) == fact_differences(now, now) == []
    corrected = {**now, f"{FORMER}data_digest": "corrected"}
    assert fact_differences(now, corrected) == []
    assert fact_differences(facts, corrected) == ["data_digest: labelled -> bare"]
    assert fact_differences(now, {**now, "data_digest": "other", f"{FORMER}data_digest": "more"})


def test_an_earlier_version_is_compared_by_folders() -> None:
    args = tiny_arguments("run").to_dict()
    former = {"args": args, "data_digest": "a", "effective_batch": 4}
    now = {**former, "args": {**args, "data": {**args["data"], "eval_root": "other"}}, EVAL_DIGEST: "b"}
    assert evaluation_differences(former, now) == ["data.eval_root: null -> other"]

"""Two gloo processes: what must not depend on the number of processes, and what all ranks do alike."""

import signal

import pytest
import torch

from helpers.launching import (
    TORCHRUN,
    assert_same_weights,
    finish,
    outcome,
    start,
    weights_of,
    without_timing,
)
from helpers.ranks import run_jobs
from helpers.tiny_task import TinyTask, tiny_arguments, valid_pixels
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.replay import replay

EXACT = {"model": {"dropout": 0.3}, "data__num_workers": 1, "evaluation__every_steps": 5, "train__batch_size": 2}
EXACT["evaluation__batch_size"] = 1  # of seven samples the first rank has one batch more


def job(folder, name, signal=None, judging=None, **changes):
    made = {"name": name, "changes": {"output_dir": str(folder / name.split("-")[0]), "cpu": False, **changes}}
    signals = {"signal": signal, "signal in evaluation": judging}
    return {**made, **{key: value for key, value in signals.items() if value}}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """One pair of processes for all jobs that end by themselves: `train` is called many times in the same group."""
    folder = tmp_path_factory.mktemp("launched")
    jobs = [
        job(folder, "split", train__batch_size=2),
        job(folder, "both", train__batch_size=1, train__accumulation=2),
        job(folder, "whole", **EXACT),
        # Only rank 1 gets the signal; both must stop after the same step, and the next job continues.
        job(folder, "stopped", signal=[7, int(signal.SIGTERM), 1], **EXACT),
        job(folder, "stopped-again", **EXACT),
        job(folder, "judged", judging=[2, 1], **EXACT),
        job(folder, "judged-again", **EXACT),
        job(folder, "budget", data__options={"bad": [3, 5]}, data__max_bad_fraction=0.05),
        job(folder, "explosion", data__options={"explosive": [9]}, logging__every_steps=3, train__batch_size=2),
        job(folder, "unreadable", data__options={"size": 30, "bad": list(range(1, 30))}, data__max_bad_fraction=1.0),
        {**job(folder, "uneven", train__batch_size=2), "others": {"train__max_steps": 10}},
        {
            **job(folder, "settled", train__batch_size=2, model={"width": 8}),
            "others": {"train__max_steps": 10, "data__num_workers": 1, "model": {"width": 4}},
            "decided": ["train.max_steps", "data.num_workers", "model.width"],
        },
        job(folder, "asked", num_processes=3),
    ]
    code, output = run_jobs(jobs, folder)
    assert code == 1, output  # the last job is refused on purpose
    assert (folder / "asked.1.json").exists(), output
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(tiny_arguments(folder), TinyTask())


@pytest.mark.parametrize("name", ["split", "both"])
def test_two_processes_and_accumulation_equal_the_big_batch(launched, alone, name):
    folder, expected = alone
    found = outcome(launched, name)["history"]
    for a, b in zip(expected.history, found, strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        if a["kind"] == "train":
            assert a["learning_rate"] == b["learning_rate"]
            assert a["loss"] == pytest.approx(b["loss"], rel=2e-4)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-3)
        else:
            assert (
                a["eval/count"] == b["eval/count"] == valid_pixels(range(7))
            )  # nothing counted twice, nothing left out
            assert a["eval/rmse"] == pytest.approx(b["eval/rmse"], rel=1e-3)
    theirs = weights_of(launched / name)
    assert all(torch.allclose(w, theirs[k], atol=2e-4) for k, w in weights_of(folder).items())


def test_both_ranks_report_the_same(launched):
    for name in ("split", "both", "whole"):
        a, b = (without_timing(outcome(launched, name, rank)["history"]) for rank in (0, 1))
        assert a == b


def test_a_signal_to_one_rank_stops_all_and_the_continuation_is_exact(launched):
    stopped = [outcome(launched, "stopped", rank) for rank in (0, 1)]
    assert [o["step"] for o in stopped] == [7, 7]
    assert [o["interrupted_by"] for o in stopped] == [signal.SIGTERM] * 2
    whole, continued = outcome(launched, "whole"), outcome(launched, "stopped-again")
    assert without_timing(continued["history"]) == without_timing(whole["history"])
    assert_same_weights(launched / "whole", launched / "stopped")


def test_a_signal_to_one_rank_in_an_evaluation_saves_on_all_and_the_continuation_is_exact(launched):
    stopped = [outcome(launched, "judged", rank) for rank in (0, 1)]
    assert [(o["step"], o["interrupted_by"]) for o in stopped] == [(5, signal.SIGTERM)] * 2
    assert not any(row["kind"] == "eval" for row in stopped[0]["history"])
    whole, continued = outcome(launched, "whole"), outcome(launched, "judged-again")
    assert without_timing(continued["history"]) == without_timing(whole["history"])
    assert_same_weights(launched / "whole", launched / "judged")


def test_all_ranks_refuse_too_many_bad_files(launched):
    for rank in (0, 1):
        found = outcome(launched, "budget", rank)
        assert found["error"] == "DataError" and "max_bad_fraction = 0.05" in found["message"]


def test_all_ranks_stop_when_one_cannot_read(launched):
    for rank in (0, 1):
        assert outcome(launched, "unreadable", rank)["error"] == "DataError"


def test_a_non_finite_loss_on_one_rank_stops_all_and_is_replayed_in_one_process(launched):
    messages = [outcome(launched, "explosion", rank) for rank in (0, 1)]
    assert [m["error"] for m in messages] == ["NonFiniteLossError"] * 2
    (capture,) = (launched / "explosion" / "nonfinite").iterdir()
    state = read_state(capture)
    holders = [rank for rank, micros in enumerate(state["keys"]) if "tiny/9" in micros[0]]
    result = replay(capture, TinyTask())
    assert result.reproduced and [culprit[0] for culprit in result.culprits[:1]] == holders


def test_ranks_that_plan_different_runs_are_refused_before_a_step(launched):
    """They would wait for each other for ever: one of them would be at its end when the other takes a step."""
    for rank in (0, 1):
        found = outcome(launched, "uneven", rank)
        assert found["error"] == "ConfigError" and "total_steps: 12 in process 0, 10 in process 1" in found["message"]
    assert not (launched / "uneven" / "metrics.jsonl").exists()


def test_what_the_first_rank_decided_holds_for_all(launched):
    """Free memory and cores may differ between them: a run is as if all had decided as the first one did."""
    for rank in (0, 1):
        assert outcome(launched, "settled", rank).get("step") == 12, outcome(launched, "settled", rank)
    assert_same_weights(launched / "settled", launched / "split")


def test_a_world_other_than_asked_for(launched):
    for rank in (0, 1):
        found = outcome(launched, "asked", rank)
        assert found["error"] == "ConfigError" and "num_processes is 3, but 2" in found["message"]


def test_sigkill_of_one_rank_and_exact_continuation(launched, tmp_path):
    """Rank 1 dies without a word; torchrun ends the rest; two others continue from the last checkpoint."""
    changes = {**EXACT, "output_dir": str(tmp_path / "run"), "checkpoint__every_steps": 4}
    killed = {"name": "killed", "changes": changes, "signal": [10, int(signal.SIGKILL), 1]}
    code, output = finish(start(TORCHRUN, [killed], tmp_path / "first"))
    assert code != 0, output
    # Rank 0 may notice torchrun's SIGTERM or the broken connection; what counts is what lies on the disk.
    assert CheckpointStore(tmp_path / "run").latest().name == "step_00000008"
    code, output = run_jobs([{"name": "again", "changes": changes}], tmp_path / "second")
    assert code == 0, output
    found, whole = outcome(tmp_path / "second", "again"), outcome(launched, "whole")
    assert without_timing(found["history"]) == without_timing(whole["history"])
    assert_same_weights(tmp_path / "run", launched / "whole")

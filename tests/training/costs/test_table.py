"""The table of costs multiplies what was measured, and says what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m33d_hf.training.costs.table import Cost, Memory, duration, operations, size

GIB = 1 << 30
MEMORY = Memory(peak=6 * GIB, kept=2 * GIB, rows=16, per_row=GIB / 4, available=10 * GIB)
COST = Cost(
    step=0.5,
    reading=0.4,
    wall=0.5,
    steps=1000,
    evaluation=10.0,
    evaluations=4,
    step_flops=2e12,
    evaluation_flops=1e13,
    memory=MEMORY,
    how="measured here",
)


def test_the_run_is_steps_and_evaluations() -> None:
    assert COST.seconds == 1000 * 0.5 + 4 * 10
    assert COST.flops == 1000 * 2e12 + 4 * 1e13
    assert COST.lines() == [
        "measured here",
        "             each    number  time      operations",
        "steps        500 ms  1,000   8.33 min  2 PFLOP",
        "evaluations  10 s    4       40 s      40 TFLOP",
        "run                          9 min     2.04 PFLOP",
        "a step computes 500 ms; one process reads its samples in 400 ms. Starting and checkpoints are not in the "
        "table.",
        "memory: 6 GiB per process at the peak of a step of 16 samples (allocated); 2 GiB of it weights, gradients, "
        "AdamW and their average if one is kept, and 256 MiB per sample",
        "largest batch that fits: about 32 samples per process (10 GiB for this process)",
    ]


def test_a_trial_before_the_run_is_part_of_its_cost() -> None:
    with_trial = replace(COST, trial_steps=500)
    assert with_trial.seconds == COST.seconds + 500 * 0.5
    assert with_trial.flops is not None and COST.flops is not None and with_trial.flops == COST.flops + 500 * 2e12
    lines = with_trial.lines()
    assert lines[2] == "trial steps  500 ms  500     4.17 min  1 PFLOP"
    assert lines[5].split() == ["run", "13.2", "min", "3.04", "PFLOP"]


def test_decoded_samples_that_stay_are_told() -> None:
    lines = replace(COST, memory=replace(MEMORY, samples=0.75 * GIB)).lines()
    assert "beside it, decoded training samples stay in memory: 768 MiB once all are read" in lines
    assert not any("decoded" in line for line in COST.lines())


def test_what_does_not_fit_is_said_with_what_to_do() -> None:
    small = replace(COST, memory=replace(MEMORY, available=5 * GIB))
    text = "\n".join(small.lines())
    assert "about 12 samples" in text
    assert "WARNING: this run does not fit; take --train.batch_size 12 or less" in text
    assert replace(MEMORY, available=1 * GIB).most_rows() == 0
    assert replace(MEMORY, available=None).most_rows() is None


def test_slow_reading_and_things_that_are_not_known() -> None:
    slow = replace(COST, wall=2.0, evaluation=None, step_flops=None, evaluation_flops=None)
    text = "\n".join(slow.lines())
    assert "Steps wait 1.5 s for it: more --data.num_workers may help." in text
    assert "not timed" in text and "not counted" in text
    assert "evaluations" not in "\n".join(replace(COST, evaluations=0, evaluation=None).lines())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "12.3 ms"), (0.3404, "340 ms"), (1.0, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"),
     (7200, "2 h"), (36e5, "1,000 h")],
)  # fmt: skip
def test_durations_have_the_unit_that_suits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_sizes_and_operations_have_the_unit_that_suits() -> None:
    assert (size(3 << 20), size(5 << 29)) == ("3 MiB", "2.5 GiB")
    assert (operations(3.3e18), operations(12e9), operations(100)) == ("3.3 EFLOP", "12 GFLOP", "100 FLOP")

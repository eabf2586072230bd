"""The order of training and evaluation: a pure function of seed, step and rank."""

from __future__ import annotations

import numpy as np
import pytest

from m33d_hf.data.loader.sampling import EPOCHS_APART, EvaluationSampler, StepSampler
from m33d_hf.errors import ConfigError


def rows(sampler) -> list:
    return [list(batch) for batch in sampler]


def test_an_epoch_visits_each_row_at_most_once_and_drops_the_tail():
    sampler = StepSampler(10, 3, total_steps=9)
    assert sampler.steps_per_epoch == 3 and len(sampler) == 9 and not sampler.repeats
    taken = rows(sampler)
    for epoch in range(3):
        flat = [row for batch in taken[3 * epoch : 3 * epoch + 3] for row in batch]
        assert {e for e, _ in flat} == {epoch} and len({index for _, index in flat}) == 9
    assert [i for b in taken[:3] for _, i in b] != [i for b in taken[3:6] for _, i in b]


def test_resume_is_an_offset():
    whole = rows(StepSampler(10, 3, seed=5, total_steps=12))
    for start in (0, 1, 3, 7, 12):
        assert rows(StepSampler(10, 3, seed=5, start_step=start, total_steps=12)) == whole[start:]


def test_ranks_and_accumulation_split_the_same_rows():
    whole = rows(StepSampler(21, 8, seed=2, total_steps=6))
    ranks = [rows(StepSampler(21, 4, rank, 2, seed=2, total_steps=6)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert [row for pair in zip(ranks[0][step], ranks[1][step], strict=True) for row in pair] == batch
    parts = rows(StepSampler(21, 4, seed=2, total_steps=6, accumulation=2))
    assert [parts[2 * step] + parts[2 * step + 1] for step in range(6)] == whole
    assert len(StepSampler(21, 4, seed=2, start_step=2, total_steps=6, accumulation=2)) == 8


def test_a_data_set_smaller_than_a_step_repeats_with_other_epochs():
    sampler = StepSampler(3, 8, total_steps=2)
    assert sampler.repeats and sampler.steps_per_epoch == 1
    first, second = rows(sampler)
    assert len(first) == len(set(first)) == 8 and not set(first) & set(second)
    assert {index for _, index in first} == {0, 1, 2}


def test_order_without_shuffling_and_without_end():
    endless = iter(StepSampler(4, 2, shuffle=False))
    assert [next(endless) for _ in range(3)] == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(1, 0), (1, 1)]]
    with pytest.raises(TypeError):
        len(StepSampler(4, 2))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_takes_every_index_exactly_once(world):
    taken = [rows(EvaluationSampler(10, 3, rank, world)) for rank in range(world)]
    flat = [index for per_rank in taken for batch in per_rank for _, index in batch]
    assert sorted(flat) == list(range(10))
    assert [len(EvaluationSampler(10, 3, rank, world)) for rank in range(world)] == [len(t) for t in taken]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_batches_whose_samples_are_compared_are_the_same_for_any_number_of_processes(world, batch):
    taken = [rows(EvaluationSampler(10, batch, rank, world, same_batches=True)) for rank in range(world)]
    together = sorted(rows for per_rank in taken for rows in per_rank)
    assert together == rows(EvaluationSampler(10, batch))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_senseless_samplers_are_refused():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        StepSampler(4, 0)
    with pytest.raises(ConfigError, match="rank 2"):
        EvaluationSampler(4, 1, rank=2, world_size=2)


def _drawn(**options):
    weights = np.array([0.0, 1.0, 1.0, 6.0, 0.0])
    return StepSampler(5, 4, seed=3, weights=weights, **options)


def test_weighted_rows_are_drawn_in_proportion_and_never_with_weight_none():
    indices = [index for batch in rows(_drawn(total_steps=3000)) for _, index in batch]
    shares = np.bincount(indices, minlength=5) / len(indices)
    assert shares[[0, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(shares[1:4], [1 / 8, 1 / 8, 6 / 8], atol=0.015)


def test_repetitions_of_a_row_count_as_other_epochs():
    taken = [row for batch in rows(_drawn(total_steps=200)) for row in batch]
    assert len(set(taken)) == len(taken)
    assert {epoch % EPOCHS_APART for epoch, _ in taken} == set(range(200))
    small = [row for batch in rows(StepSampler(2, 7, weights=np.array([1.0, 9.0]), total_steps=20)) for row in batch]
    assert len(set(small)) == len(small)


def test_weighted_draws_resume_by_offset_and_are_shared_by_ranks():
    whole = rows(_drawn(total_steps=12))
    for start in (1, 5, 12):
        assert rows(_drawn(start_step=start, total_steps=12)) == whole[start:]
    ranks = [rows(StepSampler(5, 2, r, 2, seed=3, weights=np.array([0, 1, 1, 6, 0.0]), total_steps=12)) for r in (0, 1)]
    for step, batch in enumerate(whole):
        assert [row for pair in zip(ranks[0][step], ranks[1][step], strict=True) for row in pair] == batch


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_drawn_by_are_refused(weights):
    with pytest.raises(ConfigError, match="weights of 2 rows"):
        StepSampler(2, 1, weights=np.array(weights))

"""Maps that are all alike are found, whatever their batches; nothing else is."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from m33d_hf.evaluation.same_answer import SameAnswer


def _found(*batches: torch.Tensor) -> bool:
    same = SameAnswer()
    for batch in batches:
        same.update(batch)
    return same.compute()


@pytest.mark.parametrize("answer", [torch.full((4, 5), 0.24), torch.rand(4, 5), torch.randint(0, 9, (4, 5))])
def test_one_map_for_all(answer: torch.Tensor) -> None:
    batch = answer.expand(3, -1, -1)
    assert _found(batch, batch[:1])
    other = batch.clone()
    other[2, 3, 4] += 1
    assert not _found(other) and not _found(batch, other) and not _found(batch, other[2:])


def test_rounding_is_no_difference() -> None:
    metres = torch.full((2, 4, 4), 3.0)
    metres[1] *= 1 + 4e-6  # float32 keeps 1 in 8 million, and sums lose some of it
    assert _found(metres)
    metres[1, 0, 0] *= 1.0001
    assert not _found(metres)


def test_one_map_or_none_says_nothing() -> None:
    assert not _found() and not _found(torch.zeros(0, 2, 2)) and not _found(torch.zeros(1, 2, 2))


def test_maps_of_another_size_are_different() -> None:
    assert not _found(torch.zeros(2, 2, 2), torch.zeros(1, 3, 2))


def test_what_another_process_saw_counts() -> None:
    same = SameAnswer()
    same.update(torch.zeros(3, 2, 2))
    accelerator = mock.Mock(num_processes=2, device="cpu")
    accelerator.reduce = lambda counts, reduction: counts + torch.tensor([5.0, 1.0])
    assert not same.compute(accelerator)
    accelerator.reduce = lambda counts, reduction: counts + torch.tensor([5.0, 0.0])
    assert same.compute(accelerator)

"""Rows of a batch to come, and the batch that they are."""

from __future__ import annotations

import torch

from m33d_hf.data.augmentation.batch_rows import BatchRows, as_batch


def filled(rows: BatchRows, count: int, frames: int = 2, size: tuple[int, int] = (3, 4)) -> list[torch.Tensor]:
    found = []
    for number in range(count):
        row = rows.take(frames, size)
        assert row is not None and row.shape == (frames, 3, *size) and row.dtype == torch.uint8
        found.append(row.copy_(torch.arange(row.numel()).reshape(row.shape) + number))
    return found


def test_rows_are_a_batch_already():
    clips = filled(BatchRows(3), 3)
    batch = as_batch(clips)
    assert torch.equal(batch, torch.stack(clips)) and batch.data_ptr() == clips[0].data_ptr()
    assert batch.stride(2) == 1 and batch.permute(0, 1, 3, 4, 2).is_contiguous()


def test_rows_of_another_shape_and_more_than_there_are_are_refused():
    rows = BatchRows(2)
    (first,) = filled(rows, 1)
    assert rows.take(2, (3, 5)) is None and rows.take(1, (3, 4)) is None
    (second,) = filled(rows, 1)
    assert rows.take(2, (3, 4)) is None
    assert torch.equal(as_batch([first, second]), torch.stack([first, second]))


def test_what_is_no_whole_batch_in_order_is_none():
    first, second, third = filled(BatchRows(3), 3)
    for clips in ([first, second], [second, third], [first, third, second], [first, second, second]):
        assert as_batch(clips) is None
    assert as_batch([first, second, third.clone()]) is None
    assert as_batch([first, second, third.flip(-1)]) is None
    block = torch.zeros(2, 2, 3, 4, 4, dtype=torch.uint8)
    assert as_batch([block[0], block[1].transpose(-1, -2)]) is None
    assert as_batch([block[0].permute(1, 0, 2, 3), block[1]]) is None


def test_planes_that_lie_together_are_one_too():
    block = torch.arange(2 * 2 * 3 * 4 * 5).to(torch.uint8).reshape(2, 2, 3, 4, 5)
    assert torch.equal(as_batch(list(block)), block)

"""Preallocated rows of a batch: pictures are resized directly into them, which avoids copying when stacking.

A clip of 16 frames of 224 x 224 is 2.4 MB, more than fits into the cache of one core: what is copied once more waits
for memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class BatchRows:
    """Memory for `count` uint8 pictures or clips of one shape, handed out row by row.

    Args:
        count: rows of the batch.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._memory: torch.Tensor | None = None

    def take(self, frames: int, size: tuple[int, int]) -> torch.Tensor | None:
        """The next row, (frames, 3, *size) uint8 with unset values, pixel by pixel in memory.

        None if rows of another shape were taken before, or if no rows are left.
        """
        shape = (frames, *size, 3)
        if self._memory is None:
            self._memory = torch.empty((self.count, *shape), dtype=torch.uint8)
        if self._taken == self.count or self._memory.shape[1:] != shape:
            return None
        row = self._memory[self._taken]
        self._taken += 1
        return row.permute(0, 3, 1, 2)


def as_batch(clips: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """(B, T, 3, H, W) without a copy, where the clips are all rows of one batch in their order; else None."""
    first = clips[0]
    step = first.numel()
    memory = first.untyped_storage()
    if memory.nbytes() != len(clips) * step:
        return None
    for row, clip in enumerate(clips):
        if (
            clip.untyped_storage().data_ptr() != memory.data_ptr()
            or clip.storage_offset() != row * step
            or clip.stride() != first.stride()
            or clip.shape != first.shape
        ):
            return None
    return first.as_strided((len(clips), *first.shape), (step, *first.stride()))

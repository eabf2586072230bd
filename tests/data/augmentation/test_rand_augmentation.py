"""Draws are torchvision's, and clips that are changed together come out as each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.clip_operations import clips, theirs
from m33d_hf.data.augmentation.rand_augmentation import OPERATIONS, augment_together, draw_operations
from m33d_hf.data.randomness import seeded

v2 = pytest.importorskip("torchvision.transforms.v2")
SHIFTS = ("TranslateX", "TranslateY")


class Noting(v2.RandAugment):
    """torchvision's RandAugment, which notes what it does instead of doing it."""

    def __init__(self, ops: int, magnitude: int) -> None:
        super().__init__(ops, magnitude)
        self.noted: list[tuple[str, float]] = []

    def _apply_image_or_video_transform(self, image: Any, transform_id: str, magnitude: float, **_: Any) -> Any:
        self.noted.append((transform_id, magnitude))
        return image


def test_the_operations_are_torchvisions_in_its_order() -> None:
    assert tuple(v2.RandAugment(1, 7)._AUGMENTATION_SPACE) == OPERATIONS


@pytest.mark.parametrize("magnitude", [0, 7, 19, 30])
def test_operations_strengths_and_order_are_torchvisions(magnitude: int) -> None:
    """Bit for bit, and the generator is left as torchvision leaves it."""
    met, frames = set(), torch.zeros(1, 3, 30, 41, dtype=torch.uint8)
    for seed in range(60):
        with seeded("draw", seed):
            ours, after = draw_operations(3, magnitude, 30, 41), torch.rand(3)
        noting = Noting(3, magnitude)
        with seeded("draw", seed):
            noting(frames)
            state = torch.rand(3)
        assert list(ours) == noting.noted and torch.equal(after, state)
        met |= {operation.name for operation in ours}
    assert met == set(OPERATIONS)


@pytest.mark.parametrize("magnitude", [7, 30])
def test_clips_changed_together_have_torchvisions_pixels(magnitude: int) -> None:
    """The path of accelerators, on this CPU: bit for bit."""
    given = clips(24)
    drawn = []
    for seed in range(24):
        with seeded("together", seed):
            drawn.append(draw_operations(4 if seed % 5 else 1, magnitude, 30, 41))
    before = given.clone()
    found = augment_together(given, drawn)
    assert torch.equal(given, before) and {op.name for each in drawn for op in each} == set(OPERATIONS)
    for clip, operations, changed in zip(given, drawn, found, strict=True):
        for operation in operations:
            if operation.name not in SHIFTS:
                clip = theirs(clip, operation)
        assert torch.equal(changed, clip)

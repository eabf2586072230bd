"""Our RandAugment is torchvision's, bit for bit."""

from __future__ import annotations

import pytest
import torch

from m33d_hf.data.augmentation.rand_augmentation import OPERATIONS, augment_clip
from m33d_hf.data.randomness import generator_of, seeded

v2 = pytest.importorskip("torchvision.transforms.v2")


def theirs(ops: int, magnitude: int):
    return v2.RandAugment(ops, magnitude, interpolation=v2.InterpolationMode.BILINEAR, fill=[128] * 3)


def clips() -> list[torch.Tensor]:
    """Noise, a narrow range with a flat plane, and few values; as planes and as decoded."""
    draws = generator_of(3)
    noise = torch.randint(0, 256, (3, 30, 41, 3), generator=draws, dtype=torch.uint8).permute(0, 3, 1, 2)
    narrow = (noise // 4 + 90).contiguous()
    narrow[1, 2] = 7
    return [noise, narrow, noise // 128 * 128]


def test_the_operations_are_torchvisions_in_its_order():
    assert tuple(theirs(1, 7)._AUGMENTATION_SPACE) == OPERATIONS


@pytest.mark.parametrize("magnitude", [0, 7, 19, 30])
def test_every_operation_gives_torchvisions_pixels(magnitude: int):
    met = set()
    for seed in range(60):
        with seeded("operation", seed):
            met.add(OPERATIONS[int(torch.randint(len(OPERATIONS), ()))])
        for frames in clips():
            before = frames.clone()
            with seeded("operation", seed):
                ours, after = augment_clip(frames, 1, magnitude), torch.rand(3)
            with seeded("operation", seed):
                expected, state = theirs(1, magnitude)(frames), torch.rand(3)
            assert torch.equal(ours, expected) and torch.equal(after, state) and torch.equal(frames, before)
    assert met == set(OPERATIONS)


def test_several_operations_in_a_row():
    for seed in range(40):
        for frames in clips():
            with seeded("row", seed):
                ours = augment_clip(frames, 4, 7)
            with seeded("row", seed):
                assert torch.equal(ours, theirs(4, 7)(frames))


def test_shifts_of_a_large_picture_are_exact():
    """Sampling positions of float32 are least exact there."""
    frames = torch.randint(0, 256, (1, 3, 1080, 1920), generator=generator_of(5), dtype=torch.uint8)
    found = 0
    for seed in range(60):
        with seeded("large", seed):
            name = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))]
        if name.startswith("Translate"):
            found += 1
            with seeded("large", seed):
                ours = augment_clip(frames, 1, 11 + seed % 19)
            with seeded("large", seed):
                assert torch.equal(ours, theirs(1, 11 + seed % 19)(frames))
        if found == 4:
            break
    assert found == 4

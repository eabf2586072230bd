"""The CPU's operations against torchvision's, one by one and in a row.

Tolerance: what goes by value, bit for bit, but for Contrast; the others one level, after a rotation two for two pixels
in a thousand. Where a moved picture ends, torchvision counts the grey around it twice: there, coverage is compared.
"""

from __future__ import annotations

import pytest
import torch

from helpers.clip_operations import clips, theirs
from m33d_hf.data.augmentation.rand_augmentation import (
    _SIGNED,
    OPERATIONS,
    Operation,
    _strength,
    augment_clip,
    augment_together,
    draw_operations,
)
from m33d_hf.data.randomness import generator_of, seeded

EXACT = ("Identity", "Brightness", "Posterize", "Solarize", "AutoContrast", "Equalize")
MOVING = ("ShearX", "ShearY", "Rotate")


def smooth(frames: int = 2, height: int = 46, width: int = 61) -> torch.Tensor:
    """Frames in which neighbours are alike, as in pictures, with some noise."""
    small = torch.rand(frames, 3, 5, 6, generator=generator_of(1)) * 230
    large = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    return (large + 25 * torch.rand(large.shape, generator=generator_of(2))).to(torch.uint8)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("Translate")])
@pytest.mark.parametrize("magnitude", [0, 7, 30])
def test_an_operation_has_torchvisions_pixels(name: str, magnitude: int) -> None:
    for frames in (smooth(), *clips(3)):
        before = frames.clone()
        for sign in (1, -1) if name in _SIGNED else (1,):
            operation = Operation(name, sign * _strength(name, magnitude, 1, 1))
            found, wanted = augment_clip(frames, [operation]), theirs(frames, operation)
            assert torch.equal(frames, before) and found.dtype == torch.uint8 and found.is_contiguous()
            if name in EXACT:
                assert torch.equal(found, wanted)
                continue
            apart = (found.int() - wanted.int()).abs()
            if name in MOVING:
                # Where white stays white, no pixel is mixed with what lies outside.
                inside = theirs(torch.full_like(frames, 255), operation) == 255
                assert inside.float().mean() > 0.3
                assert (apart[inside] <= 1 + (name == "Rotate")).all() and apart[inside].float().mean() < 0.35
                assert (apart[inside] > 1).float().mean() < 2e-3
                black = torch.zeros_like(frames)
                covered = augment_clip(black, [operation]).int() - theirs(black, operation).int()
                assert covered.abs().max() <= 2
            else:
                assert (apart <= 1).all() and apart.float().mean() < 0.6


def test_the_edge_of_a_moved_picture_is_mixed_with_grey_by_what_is_covered() -> None:
    """White rows sheared by a quarter of a pixel per row: the share of white in every row is that of a drawn line."""
    frames = torch.full((1, 3, 8, 20), 255, dtype=torch.uint8)
    found = augment_clip(frames, [Operation("ShearX", 0.25)])[0, 0].double()
    for row in range(8):
        left_out = abs(0.25 * (row - 3.5))  # pixels of grey that come in
        assert abs(float(((found[row] - 128) / 127).sum()) - (20 - left_out)) < 0.02


def test_any_layout_and_small_pictures() -> None:
    for shape in ((1, 3, 1, 1), (2, 3, 2, 5), (1, 3, 3, 1)):
        frames = torch.randint(0, 256, shape, generator=generator_of(4), dtype=torch.uint8)
        for name in OPERATIONS:
            assert augment_clip(frames, [Operation(name, 0.3)]).shape == shape
    given = clips(1)[0]
    pixelwise = given.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    operations = [Operation("Equalize", 0.0), Operation("Rotate", 7.0), Operation("Color", 0.3)]
    assert torch.equal(augment_clip(pixelwise, operations), augment_clip(given, operations))


def test_operations_by_value_in_a_row_are_those_one_after_the_other() -> None:
    """They share one table and one histogram; whole draws differ from torchvision's by little."""
    names = ("Contrast", "Solarize", "AutoContrast", "Brightness", "Equalize", "Posterize", "AutoContrast")
    for start in range(len(names)):
        row = [Operation(name, 0.4 if name in _SIGNED else _strength(name, 9, 1, 1)) for name in names[start:]]
        frames = smooth()
        step = frames
        for operation in row:
            step = augment_clip(step, [operation])
        assert (augment_clip(frames, row).int() - step.int()).abs().float().mean() < (0.5 if start == 0 else 1e-9)


def test_whole_draws_are_close_to_torchvisions() -> None:
    frames, apart = smooth(), []
    for seed in range(60):
        with seeded("whole", seed):
            drawn = draw_operations(4, 7, 46, 61)
        wanted = augment_together(frames[None], [drawn])[0]
        apart.append(float((augment_clip(frames, drawn).float() - wanted.float()).abs().mean()))
    assert max(apart) < 10 and sum(apart) / len(apart) < 1.2, (max(apart), sum(apart) / len(apart))

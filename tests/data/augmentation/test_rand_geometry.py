"""The crop sees in its middle what RandAugment of the whole frames would have moved there."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import v2

from m33d_hf.data.augmentation.rand_augmentation import Operation, augment_clip, draw_operations
from m33d_hf.data.augmentation.rand_geometry import follow, surround
from m33d_hf.data.randomness import generator_of, seeded
from m33d_hf.modeling.preprocessing_m33d import RGB_FILL, Placement, place

MOVING = {"ShearX": 0.15, "ShearY": -0.15, "TranslateX": 23.0, "TranslateY": -17.0, "Rotate": 13.0}


def on_the_frame(frames: torch.Tensor, operations: list[Operation]) -> torch.Tensor:
    """torchvision's moving operations as its RandAugment calls them."""
    made = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR)
    for name, strength in operations:
        if name in MOVING:
            fill = {torch.Tensor: [float(RGB_FILL)] * 3}
            frames = made._apply_image_or_video_transform(frames, name, strength, made.interpolation, fill)
    return frames


def places(height: int = 120, width: int = 160) -> torch.Tensor:
    """A frame whose red and green are the row and the column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None].to(torch.uint8)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1)])
def test_the_middle_of_a_crop_is_that_of_the_moved_frame(signs: tuple[int, int]) -> None:
    """Every moving operation, and two in a row, of crops that are enlarged, reduced, or windows of the whole."""
    pairs = [[Operation(one, signs[0] * MOVING[one]), Operation(two, signs[1] * MOVING[two])]
             for one in MOVING for two in MOVING]  # fmt: skip
    crops = [
        Placement((40, 50, 45, 60), (60, 80), (0, 0), (60, 80)),
        Placement((30, 50, 51, 71), (32, 48), (0, 0), (32, 48)),
    ]
    crops += [place((120, 160), (56, 64), "center"), Placement((0, 0, 120, 160), (60, 80), (9, 12), (40, 48))]
    for operations in [*pairs, *([Operation(name, strength)] for name, strength in MOVING.items())]:
        for crop in crops:
            wanted = crop.view(on_the_frame(places(), operations))
            frames, seen = surround(places(), follow(crop, operations, (120, 160)))
            found = augment_clip(seen.view(frames), operations)
            height, width = (side // 2 for side in crop.size)
            middle = (0, slice(0, 2), slice(height - 1, height + 1), slice(width - 1, width + 1))
            # The box follows by whole pixels; resizing antialiases grey into what is near the frame's end.
            assert (found[middle].int() - wanted[middle].int()).abs().max() <= 2, (operations, crop)


def test_shifts_alone_are_those_of_the_frame_to_the_pixel() -> None:
    """And grey appears where the frame ends, not where the crop does."""
    frames = torch.randint(0, 120, (2, 3, 50, 60), generator=generator_of(2), dtype=torch.uint8)
    for layout in (frames, frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)):
        for top, left, right, down in ((5, 5, 8, -9), (0, 30, -31, 4), (30, 10, 70, 0), (10, 10, -5, 3)):
            crop = Placement((top, left, 20, 30), (20, 30), (0, 0), (20, 30))
            operations = [Operation("TranslateX", float(right)), Operation("TranslateY", float(down))]
            wanted = crop.view(on_the_frame(frames, operations))
            part, seen = surround(layout, follow(crop, operations, (50, 60)))
            assert torch.equal(seen.view(part), wanted)
            assert torch.equal(augment_clip(seen.view(part), operations), wanted)
            inside = top - down >= 0 and left - right >= 0 and top - down + 20 <= 50 and left - right + 30 <= 60
            assert (part is layout) == inside == bool((wanted != RGB_FILL).all())


def test_draws_without_movement_leave_the_crop_where_it_is() -> None:
    crop = Placement((11, 7, 33, 41), (24, 24), (0, 0), (24, 24))
    drawn = [Operation("Equalize", 0.0), Operation("Color", 0.3), Operation("Rotate", 0.0)]
    assert follow(crop, drawn, (90, 100)) == crop
    frames = places()
    assert surround(frames, crop) == (frames, crop)


def test_crops_far_outside_are_grey() -> None:
    crop = Placement((0, 0, 20, 20), (24, 24), (0, 0), (24, 24))
    part, seen = surround(places(), follow(crop, [Operation("TranslateX", 150.0)], (120, 160)))
    assert (seen.view(part) == RGB_FILL).all()


@pytest.mark.slow
def test_ten_thousand_draws_keep_the_distribution_of_pixels() -> None:
    """RandAugment of the frame, then the crop (as torchvision and VideoMAE have it), against what is done here.

    Statistics of values are a crop's here and a frame's there (AutoContrast, Equalize stretch them further), so that
    the deviation may grow by a twentieth or so; frequencies are those of the draw, one in 14 each.
    """
    means, counts, draws = [], dict.fromkeys(MOVING, 0), 10_000
    made = v2.RandAugment(4, 7, interpolation=v2.InterpolationMode.BILINEAR, fill=[RGB_FILL] * 3)
    small = torch.rand(24, 3, 6, 8, generator=generator_of(1)) * 200
    pictures = torch.nn.functional.interpolate(small, (36, 48), mode="bilinear").to(torch.uint8)
    for number in range(draws):
        frames = pictures[number % 24][None]
        top, left = number % 7, number % 11
        crop = Placement((top, left, 24, 30), (24, 24), (0, 0), (24, 24))
        with seeded("draws", number):
            former = crop.view(made(frames)).float()
        with seeded("draws", number):
            drawn = draw_operations(4, 7, 36, 48)
        part, seen = surround(frames, follow(crop, drawn, (36, 48)))
        now = augment_clip(seen.view(part), drawn).float()
        means.append([float(each) for pixels in (former, now) for each in (pixels.mean(), pixels.std())])
        for name, _ in drawn:
            counts[name] = counts.get(name, 0) + 1
    mean, deviation, mean_now, deviation_now = torch.tensor(means, dtype=torch.float64).mean(0).tolist()
    assert abs(mean_now - mean) < 2.5, (mean, mean_now)
    assert 0.97 < deviation_now / deviation < 1.12, (deviation, deviation_now)
    assert len(counts) == 14
    expected = 4 * draws / 14
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values()), counts

"""Hue of large clips, which is turned in strips, and that of accelerators (the steps themselves: test_transforms)."""

import torch

from m33d_hf.data.augmentation.color import (
    _HUE_PIXELS,
    Jitter,
    adjust_hue,
    color_jitter,
    gaussian_blur,
    turned_by_torch,
)
from m33d_hf.data.randomness import generator_of


def test_strips_of_a_large_clip_have_the_hue_of_the_whole():
    draws = generator_of(1)
    frames = torch.randint(0, 256, (3, 3, 211, 217), generator=draws).float()
    frames[..., :5, :] = frames[:, :1, :5]  # grey pixels, without a hue
    assert frames[0, 0].numel() > _HUE_PIXELS
    shifts = torch.rand((3, 1, 1, 1), generator=draws, dtype=torch.float64) - 0.5
    before = frames.clone()
    for shift in (0.1, shifts):
        found = adjust_hue(frames, shift)
        assert torch.equal(frames, before) and found.shape == frames.shape
        for number in range(3):
            own = shift if isinstance(shift, float) else shift[number : number + 1]
            pixels = frames[number : number + 1].reshape(1, 3, -1)
            parts = [adjust_hue(part[:, :, None], own)[:, :, 0] for part in pixels.split(999, dim=2)]
            assert torch.equal(torch.cat(parts, dim=2).view(3, 211, 217), found[number])


def test_accelerators_turn_the_hue_alike():
    """Their path on this CPU."""
    draws = generator_of(2)
    frames = torch.randint(0, 256, (6, 3, 14, 17), generator=draws).float()
    frames[..., :3, :] = frames[:, :1, :3]  # grey
    frames[:, 1, 4] = frames[:, 0, 4]  # two channels equally high, or equally low
    shifts = torch.rand((6, 1, 1, 1), generator=draws) - 0.5
    for shift in (0.0, -0.5, 0.13, shifts):
        assert (turned_by_torch(frames, shift) - adjust_hue(frames, shift)).abs().max() < 0.02


def test_colour_runs_where_its_frames_are():
    """On a device without numbers: whatever stayed on the CPU would be refused."""
    frames = torch.empty((3, 3, 14, 17), device="meta")
    drawn = [Jitter((1.1, 0.9, 1.2, 0.1), (3, 1, 0, 2)), Jitter((0.8, 1.2, 1.0, -0.1), (0, 3)), Jitter((1.0,) * 4, ())]
    found = gaussian_blur(color_jitter(frames, drawn), 5, 1.2)
    assert found.device.type == "meta" and found.shape == frames.shape

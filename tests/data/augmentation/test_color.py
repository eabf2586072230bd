"""Hue of large clips, which is turned in strips (the steps themselves: test_transforms)."""

import torch

from m33d_hf.data.augmentation.color import _HUE_PIXELS, adjust_hue
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

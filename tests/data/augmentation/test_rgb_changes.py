"""Changes of RGB alone come out the same whoever carries them out, and with whom."""

from __future__ import annotations

import pickle

import pytest
import torch

from helpers.devices import NEEDS_CUDA
from m33d_hf.data.augmentation import rgb_changes
from m33d_hf.data.augmentation.color import Jitter
from m33d_hf.data.augmentation.rand_augmentation import Operation, augment_clip
from m33d_hf.data.augmentation.rgb_changes import ColorDraw, RgbChanges, change_clips, change_rows
from m33d_hf.data.randomness import generator_of

TURN, SPREAD = Operation("Rotate", 9.0), Operation("Equalize", 0.0)
JITTER = ColorDraw(Jitter((1.2, 0.8, 1.1, 0.05), (3, 0, 2)), False, None)
CHANGES = [
    RgbChanges((20, 26), (TURN, SPREAD)),
    RgbChanges((20, 26), (SPREAD,), JITTER),
    None,
    RgbChanges((13, 26), (TURN,), ColorDraw(None, True, (5, 1.1))),
    RgbChanges((20, 17), (), JITTER),
    RgbChanges((20, 26), (), ColorDraw(None, False, (3, 0.7))),
]


def batch(frames: int = 2) -> torch.Tensor:
    """Six clips, pixel by pixel in memory as a batch of decoded pictures is."""
    shape = (6, frames, 20, 26, 3)
    return torch.randint(0, 256, shape, generator=generator_of(8), dtype=torch.uint8).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("at_once", [1, 5000, 1 << 18])
def test_rows_together_are_bit_equal_to_each_alone_and_padding_stays(at_once: int, monkeypatch) -> None:
    monkeypatch.setattr(rgb_changes, "VALUES_AT_ONCE", at_once)
    given = batch()
    before = given.clone()
    found = change_rows(given, CHANGES)
    assert torch.equal(given, before) and found.is_contiguous()
    for row, (clip, change) in enumerate(zip(given, CHANGES, strict=True)):
        if change is None:
            assert torch.equal(found[row], clip)
            continue
        height, width = change.shown
        alone = change.apply(clip)
        assert torch.equal(found[row], alone)
        assert torch.equal(alone[..., height:, :], clip[..., height:, :])
        assert torch.equal(alone[..., width:], clip[..., width:])
        # A picture that is padded afterwards looks the same.
        part = clip[..., :height, :width].contiguous()
        assert torch.equal(change.apply(part), alone[..., :height, :width]) and not torch.equal(alone, clip)
    images = change_rows(given[:, 0], CHANGES)
    assert images.shape == (6, 3, 20, 26)
    single = [each.apply(clip[:1]) if each else clip[:1] for each, clip in zip(CHANGES, given, strict=True)]
    assert torch.equal(images, torch.cat(single))


def test_the_draw_of_rand_augment_comes_before_colour() -> None:
    clip = batch()[0]
    both = RgbChanges((20, 26), (TURN,), JITTER)
    (wanted,) = change_clips([augment_clip(clip, [TURN])], [RgbChanges((20, 26), (), JITTER)])
    assert torch.equal(both.apply(clip), wanted)
    assert pickle.loads(pickle.dumps(both)) == both  # on its way out of a worker


def test_accelerators_take_the_clips_of_one_size_together(monkeypatch) -> None:
    """Their path on this CPU, as torchvision has it: every row is what its draw alone gives."""
    asked: list[int] = []
    together = rgb_changes.augment_together

    def noting(clips, drawn):
        asked.append(len(clips))
        return together(clips, drawn)

    given = batch()
    monkeypatch.setattr(rgb_changes, "augment_together", noting)
    monkeypatch.setattr(rgb_changes, "_on_cpu", lambda clip: False)
    found = change_rows(given, CHANGES)
    assert sorted(asked) == [1, 2]
    for clip, change, changed in zip(given, CHANGES, found, strict=True):
        if change is not None:
            assert torch.equal(changed, change.apply(clip))
            if not change.color:
                height, width = change.shown
                alone = together(clip[None, ..., :height, :width], [change.operations])[0]
                assert torch.equal(changed[..., :height, :width], alone)


def test_accelerators_whiten_all_at_once_and_blur_once_per_kernel(monkeypatch) -> None:
    """Their path on this CPU: the CPU's own colours up to a level."""
    changes = [
        RgbChanges((20, 26), (), ColorDraw(None, number % 3 == 0, (5 if number < 4 else 3, 0.4 + number / 4)))
        for number in range(6)
    ]
    wanted, given, asked = change_rows(batch(), changes), batch(), []
    blur = rgb_changes.gaussian_blur
    monkeypatch.setattr(rgb_changes, "gaussian_blur", lambda *given: asked.append(given[1:]) or blur(*given))
    monkeypatch.setattr(rgb_changes, "_on_cpu", lambda clip: False)
    found = change_rows(given, changes)
    assert asked == [(5, [0.4, 0.4, 0.65, 0.65, 0.9, 0.9, 1.15, 1.15]), (3, [1.4, 1.4, 1.65, 1.65])]
    assert (found.float() - wanted.float()).abs().max() <= 1 and not torch.equal(found, given)
    assert torch.equal(found[0, :, 0], found[0, :, 1]) and not torch.equal(found[1, :, 0], found[1, :, 1])


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=NEEDS_CUDA), "meta"])
def test_changes_run_where_the_batch_is(device: str) -> None:
    found = change_rows(batch().to(device), CHANGES)
    assert found.device.type == device and found.shape == (6, 2, 3, 20, 26) and found.dtype == torch.uint8
    if device == "cuda":
        apart = (found.cpu().float() - change_rows(batch(), CHANGES).float()).abs()
        assert apart.flatten(1).mean(1).max() < 6  # noise, and the edge of turned pictures

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.planted_frames import boxes
from helpers.shared_data import shared
from m33d_hf.inspection.misalignment import RADIUS, Shift, edge_agreement, suspected_shift, working_factor


def agreement(frames: list[tuple[np.ndarray, np.ndarray]], right: int = 0, down: int = 0) -> tuple[np.ndarray, int]:
    """Summed over frames whose depth is rolled by so many pixels, and the number of frames that say something."""
    surfaces = []
    for rgb, metres in frames:
        moved = np.roll(metres, (down, right), (0, 1))
        surface = edge_agreement(rgb.transpose(2, 0, 1), moved)
        surfaces += [] if surface is None else [surface]
    return np.sum(surfaces, axis=0), len(surfaces)


def planted() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(rgb, depth / 1000.0) for rgb, depth in map(boxes, range(4))]


@pytest.mark.parametrize(("right", "down"), [(6, 0), (-6, 0), (0, 4), (3, -5)])
def test_a_shift_is_found_with_its_size_and_direction(right: int, down: int):
    shift = suspected_shift(*agreement(planted(), right, down))
    assert shift is not None and (shift.right, shift.down) == (right, down)


def test_registered_frames_are_not_suspected_nor_are_pictures_without_common_edges():
    assert suspected_shift(*agreement(planted())) is None
    draw = np.random.default_rng(0)
    noise = [(draw.integers(0, 256, (96, 128, 3), dtype=np.uint8), draw.uniform(1, 3, (96, 128))) for _ in range(5)]
    assert suspected_shift(*agreement(noise)) is None
    strangers = [(boxes(seed)[0], boxes(seed + 50)[1] / 1000.0) for seed in range(6)]
    assert suspected_shift(*agreement(strangers)) is None


def test_agreement_is_the_plain_sum_over_pixels():
    """The FFT against a sum over shifted maps, at every shift, with edges from simple arrays."""
    from m33d_hf.inspection.misalignment import _correlation

    draw = np.random.default_rng(1)
    picture, edges = draw.normal(size=(70, 65)), draw.random((70, 65))
    surface = _correlation(picture, edges)
    padded = np.pad(edges, RADIUS)
    for down, right in ((0, 0), (5, -3), (-RADIUS, RADIUS), (1, 7)):
        top, left = RADIUS + down, RADIUS + right
        moved = padded[top : top + 70, left : left + 65]
        assert surface[RADIUS + down, RADIUS + right] == pytest.approx((picture * moved).sum(), abs=1e-8)


def test_too_small_flat_or_empty_frames_say_nothing():
    rgb, depth = boxes(0)
    metres = depth / 1000.0
    assert edge_agreement(rgb[:40, :40].transpose(2, 0, 1), metres[:40, :40]) is None
    assert edge_agreement(rgb.transpose(2, 0, 1), np.full(metres.shape, np.nan)) is None
    assert edge_agreement(np.full_like(rgb, 7).transpose(2, 0, 1), metres) is None
    assert suspected_shift(*agreement(planted()[:1], right=6)) is None, "one frame says too little"
    assert working_factor(480, 640) == 2 and working_factor(240, 320) == 1


def test_holes_beside_an_object_belong_to_what_is_behind_it():
    """The shadow of a structured-light camera to the left of every box moves no edge."""
    frames = []
    for rgb, metres in planted():
        near = metres < 2.7
        shadow = np.logical_or.reduce([np.roll(near, -step, axis=1) for step in range(1, 6)]) & ~near
        frames.append((rgb, np.where(shadow, np.nan, metres)))
    assert suspected_shift(*agreement(frames)) is None
    assert suspected_shift(*agreement(frames, right=6)) is not None


def _real(pictures: list[Path], depths: list[Path], scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    frames = []
    for picture, depth in zip(pictures, depths, strict=True):
        stored = np.asarray(Image.open(depth)).astype(np.float64)
        stored[(stored == 0) | (stored == 65535)] = np.nan
        frames.append((np.asarray(Image.open(picture).convert("RGB")), stored / scale))
    return frames


@pytest.mark.parametrize(
    ("folder", "rgb", "depth"),
    [
        ("rgbd_pairs/open3d_rgbd_icl_noisy", "color/*", "depth/*"),
        ("rgbd_sequences/icl_nuim_livingroom1", "image/*", "depth/*"),
        ("research_only/replica_office0", "color/*", "depth/*"),
    ],
)
def test_real_frames_are_suspected_only_when_they_are_shifted(folder: str, rgb: str, depth: str):
    root = shared(folder)
    pictures, depths = sorted(root.glob(rgb)), sorted(root.glob(depth))
    step = max(1, len(pictures) // 5)
    frames = _real(pictures[::step][:5], depths[::step][:5], 1000.0)
    factor = working_factor(*frames[0][1].shape)
    assert suspected_shift(*agreement(frames)) is None
    shift = suspected_shift(*agreement(frames, right=6))
    assert isinstance(shift, Shift) and shift.down == 0 and abs(shift.right * factor - 6) <= factor / 2


def test_real_frames_of_kinects_are_not_suspected():
    tum = shared("rgbd_pairs/slambook_ch7_tum")
    frames = _real([tum / "1.png", tum / "2.png"], [tum / "1_depth.png", tum / "2_depth.png"], 5000.0)
    other = shared("rgbd_pairs/open3d_other_formats")
    frames += _real([other / "TUM_color.png"], [other / "TUM_depth.png"], 5000.0)
    surface, count = agreement(frames)
    assert count == 3 and suspected_shift(surface, count) is None

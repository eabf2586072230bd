import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.planted_frames import boxes
from helpers.shared_data import shared
from m33d_hf.data.measuring.edge_maps import correlations, zoomed
from m33d_hf.data.measuring.misalignment import EdgeTally, Misplacement, edge_agreement, suspected_misplacement

Frames = list[tuple[np.ndarray, np.ndarray]]


def agreement(frames: Frames, right: int = 0, down: int = 0) -> EdgeTally:
    """Of frames whose depth is rolled by so many pixels."""
    tally = EdgeTally()
    for rgb, metres in frames:
        found = edge_agreement(rgb.transpose(2, 0, 1), np.roll(metres, (down, right), (0, 1)))
        if found is not None:
            tally.merge(found)
    return tally


def suspected(frames: Frames, right: int = 0, down: int = 0) -> Misplacement | None:
    return suspected_misplacement(agreement(frames, right, down), *frames[0][1].shape)


def magnified(metres: np.ndarray, zoom: float) -> np.ndarray:
    """Depth as of a camera whose focal length is `zoom` times as long; what it does not see is unknown."""
    rows, columns = (
        np.rint((length - 1) / 2 + (np.arange(length) - (length - 1) / 2) / zoom).astype(int) for length in metres.shape
    )
    inside = [(place >= 0) & (place < length) for place, length in zip((rows, columns), metres.shape, strict=True)]
    seen = np.full(metres.shape, np.nan)
    seen[np.ix_(*inside)] = metres[np.ix_(rows[inside[0]], columns[inside[1]])]
    return seen


def planted() -> Frames:
    return [(rgb, depth / 1000.0) for rgb, depth in map(boxes, range(4))]


@pytest.mark.parametrize(("right", "down"), [(6, 0), (-6, 0), (0, 4), (3, -5)])
def test_a_shift_is_found_with_its_size_and_direction(right: int, down: int):
    place = suspected(planted(), right, down)
    assert place is not None and (place.right, place.down, place.zoom) == (right, down, 1)


@pytest.mark.parametrize("zoom", [0.75, 0.9, 1.1, 1.3])
def test_depth_of_another_focal_length_is_found_though_no_shift_fits(zoom: float):
    place = suspected([(rgb, magnified(metres, zoom)) for rgb, metres in planted()])
    assert place is not None and place.zoom == pytest.approx(zoom, rel=0.03)
    assert max(abs(place.right), abs(place.down)) <= 2 * place.within


def test_registered_frames_are_not_suspected_nor_are_pictures_without_common_edges():
    assert suspected(planted()) is None
    draw = np.random.default_rng(0)
    noise = [(draw.integers(0, 256, (96, 128, 3), dtype=np.uint8), draw.uniform(1, 3, (96, 128))) for _ in range(5)]
    assert suspected(noise) is None
    strangers = [(boxes(seed)[0], boxes(seed + 50)[1] / 1000.0) for seed in range(6)]
    assert suspected(strangers) is None


def test_agreement_is_the_plain_sum_over_pixels():
    """The FFT against a sum over shifted maps, at several shifts, with edges from simple arrays."""
    draw = np.random.default_rng(1)
    radius, picture, edges = 9, draw.normal(size=(70, 65)), draw.random((2, 70, 65))
    surfaces = correlations([(picture, edges), (picture.T[:50], edges.transpose(0, 2, 1)[:, :50])], radius)
    padded = np.pad(edges, ((0, 0), (radius, radius), (radius, radius)))
    for down, right in ((0, 0), (5, -3), (-radius, radius), (1, 7)):
        top, left = radius + down, radius + right
        moved = padded[:, top : top + 70, left : left + 65]
        sums = (picture * moved).sum(axis=(1, 2))
        turned = np.pad(edges.transpose(0, 2, 1)[:, :50], ((0, 0), (radius, radius), (radius, radius)))
        sums += (picture.T[:50] * turned[:, top : top + 50, left : left + 70]).sum(axis=(1, 2))
        assert surfaces[:, top, left] == pytest.approx(sums, abs=1e-8)


def test_zoomed_edges_keep_their_weight_and_move_away_from_the_middle():
    edges = np.zeros((21, 31))
    edges[10, 15], edges[5, 20], edges[0, 0] = 1.0, 0.5, 0.25
    moved = zoomed(edges, 1.4)
    assert moved[10, 15] == 1.0 and moved[3, 22] == 0.5 and moved.sum() == 1.5, "the corner left the map"
    np.testing.assert_array_equal(zoomed(edges, 1.0), edges)


def test_tallies_survive_json_and_add_up_in_any_order():
    tallies = [agreement([frame]) for frame in planted()]
    forward, backward = EdgeTally(), EdgeTally()
    for one, other in zip(tallies, reversed(tallies), strict=True):
        forward.merge(EdgeTally.from_dict(json.loads(json.dumps(one.to_dict()))))
        backward.merge(other)
    assert forward.frames == backward.frames == 4 and forward.to_dict() == backward.to_dict()
    assert EdgeTally.from_dict(json.loads(json.dumps(EdgeTally().to_dict()))).frames == 0


def test_too_small_flat_or_empty_frames_say_nothing():
    rgb, depth = boxes(0)
    metres = depth / 1000.0
    assert edge_agreement(rgb[:40, :40].transpose(2, 0, 1), metres[:40, :40]) is None
    assert edge_agreement(rgb.transpose(2, 0, 1), np.full(metres.shape, np.nan)) is None
    assert edge_agreement(np.full_like(rgb, 7).transpose(2, 0, 1), metres) is None
    assert suspected(planted()[:1], right=6) is None, "one frame says too little"


def test_holes_beside_an_object_belong_to_what_is_behind_it():
    """The shadow of a structured-light camera to the left of every box moves no edge."""
    frames = []
    for rgb, metres in planted():
        near = metres < 2.7
        shadow = np.logical_or.reduce([np.roll(near, -step, axis=1) for step in range(1, 6)]) & ~near
        frames.append((rgb, np.where(shadow, np.nan, metres)))
    assert suspected(frames) is None
    assert suspected(frames, right=6) is not None


def _real(pictures: list[Path], depths: list[Path], scale: float) -> Frames:
    frames = []
    for picture, depth in zip(pictures, depths, strict=True):
        stored = np.asarray(Image.open(depth)).astype(np.float64)
        stored[(stored == 0) | (stored == 65535)] = np.nan
        frames.append((np.asarray(Image.open(picture).convert("RGB")), stored / scale))
    return frames


def _picked(folder: str, rgb: str, depth: str, count: int) -> Frames:
    root = shared(folder)
    pictures, depths = sorted(root.glob(rgb)), sorted(root.glob(depth))
    step = max(1, len(pictures) // count)
    return _real(pictures[::step][:count], depths[::step][:count], 1000.0)


@pytest.mark.parametrize(
    ("folder", "rgb", "depth"),
    [
        ("rgbd_pairs/open3d_rgbd_icl_noisy", "color/*", "depth/*"),
        ("rgbd_sequences/icl_nuim_livingroom1", "image/*", "depth/*"),
        ("research_only/replica_office0", "color/*", "depth/*"),
    ],
)
def test_real_frames_are_suspected_only_when_they_are_moved(folder: str, rgb: str, depth: str):
    frames = _picked(folder, rgb, depth, 3)
    assert suspected(frames) is None
    place = suspected(frames, right=6)
    assert place is not None and place.zoom == 1 and place.down == 0 and abs(place.right - 6) <= place.within / 2
    place = suspected([(rgb, magnified(metres, 585 / 525)) for rgb, metres in frames])
    assert place is not None and place.zoom == pytest.approx(585 / 525, abs=0.04)


def test_7_scenes_whose_depth_was_never_registered_is_suspected():
    """Its two cameras have focal lengths of 585 and 525 pixels (Kinect): depth is 11 % larger, and 10 pixels aside."""
    place = suspected(_picked("research_only/7scenes_seq", "*.color.jpg", "*.depth.png", 4))
    assert place is not None and place.zoom == pytest.approx(585 / 525, abs=0.04)
    assert 4 <= place.right <= 14 and abs(place.down) <= 3


def test_real_frames_of_kinects_are_not_suspected():
    tum = shared("rgbd_pairs/slambook_ch7_tum")
    frames = _real([tum / "1.png", tum / "2.png"], [tum / "1_depth.png", tum / "2_depth.png"], 5000.0)
    other = shared("rgbd_pairs/open3d_other_formats")
    frames += _real([other / "TUM_color.png"], [other / "TUM_depth.png"], 5000.0)
    assert agreement(frames).frames == 3 and suspected(frames) is None
    place = suspected(frames, down=8)
    assert place is not None and abs(place.down - 8) <= 2 and abs(place.right) <= 2

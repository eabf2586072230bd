from pathlib import Path

import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.pairing import match_timestamps, modality_of, natural_key, pair_by_name, strip_modality


def test_closest_stamps_are_paired_one_to_one():
    assert match_timestamps([0.0, 0.1, 0.2], [0.105, 0.2, 0.012], 0.02) == [(0, 2), (1, 0), (2, 1)]
    # Both want 0.01; the closer one gets it, the other takes what is left within reach.
    assert match_timestamps([0.0, 0.008], [0.01, 0.02], 0.02) == [(0, 1), (1, 0)]
    assert match_timestamps([0.0, 0.008], [0.01], 0.02) == [(1, 0)]
    assert match_timestamps([0.0], [0.03], 0.02) == []
    assert match_timestamps([], [1.0], 0.02) == []


@pytest.mark.parametrize(
    ("stem", "modality", "rest"),
    [
        ("frame-000003.color", "rgb", "frame-000003"),
        ("1_depth", "depth", "1"),
        ("segm_gt_000464", "labels", "000464"),
        ("TUM_color", "rgb", "TUM"),
        ("rgbd_scene", None, "rgbd_scene"),
        ("1628069033.660061", None, "1628069033.660061"),
        ("colour", "rgb", ""),
    ],
)
def test_words_in_names(stem: str, modality: str | None, rest: str):
    assert modality_of(stem) == modality
    assert strip_modality(stem) == rest


def test_natural_order():
    assert sorted(["f10", "f9", "f010b", "a"], key=natural_key) == ["a", "f9", "f010b", "f10"]


def test_pairing_does_not_depend_on_listing_order():
    rgb = [(f"s/{i}", f"rgb/{i}.jpg") for i in (3, 1, 2)]
    depth = [(f"s/{i:04d}", f"depth/{i:04d}.png") for i in (2, 3, 4)]
    rows, left = pair_by_name({"rgb": rgb, "depth": depth})
    assert list(rows) == ["s/1", "s/2", "s/3", "s/0004"]
    assert rows["s/2"] == {"rgb": "rgb/2.jpg", "depth": "depth/0002.png"}
    assert {(entry.path, entry.reason) for entry in left} == {
        ("rgb/1.jpg", "its frame has no depth"),
        ("depth/0004.png", "its frame has no rgb"),
    }
    assert pair_by_name({"rgb": rgb[::-1], "depth": depth[::-1]})[0] == rows


def test_digits_that_are_no_decimal_number_are_text(tmp_path: Path):
    """Circled and raised digits: `isdigit` holds, `int` refuses them. Other scripts' decimal digits are numbers."""
    assert sorted(["f10", "f①", "f²", "f9", "f٣"], key=natural_key) == ["f٣", "f9", "f10", "f²", "f①"]
    for name in ("①", "2", "x²"):
        save(tmp_path / f"color/{name}.png", rgb_array())
        save(tmp_path / f"depth/{name}.png", depth_array())
    assert sorted(frame.key for frame in FolderSource(tmp_path, depth_unit="mm")) == ["2", "x²", "①"]

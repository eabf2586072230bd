"""Calibration files: read back exactly, and every way to get one wrong is named."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from m33d_hf.data.depth.calibration import Calibration, Camera, read_calibration, write_calibration
from m33d_hf.errors import ConfigError

ANGLE = 0.1
CONTENT: dict[str, Any] = {
    "color": {"width": 1280, "height": 720, "fx": 912.1, "fy": 911.8, "cx": 640.3, "cy": 359.6},
    "depth": {"width": 640, "height": 576, "fx": 504.3, "fy": 504.4, "cx": 320.9, "cy": 331.0},
    "depth_to_color": [
        [float(np.cos(ANGLE)), float(-np.sin(ANGLE)), 0.0, -0.032],
        [float(np.sin(ANGLE)), float(np.cos(ANGLE)), 0.0, -0.002],
        [0.0, 0.0, 1.0, 0.004],
        [0.0, 0.0, 0.0, 1.0],
    ],
}


def stored(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content) if path.suffix in (".yaml", ".yml") else json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["c.json", "c.yaml", "c.yml"])
def test_both_notations(tmp_path: Path, name: str):
    read = read_calibration(stored(tmp_path / name, CONTENT))
    assert read.color == Camera(1280, 720, 912.1, 911.8, 640.3, 359.6) and read.depth.size == (576, 640)
    assert read.matrix.tolist() == CONTENT["depth_to_color"]


def test_written_and_read_back_exactly(tmp_path: Path):
    calibration = Calibration.from_dict(CONTENT)
    write_calibration(tmp_path / "calibration.json", calibration)
    assert read_calibration(tmp_path / "calibration.json") == calibration
    assert hash(calibration) == hash(read_calibration(tmp_path / "calibration.json"))


def changed(**changes: Any) -> dict[str, Any]:
    """The content with values at dotted places; None takes a key away."""
    content = copy.deepcopy(CONTENT)
    for place, value in changes.items():
        *above, last = place.split("__")
        inner: Any = content
        for name in above:
            inner = inner[int(name) if name.isdecimal() else name]
        if value is None:
            del inner[last]
        else:
            inner[int(last) if last.isdecimal() else last] = value
    return content


BAD = [
    (changed(color=None), "no color"),
    (changed(depth_to_color=None), "no depth_to_color"),
    (changed(depth__fx=None), r"depth has no fx"),
    (changed(depth__k1=0.1), r"a key of depth is 'k1'"),
    (changed(colour={}), r"a key of the calibration is 'colour'"),
    (changed(color__fx=0), r"color: fx"),
    (changed(color__fx="912"), r"color: fx must be"),
    (changed(color__width=12.5), r"color: width must be"),
    (changed(color__cx=1300.0), r"outside the picture of 1280 x 720"),
    (changed(depth=[1, 2]), r"depth is \[1, 2\]"),
    (changed(depth_to_color=[[1, 0], [0, 1]]), r"\(2, 2\)"),
    (changed(depth_to_color="identity"), "4 rows of 4"),
    (changed(depth_to_color__0__0=float("nan")), "finite"),
    (changed(depth_to_color__0__0=1.2), "no rigid motion"),
    (changed(depth_to_color__2__2=-1.0), "no rigid motion.*determinant is -1"),
    (changed(depth_to_color__3=[-0.032, 0, 0, 1.0]), "no rigid motion.*transposed"),
    (changed(depth_to_color__0__3=-32.0), "32.* metres.*millimetres"),
]


@pytest.mark.parametrize(("content", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_calibrations_are_named(tmp_path: Path, content: dict[str, Any], words: str):
    path = stored(tmp_path / "c.json", content)
    with pytest.raises(ConfigError, match=rf"(?s)calibration file {path}.*{words}"):
        read_calibration(path)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_calibration(tmp_path / "c.json")
    for name, text in (("a.json", "{"), ("b.yaml", "[1, 2]"), ("c.yaml", "a: [")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=name):
            read_calibration(tmp_path / name)


def test_sizes_of_files():
    calibration = Calibration.from_dict(CONTENT)
    calibration.require_sizes((720, 1280), (576, 640), "frame 3")
    calibration.require_sizes(None, None, "frame 3")
    with pytest.raises(ConfigError, match=r"frame 3: the color picture is 640 x 360.*1280 x 720"):
        calibration.require_sizes((360, 640), (576, 640), "frame 3")
    with pytest.raises(ConfigError, match=r"the depth picture is 576 x 640.*640 x 576"):
        calibration.require_sizes(None, (640, 576), "frame 3")


def test_resizing_keeps_rays():
    """A point in front of the camera projects to the same share of the picture, whose borders lie half a pixel out."""
    camera = Calibration.from_dict(CONTENT).color
    half = camera.resized(360, 640)
    x, y, z = 0.4, -0.2, 1.7
    for full, part, length, small in (
        (camera.fx * x / z + camera.cx, half.fx * x / z + half.cx, 1280, 640),
        (camera.fy * y / z + camera.cy, half.fy * y / z + half.cy, 720, 360),
    ):
        assert (full + 0.5) / length == pytest.approx((part + 0.5) / small)


def test_depth_that_only_needs_resizing_shows_one_view():
    color = Camera(1920, 1440, 1400.0, 1390.0, 955.0, 722.0)
    depth = color.resized(192, 256)
    assert Calibration(color, depth).shows_one_view and Calibration(color, color).shows_one_view
    moved = tuple(tuple(0.02 if (i, j) == (0, 3) else float(i == j) for j in range(4)) for i in range(4))
    assert not Calibration(color, depth, moved).shows_one_view
    assert not Calibration(color, replace(depth, cx=depth.cx + 1)).shows_one_view
    assert not Calibration(color, replace(depth, fx=depth.fx * 1.1)).shows_one_view

"""inference/prediction/point_clouds.py: points project back onto their pixels; PLY as another reader sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.prediction import picture
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.prediction.files.point_clouds import Lens, points_of, write_ply


def test_points_project_back_onto_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 4, (48, 60)).astype(np.float32)
    depth[3, 4], depth[5, 6], depth[7, 8] = 0, np.nan, np.inf
    pixels = picture()
    fx, fy, cx, cy = 55.0, 57.0, 28.5, 24.25
    camera = Lens.of([fx, fy, cx, cy], None, 60.0).camera_of(48, 60)
    points = points_of(depth, pixels, camera)
    assert len(points) == depth.size - 3
    u = np.rint(points["x"] / points["z"] * fx + cx).astype(int)
    v = np.rint(points["y"] / points["z"] * fy + cy).astype(int)
    assert len({*zip(u, v)}) == len(points) and np.allclose(points["z"], depth[v, u])
    assert np.array_equal(np.stack([points[name] for name in ("red", "green", "blue")], -1), pixels[v, u])

    data = write_ply(tmp_path / "p.ply", points).read_bytes()
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    sizes = {"float": ("f", 4), "uchar": ("B", 1)}
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue"]
    assert len(body) == len(points) * sum(sizes[kind][1] for kind, _ in properties)
    import struct

    first = struct.unpack_from("<" + "".join(sizes[kind][0] for kind, _ in properties), body)
    assert first == pytest.approx(points[0].item())


def test_an_assumed_view_spans_its_angle() -> None:
    camera = Lens(field_of_view=90.0).camera_of(480, 640)
    # The outer edges of the first and the last pixel of the longer side lie 45 degrees to the left and to the right.
    for edge in (-0.5, 639.5):
        assert abs((edge - camera.cx) / camera.fx) == pytest.approx(1.0)
    assert camera.fx == camera.fy and camera.cy == 239.5
    tall = Lens(field_of_view=90.0).camera_of(640, 480)
    assert abs((-0.5 - tall.cy) / tall.fy) == pytest.approx(1.0)
    assert "ASSUMED field of view of 90 degrees" in Lens(field_of_view=90.0).describe()


def test_a_calibration_holds_for_resized_pictures(tmp_path: Path) -> None:
    color = {"width": 640, "height": 480, "fx": 500.0, "fy": 510.0, "cx": 321.0, "cy": 239.0}
    identity = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"color": color, "depth": color, "depth_to_color": identity}), encoding="utf-8")
    lens = Lens.of(None, file, 60.0)
    whole, half = lens.camera_of(480, 640), lens.camera_of(240, 320)
    assert (whole.fx, whole.cx) == (500.0, 321.0) and half.fx == 250.0
    assert (half.cx + 0.5) / 320 == pytest.approx((whole.cx + 0.5) / 640), "the same place of the picture"
    with pytest.raises(DataError, match="no resizing of 640 x 480"):
        lens.camera_of(480, 480)
    assert "calibration's colour camera" in lens.describe()


def test_intrinsics_that_cannot_be_right() -> None:
    for values in ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, -5.0, 2.0], [1.0, float("nan"), 2.0, 3.0]):
        with pytest.raises(ConfigError, match="--intrinsics"):
            Lens.of(values, None, 60.0)
    with pytest.raises(DataError, match="do not fit a picture of 60 x 48"):
        Lens.of([500.0, 500.0, 320.0, 240.0], None, 60.0).camera_of(48, 60)

"""align=register: the recording's header and an export's text files say the same, and bad ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import sens_files
from helpers.scannet_folders import SIZE, write_exported, write_recorded
from helpers.sens_files import depth_ramp
from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.packed_formats import sens
from m33d_hf.data.sources.scannet.source import ScanNetSource
from m33d_hf.errors import ConfigError

COLOR = (48, 64)


def intrinsic(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = fx, fy, cx, cy
    return matrix


# Exact in float32, in which a header stores them.
SHIFT = np.eye(4)
SHIFT[:3, 3] = 0.0625, 0.0, -0.03125
MATRICES = np.stack([intrinsic(60, 61, 32.5, 24), np.eye(4), intrinsic(30, 29, 15, 12.25), SHIFT])
EXPECTED = Calibration(Camera(64, 48, 60.0, 61.0, 32.5, 24.0), Camera(32, 24, 30.0, 29.0, 15.0, 12.25), SHIFT)


@pytest.fixture(autouse=True)
def header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sens_files, "MATRICES", MATRICES.astype("<f4"))
    sens._index.cache_clear()


def write_intrinsics(scene: Path, matrices: np.ndarray = MATRICES) -> None:
    (scene / "intrinsic").mkdir()
    for name, matrix in zip(("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"), matrices):
        np.savetxt(scene / "intrinsic" / f"{name}.txt", matrix)


@pytest.mark.parametrize("kind", ["sens", "exported"])
def test_depth_comes_at_the_size_of_the_colour(tmp_path: Path, kind: str):
    if kind == "sens":
        write_recorded(tmp_path / "scans")
    else:
        write_intrinsics(write_exported(tmp_path / "scans", labels=None) / "scene0000_00")
    source = ScanNetSource(tmp_path / "scans", align="register")
    sample = source[2].read([0])
    metres = depth_ramp(2, SIZE).astype(np.float32) / np.float32(1000)
    expected = register_depth(np.where(metres > 0, metres, np.nan), EXPECTED)
    assert sample.rgb.shape[-2:] == COLOR and np.isfinite(expected).mean() > 0.8
    assert np.array_equal(sample.depth[0, 0].numpy(), expected, equal_nan=True)
    assert any("1 scenes; in 0 of" in note for note in source.notes)


def test_a_common_place_of_both_cameras_cancels(tmp_path: Path):
    turned = np.array([[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    matrices = MATRICES.copy()
    matrices[1], matrices[3] = turned, turned @ SHIFT
    write_intrinsics(write_exported(tmp_path / "scans", labels=None) / "scene0000_00", matrices)
    assert np.allclose(ScanNetSource(tmp_path / "scans", align="register").calibrations["scene0000_00"].matrix, SHIFT)


def test_what_is_missing_or_cannot_be(tmp_path: Path):
    scene = write_exported(tmp_path / "scans", labels=None) / "scene0000_00"
    with pytest.raises(ConfigError, match=r"intrinsic_color.txt is missing"):
        ScanNetSource(tmp_path / "scans", align="register")
    write_intrinsics(scene, np.zeros((4, 4, 4)))
    with pytest.raises(ConfigError, match=r"scene0000_00.*fx"):
        ScanNetSource(tmp_path / "scans", align="register")
    (scene / "intrinsic/extrinsic_depth.txt").write_text("1 2 three")
    with pytest.raises(ConfigError, match=r"extrinsic_depth.txt does not hold 4 x 4 numbers"):
        ScanNetSource(tmp_path / "scans", align="register")
    with pytest.raises(ConfigError, match=r"registr"):
        ScanNetSource(tmp_path / "scans", align="registr")

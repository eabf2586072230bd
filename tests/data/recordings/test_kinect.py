"""Azure Kinect's recordings: every depth value, the colour's own bytes, the calibration by a formula of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.kinect_files import COLOR, DEPTH, calibration, write_kinect
from helpers.recordings import encoded, millimetres, picture
from m33d_hf.data.depth.calibration import read_calibration
from m33d_hf.data.files.files import read_map, size_and_orientation
from m33d_hf.data.recordings.importing import import_recording
from m33d_hf.data.recordings.kinect import calibration_of
from m33d_hf.data.recordings.recording import ImportOptions
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import CorruptFileError, DataError


def quiet(line: str) -> None:
    """No progress on the terminal."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kinect(tmp_path_factory.mktemp("kinect") / "a.mkv")


def test_every_value_arrives(tmp_path: Path, recorded: Path):
    """The infrared track, which looks the same, is not taken for depth."""
    summary = import_recording(recorded, tmp_path / "out", say=quiet)
    assert (summary.announced, summary.written, summary.skipped, summary.missing) == (3, 3, 0, 0)
    for number in range(3):
        assert np.array_equal(read_map(tmp_path / f"out/depth/{number:06d}.png"), millimetres(number, DEPTH))
        assert (tmp_path / f"out/color/{number:06d}.jpg").read_bytes() == encoded(picture(number, COLOR))
    rows = (tmp_path / "out/frames.csv").read_text().split()[1:]
    assert [row.split(",")[1] for row in rows] == ["0.000000000", "0.033000000", "0.067000000"]
    source = FolderSource(tmp_path / "out", depth_scale=1000.0, calibration="calibration.json")
    depth = source[1].read([0]).depth[0, 0].numpy()
    assert (
        depth.shape == COLOR and 0.3 < np.isfinite(depth).mean() < 1 and 0.9 < np.nanmin(depth) < np.nanmax(depth) < 3.3
    )


def test_calibration_keeps_the_rays_of_the_whole_sensor(tmp_path: Path, recorded: Path):
    """A point in front of the device, by shares of the whole sensor, lies where the camera of the mode puts it."""
    import_recording(recorded, tmp_path / "out", say=quiet)
    found = read_calibration(tmp_path / "out/calibration.json")
    depth, color = calibration()["CalibrationInformation"]["Cameras"]
    point = np.array([0.11, -0.07, 1.3])
    turn, shift = np.array(color["Rt"]["Rotation"]).reshape(3, 3), np.array(color["Rt"]["Translation"])
    moved = turn @ point + shift
    assert np.allclose(found.matrix[:3] @ [*point, 1], moved)
    # 288 x 320 is the middle, moved by (96, 90), of 512 x 512 bins; 1280 x 720 the middle rows of 1280 x 960.
    for camera, values, where, whole, corner in (
        (found.depth, depth, point, (512, 512), (96, 90)),
        (found.color, color, moved, (1280, 960), (0, 120)),
    ):
        cx, cy, fx, fy = values["Intrinsics"]["ModelParameters"][:4]
        share = np.array([fx * where[0] / where[2] + cx, fy * where[1] / where[2] + cy])
        edges = share * whole - corner  # pixels from the outer corner of the first pixel
        mine = [camera.fx * where[0] / where[2] + camera.cx, camera.fy * where[1] / where[2] + camera.cy]
        assert np.allclose(np.array(mine) + 0.5, edges)


def test_without_a_calibration(tmp_path: Path):
    for name, options, words in (
        ("a.mkv", {"attached": b""}, "none is attached"),
        ("b.mkv", {"depth": (30, 40), "color": (48, 64)}, "no colour mode of Azure Kinect is 64 x 48"),
    ):
        summary = import_recording(write_kinect(tmp_path / name, 1, **options), tmp_path / f"{name}-out", say=quiet)
        assert summary.written == 1 and any(words in note for note in summary.notes)
        assert not (tmp_path / f"{name}-out/calibration.json").exists()


@pytest.mark.parametrize("text", [b"no json", b"{}", b'{"CalibrationInformation": {"Cameras": []}}'])
def test_an_attachment_of_another_kind(text: bytes):
    with pytest.raises(CorruptFileError, match=r"attached calibration"):
        calibration_of(Path("a.mkv"), text, COLOR, DEPTH, [])


def test_a_matrix_that_is_none():
    content = calibration()
    content["CalibrationInformation"]["Cameras"][1]["Rt"]["Rotation"] = [1, 0, 0, 0, 1, 0, 0, 0, 2]
    with pytest.raises(CorruptFileError, match=r"no rigid motion"):
        calibration_of(Path("a.mkv"), json.dumps(content).encode(), COLOR, DEPTH, [])


def test_a_recording_cut_short(tmp_path: Path):
    small = {"color": (48, 64), "depth": (30, 40)}
    data = write_kinect(tmp_path / "a.mkv", 40, **small).read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"frames that the recording counts are missing"):
        import_recording(tmp_path / "b.mkv", tmp_path / "out", say=quiet)
    summary = import_recording(tmp_path / "b.mkv", tmp_path / "out", ImportOptions(max_bad_fraction=0.9), quiet)
    assert 10 < summary.already_there < 30 and abs(summary.announced - 40) <= 2
    assert size_and_orientation(tmp_path / "out/depth/000009.png")[:2] == (30, 40)
    (tmp_path / "b.mkv").write_bytes(data)  # copied again, as a whole
    whole = import_recording(tmp_path / "b.mkv", tmp_path / "out", say=quiet)
    assert whole.already_there == summary.already_there and whole.written + whole.already_there == 40
    import_recording(tmp_path / "a.mkv", tmp_path / "at once", say=quiet)
    for path in (tmp_path / "at once").glob("*/*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "at once")).read_bytes()


def test_damaged_colour_is_counted(tmp_path: Path):
    small = {"color": (48, 64), "depth": (30, 40)}
    source = write_kinect(tmp_path / "a.mkv", 5, **small)
    picture_2 = encoded(picture(2, (48, 64)))
    data = source.read_bytes()
    at = data.index(picture_2)
    source.write_bytes(data[: at + 200] + bytes(len(picture_2) - 200) + data[at + len(picture_2) :])
    summary = import_recording(source, tmp_path / "out", ImportOptions(max_bad_fraction=0.3), quiet)
    assert (summary.written, summary.skipped) == (4, 1)
    assert "#color-2" in (tmp_path / "out/skipped_files.csv").read_text()


def test_what_is_no_recording_of_a_kinect(tmp_path: Path):
    (tmp_path / "a.mkv").write_bytes(b"no matroska")
    with pytest.raises(CorruptFileError, match=r"cannot be opened"):
        import_recording(tmp_path / "a.mkv", tmp_path / "out", say=quiet)

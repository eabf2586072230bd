"""RealSense's `.bag` and `.db3`, written by its SDK: every frame, the file's unit and cameras, its own alignment."""

from __future__ import annotations

import builtins
import importlib.util
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.realsense_files import FOCAL, SHIFT, UNIT, Device, write_realsense, yuyv
from helpers.recordings import COLOR, DEPTH, millimetres, picture
from m33d_hf.data.depth.calibration import Camera, read_calibration
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.files.files import read_map, read_rgb
from m33d_hf.data.recordings.importing import import_recording
from m33d_hf.data.recordings.realsense_files import count_pictures, is_realsense
from m33d_hf.data.recordings.realsense_sdk import load_sdk
from m33d_hf.data.recordings.recording import ImportOptions
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import CorruptFileError, DataError, MissingDependencyError

pytestmark = pytest.mark.extras
pytest.importorskip("rosbags", reason="rosbags is in the extra 'extras'")
if importlib.util.find_spec("pyrealsense2") is None:
    pytest.skip("pyrealsense2 is in the extra 'extras'", allow_module_level=True)

BAG = Path(__file__).parent / "realsense_2_57.bag"
COUNT = 24  # more than wait between the SDK's threads and ours


def quiet(line: str) -> None:
    """No progress on the terminal."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_realsense(tmp_path_factory.mktemp("realsense") / "a.db3", COUNT)


@pytest.mark.parametrize("kind", ["db3", "bag"])
def test_every_frame_bit_by_bit(tmp_path: Path, recorded: Path, kind: str):
    """`.db3` of the SDK 2.59, `.bag` of 2.57: counted by SQLite and rosbags, handed out by the SDK."""
    path, count = (recorded, COUNT) if kind == "db3" else (BAG, 3)
    assert count_pictures(path) == {"Depth_0": count, "Color_0": count, "Infrared_1": count}
    summary = import_recording(path, tmp_path / "out", say=quiet)
    assert (summary.announced, summary.found, summary.written, summary.skipped) == (count, count, count, 0)
    for number in range(count):
        assert np.array_equal(read_map(tmp_path / f"out/depth/{number:06d}.png"), millimetres(number))
        assert np.array_equal(read_rgb(tmp_path / f"out/color/{number:06d}.png"), picture(number))
    rows = (tmp_path / "out/frames.csv").read_text().split()[1:]
    assert [round(float(row.split(",")[1]) - 0.002, 6) for row in rows] == [round(n / 30, 6) for n in range(count)]
    source = FolderSource(tmp_path / "out", depth_scale=4000.0, calibration="calibration.json")
    assert source[0].read([0]).depth.shape[-2:] == COLOR and "depth_scale 4000" in summary.flags


def test_calibration_moves_points_as_the_sdk_does(tmp_path: Path, recorded: Path):
    rs = load_sdk()
    import_recording(recorded, tmp_path / "out", say=quiet)
    found = read_calibration(tmp_path / "out/calibration.json")
    assert found.color == Camera(64, 48, FOCAL["color"], FOCAL["color"] + 1, 31, 25)
    assert found.depth == Camera(32, 24, FOCAL["depth"], FOCAL["depth"] + 1, 15, 13)
    device = Device(rs, {"depth": "z16", "color": "rgb8"})
    motion = device.streams["depth"][1].get_extrinsics_to(device.streams["color"][1])
    point = [0.3, -0.2, 1.5]
    assert np.allclose((found.matrix @ [*point, 1])[:3], rs.rs2_transform_point_to_point(motion, point), atol=1e-6)


def test_registration_agrees_with_the_sdk(tmp_path: Path, recorded: Path):
    """`rs.align` puts the same depth into the same pixels, but leaves it the distance from the depth camera."""
    rs = load_sdk()
    device = Device(rs, {"depth": "z16", "color": "rgb8"})
    syncer, align = rs.syncer(), rs.align(rs.stream.color)
    for sensor in device.device.query_sensors():
        sensor.open(sensor.get_stream_profiles())
        sensor.start(syncer)
    stored = millimetres(0) * np.uint16(4)  # 1 to 3 metres in the device's unit
    for number in range(3):
        device.send("depth", number, stored)
        device.send("color", number, picture(0))
    frames = next(each for _ in range(6) if (each := syncer.wait_for_frames(2000)).size() == 2)
    aligned = np.array(align.process(frames).get_depth_frame().get_data()).astype(np.float64) * UNIT
    import_recording(recorded, tmp_path / "out", say=quiet)
    ours = register_depth(
        np.where(stored > 0, stored * UNIT, np.nan), read_calibration(tmp_path / "out/calibration.json")
    )
    both = (aligned > 0) & np.isfinite(ours)
    assert both.mean() > 0.7 and ((aligned > 0) & ~np.isfinite(ours)).mean() < 0.01
    apart = np.abs(ours[both] - SHIFT[2] - aligned[both])  # the two cameras look in one direction
    step = 2.0 / (DEPTH[0] * DEPTH[1]) * DEPTH[1]  # depth of one row to the next
    assert np.median(apart) < 2 * UNIT and apart.max() < 1.5 * step
    for sensor in device.device.query_sensors():
        sensor.stop()
        sensor.close()


@pytest.mark.parametrize("color", ["bgr8", "bgra8", "y8", "yuyv"])
def test_formats_of_colour(tmp_path: Path, color: str):
    import_recording(write_realsense(tmp_path / "a.db3", 1, color), tmp_path / "out", say=quiet)
    found = read_rgb(tmp_path / "out/color/000000.png").astype(float)
    if color != "yuyv":
        expected = picture(0)[..., :1].repeat(3, -1) if color == "y8" else picture(0)
        assert np.array_equal(found, expected)
        return
    pairs = yuyv(0).astype(float).reshape(*COLOR, 2)  # ITU-R BT.601, written out
    y, u, v = 1.164383 * (pairs[..., 0] - 16), pairs[:, ::2, 1] - 128, pairs[:, 1::2, 1] - 128
    u, v = u.repeat(2, 1), v.repeat(2, 1)
    expected = np.stack([y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u], -1).clip(0, 255)
    # Colour between the pixels that share it may be interpolated; brightness is each pixel's own.
    assert np.abs(found - expected).mean() < 2.0 and np.abs(found - expected).max() < 16


def test_recordings_that_lack_something(tmp_path: Path):
    for name, more, words in (
        ("a.db3", {"depth": False}, r"no picture of the stream Depth_0 \(depth\); it holds: .*Color_0 \(2 pictures\)"),
        ("b.db3", {"color": None}, r"no picture of the stream Color_0"),
        ("c.db3", {"count": 0}, "holds no picture: was the recording stopped"),
        ("d.db3", {"clock": "hardware_clock"}, "several clocks .*hardware_clock"),
    ):
        path = write_realsense(tmp_path / name, **({"count": 2} | more))
        with pytest.raises(CorruptFileError, match=words):
            import_recording(path, tmp_path / "out", say=quiet)
    path = write_realsense(tmp_path / "e.db3", 2, related=False, distortion=0.1)
    summary = import_recording(path, tmp_path / "e", say=quiet)
    assert summary.written == 2 and not (tmp_path / "e/calibration.json").exists()
    notes = " ".join(summary.notes)
    assert "no calibration: " in notes and "lens distortion of depth" in notes and "calibration" not in summary.flags


def test_colour_and_depth_that_are_never_together(tmp_path: Path, recorded: Path):
    """Colour is two milliseconds late, and less is allowed."""
    with pytest.raises(DataError, match=rf"no frame of colour and depth: 0 frames of {COUNT} .* at most 0.001 s apart"):
        import_recording(recorded, tmp_path / "out", ImportOptions(max_difference=0.001), quiet)


def test_recordings_cut_short(tmp_path: Path, recorded: Path):
    for source in (recorded, BAG):
        path = tmp_path / f"cut{source.suffix}"
        path.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
        assert is_realsense(path)
        with pytest.raises(CorruptFileError, match=r"cannot be read as a (bag|data base)"):
            import_recording(path, tmp_path / "out", say=quiet)


def test_a_damaged_frame_and_lost_ones_are_counted(tmp_path: Path, recorded: Path):
    """The SDK ends at a frame that it cannot decode; depth maps that are not there leave their pictures alone."""
    for name, change in (("damaged.db3", "UPDATE messages SET data = x'00010000' WHERE id = ?"), ("lost.db3", None)):
        path = tmp_path / name
        shutil.copy(recorded, path)
        with sqlite3.connect(path) as base:
            depth = "SELECT id FROM topics WHERE name LIKE '%Depth_0/image/data%'"
            rows = base.execute(f"SELECT id FROM messages WHERE topic_id IN ({depth}) ORDER BY id").fetchall()
            base.execute(change or "DELETE FROM messages WHERE id = ?", rows[4])
        base.close()
    with pytest.raises(DataError, match=rf"of {COUNT} frames that the recording counts are missing"):
        import_recording(tmp_path / "damaged.db3", tmp_path / "a", say=quiet)
    summary = import_recording(tmp_path / "lost.db3", tmp_path / "b", say=quiet)
    assert (summary.written, summary.found) == (COUNT - 1, COUNT - 1)
    assert np.array_equal(read_map(tmp_path / "b/depth/000004.png"), millimetres(5))
    assert np.array_equal(read_rgb(tmp_path / "b/color/000004.png"), picture(5))


def test_every_other_frame_and_a_limit(tmp_path: Path, recorded: Path):
    summary = import_recording(recorded, tmp_path / "out", ImportOptions(every=5, limit=2), quiet)
    assert (summary.written, summary.found) == (2, COUNT)
    assert np.array_equal(read_map(tmp_path / "out/depth/000005.png"), millimetres(5))


@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        ("pyrealsense2", ModuleNotFoundError("No module named 'pyrealsense2'", name="pyrealsense2"), "cameras"),
        ("pyrealsense2", ImportError("libusb-1.0.so.0: cannot open shared object file"), "apt install libusb-1.0-0"),
        ("pyrealsense2", ImportError("libudev.so.1: cannot open shared object file"), "cannot be loaded: libudev"),
    ],
)
def test_without_the_sdk_or_what_it_needs(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception, words: str):
    def missing(name: str, *rest: Any) -> Any:
        raise error if name == module else ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=words):
        load_sdk()


def test_bags_need_rosbags(monkeypatch: pytest.MonkeyPatch):
    original = builtins.__import__

    def blocked(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("rosbags"):
            raise ImportError(name)
        return original(name, *rest, **more)

    for name in [each for each in sys.modules if each.startswith("rosbags")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(MissingDependencyError, match=r"rosbags: pip install 'm33d-hf\[cameras\]'"):
        count_pictures(BAG)

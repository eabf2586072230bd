"""ROS bags, written by the library that reads them: encodings, pairing by time, calibration from tf, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.bags import SHIFT, TURN, BagWriter, write_bag
from helpers.recordings import COLOR, DEPTH, encoded, metres, millimetres, picture
from m33d_hf.data.depth.calibration import Camera, read_calibration
from m33d_hf.data.files.files import read_map, read_rgb
from m33d_hf.data.recordings.importing import import_recording
from m33d_hf.data.recordings.recording import ImportOptions
from m33d_hf.data.recordings.ros_messages import motion_between, rotation
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError

pytestmark = pytest.mark.extras
pytest.importorskip("rosbags", reason="rosbags is in the extra 'extras'")


def quiet(line: str) -> None:
    """No progress on the terminal."""


def place(tmp_path: Path, version: int) -> Path:
    return tmp_path / ("a.bag" if version == 1 else "a")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("color", "depth"),
    [
        ("rgb8", "16UC1"),
        ("bgr8", "32FC1"),
        ("bgra8", "big"),
        ("mono8", "16UC1"),
        ("jpeg", "16UC1 png"),
        ("rgba8", "32FC1 png"),
    ],
)
def test_encodings(tmp_path: Path, version: int, color: str, depth: str):
    summary = import_recording(
        write_bag(place(tmp_path, version), version, 2, color, depth), tmp_path / "out", say=quiet
    )
    assert (summary.announced, summary.written, summary.skipped) == (2, 2, 0)
    assert summary.kind == f"ROS {version} bag"
    for number in range(2):
        stored = read_map(tmp_path / f"out/depth/{number:06d}.png")
        apart = np.abs(stored.astype(int) - millimetres(number))
        assert stored.dtype == np.uint16 and np.array_equal(stored > 0, millimetres(number) > 0)
        # The inverse depth of a compressed float image is coarse: half a step of 1 / 800 at 3 m is 5.6 mm.
        assert apart.max() <= (6 if depth == "32FC1 png" else 0)
        if color == "jpeg":
            assert (tmp_path / f"out/color/{number:06d}.jpg").read_bytes() == encoded(picture(number))
        else:
            expected = picture(number)[..., :1].repeat(3, -1) if color == "mono8" else picture(number)
            assert np.array_equal(read_rgb(tmp_path / f"out/color/{number:06d}.png"), expected)


@pytest.mark.parametrize("version", [1, 2])
def test_calibration_from_camera_info_and_static_transforms(tmp_path: Path, version: int):
    """What the transforms say, by applying them to a point: tf moves from the child (colour) to its parent (depth)."""
    import_recording(write_bag(place(tmp_path, version), version), tmp_path / "out", say=quiet)
    found = read_calibration(tmp_path / "out/calibration.json")
    assert found.color == Camera(64, 48, 60.0, 61.0, 31.0, 25.0) and found.depth == Camera(
        32, 24, 30.0, 31.0, 15.0, 13.0
    )
    in_color = np.array([0.3, -0.2, 1.5])
    x, y, z, w = np.array(TURN) / np.linalg.norm(TURN)
    axis = np.array([x, y, z])
    twice = 2 * np.cross(axis, in_color)  # a vector turned by a quaternion, without its matrix
    in_depth = in_color + w * twice + np.cross(axis, twice) + np.array(SHIFT)
    assert np.allclose(found.matrix @ [*in_depth, 1], [*in_color, 1], atol=1e-12)
    source = FolderSource(tmp_path / "out", depth_scale=1000.0, calibration="calibration.json")
    assert source[0].read([0]).depth.shape[-2:] == COLOR


def test_rectified_pictures_have_the_projection_of_P(tmp_path: Path):
    summary = import_recording(
        write_bag(tmp_path / "a.bag", 1, 1, depth="rect", distortion=0.1), tmp_path / "o", say=quiet
    )
    assert read_calibration(tmp_path / "o/calibration.json").depth == Camera(32, 24, 32.0, 32.0, 16.0, 12.0)
    assert not any("distortion" in note for note in summary.notes)


def test_distortion_is_said(tmp_path: Path):
    summary = import_recording(write_bag(tmp_path / "a.bag", 1, 1, distortion=0.1), tmp_path / "o", say=quiet)
    assert any("distortion of /cam/depth/image_raw" in note for note in summary.notes)


def test_without_transforms_there_is_no_calibration(tmp_path: Path):
    summary = import_recording(write_bag(tmp_path / "a.bag", 1, 1, frames=False), tmp_path / "o", say=quiet)
    assert not (tmp_path / "o/calibration.json").exists()
    assert any("does not join" in note for note in summary.notes) and "calibration" not in summary.flags


def test_pairs_are_the_closest_in_time(tmp_path: Path):
    """Colour at 60 Hz, depth at 30 Hz with a jitter and one missing, written in another order than taken."""
    bag = BagWriter(tmp_path / "a.bag", 1)
    for number in range(4):
        if number != 2:
            bag.image("/d", millimetres(number, DEPTH), "16UC1", "camera", number / 30 + 0.002)
    for number in range(8):
        bag.image("/c", picture(number), "rgb8", "camera", number / 60)
    bag.writer.close()
    summary = import_recording(tmp_path / "a.bag", tmp_path / "out", ImportOptions(max_difference=0.005), quiet)
    assert summary.written == 3 and any("3 frames of 8 pictures" in note for note in summary.notes)
    rows = (tmp_path / "out/frames.csv").read_text().split()[1:]
    taken = [round((float(row.split(",")[1]) - 1_700_000_000) * 60) for row in rows]
    assert taken == [0, 2, 6]
    for row, number in enumerate((0, 1, 3)):
        assert np.array_equal(read_map(tmp_path / f"out/depth/{row:06d}.png"), millimetres(number))
        assert np.array_equal(read_rgb(tmp_path / f"out/color/{row:06d}.png"), picture(2 * number))


@pytest.mark.parametrize("version", [1, 2])
def test_pictures_and_depth_that_are_never_together(tmp_path: Path, version: int):
    bag = BagWriter(place(tmp_path, version), version)
    bag.image("/c", picture(0), "rgb8", "camera", 0)
    bag.image("/d", millimetres(0), "16UC1", "camera", 1)
    bag.writer.close()
    with pytest.raises(DataError, match=r"no frame of colour and depth: 0 frames of 1 pictures"):
        import_recording(place(tmp_path, version), tmp_path / "out", say=quiet)


def test_several_topics_are_asked_for(tmp_path: Path):
    bag = BagWriter(tmp_path / "a.bag", 1)
    for topic in ("/left", "/right"):
        bag.image(topic, picture(0), "rgb8", "camera", 0)
    bag.image("/d", metres(0), "32FC1", "camera", 0)
    bag.writer.close()
    with pytest.raises(ConfigError, match=r"several topics of color.*--color_topic.*/left, /right"):
        import_recording(tmp_path / "a.bag", tmp_path / "out", say=quiet)
    with pytest.raises(ConfigError, match=r"no topic /top of color"):
        import_recording(tmp_path / "a.bag", tmp_path / "out", ImportOptions(color_topic="/top"), quiet)
    assert (
        import_recording(tmp_path / "a.bag", tmp_path / "out", ImportOptions(color_topic="/right"), quiet).written == 1
    )


def test_a_bag_without_depth_and_one_converted_from_the_realsense_sdk(tmp_path: Path):
    for name, version, topic, words in (
        ("a.bag", 1, "/c", "no topic of depth"),
        ("b", 2, "/device_0/sensor_1/Color_0/image/data", "Give the file .* that the SDK wrote"),
    ):
        bag = BagWriter(tmp_path / name, version)
        bag.image(topic, picture(0), "rgb8", "camera", 0)
        bag.writer.close()
        with pytest.raises(ConfigError, match=words):
            import_recording(tmp_path / name, tmp_path / "out", say=quiet)


@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_message_is_counted_and_the_rest_is_read(tmp_path: Path, version: int):
    bag = write_bag(place(tmp_path, version), version, 4, cut={2: 500})
    with pytest.raises(DataError, match=r"1 of 4 frames are damaged"):
        import_recording(bag, tmp_path / "out", say=quiet)
    summary = import_recording(bag, tmp_path / "out", ImportOptions(max_bad_fraction=0.3), quiet)
    assert (summary.already_there, summary.skipped) == (3, 1)
    assert "/cam/depth/image_raw-2" in (tmp_path / "out/skipped_files.csv").read_text() or (
        "/cam/color/image_raw-2" in (tmp_path / "out/skipped_files.csv").read_text()
    )


def test_a_bag_cut_short(tmp_path: Path):
    bag = write_bag(tmp_path / "a.bag", 1)
    bag.write_bytes(bag.read_bytes()[:-300])
    with pytest.raises(CorruptFileError, match=r"ROS bag"):
        import_recording(bag, tmp_path / "out", say=quiet)
    (tmp_path / "b.db3").write_bytes(b"no data base")
    with pytest.raises(CorruptFileError, match=r"ROS bag"):
        import_recording(tmp_path / "b.db3", tmp_path / "out", say=quiet)


def test_frames_of_a_tree_of_transforms():
    """There and back along a chain with a branch, against rotations about an axis written out."""
    quarter = np.eye(4)
    quarter[:3, :3] = rotation(0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4))
    assert np.allclose(quarter[:3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved = np.eye(4)
    moved[:3, 3] = 1, 2, 3
    edges = {("a", "base"): quarter, ("b", "base"): moved, ("c", "b"): moved}
    found = motion_between(edges, "/a", "c")
    assert found is not None and np.allclose(found @ [1, 0, 0, 1], [0 - 2, 1 - 4, -6, 1])
    assert np.allclose(motion_between(edges, "c", "a") @ found, np.eye(4))
    assert motion_between(edges, "a", "nowhere") is None

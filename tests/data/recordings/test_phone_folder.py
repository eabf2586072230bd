"""Exports of phone apps as folders: pictures or a video, 16-bit or float depth, confidence, intrinsics of two kinds."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import save
from helpers.recordings import DEPTH, confidence, encoded, metres, millimetres, picture, record3d_metadata
from helpers.videos import turn, write_video
from m33d_hf.data.depth.calibration import Camera, read_calibration
from m33d_hf.data.files.files import read_map
from m33d_hf.data.recordings.importing import import_recording
from m33d_hf.data.recordings.phone_folder import PhoneFolder
from m33d_hf.data.recordings.recording import ImportOptions
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.video_reading_m33d import probe_video


def quiet(line: str) -> None:
    """No progress on the terminal."""


def write_export(root: Path, count: int = 3, kind: str = "uint16", sure: bool = True) -> Path:
    for number in range(count):
        (root / "rgb").mkdir(parents=True, exist_ok=True)
        (root / f"rgb/{number}.jpg").write_bytes(encoded(picture(number)))
        if kind == "uint16":
            save(root / f"depth/{number}.png", millimetres(number))
        else:
            save(root / f"depth/{number}.npy", metres(number))
        if sure:
            save(root / f"confidence/{number}.png", confidence(number))
    (root / "metadata.json").write_text(json.dumps(record3d_metadata(count)))
    return root


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("least", [1, 2])
def test_little_confidence_is_a_hole(tmp_path: Path, kind: str, least: int):
    source = write_export(tmp_path / "in", kind=kind)
    summary = import_recording(source, tmp_path / "out", ImportOptions(min_confidence=least), quiet)
    assert (summary.announced, summary.written) == (3, 3)
    for number in range(3):
        expected = np.where(confidence(number) >= least, millimetres(number), 0)
        assert 0.2 < (expected > 0).mean() < 0.8
        assert np.array_equal(read_map(tmp_path / f"out/depth/{number:06d}.png"), expected)
        assert (tmp_path / f"out/color/{number:06d}.jpg").read_bytes() == encoded(picture(number))
    found = read_calibration(tmp_path / "out/calibration.json")
    assert found.color == Camera(64, 48, 52.0, 51.0, 31.0, 23.5) and found.depth.size == DEPTH
    assert (tmp_path / "out/frames.csv").read_text().split()[2] == "1,100.033333333"


def test_without_confidence_all_depth_stays(tmp_path: Path):
    summary = import_recording(write_export(tmp_path / "in", sure=False), tmp_path / "out", say=quiet)
    assert np.array_equal(read_map(tmp_path / "out/depth/000001.png"), millimetres(1))
    assert any("no confidence maps" in note for note in summary.notes)


@pytest.mark.parametrize(("first", "sure"), [(0, 0), (1, 1), (1, 0)])
def test_a_video_beside_the_depth(tmp_path: Path, first: int, sure: int):
    """Numbered from 0, as phones do, or from 1, as ffmpeg does."""
    source = tmp_path / "in"
    source.mkdir()
    frames = [np.full((48, 64, 3), 40 + 50 * number, np.uint8) for number in range(4)]
    write_video(source / "rgb.mp4", 4, size=(48, 64), frames=frames)
    for number in range(4):
        save(source / f"depth/{first + number:06d}.png", millimetres(number))
        save(source / f"confidence/{sure + number:06d}.png", confidence(number))
    (source / "camera_matrix.csv").write_text("52.0, 0.0, 31.0\n0.0, 51.0, 23.5\n0.0, 0.0, 1.0\n")
    summary = import_recording(source, tmp_path / "out", say=quiet)
    assert summary.written == 4
    for number in range(4):
        mean = read_map_mean(tmp_path / f"out/color/{number:06d}.png")
        assert abs(mean - (40 + 50 * number)) < 6
        expected = np.where(confidence(number) >= ImportOptions().min_confidence, millimetres(number), 0)
        assert np.array_equal(read_map(tmp_path / f"out/depth/{number:06d}.png"), expected)
    assert read_calibration(tmp_path / "out/calibration.json").color == Camera(64, 48, 52.0, 51.0, 31.0, 23.5)


@pytest.mark.parametrize("first", [0, 1])
def test_depth_of_a_video_that_was_cut_short_belongs_to_the_same_frames(tmp_path: Path, first: int):
    source = tmp_path / "in"
    path = write_video(source / "rgb.mp4", 60, size=(48, 64), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    for number in range(60):
        save(source / f"depth/{first + number:06d}.png", millimetres(number))
    count = probe_video(path).num_frames
    assert 10 < count < 50
    assert import_recording(source, tmp_path / "out", say=quiet).written == count
    for number in (0, count - 1):
        assert np.array_equal(read_map(tmp_path / f"out/depth/{number:06d}.png"), millimetres(number))


def test_depth_from_1_of_a_video_that_was_cut_nobody_knows_where_is_refused(tmp_path: Path):
    path = write_video(
        tmp_path / "rgb.mp4", 60, size=(48, 64), gop=5, container_options={"movflags": "frag_keyframe+empty_moov"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    assert probe_video(path).lacks[-1].frames == 0, "cut, and nobody knows by how much"
    for number in range(60):
        save(tmp_path / f"depth/{1 + number:06d}.png", millimetres(number))
    with pytest.raises(CorruptFileError, match=r"rgb\.mp4: it was cut short.*rename the depth files to count from 0"):
        PhoneFolder(tmp_path, ImportOptions())


def test_frames_that_a_phone_dropped_are_gaps_in_the_times_of_its_video(tmp_path: Path):
    source, stamps = tmp_path / "in", [0, 4, 8, 20, 24, 28]  # two are missing after the third, at 10 per second
    frames = [np.full((48, 64, 3), 40 + 30 * number, np.uint8) for number in range(6)]
    write_video(source / "rgb.mp4", 6, size=(48, 64), frames=frames, rate=10, pts=stamps)
    for number in range(6):
        save(source / f"depth/{number:06d}.png", millimetres(number))
    import_recording(source, tmp_path / "out", say=quiet)
    rows = (tmp_path / "out/frames.csv").read_text().split()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(6))
    assert [float(row.split(",")[1]) for row in rows] == pytest.approx([stamp / 40 for stamp in stamps])


def test_a_video_that_is_to_be_turned_is_refused(tmp_path: Path):
    """Its pictures would be upright, and its depth as the sensor lies."""
    turn(write_video(tmp_path / "rgb.mp4", 2, size=(48, 64)))
    for number in range(2):
        save(tmp_path / f"depth/{number:06d}.png", millimetres(number))
    (tmp_path / "camera_matrix.csv").write_text("52.0, 0.0, 31.0\n0.0, 51.0, 23.5\n0.0, 0.0, 1.0\n")
    with pytest.raises(CorruptFileError, match=r"rgb\.mp4: is to be turned .*-display_rotation 0"):
        PhoneFolder(tmp_path, ImportOptions())


@pytest.mark.parametrize("calibrated", [True, False])
def test_depth_that_lies_otherwise_than_its_picture_is_refused(tmp_path: Path, calibrated: bool):
    source = write_export(tmp_path, sure=False)
    for number in range(3):
        save(source / f"depth/{number}.png", np.ascontiguousarray(millimetres(number).T))
    if not calibrated:
        (source / "metadata.json").unlink()
    with pytest.raises(CorruptFileError, match=r"depth of 24 x 32 .*pictures of 64 x 48: it cannot show their view"):
        PhoneFolder(source, ImportOptions())


def read_map_mean(path: Path) -> float:
    from PIL import Image

    return float(np.asarray(Image.open(path)).mean())


def test_frames_with_something_missing_or_damaged(tmp_path: Path):
    source = write_export(tmp_path / "in", 6)
    (source / "confidence/1.png").unlink()
    save(source / "confidence/2.png", confidence(2, (4, 4)))
    (source / "rgb/3.jpg").write_bytes(encoded(picture(3))[:400])
    save(source / "depth/4.png", millimetres(4).astype(np.uint8))
    (source / "depth/5.png").unlink()
    summary = import_recording(source, tmp_path / "out", ImportOptions(max_bad_fraction=0.9), quiet)
    assert (summary.written, summary.skipped) == (1, 4)
    assert any("1 pictures or depth maps have no partner" in note for note in summary.notes)
    with pytest.raises(DataError, match=r"4 of 5 frames are damaged"):
        import_recording(source, tmp_path / "other", say=quiet)


def test_folders_of_another_kind(tmp_path: Path):
    with pytest.raises(CorruptFileError, match=r"no export of a phone.*0 pictures and 0 depth maps"):
        import_recording(tmp_path, tmp_path / "out", say=quiet)
    source = write_export(tmp_path / "in")
    (source / "metadata.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"intrinsics are not usable"):
        import_recording(source, tmp_path / "out", say=quiet)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_two_folders_of_one_name_are_not_mixed(tmp_path: Path, kind: str):
    """Monday's and Tuesday's recordings of one camera, which begin alike; maps of floats have one size in both."""
    monday, tuesday = (write_export(tmp_path / day / "cam0", 3, kind) for day in ("monday", "tuesday"))
    later = millimetres(7) if kind == "uint16" else metres(7)
    save(tuesday / f"depth/2.{'png' if kind == 'uint16' else 'npy'}", later)
    (monday / "depth/0.npy").unlink() if kind == "float32" else (monday / "depth/0.png").unlink()
    output = tmp_path / "FRAMES/cam0"
    assert import_recording(monday, output, say=quiet).written == 2
    kept = file_contents(output)
    with pytest.raises(
        ConfigError, match=r"FRAMES/cam0 holds another import: depth/000002\.png is not frame 2 of .*tue"
    ):
        import_recording(tuesday, output, say=quiet)
    assert file_contents(output) == kept, "nothing of the other one, whose frame 0 is missing here"
    save(tuesday / f"depth/2.{'png' if kind == 'uint16' else 'npy'}", millimetres(2) if kind == "uint16" else metres(2))
    (tuesday / "rgb/1.jpg").write_bytes(encoded(picture(5)))
    with pytest.raises(ConfigError, match=r"color/000001\.jpg is not frame 1"):
        import_recording(tuesday, output, say=quiet)


def file_contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sure", [True, False])
def test_a_folder_that_was_repaired_completed_or_moved_goes_on(tmp_path: Path, sure: bool):
    """Its frames are those of one go; what others put there is no matter."""
    source, output, options = tmp_path / "a/cam0", tmp_path / "out", ImportOptions(max_bad_fraction=0.5)
    write_export(source, 5, sure=sure)
    whole = (source / "depth/1.png").read_bytes()
    (source / "depth/1.png").write_bytes(whole[:200])
    assert import_recording(source, output, options, quiet).written == 4
    (source / "depth/1.png").write_bytes(whole)
    for name in (".DS_Store", "notes.txt", "Thumbs.db", "@eaDir/rgb/x.jpg", "depth/Thumbs.db", "rgb/@eaDir/0.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"of a file browser")
    summary = import_recording(source, output, options, quiet)
    assert (summary.written, summary.already_there, summary.skipped) == (1, 4, 0)
    write_export(source, 7, sure=sure)  # frames that arrive late
    source.parent.rename(tmp_path / "b")
    summary = import_recording(tmp_path / "b/cam0", output, options, quiet)
    assert (summary.written, summary.already_there) == (2, 5)
    (tmp_path / "b/cam0/depth/3.png").write_bytes(b"damaged since")
    assert import_recording(tmp_path / "b/cam0", output, options, quiet).already_there == 7
    for number in range(7):
        assert (output / f"color/{number:06d}.jpg").read_bytes() == encoded(picture(number))
        least = confidence(number) >= ImportOptions().min_confidence if sure else True
        assert np.array_equal(read_map(output / f"depth/{number:06d}.png"), np.where(least, millimetres(number), 0))


def test_a_recording_of_which_no_frame_is_there_is_not_taken_for_the_same(tmp_path: Path):
    source = write_export(tmp_path / "cam0", 2)
    import_recording(source, tmp_path / "out", say=quiet)
    for place, number in product(("rgb/{}.jpg", "depth/{}.png", "confidence/{}.png"), range(2)):
        (source / place.format(number)).rename(source / place.format(number + 10))
    with pytest.raises(ConfigError, match=r"out holds 2 frames, and .*cam0 lacks the 2 of them"):
        import_recording(source, tmp_path / "out", say=quiet)
    (tmp_path / "out/depth/000001.png").write_bytes(b"damaged")
    write_export(source, 2)
    with pytest.raises(CorruptFileError, match=r"000001\.png.*; remove it, and it is written again"):
        import_recording(source, tmp_path / "out", say=quiet)


def test_an_output_inside_its_recording_goes_on(tmp_path: Path):
    source = write_export(tmp_path / "cam0", 2)
    assert import_recording(source, source / "out", say=quiet).written == 2
    assert import_recording(source, source / "out", say=quiet).already_there == 2

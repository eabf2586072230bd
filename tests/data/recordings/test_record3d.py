"""Record3D's recordings, and what holds for every import: exactness, holes, resuming, damage, refusals."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from helpers.recordings import COLOR, DEPTH, confidence, encoded, metres, picture, record3d_metadata, write_record3d
from m33d_hf.data.depth.calibration import Camera, read_calibration
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.files.files import read_map
from m33d_hf.data.recordings.importing import import_recording
from m33d_hf.data.recordings.recording import ImportOptions
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.depth_m33d import DepthSpec

pytestmark = pytest.mark.extras
pytest.importorskip("liblzfse", reason="pyliblzfse is in the extra 'extras'")


def quiet(line: str) -> None:
    """No progress on the terminal."""


def expected_depth(number: int, least: int = 1) -> np.ndarray:
    """Millimetres, 0 where there is no depth or too little confidence."""
    stored = np.rint(np.nan_to_num(metres(number)).astype(np.float64) * 1000)
    return np.where(confidence(number) >= least, stored, 0).astype(np.uint16)


@pytest.mark.parametrize("least", [0, 1, 2])
def test_every_value_arrives(tmp_path: Path, least: int):
    source = write_record3d(tmp_path / "a.r3d")
    summary = import_recording(source, tmp_path / "out", ImportOptions(min_confidence=least), quiet)
    assert (summary.announced, summary.found, summary.written, summary.skipped) == (5, 5, 5, 0)
    for number in range(5):
        stored = read_map(tmp_path / f"out/depth/{number:06d}.png")
        assert stored.dtype == np.uint16 and np.array_equal(stored, expected_depth(number, least))
        assert (tmp_path / f"out/color/{number:06d}.jpg").read_bytes() == encoded(picture(number))
    spec = DepthSpec.from_dict(json.loads((tmp_path / "out/depth_spec.json").read_text()))
    assert (spec.kind, spec.unit) == ("metric", "millimetre")
    rows = (tmp_path / "out/frames.csv").read_text().split()
    assert rows[0] == "number,seconds" and rows[3] == "2,100.066666667" and len(rows) == 6


def test_the_folder_source_reads_it_registered(tmp_path: Path):
    """The calibration is the picture's at both sizes, so that depth pixels become blocks of two by two."""
    summary = import_recording(write_record3d(tmp_path / "a.r3d"), tmp_path / "out", ImportOptions(), quiet)
    spaced = import_recording(tmp_path / "a.r3d", tmp_path / "my out", ImportOptions(), quiet)
    words = shlex.split(spaced.flags)  # as a shell reads what is printed
    assert words[words.index("--data.root") + 1] == str(tmp_path / "my out")
    calibration = read_calibration(tmp_path / "out/calibration.json")
    assert calibration.color == Camera(64, 48, 52.0, 51.0, 31.0, 23.5) and calibration.depth.size == DEPTH
    assert "--data.options.calibration calibration.json" in summary.flags and "depth_scale 1000" in summary.flags
    source = FolderSource(tmp_path / "out", depth_scale=1000.0, calibration="calibration.json")
    sample = source[3].read([0])
    assert len(source) == 5 and sample.rgb.shape[-2:] == COLOR == sample.depth.shape[-2:]
    stored = expected_depth(3).astype(np.float32) / np.float32(1000)
    blocks = np.where(stored > 0, stored, np.nan).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(sample.depth[0, 0].numpy(), blocks, equal_nan=True)
    assert np.array_equal(register_depth(np.where(stored > 0, stored, np.nan), calibration), blocks, equal_nan=True)


def test_intrinsics_that_move_with_the_focus(tmp_path: Path):
    each = [[50, 50, 30, 20], [54, 52, 32, 24], [53, 51, 31, 22]]
    metadata = record3d_metadata(3) | {"perFrameIntrinsicCoeffs": each}
    import_recording(write_record3d(tmp_path / "a.r3d", 3, metadata), tmp_path / "out", ImportOptions(), quiet)
    assert read_calibration(tmp_path / "out/calibration.json").color == Camera(64, 48, 53.0, 51.0, 31.0, 22.0)


def test_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, out = write_record3d(tmp_path / "a.r3d"), tmp_path / "out"
    from m33d_hf.data.recordings import importing

    write, calls = importing._Import._write, []

    def stop(self, name, content):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        write(self, name, content)

    monkeypatch.setattr(importing._Import, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        import_recording(source, out, ImportOptions(), quiet)
    monkeypatch.undo()
    assert not json.loads((out / "import.json").read_text())["complete"] and not (out / "frames.csv").exists()
    before = (out / "depth/000001.png").stat().st_mtime_ns
    summary = import_recording(source, out, ImportOptions(), quiet)
    assert (summary.already_there, summary.written) == (2, 3)
    assert (out / "depth/000001.png").stat().st_mtime_ns == before
    assert len((out / "frames.csv").read_text().split()) == 6
    assert json.loads((out / "import.json").read_text())["complete"]
    assert import_recording(source, out, ImportOptions(), quiet).written == 0


def test_every_and_limit(tmp_path: Path):
    source = write_record3d(tmp_path / "a.r3d", 7)
    summary = import_recording(source, tmp_path / "out", ImportOptions(every=3, limit=2), quiet)
    assert sorted(path.name for path in (tmp_path / "out/depth").iterdir()) == ["000000.png", "000003.png"]
    assert (summary.found, summary.missing) == (7, 0) and "fps" not in summary.flags
    times = FolderSource(tmp_path / "out", unit="clips", depth_scale=1000.0, calibration="calibration.json")[0].times
    assert times is not None and times.at([0, 1, 2]).tolist() == pytest.approx([0, 0.1, 0.2], abs=1e-6)


def test_damaged_frames_are_counted_and_listed(tmp_path: Path):
    import liblzfse

    damage = {
        "jpg_1": encoded(picture(1))[:300],
        "depth_3": b"no lzfse at all",
        "conf_4": liblzfse.compress(b"too short"),
        "depth_5": liblzfse.compress(b"\0" * 8),
    }
    source, said = write_record3d(tmp_path / "a.r3d", 7, **damage), []
    with pytest.raises(DataError, match=r"4 of 7 frames are damaged.*3 good ones"):
        import_recording(source, tmp_path / "out", ImportOptions(), said.append)
    summary = import_recording(source, tmp_path / "other", ImportOptions(max_bad_fraction=0.6), quiet)
    assert (summary.written, summary.skipped) == (3, 4)
    listed = (tmp_path / "other/skipped_files.csv").read_text()
    assert all(f"rgbd/{name}" in listed for name in ("1.jpg", "3.depth", "4.conf", "5.depth"))
    assert sorted(path.stem for path in (tmp_path / "other/depth").iterdir()) == ["000000", "000002", "000006"]


def test_frames_that_the_recording_counts_and_lacks(tmp_path: Path):
    source = write_record3d(tmp_path / "a.r3d", 5, record3d_metadata(9))
    with pytest.raises(DataError, match=r"4 of 9 frames that the recording counts are missing"):
        import_recording(source, tmp_path / "out", ImportOptions(), quiet)
    summary = import_recording(source, tmp_path / "out", ImportOptions(max_bad_fraction=0.5), quiet)
    assert "5 of the 9" in summary.describe() and "4 frames that the recording counts are missing" in summary.describe()


def test_progress_says_how_long(tmp_path: Path):
    said: list[str] = []
    import_recording(write_record3d(tmp_path / "a.r3d"), tmp_path / "out", ImportOptions(report_seconds=0), said.append)
    assert said[2].startswith("3 of 5 frames, 0:00:0") and "about 0:00:0" in said[2]


def test_an_output_of_something_else(tmp_path: Path):
    source = write_record3d(tmp_path / "a.r3d")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("")
    with pytest.raises(ConfigError, match=r"holds files"):
        import_recording(source, tmp_path / "used", ImportOptions(), quiet)
    import_recording(source, tmp_path / "out", ImportOptions(), quiet)
    with pytest.raises(ConfigError, match=r"min_confidence: 1 there, 2 now"):
        import_recording(source, tmp_path / "out", ImportOptions(min_confidence=2), quiet)
    with pytest.raises(ConfigError, match=r"recording: a.r3d there, b.r3d now"):
        import_recording(write_record3d(tmp_path / "b.r3d"), tmp_path / "out", ImportOptions(), quiet)


def test_intrinsics_stored_by_rows(tmp_path: Path):
    metadata = record3d_metadata(2) | {"K": [52.0, 0, 31.0, 0, 51.0, 23.5, 0, 0, 1]}
    import_recording(write_record3d(tmp_path / "a.r3d", 2, metadata), tmp_path / "out", ImportOptions(), quiet)
    assert read_calibration(tmp_path / "out/calibration.json").color == Camera(64, 48, 52.0, 51.0, 31.0, 23.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"K": [1, 2]}, "no usable intrinsics"),
        ({"K": [52.0, 0, 0, 0, 51.0, 0, 310.0, 23.5, 1]}, "outside the picture"),
        ({"dw": None}, "no sizes dh and dw"),
        ({"dw": DEPTH[0], "dh": DEPTH[1]}, "depth of 24 x 32 .*pictures of 64 x 48"),
        ({"dw": 10**9}, "pixels"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, change: dict, words: str):
    source = write_record3d(tmp_path / "a.r3d", 2, record3d_metadata(2) | change)
    with pytest.raises(CorruptFileError, match=words):
        import_recording(source, tmp_path / "out", ImportOptions(), quiet)
    assert not (tmp_path / "out").exists()


def test_what_is_no_recording(tmp_path: Path):
    for name, content, words in (
        ("a.r3d", b"no zip", "zip"),
        ("a.avi", b"", "no recording that is known"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFileError, match=words):
            import_recording(tmp_path / name, tmp_path / "out", ImportOptions(), quiet)
    with pytest.raises(CorruptFileError, match=r"does not exist"):
        import_recording(tmp_path / "none.r3d", tmp_path / "out", ImportOptions(), quiet)


@pytest.mark.parametrize("bad", [{"every": 0}, {"limit": 0}, {"min_confidence": 3}, {"max_bad_fraction": 1.5}])
def test_options_out_of_range(bad: dict):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ImportOptions(**bad)

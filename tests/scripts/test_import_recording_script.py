"""scripts/import_recording.py: a phone's export becomes a folder that its own closing line says how to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.frames_on_disk import save
from helpers.recordings import COLOR, encoded, millimetres, picture, record3d_metadata
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.scripts.import_recording import main


def write_export(root: Path, count: int = 3) -> Path:
    (root / "rgb").mkdir(parents=True)
    for number in range(count):
        (root / f"rgb/{number}.jpg").write_bytes(encoded(picture(number)))
        save(root / f"depth/{number}.png", millimetres(number))
    (root / "metadata.json").write_text(json.dumps(record3d_metadata(count)))
    return root


def test_import_and_read_by_the_flags_that_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write_export(tmp_path / "in")
    assert main([str(source), "--output", str(tmp_path / "data/kitchen"), "--every", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 frames written" in said and "3 of the 3 frames" in said
    words = said.strip().split("\n")[-1].split(": ", 1)[1].split()
    flags = dict(zip(words[::2], words[1::2]))
    assert flags.pop("--data.source") == "folder" and flags.pop("--data.root") == str(tmp_path / "data/kitchen")
    options = {name.removeprefix("--data.options."): value for name, value in flags.items()}
    assert options == {"depth_scale": "1000", "calibration": "calibration.json"}
    # The folder above, of several recordings, is read alike: each brings its own calibration.
    found = FolderSource(
        tmp_path / "data", depth_scale=float(options["depth_scale"]), calibration=options["calibration"]
    )
    assert len(found) == 2 and found[0].read([0]).depth.shape[-2:] == COLOR
    # The rate needs no flag: frames.csv has the times of the frames, of which every second one is there.
    (clip,) = FolderSource(tmp_path / "data", unit="clips", depth_scale=1000, calibration="calibration.json")
    assert clip.times is not None and clip.times.fps == pytest.approx(15, rel=1e-3)


def test_errors_end_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none.r3d"), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "out").exists()
    assert main([str(tmp_path), "--output", str(tmp_path / "out"), "--every", "0"]) == 2
    assert "--every is 0" in capsys.readouterr().err

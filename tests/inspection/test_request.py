"""Where the data of the doctor may lie: folders that are there, and what is no folder."""

from pathlib import Path

import pytest

from helpers.frames_on_disk import write_frames
from helpers.preparations import prepared
from helpers.range_server import serving_ranges
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.scripts.check_data import main


@pytest.fixture(autouse=True)
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m33d_hf.inspection.doctor.write_sheet", lambda splits, path: None)


def test_data_that_lies_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = write_frames(tmp_path / "frames", 6)
    prepared(FolderSource(frames, depth_unit="mm"), tmp_path / "made" / "train", format="shards")
    with serving_ranges(tmp_path / "made") as traffic:
        words = ["--data.source", "shards", "--data.root", traffic.url, "--output", str(tmp_path / "check")]
        assert main([*words, "--workers", "0"]) == 0
        assert len(traffic.ranges) > 6
    assert "6 rows" in capsys.readouterr().out


def test_what_is_not_there_is_said_by_whoever_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ("--output", str(tmp_path / "check"))
    for source, root, told in (
        ("hub", "./nowhere", "./nowhere is neither a folder nor the name of a data set on the Hub"),
        ("shards", str(tmp_path / "nowhere"), f"data.root '{tmp_path / 'nowhere'}' does not exist"),
        ("folder", "s3://bucket/x", "data.root 's3://bucket/x' is an address, from which only the sources hub"),
    ):
        assert main(["--data.source", source, "--data.root", root, *output]) in (1, 2)
        heard = capsys.readouterr()
        assert told in heard.err + heard.out

"""Exported timelines are read back as what was detected; corrected ones as what was corrected."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.detections import PHASES, detection
from helpers.videos import write_video
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.inference.detection_files import write_detection
from m33d_hf.inference.review.exports import export_targets, timed_parts, write_exports
from m33d_hf.modeling.video_times_m33d import FrameTimes, Lack

RUNS = [0, 0, 1, 0, 2, 2, 1]


def _source(root: Path, **options: Any) -> PhasesSource:
    return PhasesSource(root, split=None, phase_names=list(PHASES), **{"clip_span": 4, **options})


def _video(root: Path, frames: int, rate: int = 25) -> Path:
    return write_video(root / "videos" / "v1.mp4", frames, rate=rate, size=(32, 48))


@pytest.mark.parametrize("kind", ["srt", "vtt", "json", "csv"])
@pytest.mark.parametrize("rate", [7, 25, 60])
def test_a_timeline_comes_back_frame_by_frame(tmp_path: Path, kind: str, rate: int) -> None:
    found = detection(_video(tmp_path, 70, rate), RUNS, fps=rate, unreadable=(3,))
    folder = tmp_path / "annotations"
    folder.mkdir()
    if kind == "csv":
        write_detection(tmp_path / "out", "v1", found)
        (tmp_path / "out" / "v1_segments.csv").rename(folder / "v1_segments.csv")
    else:
        (path,) = write_exports(folder, "v1", found, [kind])
        assert [path] == export_targets(folder, "v1", [kind])
    (video,) = _source(tmp_path).videos
    np.testing.assert_array_equal(video.phases, found.frame_phases())


def test_uneven_times_come_back_too(tmp_path: Path) -> None:
    pts = np.cumsum(np.random.default_rng(0).integers(2, 9, 70)).tolist()
    path = write_video(tmp_path / "videos" / "v1.mp4", 70, pts=pts, size=(32, 48))
    from m33d_hf.data.sources.videos.files import cached_info

    times = cached_info(path).times
    assert times is not None and times.starts is not None
    found = detection(path, RUNS, times=times)
    (tmp_path / "annotations").mkdir()
    write_exports(tmp_path / "annotations", "v1", found, ["srt"])
    np.testing.assert_array_equal(_source(tmp_path).videos[0].phases, found.frame_phases())


def test_a_corrected_timeline_is_an_annotation(tmp_path: Path) -> None:
    found = detection(_video(tmp_path, 70), RUNS)
    (tmp_path / "annotations").mkdir()
    (path,) = write_exports(tmp_path / "annotations", "v1", found, ["srt"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("1\n00:00:00,000 --> 00:00:00,800\nPreparation\n\n2\n00:00:00,800 --> 00:00:01,200\n")
    path.write_text(text.replace("00:00:00,800", "00:00:00,600"), encoding="utf-8")  # the cut began five frames earlier
    wanted = found.frame_phases()
    wanted[15:20] = 1
    np.testing.assert_array_equal(_source(tmp_path).videos[0].phases, wanted)
    path.write_text(text.replace("--> 00:00:00,800", "--> 00:00:00,900"), encoding="utf-8")
    with pytest.raises(DataError, match=r"segments of lines 2 \(0 to 0\.9\) and 6 \(0\.8 to 1\.2 seconds\) overlap"):
        _source(tmp_path)


def test_our_json_may_not_overlap_while_multibypass_may(tmp_path: Path) -> None:
    found = detection(_video(tmp_path, 70), RUNS)
    (tmp_path / "annotations").mkdir()
    (path,) = write_exports(tmp_path / "annotations", "v1", found, ["json"])
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["phases"][1] == {
        "start": 800, "end": 1200, "label_name": PHASES[1], "label_id": 1, "first_frame": 20, "last_frame": 29,
        "mean_probability": 0.9,
    }  # fmt: skip
    assert told["classes"] == PHASES and told["frames"] == 70 and told["fps"] == 25
    told["phases"][0]["end"] = 2000  # the cut now lies inside the preparation
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(DataError, match=r"segments of entries 1 \(0 to 2\) and 2 \(0\.8 to 1\.2 seconds\) overlap"):
        _source(tmp_path)
    del told["timeline_version"]  # MultiBypass140's own: the inner one counts
    told["phases"] = told["phases"][:2]
    path.write_text(json.dumps(told), encoding="utf-8")
    assert _source(tmp_path).videos[0].phases[[0, 19, 20, 29, 30, 49, 50]].tolist() == [0, 0, 1, 1, 0, 0, 255]


def test_a_segment_ends_where_frames_are_missing(tmp_path: Path) -> None:
    lack = Lack(start=0.4, stop=1.0, after=10, frames=15, reason="a gap of 0.6 s")
    starts = np.concatenate([np.arange(10) / 25, 1.0 + np.arange(10) / 25])
    found = detection(tmp_path / "v", [0, 1], times=FrameTimes(20, 20 / 1.4, starts, 1.4), lacks=(lack,))
    assert [(part.begin, part.end) for part in timed_parts(found)] == [(0, 400), (1000, 1400)]


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need times, but the frame rate is unknown; pass --fps"):
        write_exports(tmp_path, "v", detection(tmp_path / "v", RUNS, fps=None), ["srt"])
    odd = detection(tmp_path / "v", [0, 1], names=["a --> b", "c"])
    with pytest.raises(LabelError, match="'a --> b' cannot be the text of a subtitle; export json instead"):
        write_exports(tmp_path, "v", odd, ["vtt"])
    with pytest.raises(LabelError, match="'<i>a</i>' cannot be the text"):
        write_exports(tmp_path, "v", detection(tmp_path / "v", [0, 1], names=["<i>a</i>", "c"]), ["srt"])
    assert write_exports(tmp_path, "v", odd, ["json"])[0].is_file() and write_exports(tmp_path, "v", odd, []) == []


def test_unreadable_lines_of_the_table_are_no_segments_but_others_without_a_phase_are_refused(tmp_path: Path) -> None:
    found = detection(_video(tmp_path, 70), RUNS, unreadable=(3,))
    write_detection(tmp_path / "out", "v1", found)
    table = tmp_path / "out" / "v1_segments.csv"
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    assert [row[7] for row in rows].count("0") == 1
    rows[1][1] = ""
    (tmp_path / "annotations").mkdir()
    with (tmp_path / "annotations" / "v1.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError, match=r"v1\.csv, line 2: the phase is missing"):
        _source(tmp_path)

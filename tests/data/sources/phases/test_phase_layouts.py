"""Layouts of public data sets and of other people, as the `phases` source meets them; made here, not copied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.videos import write_video
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, DataError, LabelError

SEVEN = "\n".join(f"{number}\tphase {letter}" for number, letter in enumerate("abcdefg", 1))


def _source(root: Path, **options: Any) -> PhasesSource:
    source = build_source("phases", root=root, **options)
    assert isinstance(source, PhasesSource)
    return source


def _folder(root: Path, name: str, count: int) -> None:
    (root / "videos" / name).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (number, 9, 9)).save(root / "videos" / name / f"{number:04}.png")


def _phases(source: PhasesSource, key: str) -> list[int]:
    return next(video for video in source.videos if video.key == key).phases.tolist()


def _runs(*pairs: tuple[int, int]) -> list[int]:
    return [phase for phase, count in pairs for _ in range(count)]


def test_autolaparo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`labels/label_01.txt` for `videos/01.mp4`: header, tab, frames from 1 at one a second, phases 1 to 7."""
    write_video(tmp_path / "videos/01.mp4", 100)  # 4 s
    write_video(tmp_path / "videos/02.mp4", 75)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/label_01.txt").write_text("Frame\tPhase\n1\t1\n2\t1\n3\t7\n4\t3\n")
    (tmp_path / "labels/label_02.txt").write_text("Frame\tPhase\n1\t2\n2\t2\n")  # without its last line
    (tmp_path / "phases.txt").write_text(SEVEN)
    source = _source(tmp_path, phase_names="phases.txt", label_fps=1)
    assert _phases(source, "01") == _runs((0, 50), (6, 25), (2, 25))
    assert _phases(source, "02") == _runs((1, 50), (255, 25))
    assert "frames are numbered from 1 in the annotations" in caplog.text
    assert "numbers in the annotations mean 1 = phase a, 2 = phase b, 3 = phase c" in caplog.text
    with pytest.raises(DataError, match=r"label_fps=1\."):
        _source(tmp_path, phase_names="phases.txt")
    (tmp_path / "labels/label_01.txt").unlink()
    with pytest.raises(ConfigError, match="label_start"):
        _source(tmp_path, phase_names="phases.txt", label_fps=1)
    for start, expected in ((1, _runs((1, 50), (255, 25))), (0, _runs((255, 25), (1, 50)))):
        source = _source(tmp_path, phase_names="phases.txt", label_fps=1, label_start=start)
        assert _phases(source, "02") == expected


@pytest.mark.parametrize("name", ["Hei-Chole1_Annotation_Phase.csv", "hei-chole1_annotation_phase.CSV"])
def test_heichole(tmp_path: Path, name: str) -> None:
    """No header, a row per frame; tables of instruments beside it are no phases."""
    write_video(tmp_path / "videos/Hei-Chole1.mp4", 6)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text("0,0\r\n1,0\r\n2,4\r\n3,4\r\n4,6\r\n5,6\r\n")
    (tmp_path / "annotations/Hei-Chole1_Annotation_Instrument.csv").write_text("0,0,1,0\n1,1,0,0\n")
    names = [f"phase {number}" for number in range(7)]
    source = _source(tmp_path, phase_names=names)
    assert _phases(source, "Hei-Chole1") == [0, 0, 4, 4, 6, 6]
    assert [entry.path for entry in source.unpaired] == ["Hei-Chole1_Annotation_Instrument.csv"]
    (tmp_path / "annotations" / name).write_text("0\n0\n4\n4\n6\n6\n")
    assert _phases(_source(tmp_path, phase_names=names), "Hei-Chole1") == [0, 0, 4, 4, 6, 6]
    with pytest.raises(LabelError, match="phase is the number 0"):
        _source(tmp_path)


def _bypass(root: Path, name: str, **levels: Sequence[tuple[int, int, str]]) -> None:
    content = {
        level: [{"start": start, "end": end, "label_name": label, "label_id": 0} for start, end, label in segments]
        for level, segments in levels.items()
    }
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / f"{name}.mp4.json").write_text(json.dumps(content))


def test_multibypass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """25 fps: a frame every 40 ms. By hand: prep 0 to 400 ms = frames 0 to 9, outside it 120 to 200 = 3 and 4."""
    write_video(tmp_path / "videos/BBP01.mp4", 25)
    _bypass(
        tmp_path,
        "BBP01",
        phases=[(0, 400, "prep"), (120, 200, "out_of_body"), (400, 800, "pouch"), (880, 960, "out_of_body")],
        steps=[(0, 200, "s1"), (200, 1000, "s2")],
    )
    source = _source(tmp_path)
    assert source.action_names == ["out_of_body", "pouch", "prep"]
    expected = _runs((2, 3), (0, 2), (2, 5), (1, 10), (255, 2), (0, 2), (255, 1))
    assert _phases(source, "BBP01") == expected
    assert "the level phases is read" in caplog.text and "the inner ones count" in caplog.text
    ignoring = _source(tmp_path, ignored_phases=["out_of_body"])
    assert ignoring.action_names == ["pouch", "prep"]
    assert _phases(ignoring, "BBP01") == _runs((1, 10), (0, 10), (255, 5))
    assert "ignored by option: out_of_body" in caplog.text
    assert _phases(_source(tmp_path, annotation_level="steps"), "BBP01") == _runs((0, 5), (1, 20))
    with pytest.raises(ConfigError, match=r"ignored_phases names 'out of body'.*Did you mean 'out_of_body'"):
        _source(tmp_path, ignored_phases=["out of body"])
    _bypass(tmp_path, "BBP01", phases=[(0, 400, "prep"), (360, 800, "pouch")])
    with pytest.raises(DataError, match=r"entries 1 \(prep, 0 to 0.4 s\) and 2 \(pouch, .*neither lies inside"):
        _source(tmp_path)
    _bypass(tmp_path, "BBP01", phases=[(0, 400, "prep")])
    with pytest.raises(DataError, match="no clip has an annotated frame"):
        _source(tmp_path, ignored_phases=["prep"], phase_names=["pouch"], drop_unlabelled=True)


def test_elsewhere_overlaps_stay_errors(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/v1.mp4", 25)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/v1.csv").write_text("start_seconds,end_seconds,phase\n0,0.4,prep\n0.12,0.2,out\n")
    with pytest.raises(DataError, match="overlap; a frame must have one phase"):
        _source(tmp_path)
    # The inner one can be left out by its name, here too.
    assert _phases(_source(tmp_path, ignored_phases=["out"]), "v1") == _runs((0, 10), (255, 15))


def test_ignored_lines_are_not_annotated(tmp_path: Path) -> None:
    _folder(tmp_path, "v1", 6)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/v1.txt").write_text("Frame\tPhase\n0\tcut\n1\tout\n2\tcut\n3\tsew\n4\tsew\n5\tout\n")
    source = _source(tmp_path, ignored_phases="out")  # one name needs no brackets
    assert source.action_names == ["cut", "sew"] and _phases(source, "v1") == [0, 255, 0, 1, 1, 255]


def test_one_table_for_all_videos(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        _folder(tmp_path, name, 3)
    rows = ["v1,0,cut", "v2.mp4,0,sew", "v1,1,cut", "v1,2,sew", "v2.mp4,1,sew", "v2.mp4,2,cut", "v9,0,knot"]
    (tmp_path / "all.csv").write_text("\n".join(["video,frame,phase", *rows]))
    for options in ({}, {"annotations": "all.csv"}):
        source = _source(tmp_path, **options)
        assert source.action_names == ["cut", "knot", "sew"]
        assert _phases(source, "v1") == [0, 0, 2] and _phases(source, "v2") == [2, 2, 0]
        assert [entry.path for entry in source.unpaired] == ["all.csv, video 'v9'"]


def test_transport_streams(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/v1.ts", 10, codec="mpeg2video")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/v1.txt").write_text("Frame\tPhase\n" + "".join(f"{i}\t{'ab'[i // 5]}\n" for i in range(10)))
    source = _source(tmp_path, clip_span=5)
    assert _phases(source, "v1") == _runs((0, 5), (1, 5)) and source.labels() == [0, 1]
    sample = source[1].read([0, 4])
    assert sample.rgb is not None and sample.rgb.shape[0] == 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str) -> None:
    _folder(tmp_path, "v1", 2)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/v1.txt").write_bytes("Frame\tPhase\n0\tPräparation\n1\tNaht\n".encode(encoding))
    source = _source(tmp_path)
    assert source.action_names == ["Naht", "Präparation"] and _phases(source, "v1") == [1, 0]
    named = {"latin-1": "Latin-1", "utf-16": "UTF-16"}[encoding]
    assert f"1 annotation file is {named} text, the first: v1.txt" in caplog.text
    assert any(named in note for note in source.notes)


def test_minutes_or_hours(tmp_path: Path) -> None:
    """A film of 10 frames at 5 fps, 2 s: 00:01 is a second. One of 10 frames at 1/60 fps: it may be a minute."""
    _folder(tmp_path, "v1", 10)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/v1.txt").write_text("Time\tPhase\n00:00\tcut\n00:01\tsew\n")
    source = _source(tmp_path, fps=5)
    assert _phases(source, "v1") == _runs((0, 5), (1, 5)) and any(
        "minutes and seconds" in note for note in source.notes
    )
    slow = 1 / 60
    with pytest.raises(ConfigError, match=r"hours and minutes; choose with --data\.options\.clock=mm:ss"):
        _source(tmp_path, fps=slow)
    assert _phases(_source(tmp_path, fps=slow, clock="hh:mm"), "v1") == _runs((0, 1), (1, 9))
    minutes = _phases(_source(tmp_path, fps=slow, clock="mm:ss"), "v1")
    assert np.array_equal(minutes, [1] * 10)  # every frame but the first half minute lies behind the first second
    with pytest.raises(ConfigError, match="clock is 'mm'"):
        _source(tmp_path, clock="mm")


def test_what_lies_beside_is_no_annotation(tmp_path: Path) -> None:
    """JSON of other things near the videos is left alone; in the folder of annotations it is listed."""
    _folder(tmp_path, "v1", 2)
    (tmp_path / "v1.txt").write_text("Frame\tPhase\n0\tcut\n1\tsew\n")
    (tmp_path / "info.json").write_text('{"name": "a data set"}')
    assert _source(tmp_path).unpaired == []
    (tmp_path / "labels").mkdir()
    (tmp_path / "v1.txt").rename(tmp_path / "labels/v1.txt")
    (tmp_path / "info.json").rename(tmp_path / "labels/info.json")
    (left,) = _source(tmp_path).unpaired
    assert left.path == "info.json" and "an unknown structure" in left.reason

"""Annotation files as they come, and what is said about those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m33d_hf.data.sources.phases.annotations import (
    Annotation,
    AnnotationOptions,
    detect_format,
    parse_seconds,
    read_annotations,
)
from m33d_hf.errors import ConfigError, CorruptFileError, DataError


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _read(tmp_path: Path, text: str | bytes, **options: Any) -> Annotation:
    (annotation,) = read_annotations(_write(tmp_path / "a.txt", text), AnnotationOptions(**options))
    return annotation


def _spoken(annotation: Annotation) -> list[tuple[float, str]]:
    return [(start, annotation.names[code]) for start, code in zip(annotation.starts, annotation.codes)]


@pytest.mark.parametrize(
    "text",
    [
        "Frame\tPhase\n0\tPreparation\n1\tPreparation\n2\tClippingCutting\n",
        "Frame\tPhase\r\n0\tPreparation\r\n\r\n1\tPreparation\r\n2\tClippingCutting",
        b"\xef\xbb\xbfFrame\tPhase\n0\tPreparation\n1\tPreparation\n2\tClippingCutting\n\n\n",
        "0\tPreparation\n1\tPreparation\n2\tClippingCutting\n",
        "frame,phase\n0,Preparation\n1, Preparation \n2,ClippingCutting\n",
        "Frame Phase\n0 Preparation\n1 Preparation\n2 ClippingCutting\n",
        "phase\tduration\tframe\nx\t1\t0\n".replace("x", "Preparation") + "Preparation\t1\t1\nClippingCutting\t1\t2\n",
    ],
    ids=["cholec80", "crlf", "bom", "headless", "commas", "blanks", "other columns"],
)
def test_lines_per_frame(tmp_path: Path, text: str | bytes) -> None:
    kind = "frames" if isinstance(text, str) and text.startswith("phase\t") else "auto"
    annotation = _read(tmp_path, text, kind=kind)
    assert annotation.kind == "frames" and annotation.unit == "frames" and annotation.stops is None
    assert _spoken(annotation) == [(0, "Preparation"), (1, "Preparation"), (2, "ClippingCutting")]


def test_names_may_hold_blanks_and_be_quoted(tmp_path: Path) -> None:
    annotation = _read(tmp_path, 'Frame,Phase\n0,"cut, then sew"\n1,Calot triangle\n')
    assert annotation.names == ("cut, then sew", "Calot triangle")
    assert _read(tmp_path, "Frame\tPhase\n0\tCalot triangle, left\n").names == ("Calot triangle, left",)
    with pytest.raises(DataError, match=r"line 2: quotation marks"):
        _read(tmp_path, 'Frame,Phase\n0,"cut, then sew\n')


def test_time_stamps_with_empty_lines(tmp_path: Path) -> None:
    annotation = _read(tmp_path, "Time\tPhase\r\n00:00:00.00\tPreparation\r\n\r\n01:02:03.44\tCleaningCoagulation\r\n")
    assert annotation.kind == "timestamps" and annotation.unit == "seconds"
    assert annotation.starts == pytest.approx([0.0, 3723.44]) and annotation.lines.tolist() == [2, 4]
    assert annotation.resolution == pytest.approx(0.01)
    assert annotation.first_line("CleaningCoagulation") == 4


def test_the_header_of_time_stamps_may_say_anything(tmp_path: Path) -> None:
    annotation = _read(tmp_path, "Zeit\tAbschnitt\n00:00:00\tA\n00:00:02\tB\n")
    assert _spoken(annotation) == [(0, "A"), (2, "B")] and annotation.resolution == 1.0


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("start_frame,end_frame,phase", "frames"),
        ("Start Frame,Stop Frame,Activity", "frames"),
        ("frame_start,frame_end,label", "frames"),
        ("start_time,end_time,label", "seconds"),
        ("start_seconds,end_seconds,activity", "seconds"),
        ("Start (s),End (s),Phase", "seconds"),
    ],
)
def test_segments_say_their_unit(tmp_path: Path, header: str, unit: str) -> None:
    annotation = _read(tmp_path, f"{header}\n10,20,sew\n0,10,cut\n")
    assert annotation.kind == "segments" and annotation.unit == unit
    assert _spoken(annotation) == [(0, "cut"), (10, "sew")]
    assert annotation.stops is not None and annotation.stops.tolist() == [10, 20]
    assert annotation.lines.tolist() == [3, 2]


def test_segments_of_unknown_unit_need_the_option_or_a_clock(tmp_path: Path) -> None:
    plain = "start,end,phase\n0,10,cut\n"
    with pytest.raises(ConfigError, match=r"are frames, seconds or milliseconds.*--data\.options\.segment_unit"):
        _read(tmp_path, plain)
    assert _read(tmp_path, plain, unit="frames").unit == "frames"
    assert _read(tmp_path, plain, unit="seconds").unit == "seconds"
    clock = _read(tmp_path, "start;stop;label\n00:00:00;00:00:02.5;cut\n")
    assert clock.unit == "seconds" and clock.stops is not None and clock.stops.tolist() == [2.5]
    with pytest.raises(ConfigError, match="segment_unit says seconds"):
        _read(tmp_path, "start_frame,end_frame,phase\n0,1,cut\n", unit="seconds")
    both = "start_time,start_frame,end_time,end_frame,phase\n0.0,0,0.4,10,cut\n"
    assert _read(tmp_path, both).stops == pytest.approx([10])
    assert _read(tmp_path, both, unit="seconds").stops == pytest.approx([0.4])


@pytest.mark.parametrize("header", ["start_ms,end_ms,phase", "Start (ms),End (ms),Phase", "begin_msec,stop_msec,label"])
def test_milliseconds_become_seconds(tmp_path: Path, header: str) -> None:
    annotation = _read(tmp_path, f"{header}\n2500,12040.5,sew\n0,2500,cut\n")
    assert annotation.unit == "seconds" and annotation.resolution == pytest.approx(1e-3)
    assert annotation.starts.tolist() == [0, 2.5] and annotation.stops == pytest.approx([2.5, 12.0405])
    plain = _read(tmp_path, "start,end,phase\n0,1500,cut\n", unit="milliseconds")
    assert plain.unit == "seconds" and plain.stops == pytest.approx([1.5])
    with pytest.raises(DataError, match=r"line 2: '0:01' is not a number of milliseconds"):
        _read(tmp_path, f"{header}\n0:01,0:02,sew\n")
    with pytest.raises(DataError, match=r"line 2: '-5' is negative"):
        _read(tmp_path, f"{header}\n-5,10,sew\n")
    with pytest.raises(ConfigError, match="columns say milliseconds, but segment_unit says frames"):
        _read(tmp_path, f"{header}\n0,10,sew\n", unit="frames")


def test_one_file_for_all_videos(tmp_path: Path) -> None:
    text = "video,start_frame,end_frame,phase\nv1,0,5,cut\nv2,0,9,sew\nv1,5,7,sew\n"
    found = {a.video: a for a in read_annotations(_write(tmp_path / "all.csv", text))}
    assert list(found) == ["v1", "v2"]
    assert _spoken(found["v1"]) == [(0, "cut"), (5, "sew")] and found["v2"].lines.tolist() == [3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Frame\tPhase\n0\ta\n2\ta\n1\tb\n", r"line 4: frames must increase .* 2 and then 1"),
        ("Frame\tPhase\n0\ta\n0\ta\n", r"line 3: frames must increase .* 0 and then 0"),
        ("Frame\tPhase\n-1\ta\n", r"line 2: '-1' is negative"),
        ("Frame\tPhase\n0\ta\n1.5\tb\n", r"line 3: '1.5' is not a frame number"),
        ("Frame\tPhase\n0\ta\n1\n", r"line 3: 1 column, expected 2"),
        ("Frame\tPhase\n0\ta\n1\tb\tc\n", r"line 3: 3 columns, expected 2"),
        ("Frame\tPhase\n0\ta\n1\t\n", r"line 3: the phase is missing"),
        ("Frame\tGrasper\tBipolar\n0\t1\t0\n", r"line 1: the columns are Frame, Grasper, Bipolar"),
        ("Frame\tPhase\n", "neither a frame number nor a timestamp"),
        ("hello\n", "neither a frame number nor a timestamp"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("t\tp\n00:00:02\ta\n00:00:01\tb\n", r"line 3: seconds must increase .* 2 and then 1"),
        ("t\tp\n00:00:02\ta\n00:00:02\tb\n", r"line 3: seconds must increase"),
        ("t\tp\n00:00:01\ta\n00:61:00\tb\n", r"line 3: '00:61:00' is not a timestamp"),
        ("t\tp\n00:00:01\ta\n1:5\tb\n", r"line 3: '1:5' is not a timestamp"),
        ("t\tp\n-00:00:01\ta\n", r"line 2: '-00:00:01' is negative"),
        ("start_frame,end_frame,phase\n5,4,a\n", r"line 2: the segment ends at 4, not after its start 5"),
        ("start_time,end_time,phase\n5,5,a\n", r"line 2: the segment ends at 5"),
        ("start_frame,end_frame,phase\n-5,4,a\n", r"line 2: '-5' is negative"),
        ("start_frame,end_frame,phase\n0,4.5,a\n", r"line 2: '4.5' is not a frame number"),
        ("start_frame,end_frame,phase\n0,4\n", r"line 2: 2 columns, expected 3"),
        ("start_frame,end_frame,phase\n", "has a header and no line"),
        ("start_frame,end_frame,surgeon\n0,4,a\n", r"no column called phase, label or activity"),
        ("start_frame,phase\n0,a\n", r"no column called end or stop"),
        ("start_frame,end_time,phase\n0,4,a\n", r"have different units"),
        ("video,start_frame,end_frame,phase\n,0,4,a\n", r"line 2: the video column is empty"),
        ("start_time,end_time,phase\n0,soon,a\n", r"line 2: 'soon' is not seconds"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _read(tmp_path, text)
    assert str(tmp_path / "a.txt") in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="not a readable text file"):
        _read(tmp_path, b"Frame\tPhase\n0\tPr\xe4\x01paration\n")
    with pytest.raises(CorruptFileError, match="does not exist"):
        read_annotations(tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match=r"annotation_format is 'frame'.*Did you mean 'frames'"):
        AnnotationOptions("frame")
    with pytest.raises(ConfigError, match="segment_unit is 'second'"):
        AnnotationOptions(unit="second")


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    texts = {
        "frames": "Frame\tPhase\n0\ta\n",
        "timestamps": "Frame\tPhase\n00:00:00.00\ta\n",
        "segments": "start,end,label\n0,1,a\n",
    }
    for kind, text in texts.items():
        assert detect_format(_write(tmp_path / "x.txt", text)) == kind


def test_coarse_stamps_may_repeat_while_the_phase_stays(tmp_path: Path) -> None:
    annotation = _read(tmp_path, "t\tp\n00:00:00\ta\n00:00:00\ta\n00:00:01\tb\n")
    assert annotation.starts.tolist() == [0, 0, 1]


def test_times() -> None:
    assert parse_seconds("01:00:00.5") == (3600.5, 1)
    assert parse_seconds("00:00:01,25") == (1.25, 2)
    assert parse_seconds("12.50") == (12.5, 2)
    assert parse_seconds("-3") == (-3.0, 0)
    assert parse_seconds("00:60:00") is None and parse_seconds("ten") is None and parse_seconds("1e3") is None


def test_many_lines_are_read_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"phase {i}" for i in rng.integers(0, 7, 3000)]
    text = "Frame\tPhase\n" + "".join(f"{25 * i}\t{name}\n" for i, name in enumerate(names))
    annotation = _read(tmp_path, text)
    assert [annotation.names[code] for code in annotation.codes] == names
    assert np.array_equal(annotation.starts, 25 * np.arange(3000))
    assert annotation.names == tuple(dict.fromkeys(names))

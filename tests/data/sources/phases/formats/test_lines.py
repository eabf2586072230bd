"""Tables of frames and times: without header, of all videos, and one phase a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m33d_hf.data.sources.phases.annotations import Annotation, AnnotationOptions, detect_format, read_annotations
from m33d_hf.errors import DataError


def _all(folder: Path, text: str, **options: Any) -> list[Annotation]:
    (folder / "a.csv").write_text(text)
    return read_annotations(folder / "a.csv", AnnotationOptions(**options))


def _spoken(annotation: Annotation) -> list[tuple[float, str]]:
    return [(start, annotation.names[code]) for start, code in zip(annotation.starts, annotation.codes)]


def test_a_table_of_all_videos_by_frame(tmp_path: Path) -> None:
    first, second = _all(tmp_path, "video,frame,phase\nv1,0,cut\nv2,0,wash\nv1,1,sew\nv2,1,wash\nv2,2,cut\n")
    assert (first.video, first.kind, _spoken(first)) == ("v1", "frames", [(0, "cut"), (1, "sew")])
    assert (second.video, _spoken(second)) == ("v2", [(0, "wash"), (1, "wash"), (2, "cut")])
    assert second.lines.tolist() == [3, 5, 6]
    swapped = _all(tmp_path, "Phase;Frame;File name\ncut;0;v1.mp4\nsew;1;v1.mp4\n")
    assert [annotation.video for annotation in swapped] == ["v1.mp4"] and _spoken(swapped[0])[1] == (1, "sew")
    timed = _all(tmp_path, "video\ttime\tphase\nv1\t00:00:00\tcut\nv1\t00:00:02\tsew\nv2\t00:00:01\tcut\n")
    assert [annotation.kind for annotation in timed] == ["timestamps"] * 2 and _spoken(timed[0])[1] == (2, "sew")


def test_a_table_of_all_videos_with_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 4: frames must increase .* 1 and then 0"):
        _all(tmp_path, "video,frame,phase\nv1,1,cut\nv2,0,wash\nv1,0,sew\n")
    with pytest.raises(DataError, match=r"line 3: the video column is empty"):
        _all(tmp_path, "video,frame,phase\nv1,0,cut\n,1,cut\n")


def test_without_a_header_only_two_columns_go(tmp_path: Path) -> None:
    (found,) = _all(tmp_path, "0,0\n1,0\n2,3\n")
    assert found.kind == "frames" and _spoken(found) == [(0, "0"), (1, "0"), (2, "3")]
    with pytest.raises(DataError, match=r"line 1: 4 columns without a header, so the phase column is unknown"):
        _all(tmp_path, "0,0,1,0\n1,0,1,1\n")


def test_one_phase_a_line(tmp_path: Path) -> None:
    (numbers,) = _all(tmp_path, "0\n0\n1\n\n1\n")
    assert numbers.kind == "rows" and numbers.unit == "frames"
    assert _spoken(numbers) == [(0, "0"), (1, "0"), (2, "1"), (3, "1")] and numbers.lines.tolist() == [1, 2, 3, 5]
    (named,) = _all(tmp_path, "Phase\ncut\nsew\n")
    assert _spoken(named) == [(0, "cut"), (1, "sew")]
    (blanks,) = _all(tmp_path, "Calot triangle\nClipping, cutting\n", kind="rows")
    assert blanks.names == ("Calot triangle", "Clipping, cutting")
    with pytest.raises(DataError, match="neither a frame number nor a timestamp"):
        _all(tmp_path, "hello\nworld\n")


def test_seconds_in_a_column_called_time(tmp_path: Path) -> None:
    """Under `Frame` the same numbers are frames, and a fraction is a mistake."""
    (seconds,) = _all(tmp_path, "Time;Phase\n0,0;cut\n1,5;sew\n")
    assert seconds.kind == "timestamps" and _spoken(seconds) == [(0, "cut"), (1.5, "sew")]
    assert seconds.resolution == pytest.approx(0.1)
    (whole,) = _all(tmp_path, "Time\tPhase\n0\tcut\n10\tsew\n")
    assert whole.kind == "timestamps" and whole.unit == "seconds" and _spoken(whole)[1] == (10, "sew")
    (frames,) = _all(tmp_path, "Frame\tPhase\n0\tcut\n10\tsew\n")
    assert frames.kind == "frames"
    (minutes,) = _all(tmp_path, "Time\tPhase\n00:00\tcut\n25:10\tsew\n")
    assert _spoken(minutes)[1] == (1510, "sew") and minutes.hours_fit is False
    assert detect_format(tmp_path / "a.csv") == "timestamps"


def test_decimal_commas_in_segments(tmp_path: Path) -> None:
    (found,) = _all(tmp_path, "start (s);end (s);phase\n0,0;1,5;cut\n1,5;10;sew\n")
    assert found.starts.tolist() == [0, 1.5] and found.stops is not None and found.stops.tolist() == [1.5, 10]
    with pytest.raises(DataError, match="between thousands"):
        _all(tmp_path, "start (s);end (s);phase\n1,000;1,500;cut\n")

"""Subtitles as annotations: what editors of subtitles write, and what is refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.data.sources.phases.annotations import AnnotationOptions, detect_format, read_annotations
from m33d_hf.data.sources.phases.files import find_annotations
from m33d_hf.errors import DataError

SRT = """1
00:00:00,000 --> 00:01:02,500
Preparation

2
00:01:02,500 --> 01:00:00,040
<b>Cutting</b>
"""
VTT = """WEBVTT - of a procedure

STYLE
::cue { color: white }

NOTE a comment
of two lines

first
00:00.000 --> 01:02.500 align:start position:10%
Preparation

01:02.500 --> 01:00:00.040
<v Surgeon>Cut &amp; tie &lt;1&gt;
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "text", "last"), [("v.srt", SRT, "Cutting"), ("v.vtt", VTT, "Cut & tie <1>")])
def test_cues_are_segments(tmp_path: Path, name: str, text: str, last: str, end: str, mark: str) -> None:
    path = tmp_path / name
    path.write_bytes((mark + text.replace("\n", end)).encode("utf-8"))
    (found,) = read_annotations(path)
    assert found.kind == detect_format(path) == "subtitles" and found.unit == "seconds"
    assert found.names == ("Preparation", last)
    assert found.starts.tolist() == [0, 62.5] and found.stops is not None and found.stops.tolist() == [62.5, 3600.04]
    assert found.resolution == 1e-3
    assert found.place_of(last).endswith("line 6" if name == "v.srt" else "line 13")


def test_cues_in_any_order_without_numbers_and_ignored_ones(tmp_path: Path) -> None:
    path = tmp_path / "v.srt"
    path.write_text("00:00:05,5 --> 00:00:06,0\nb\n\n00:00:01,0 --> 00:00:05,5\na\n\n00:00:07,0 --> 00:00:08,0\nout\n")
    (found,) = read_annotations(path, AnnotationOptions(ignored=("out",)))
    assert found.names == ("a", "b") and found.starts.tolist() == [1, 5.5] and found.dropped == ("out",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n00:00:05,000 --> 00:00:05,000\na\n", r"line 2: the cue ends at 5, not after its start 5"),
        ("1\n00:00:05,000 --> 00:00:61,000\na\n", r"line 2: '00:00:61,000' is not a time HH:MM:SS,mmm"),
        ("1\n00:00:05,000 --> \na\n", r"line 2: '' is not a time"),
        ("1\n00:00:05,000 --> 00:00:06,000\na\nb\n", r"line 2: the text of the cue is 'a / b'; it must be one line"),
        ("1\n00:00:05,000 --> 00:00:06,000\n\n", r"line 2: the text of the cue is 'nothing'"),
        ("1\n00:00:05,000 --> 00:00:06,000\na\n\nstray\n", r"line 5: 'stray' does not begin a cue"),
        ("WEBVTT\n\nNOTE nothing else\n", r"subtitles without a cue"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "v.srt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"v\.srt.*{words}"):
        read_annotations(path)


def test_what_is_said_in_a_video_is_no_annotation_but_a_folder_of_annotations_is(tmp_path: Path) -> None:
    (tmp_path / "v1.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nPlease hand me the scissors.\n")
    assert not find_annotations(tmp_path, ["v1"]).by_key
    assert find_annotations(tmp_path, ["v1"], "v1.srt").by_key["v1"].names == ("Please hand me the scissors.",)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "v1_segments.srt").write_text(SRT)
    assert find_annotations(tmp_path, ["v1"]).by_key["v1"].names == ("Preparation", "Cutting")

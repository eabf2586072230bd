"""Several cameras of one case: grouped, annotated together, never cut by a split; what is missing is told."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from helpers.videos import numbered_frame, write_video
from m33d_hf.data.sources.phases.base import ClipSpan
from m33d_hf.data.sources.phases.cameras import find_cases
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.data.sources.phases.synchrony import beside, same_moments
from m33d_hf.errors import ConfigError, DataError

OPTIONS: dict[str, Any] = {"clip_span": 5, "phase_names": ["cut", "sew"]}


def _film(path: Path, frames: int, rate: int = 25) -> Path:
    return write_video(path, frames, rate=rate, size=(32, 48), frames=[numbered_frame(0, (32, 48))] * frames)


def _annotate(path: Path, phases: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {"c": "cut", "s": "sew"}
    path.write_text("Frame\tPhase\n" + "".join(f"{n}\t{words[letter]}\n" for n, letter in enumerate(phases)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cases of two cameras; the second camera of op1 began 10 frames later and runs on, that of op2 ends early."""
    _film(tmp_path / "videos/op1_cam1.mp4", 20)
    _film(tmp_path / "videos/op1_cam2.mp4", 20)
    _film(tmp_path / "videos/op2_cam1.mp4", 20)
    _film(tmp_path / "videos/op2_cam2.mp4", 12)
    _annotate(tmp_path / "phase_annotations/op1.txt", "c" * 12 + "s" * 8)
    _annotate(tmp_path / "phase_annotations/op2_cam1.txt", "s" * 20)
    (tmp_path / "cameras.csv").write_text(
        "case,camera,video,offset\nop1,left,op1_cam1.mp4,\nop1,right,op1_cam2,0.4\nop2,left,op2_cam1,0\nop2,right,op2_cam2,\n"
    )
    return tmp_path


def _phases(source: PhasesSource) -> dict[str, str]:
    letters = {0: "c", 1: "s", 255: "."}
    return {video.key: "".join(letters[int(phase)] for phase in video.phases) for video in source.videos}


def test_the_cameras_of_a_case_share_its_annotation(root: Path) -> None:
    source = PhasesSource(root, cameras="_cam*", **OPTIONS)
    assert [[source.videos[n].key for n in case] for case in source.cases] == [
        ["op1_cam1", "op1_cam2"],
        ["op2_cam1", "op2_cam2"],
    ]
    assert [(video.case, video.camera) for video in source.videos][:2] == [("op1", "1"), ("op1", "2")]
    assert _phases(source) == {
        "op1_cam1": "c" * 12 + "s" * 8,
        "op1_cam2": "c" * 12 + "s" * 8,
        "op2_cam1": "s" * 20,
        "op2_cam2": "s" * 12,
    }
    assert set(source.groups()) == {"op1", "op2"} and len(source) == 4 + 4 + 4 + 3
    more = PhasesSource(root, cameras="_cam*", unit="videos")
    assert len(more) == 4 and more.groups() == ["op1", "op1", "op2", "op2"]


def test_offsets_move_a_camera_on_the_clock_of_its_case(root: Path) -> None:
    source = PhasesSource(root, cameras="cameras.csv", **OPTIONS)
    assert _phases(source)["op1_cam2"] == "cc" + "s" * 8 + "." * 10  # 10 frames of 25 a second later
    first, other = source.videos[0], source.videos[1]
    spans = source.clips(0)
    assert [(span.start, span.stop) for span in spans] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert beside(first, other, spans, 5) == [None, None, ClipSpan(0, 5, 1), ClipSpan(5, 10, 1)]


def test_cameras_of_another_rate_begin_their_clips_at_the_same_moments(root: Path) -> None:
    _film(root / "videos/op1_cam2.mp4", 8, rate=10)
    source = PhasesSource(root, cameras="_cam*", **OPTIONS)
    assert _phases(source)["op1_cam2"] == "ccccc" + "sss"  # 10 a second: middles at frames 1.25, 3.75, .. of 25
    found = beside(source.videos[0], source.videos[1], source.clips(0), 5)
    assert [(span.start, span.stop) for span in found if span] == [(0, 5), (2, 7), (4, 8), (6, 8)]


def test_folders_are_cases(tmp_path: Path) -> None:
    for case in ("a", "b"):
        _film(tmp_path / f"videos/{case}/left.mp4", 10)
        _film(tmp_path / f"videos/{case}/right.mp4", 10)
        _annotate(tmp_path / f"phase_annotations/{case}.txt", "c" * 10)
    source = PhasesSource(tmp_path, cameras="folder", **OPTIONS)
    assert [(video.case, video.camera) for video in source.videos] == [
        ("a", "left"), ("a", "right"), ("b", "left"), ("b", "right"),
    ]  # fmt: skip
    assert all((video.phases == 0).all() for video in source.videos)


def test_splits_never_cut_a_case(root: Path) -> None:
    (root / "train.txt").write_text("op1\n")
    (root / "validation.txt").write_text("op2_cam1\nop2_cam2\n")
    keys = [[video.key for video in PhasesSource(root, s, cameras="_cam*", **OPTIONS).videos] for s in ("train", "val")]
    assert keys == [["op1_cam1", "op1_cam2"], ["op2_cam1", "op2_cam2"]]
    (root / "train.txt").write_text("op1_cam1\nop2_cam1\n")
    (root / "validation.txt").write_text("op1_cam2\nop2_cam2\n")
    with pytest.raises(DataError, match=r"names op1_cam1, but not op1_cam2, which .* a case is never cut"):
        PhasesSource(root, "train", cameras="_cam*", **OPTIONS)
    for name in ("train.txt", "validation.txt"):
        (root / name).unlink()
    halves = {"train": 0.5, "validation": 0.5}
    found = [
        {video.case for video in PhasesSource(root, s, cameras="_cam*", split_fractions=halves, **OPTIONS).videos}
        for s in ("train", "validation")
    ]
    assert sorted(map(len, found)) == [1, 1] and not found[0] & found[1]


def test_a_camera_that_is_not_there_or_cannot_be_read_is_done_without(root: Path) -> None:
    with (root / "cameras.csv").open("a") as file:
        file.write("op2,ceiling,op2_cam3.mp4,0\n")
    (root / "videos/op1_cam1.mp4").write_bytes(b"no video")
    (root / "cameras.csv").write_text((root / "cameras.csv").read_text().replace(",0.4", ",0"))
    source = PhasesSource(root, cameras="cameras.csv", **OPTIONS)
    assert [[source.videos[n].key for n in case] for case in source.cases] == [["op1_cam2"], ["op2_cam1", "op2_cam2"]]
    assert _phases(source)["op1_cam2"] == "c" * 12 + "s" * 8  # which began at the same moment
    reasons = {entry.path: entry.reason for entry in source.unpaired}
    assert reasons["op2_cam3.mp4"] == "camera ceiling of case op2 in cameras.csv, but there is no such video"
    assert "1 camera cannot be read and is done without, the first: left of op1" in source.notes
    with pytest.raises(DataError, match="on_unpaired=list"):
        PhasesSource(root, cameras="cameras.csv", on_unpaired="error", **OPTIONS)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("case,camera\nop1,left\n", "lacks the column 'video'; it has case, camera"),
        (
            "case,camera,video\nop1,left,op1_cam1\nop1,Left,op1_cam2\n",
            "two cameras called 'Left': op1_cam1 and",
        ),
        ("case,camera,video\nop1,left,op1_cam1\nop2,left,op1_cam1\n", "line 3: the video op1_cam1 is also in line 2"),
        ("case,camera,video,offset\nop1,left,op1_cam1,soon\n", "line 2: the offset is 'soon', which is no number"),
        ("case,camera,video,offset\nop1,left,op1_cam1,nan\n", "line 2: the offset is 'nan', which is no number"),
        ("case,camera,video\n,left,op1_cam1\n", "line 2: case, camera and video must all be given"),
        ("case,camera,video\nop9,left,op9.mp4\n", "none of its videos is there; the first that are: op1_cam1"),
    ],
)
def test_tables_that_say_nonsense(root: Path, table: str, words: str) -> None:
    (root / "cameras.csv").write_text(table)
    with pytest.raises(DataError, match=words):
        PhasesSource(root, cameras="cameras.csv", **OPTIONS)


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ("folder", "the video op1_cam1 lies in none"),
        ("*", "a suffix has one \\* for the camera"),
        ("_view*", "no video has such a suffix; the first is op1_cam1"),
        ("none.csv", "cameras is 'none.csv': pass folder"),
    ],
)
def test_options_that_fit_nothing(root: Path, cameras: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PhasesSource(root, cameras=cameras, **OPTIONS)


def test_without_the_option_every_video_is_a_case(root: Path) -> None:
    cases, unused = find_cases(root, None, {"a": "a.mp4", "b": "b.mp4"})
    assert [[camera.key for camera in case] for case in cases.values()] == [["a"], ["b"]] and not unused
    _annotate(root / "phase_annotations/op1_cam1.txt", "c" * 20)
    source = PhasesSource(root, **OPTIONS)
    assert source.cases == [[0], [1]] and [video.case for video in source.videos] == [None, None]
    assert source.groups() == [key for key in ("op1_cam1", "op2_cam1") for _ in range(4)]
    assert np.array_equal(source.videos[0].phases, np.zeros(20, np.uint8))


def test_clips_of_one_moment_belong_to_that_of_the_first_camera(root: Path) -> None:
    source = PhasesSource(root, cameras="cameras.csv", drop_unlabelled=False, **OPTIONS)
    named = {place: (source.videos[number].key, span.start) for place, (number, span) in enumerate(source.items)}
    found = {named[own]: named[first] for own, first in same_moments(source, range(len(source))).items()}
    # The right camera of op1 begins 10 frames later; what it shows after the first one's end belongs to none.
    assert found == {
        ("op1_cam2", 0): ("op1_cam1", 10),
        ("op1_cam2", 5): ("op1_cam1", 15),
        ("op2_cam2", 0): ("op2_cam1", 0),
        ("op2_cam2", 5): ("op2_cam1", 5),
        ("op2_cam2", 10): ("op2_cam1", 10),
    }
    # Of a part of the items, the places in that part.
    rows = [place for place, (key, start) in named.items() if key.startswith("op2") and start == 5]
    assert same_moments(source, rows) == {1: 0}
    assert not same_moments(PhasesSource(root / "videos", annotations=str(root / "phase_annotations"), **OPTIONS), [0])


def test_a_table_of_cameras_beside_the_annotations_is_none_of_them(tmp_path: Path) -> None:
    """Where both lie in the root: the table was taken for segments without a begin, and refused."""
    for video in ("a_left", "a_right"):
        write_video(tmp_path / f"{video}.mp4", 8)
    (tmp_path / "a.csv").write_text("start_frame,end_frame,phase\n0,4,cut\n4,8,sew\n")
    (tmp_path / "cameras.csv").write_text("case,camera,video\na,left,a_left.mp4\na,right,a_right.mp4\n")
    source = PhasesSource(tmp_path, cameras="cameras.csv", clip_span=4, segment_end="exclusive")
    assert source.cases == [[0, 1]] and source.action_names == ["cut", "sew"]


def test_a_name_in_a_table_that_two_videos_bear_is_refused(tmp_path: Path) -> None:
    files = {"siteA/left": "siteA/left.mp4", "siteB/left": "siteB/left.mp4", "siteB/top": "siteB/top.mp4"}
    (tmp_path / "cameras.csv").write_text("case,camera,video\na,left,siteA/left\nb,top,top.mp4\n")
    cases, unused = find_cases(tmp_path, "cameras.csv", files)
    assert {case: [camera.key for camera in found] for case, found in cases.items()} == {
        "a": ["siteA/left"], "b": ["siteB/top"],
    }  # fmt: skip
    assert [entry.path for entry in unused] == ["siteB/left.mp4"]
    (tmp_path / "cameras.csv").write_text("case,camera,video\na,left,left.mp4\n")
    with pytest.raises(DataError, match=r"line 2: 'left.mp4' matches several videos: siteA/left, siteB/left; put the"):
        find_cases(tmp_path, "cameras.csv", files)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_stored(tmp_path: Path, stored: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if stored == "NFC" else "NFC"
    keys = [unicodedata.normalize(stored, f"opé_caméra{number}") for number in (1, 2)]
    files = {key: f"{key}.mp4" for key in keys}
    rows = "".join(f"a,{number},{unicodedata.normalize(other, file)}\n" for number, file in enumerate(files.values()))
    (tmp_path / "cameras.csv").write_text(f"case,camera,video\n{rows}", encoding="utf-8")
    cases, unused = find_cases(tmp_path, "cameras.csv", files)
    assert [camera.key for camera in cases["a"]] == keys and not unused
    cases, _ = find_cases(tmp_path, unicodedata.normalize(other, "_caméra*"), files)
    ((case, cameras),) = cases.items()
    assert [camera.key for camera in cameras] == keys and unicodedata.normalize("NFC", case) == "op\u00e9"


def _depth_of(root: Path, *names: str) -> dict[str, Any]:
    (root / "depth").mkdir()
    for name in names:
        np.save(root / f"depth/{name}.npy", np.full((20, 4, 6), 1500, np.uint16))
    return {"require_depth": True, "depth_unit": "mm"}


@pytest.mark.parametrize("of", ["op1_cam1", "op1"])
def test_an_annotation_may_number_the_frames_of_a_camera_without_depth(root: Path, of: str) -> None:
    """That camera is not used itself; the phases of the others are those of the same run without require_depth."""
    annotations = root / "phase_annotations"
    (annotations / "op1.txt").rename(root / "kept.txt")
    (root / "kept.txt").rename(annotations / f"{of}.txt")
    options = {"cameras": "cameras.csv", **OPTIONS, **_depth_of(root, "op1_cam2", "op2_cam1", "op2_cam2")}
    source = PhasesSource(root, **options)
    assert _phases(source) == {
        "op1_cam2": "cc" + "s" * 8 + "." * 10,  # 10 frames of 25 a second later, as of the pair
        "op2_cam1": "s" * 20,
        "op2_cam2": "s" * 12,
    }
    assert [[source.videos[n].key for n in case] for case in source.cases] == [["op1_cam2"], ["op2_cam1", "op2_cam2"]]
    assert [(entry.path, entry.reason) for entry in source.unpaired] == [("op1_cam1.mp4", "no depth for it in depth")]
    assert "3 videos, 52 frames, 80.8% annotated" in source.notes
    pair = PhasesSource(root, **{**options, "require_depth": False, "depth": "none"})
    assert {key: value for key, value in _phases(pair).items() if key != "op1_cam1"} == _phases(source)


def test_of_two_annotated_cameras_the_one_with_depth_leads(root: Path) -> None:
    (root / "phase_annotations/op1.txt").unlink()
    _annotate(root / "phase_annotations/op1_cam1.txt", "c" * 20)
    _annotate(root / "phase_annotations/op1_cam2.txt", "s" * 20)
    source = PhasesSource(root, cameras="_cam*", **OPTIONS, **_depth_of(root, "op1_cam2"))
    assert _phases(source) == {"op1_cam2": "s" * 20}


def test_a_case_whose_only_camera_with_depth_is_broken(root: Path) -> None:
    options = {"cameras": "_cam*", **OPTIONS, **_depth_of(root, "op1_cam2")}
    (root / "videos/op1_cam2.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no camera that has depth can be read"):
        PhasesSource(root, **options)


def test_a_case_without_annotation_loses_the_cameras_without_depth(root: Path) -> None:
    (root / "phase_annotations/op1.txt").unlink()
    options = {"cameras": "_cam*", **OPTIONS, **_depth_of(root, "op1_cam2", "op2_cam1")}
    source = PhasesSource(root, **options)
    assert _phases(source) == {"op2_cam1": "s" * 20}
    assert ("op1_cam2", "it has no annotation") in [(entry.path, entry.reason) for entry in source.unpaired]
    every = PhasesSource(root, **options, unit="videos")
    assert [video.key for video in every.videos] == ["op1_cam2", "op2_cam1"]

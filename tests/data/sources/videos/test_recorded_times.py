"""Frames of imported recordings have the times of their recording, lost frames and rounding included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.frames_on_disk import write_frames
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.frames import FrameSequence
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import CorruptFileError

UNIT: dict[str, Any] = {"depth_unit": "mm"}


def recording(root: Path, seconds: list[float | None], imported: bool = True) -> Path:
    write_frames(root, len(seconds), rgb="color/{i:06d}.png", depth="depth/{i:06d}.png")
    rows = [f"{number},{'' if time is None else f'{time:.9f}'}\n" for number, time in enumerate(seconds)]
    (root / "frames.csv").write_text("number,seconds\n" + "".join(rows))
    if imported:
        (root / "import.json").write_text("{}")
    return root


def clip_of(root: Path, **options: Any) -> FrameSequence:
    return FolderSource(root, unit="clips", **{**UNIT, **options})[0]


def test_rounded_times_of_an_even_recording_are_even(tmp_path: Path) -> None:
    times = clip_of(recording(tmp_path, [round(n / 30, 3) for n in range(40)])).times
    assert times is not None and times.starts is None and times.fps == 30.0


def test_lost_frames_leave_a_hole_in_time(tmp_path: Path) -> None:
    seconds = [n / 10 for n in (0, 1, 2, 9, 10, 11)]
    times = clip_of(recording(tmp_path / "a", [2.0 + each for each in seconds])).times
    assert times is not None and times.at(range(6)).tolist() == pytest.approx(seconds)
    stated = FolderSource(tmp_path, unit="clips", fps=10.0, **UNIT)[0]
    assert stated.times is None and stated.fps == 10.0, "a rate that is stated is even"


def test_windows_and_frames_that_are_gone_keep_their_times(tmp_path: Path) -> None:
    root = recording(tmp_path, [n / 10 for n in range(12)])
    for kind in ("color", "depth"):
        (root / kind / "000004.png").unlink()
    windows = FolderSource(root, unit="clips", clip_length=5, **UNIT)
    assert len(windows) == 2
    first, second = windows[0].times, windows[1].times
    assert first is not None and first.at([0, 3, 4]).tolist() == pytest.approx([0, 0.3, 0.5])
    assert second is not None and second.at([0, 1]).tolist() == pytest.approx([0, 0.1])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([0.0, None, 0.2], "has no time of 1 of 3 frames, the first: 000001"),
        ([0.0, 0.2, 0.1], "has times that do not go on: frame 000002 is not later"),
    ],
)
def test_times_that_are_not_known_are_none_and_said_once(
    tmp_path: Path, seconds: list[float | None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    clip = clip_of(recording(tmp_path, seconds))
    assert clip.times is None and clip.times is None
    assert [said in record.getMessage() for record in caplog.records if "frames.csv" in record.getMessage()] == [True]


@pytest.mark.parametrize("stamps", [(0, 1, 2, 3, 4), (0, 1, 2, 9, 10)])
def test_pictures_of_a_recording_that_are_a_video_have_its_times(tmp_path: Path, stamps: tuple[int, ...]) -> None:
    root = recording(tmp_path / "or1", [2.0 + n / 10 for n in stamps])
    info = cached_info(root / "color")
    assert info.times is not None and info.times.at(range(5)).tolist() == pytest.approx([n / 10 for n in stamps])
    assert (info.uneven is None) == (stamps[-1] == 4) and info.fps == pytest.approx(info.times.fps)
    shifted = "".join(f"{number},{2 * n / 10:.9f}\n" for number, n in enumerate(stamps))
    (root / "frames.csv").write_text("number,seconds\n" + shifted)
    later = cached_info(root / "color").times
    assert later is not None and later.at(4) == pytest.approx(2 * stamps[-1] / 10), "of a table that changed"
    other = recording(tmp_path / "or2", [0.0, 0.1], imported=False)
    assert cached_info(other / "color").times is None


def test_only_tables_of_recordings_count(tmp_path: Path) -> None:
    assert clip_of(recording(tmp_path / "other", [0.0, 0.1, 0.2], imported=False)).times is None
    root = recording(tmp_path / "torn", [0.0, 0.1, 0.2])
    (root / "frames.csv").write_text("number,seconds\nx,y\n")
    with pytest.raises(CorruptFileError, match=r"frames\.csv: is no table of frames and seconds"):
        assert clip_of(root).times


def test_an_import_that_was_stopped_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (recording(tmp_path, [0.0, 0.1, 0.2]) / "frames.csv").unlink()
    clip = clip_of(tmp_path)
    assert clip.times is None and cached_info(tmp_path / "color").times is None
    told = [record.getMessage() for record in caplog.records if "the import was stopped" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith(f"{tmp_path} has import.json and no frames.csv")


def test_annotations_in_seconds_go_by_the_times_of_the_recording(tmp_path: Path) -> None:
    recording(tmp_path / "or1", [n / 10 for n in (0, 1, 2, 3, 14, 15, 16, 17)])
    (tmp_path / "or1.csv").write_text("start_seconds,end_seconds,phase\n0,1.0,cut\n1.0,1.8,sew\n")
    source = PhasesSource(tmp_path, clip_span=4, depth_scale=1000)
    assert source.action_names == ["cut", "sew"]
    assert source.videos[0].phases.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert not [entry for entry in source.unpaired if "frames.csv" in entry.path], "which is no annotation"


def test_annotations_by_frame_of_recordings_that_lack_frames_are_told(tmp_path: Path) -> None:
    """Labels are those of the frames that are there, in order; whoever counted the recording's frames is warned."""
    for name in ("a", "b"):
        recording(tmp_path / name, [n / 10 for n in range(8)])
        rows = "".join(f"{number}\t{'cut' if number < 4 else 'sew'}\n" for number in range(7))
        (tmp_path / f"{name}.txt").write_text("Frame\tPhase\n" + rows)
    said = "lacks frames and is annotated by frame, the first: b, from 000003"
    assert not [note for note in PhasesSource(tmp_path, clip_span=4, depth_scale=1000).notes if "lacks frames" in note]
    for kind in ("color", "depth"):
        (tmp_path / "b" / kind / "000002.png").unlink()
    source = PhasesSource(tmp_path, clip_span=4, depth_scale=1000)
    assert len([note for note in source.notes if said in note]) == 1
    assert source.videos[1].phases.tolist() == [0] * 4 + [1] * 3
    by_time = PhasesSource(tmp_path, clip_span=4, depth_scale=1000, label_fps=10)
    assert by_time.videos[1].phases.tolist() == [0] * 3 + [1] * 3 + [255], "and of those that were meant"
    assert not [note for note in by_time.notes if said in note]


def test_a_border_of_phases_in_a_hole_leaves_the_frame_before_it_what_it_was(tmp_path: Path) -> None:
    """The hole is from 0.4 to 1.4 s, its middle at .9; cameras of one case go by the same rule."""
    seconds: list[float | None] = [n / 10 for n in (0, 1, 2, 3, 14, 15, 16, 17)]
    recording(tmp_path / "or1/a", [n / 10 for n in range(18)])
    recording(tmp_path / "or1/b", seconds)
    recording(tmp_path / "or2/a", seconds)
    for name in ("or1", "or2"):
        (tmp_path / f"{name}.csv").write_text("start_seconds,end_seconds,phase\n0,0.6,cut\n0.6,1.8,sew\n")
    source = PhasesSource(tmp_path, clip_span=4, depth_scale=1000, cameras="folder")
    phases = {video.key: video.phases.tolist() for video in source.videos}
    assert phases["or1/a"] == [0] * 6 + [1] * 12
    assert phases["or1/b"] == phases["or2/a"] == [0] * 4 + [1] * 4


def test_a_recording_needs_depth_and_a_frame_does_not(tmp_path: Path) -> None:
    recording(tmp_path / "a", [n / 10 for n in range(6)])
    recording(tmp_path / "b", [n / 10 for n in range(6)])
    for number in range(1, 6):
        (tmp_path / f"a/depth/{number:06d}.png").unlink()
    for file in (tmp_path / "b/depth").iterdir():
        file.unlink()
    source = PhasesSource(tmp_path, unit="videos", require_depth=True, depth_scale=1000)
    assert [video.key for video in source.videos] == ["a"] and source.videos[0].handle.length == 6
    assert ("b", "it has no depth") in [(entry.path, entry.reason) for entry in source.unpaired]
    assert np.isnan(source[0].read(range(6)).depth[1:].numpy()).all()  # type: ignore[index]

"""Labels by time on videos of a variable rate, of a late start, and on recordings that are cut short."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.videos import UNEVEN_STAMPS, cut_short, write_uneven, write_video
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.measuring.first_look import describe_look, first_look
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.sample import frame_times
from m33d_hf.data.sources.actions.ucf101 import Ucf101Source
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.data.sources.videos.files import VideoFile, cached_info
from m33d_hf.errors import DataError

pytest.importorskip("av")
LABELS = {
    "segments": ("video.csv", "start_seconds,end_seconds,phase\n0,5,A\n5,25,B\n", {}),
    "stamps": ("video-timestamp.txt", "00:00:00.00\tA\n00:00:04.00\tA\n00:00:05.00\tB\n00:00:06.00\tB\n", {}),
    "label_fps 1": (
        "video-phase.txt",
        "Frame\tPhase\n" + "".join(f"{second}\t{'A' if second < 5 else 'B'}\n" for second in range(25)),
        {"label_fps": 1.0},
    ),
    "segments in frames": ("video.csv", "start_frame,end_frame,phase\n0,50,A\n50,100,B\n", {}),
}


def _labelled(root: Path, kind: str) -> dict[str, float]:
    name, text, options = LABELS[kind]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / name).write_text(text)
    return options


@pytest.mark.parametrize("shift", [0, 120])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("kind", list(LABELS))
def test_labels_by_time_fall_on_the_frames_shown_then(tmp_path: Path, kind: str, suffix: str, shift: int) -> None:
    write_uneven(tmp_path / f"video{suffix}", shift=shift)
    source = PhasesSource(tmp_path, **_labelled(tmp_path, kind))
    (video,) = source.videos
    wanted = np.array([0 if stamp < 200 else 1 for stamp in UNEVEN_STAMPS])
    covered = np.ones(100, bool)
    if kind == "stamps":  # at a steady pace the last stamp stands for one step
        covered = np.array(UNEVEN_STAMPS) < 200 + 40 * 1.9
    np.testing.assert_array_equal(video.phases[covered], wanted[covered])
    assert any("variable frame rate" in note for note in source.notes)
    times = frame_times(video.handle)
    assert times is not None
    np.testing.assert_allclose(times.at(np.arange(100)), np.array(UNEVEN_STAMPS) / 40, atol=1e-3)


def test_frames_that_are_named_by_time_stamps_are_labelled_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "video"
    folder.mkdir(parents=True)
    for number, stamp in enumerate(UNEVEN_STAMPS):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{1305031102 + stamp / 40:.6f}.png")
    (video,) = PhasesSource(tmp_path, **_labelled(tmp_path, "segments")).videos
    np.testing.assert_array_equal(video.phases, [0 if stamp < 200 else 1 for stamp in UNEVEN_STAMPS])
    (stated,) = PhasesSource(tmp_path, fps=4.0).videos
    assert (stated.phases == 0).sum() == 20


def test_a_stated_rate_goes_before_the_times_of_the_file(tmp_path: Path) -> None:
    path = write_uneven(tmp_path / "video.mp4")
    handle = VideoFile("video", path, stated_fps=4.0)
    times = frame_times(handle)
    assert times is not None and times.starts is None and (handle.fps, times.duration) == (4.0, 25.0)
    (video,) = PhasesSource(tmp_path, fps=4.0, **_labelled(tmp_path, "segments")).videos
    assert (video.phases == 0).sum() == 20 and video.handle.fps == 4.0


def test_labels_that_are_longer_than_the_video_are_found_by_true_time(tmp_path: Path) -> None:
    write_uneven(tmp_path / "video.mp4")
    _labelled(tmp_path, "segments")
    (tmp_path / "annotations/video.csv").write_text("start_seconds,end_seconds,phase\n0,5,A\n5,40,B\n")
    with pytest.raises(DataError, match=r"up to 40 s, video has 100 frames at 4 fps on average = 25 s"):
        PhasesSource(tmp_path)


def test_a_cut_recording_is_noted_logged_and_named_beside_labels_that_do_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = cut_short(write_video(tmp_path / "whole" / "video.mkv", 200, codec="libx264"))
    (tmp_path / "data").mkdir()
    cut.rename(tmp_path / "data" / "video.mkv")
    (tmp_path / "data/video.csv").write_text("start_seconds,end_seconds,phase\n0,2,A\n2,4,B\n")
    with caplog.at_level(logging.WARNING):
        source = PhasesSource(tmp_path / "data")
    assert "announces 8.0 s" in source.incomplete["video"]
    assert any("1 video is incomplete" in note and "announces 8.0 s" in note for note in source.notes)
    assert any("is incomplete" in record.message and "are missing" in record.message for record in caplog.records)
    (tmp_path / "data/video.csv").write_text("start_seconds,end_seconds,phase\n0,2,A\n2,8,B\n")
    assert "video.csv continues after its end" in PhasesSource(tmp_path / "data").incomplete["video"]
    (tmp_path / "data/video.csv").write_text("start_seconds,end_seconds,phase\n0,2,A\n2,12,B\n")
    with pytest.raises(DataError, match=r"the file announces 8\.0 s, but only 4\.\d s can be decoded"):
        PhasesSource(tmp_path / "data")


@pytest.mark.parametrize("segments", [None, 2])
def test_samples_of_cut_recordings_say_so(tmp_path: Path, segments: int | None) -> None:
    """In training and in evaluation, and the collated batch hands it on to the list."""
    write_video(tmp_path / "video.avi", 200)
    cut_short(tmp_path / "video.avi").replace(tmp_path / "video.avi")

    class Source(list):  # type: ignore[type-arg]
        name = "films"

    write_video(tmp_path / "whole.avi", 20)
    source = Source(VideoFile(name, tmp_path / f"{name}.avi") for name in ("video", "whole"))
    dataset = SampleDataset(source, num_frames=2, train=segments is None, num_segments=segments)
    found = [dataset[0, row] for row in (0, 1)]
    views = [view for item in found for view in (item if isinstance(item, list) else [item])]
    listed = {file for view in views for file in view.meta.get("incomplete", ())}
    ((path, reason, key),) = listed
    assert (path, key) == (str(tmp_path / "video.avi"), "video") and "announces 8.0 s" in reason
    assert all(not view.meta["skipped"] for view in views)


def test_a_look_at_ucf101_lists_cut_recordings(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "Sew" / "v_Sew_g01_c01.avi", 200)
    cut = cut_short(whole)
    cut.replace(whole)
    write_video(tmp_path / "Sew" / "v_Sew_g02_c01.avi", 20)
    (tmp_path / "classInd.txt").write_text("1 Sew\n")
    (tmp_path / "trainlist01.txt").write_text("Sew/v_Sew_g01_c01.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("Sew/v_Sew_g02_c01.avi 1\n")
    subject = Subject("train", Ucf101Source(tmp_path, split="train"), 1, 1, 8)
    tally = first_look(subject, frames=4)
    (found,) = tally.incomplete
    assert found.path == str(whole) and "announces 8.0 s" in found.reason and not tally.unusable
    assert "1 video is used up to where it ends" in "\n".join(describe_look(subject, tally))


def test_what_is_missing_is_said_once_per_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut = cut_short(write_video(tmp_path / "video.mkv", 200, codec="libx264"))
    with caplog.at_level(logging.WARNING):
        cached_info(cut)
        cached_info(cut)
    assert len(caplog.records) == 1

"""Frames at a rate, against transformers' own sampling and against the times of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from helpers.videos import write_video
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.clip_sampling_m33d import frames_at_rate
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import read_video
from m33d_hf.modeling.video_times_m33d import FrameTimes


@pytest.mark.parametrize(("length", "fps"), [(8, 4.0), (30, 25.0), (75, 30.0), (300, 29.97)])
@pytest.mark.parametrize("rate", [0.5, 1.0, 3.0, 4.0])
def test_a_rate_takes_the_frames_that_transformers_takes(length: int, fps: float, rate: float) -> None:
    metadata = VideoMetadata(length, fps=fps)
    expected = BaseVideoProcessor().sample_frames(metadata, fps=rate)
    found = M33DVideoProcessor().sample_frames(metadata, fps=rate)
    assert found.dtype == np.int64 and len(found) == max(len(expected), 1)
    # transformers spreads the whole number of frames over the video, so that it may be less than a step later.
    assert all(0 <= theirs - ours <= fps / rate for ours, theirs in zip(found.tolist(), expected.tolist()))
    np.testing.assert_allclose(found / fps, np.arange(len(found)) / rate, atol=1 / fps)


def test_uneven_frames_are_those_that_are_shown() -> None:
    starts = np.array([0.0, 0.1, 0.2, 1.0, 1.05, 1.9])
    times = FrameTimes(6, 3.0, starts, end=2.0)
    shown = [int(np.flatnonzero(starts <= moment)[-1]) for moment in (0.0, 0.5, 1.0, 1.5)]
    assert frames_at_rate(6, 2.0, times).tolist() == shown == [0, 2, 3, 4]
    assert frames_at_rate(1, 2.0, FrameTimes(1, 25.0)).tolist() == [0]


def test_rates_that_cannot_be() -> None:
    processor = M33DVideoProcessor(num_frames=4)
    known = VideoMetadata(8, fps=4.0)
    with pytest.raises(DataError, match=r"fps=3 requires the times"):
        processor.sample_frames(VideoMetadata(8), fps=3)
    with pytest.raises(DataError, match="above the frame rate of the video, 4 frames per second"):
        processor.sample_frames(known, fps=5)
    with pytest.raises(ConfigError, match="above 0"):
        processor.sample_frames(known, fps=-1.0)
    for name, value in {"num_frames": 3, "frame_stride": 2, "clip_sampling": "span"}.items():
        with pytest.raises(ConfigError, match=f"fps and {name} exclude each other"):
            processor.sample_frames(known, fps=2, **{name: value})
    with pytest.raises(ConfigError, match="fps and num_frames exclude"):
        M33DVideoProcessor(num_frames=4, fps=2.0).sample_frames(known)
    with pytest.raises(TypeError):
        processor.sample_frames(known, frames=3)
    assert len(processor.sample_frames(known, fps=2)) == 4 and len(processor.sample_frames(known)) == 4


def test_a_rate_holds_for_files_clips_and_saved_processors(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    processor = M33DVideoProcessor(size=32, num_frames=4)
    frames = read_video(path, range(30))
    expected = processor(frames[[0, 5, 10, 15, 20, 25]], return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(path, fps=5.0, return_tensors="pt")["pixel_values"], expected)
    told = {"total_num_frames": 30, "fps": 25.0}
    for metadata in (told, [told], [[told]], VideoMetadata(**told)):
        found = processor(frames, fps=5.0, do_sample_frames=True, video_metadata=metadata, return_tensors="pt")
        assert torch.equal(found["pixel_values"], expected)
    M33DVideoProcessor(size=32, fps=5.0).save_pretrained(tmp_path)
    again = M33DVideoProcessor.from_pretrained(tmp_path)
    assert torch.equal(again(path, return_tensors="pt")["pixel_values"], expected)
    assert again(path, num_frames=3, return_tensors="pt")["pixel_values"].shape[1] == 3  # a call's own word counts

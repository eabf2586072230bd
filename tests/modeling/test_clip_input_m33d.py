"""Clips as users give them: bad ones, metadata, and videos of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from helpers.videos import write_video
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.clip_input_m33d import as_videos
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import read_video


def _clip(frames: int = 4, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 20, 30, channels), dtype=np.uint8)


def test_which_form_is_meant() -> None:
    picture = Image.fromarray(_clip()[0])
    for given in (_clip(), [picture] * 3, picture, [_clip()], "a.mp4", [[picture]]):
        assert len(as_videos(given)) == 1
    for given in ([[picture] * 3] * 2, ["a", "b"], _clip()[None].repeat(2, axis=0)):
        assert len(as_videos(given)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (_clip().astype(np.float32) / 255, r"Multiply \[0, 1\] floats by 255"),
        (np.full((2, 20, 30, 3), np.nan, np.float32), "uint8 RGB"),
        (_clip().astype(np.uint16), "uint16"),
        ([Image.fromarray(np.full((9, 9), 4000, np.uint16))] * 2, "'I;16', more than 8 bits; is it a depth map"),
        (np.zeros((2, 0, 30, 3), np.uint8), "no pixels: 0 x 30"),
        (np.zeros((0, 20, 30, 3), np.uint8), "at least one frame"),
        ([], "expected videos"),
        (None, "neither a video nor depth is given: pass one of them, or both"),
        ([_clip()[0], _clip()[0, :9]], "differ in size"),
        (_clip()[..., :2], r"shape \(4, 20, 30, 2\)"),
    ],
)
def test_clips_that_would_come_out_wrong_are_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        M33DVideoProcessor(size=16)(given)


def test_grey_and_alpha() -> None:
    processor = M33DVideoProcessor(size=16)
    for given, plain in (
        (_clip(channels=4), _clip(channels=4)[..., :3]),
        (_clip(channels=1), _clip(channels=1).repeat(3, axis=-1)),
        ([Image.fromarray(frame) for frame in _clip(channels=4)], _clip(channels=4)[..., :3]),
        (list(_clip(channels=1)[..., 0]), _clip(channels=1).repeat(3, axis=-1)),
        (list(torch.from_numpy(_clip(channels=1)[..., 0])), _clip(channels=1).repeat(3, axis=-1)),
    ):
        expected = processor(plain, return_tensors="pt")["pixel_values"]
        assert torch.equal(processor(given, return_tensors="pt")["pixel_values"], expected)


def test_clips_of_several_sizes_are_each_brought_to_the_canvas() -> None:
    clips = [_clip(), np.ascontiguousarray(_clip()[:, :11, :25])]
    processor = M33DVideoProcessor(size=16)
    alone = [processor(clip, return_tensors="pt")["pixel_values"] for clip in clips]
    assert torch.equal(processor(clips, return_tensors="pt")["pixel_values"], torch.cat(alone))
    with pytest.raises(DataError, match="pixels cannot be stacked"):
        processor(clips, do_resize=False, return_tensors="pt")
    assert len(processor(clips, do_resize=False)["pixel_values"]) == 2


def test_a_video_of_one_frame_stands_still_as_in_evaluation(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 1)
    processor = M33DVideoProcessor(size=32, num_frames=4, frame_stride=2)
    frame = processor(read_video(path, [0]), return_tensors="pt")["pixel_values"]
    assert frame.shape == (1, 1, 3, 32, 32)
    for options in ({}, {"num_frames": 4}):
        found = processor(path, **options, return_tensors="pt")["pixel_values"]
        assert torch.equal(found, frame.expand(1, 4, 3, 32, 32))
    # What the pipeline asks for a picture that it is given.
    picture = Image.fromarray(read_video(path, [0])[0])
    found = processor(picture, num_frames=4, do_sample_frames=True, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, frame.expand(1, 4, 3, 32, 32))


def test_frames_that_a_call_asks_for_must_be_there() -> None:
    processor = M33DVideoProcessor(size=16, num_frames=6, do_sample_frames=True)
    with pytest.raises(DataError, match=r"5 frames are requested, but the clip has 4.*Leave num_frames"):
        processor(_clip(), num_frames=5)
    # As the processor's own number it is evaluation's, which repeats the last frame.
    found = processor(_clip(), return_tensors="pt", return_metadata=True)
    assert found["video_metadata"][0].frames_indices == [0, 1, 2, 3, 3, 3]


def test_metadata_of_clips_is_kept_and_checked(tmp_path: Path) -> None:
    processor = M33DVideoProcessor(size=16, return_metadata=True)
    clips = [_clip(), _clip(3)]
    told: list[Any] = [VideoMetadata(4, fps=2.0), None]
    facts = processor(clips, video_metadata=told)["video_metadata"]
    assert facts[0].timestamps == [0.0, 0.5, 1.0, 1.5] and facts[1].fps is None and facts[1].total_num_frames == 3
    with pytest.raises(DataError, match="1 video_metadata for 2 videos"):
        processor(clips, video_metadata=[{"total_num_frames": 4}])
    with pytest.raises(DataError, match="states 9 frames, but the clip has 4"):
        processor(_clip(), video_metadata={"total_num_frames": 9})
    with pytest.raises(ConfigError, match="frames_per_second"):
        processor(_clip(), video_metadata={"total_num_frames": 4, "frames_per_second": 3})
    with pytest.raises(ConfigError, match="video_metadata is 4"):
        processor(_clip(), video_metadata=4)
    with pytest.raises(ConfigError, match="has its own times"):
        processor(write_video(tmp_path / "a.mp4", 3), video_metadata={"total_num_frames": 3})

"""Frames pushed one by one: the same as the whole video at once, constant memory, bad frames refused."""

from __future__ import annotations

import math
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.feeds import causal_model, detector, held_by_package, pictures, same
from helpers.phases_in_memory import SIDE
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError, DataError
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.timeline import ActionDetector


def _folder(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder


TEMPORAL: list[dict[str, Any]] = [
    {"temporal_model": "gru"},
    {"temporal_model": "tcn", "temporal_tcn_layers": 3, "temporal_tcn_stages": 2},
    {"temporal_model": "transformer", "temporal_attention_window": 3, "temporal_num_attention_heads": 2},
]


def _pushed(live: ActionDetector, frames: list[np.ndarray], first: int = 0, rate: float = 10.0) -> list[ClipPrediction]:
    found = [live.push(frame, (first + number) / rate) for number, frame in enumerate(frames)]
    return [clip for clip in found if clip is not None]


@pytest.mark.parametrize("stride", [3, 4, 6])  # overlapping, one after the other, with frames in no clip
@pytest.mark.parametrize("length", [23, 24])
@pytest.mark.parametrize("temporal", TEMPORAL, ids=lambda fields: fields["temporal_model"])
def test_pushed_frames_give_what_the_whole_video_gives(
    tmp_path: Path, stride: int, length: int, temporal: dict[str, Any]
) -> None:
    frames, live = pictures(length), detector(temporal_clip_stride=stride, **temporal)
    offline = live.detect(_folder(tmp_path / "video", frames), fps=10.0)
    found = _pushed(live, frames)
    assert not any(clip.cut for clip in found)
    found += live.live.finish()
    same(found, offline.clips)
    assert [clip.start_time for clip in found] == pytest.approx([clip.start_time for clip in offline.clips])
    assert [clip.stop_time for clip in found] == pytest.approx([clip.stop_time for clip in offline.clips])
    assert all(clip.cut == (clip.stop - clip.start < 4) for clip in found)


def test_finishing_changes_nothing() -> None:
    frames, live, other = pictures(23), detector(temporal_clip_stride=3), detector(temporal_clip_stride=3)
    found = _pushed(live, frames[:11])
    assert [clip.cut for clip in live.live.finish()] == [True]
    same([*found, *_pushed(live, frames[11:], 11)], _pushed(other, frames))


def test_an_unreadable_frame_makes_its_clip_unreadable(tmp_path: Path) -> None:
    frames, live = pictures(16), detector()
    folder = _folder(tmp_path / "video", frames)
    (folder / "6.png").write_bytes(b"no picture")
    offline = live.detect(folder)
    given: list[Any] = [*frames[:6], None, *frames[7:]]
    same(_pushed(live, given), offline.clips)
    assert [clip.readable for clip in offline.clips] == [True, False, True, True]


def test_the_latency_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    live = detector()
    encoded = live.encoded

    def slow(clips: Any) -> Any:
        time.sleep(0.2)
        return encoded(clips)

    monkeypatch.setattr(live, "encoded", slow)
    begun = time.monotonic()
    (clip,) = _pushed(live, pictures(4))
    assert clip.latency is not None and 0.2 <= clip.latency <= time.monotonic() - begun


def test_a_model_of_both_directions_says_how_to_get_another() -> None:
    both = ActionDetector(causal_model(temporal_causal=False))
    with pytest.raises(ConfigError, match=r"run_action_detection\.py with --model\.temporal_causal true"):
        both.push(pictures(1)[0], 0.0)
    with pytest.raises(ConfigError, match="temporal_causal"):
        both.follow("rtsp://127.0.0.1/none")


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf, "1.0", None, True])
def test_a_time_that_is_no_number_is_refused_and_the_feed_goes_on(moment: Any) -> None:
    frames, live, other = pictures(8), detector(), detector()
    found = _pushed(live, frames[:5])
    with pytest.raises(DataError, match=r"which is no number of seconds\. Leave the frame out"):
        live.push(frames[5], moment)
    same([*found, *_pushed(live, frames[5:], 5)], _pushed(other, frames))


@pytest.mark.parametrize("moment", [0.39, 0.4, -1.0])
def test_times_that_do_not_go_on_are_refused(moment: float) -> None:
    live = detector()
    _pushed(live, pictures(5))
    with pytest.raises(DataError, match=rf"the time {moment:.3f} s, but that of the one before is 0\.400 s"):
        live.push(pictures(1)[0], moment)
    assert live.push(pictures(1)[0], 0.5) is None and live.live.length == 6


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((SIDE, SIDE + 2, 3), np.uint8), "a frame is 16 x 18 pixels, but the frames before are 16 x 16"),
        (np.zeros((SIDE, SIDE), np.uint8), r"a frame is uint8 \(16, 16\), expected a numpy array \(H, W, 3\)"),
        (np.zeros((SIDE, SIDE, 3), np.float32), "a frame is float32"),
        (torch.zeros(3, SIDE, SIDE), "a frame is Tensor"),
    ],
)
def test_a_picture_of_another_kind_is_refused(frame: Any, words: str) -> None:
    live = detector()
    _pushed(live, pictures(2))
    with pytest.raises(DataError, match=words):
        live.push(frame, 0.2)
    assert live.live.length == 2


def test_a_hole_between_frames_is_told_with_its_clip() -> None:
    live, frames = detector(), pictures(20)
    found = [live.push(frame, number / 10 + (3.0 if number >= 13 else 0.0)) for number, frame in enumerate(frames)]
    clips = [clip for clip in found if clip is not None]
    assert [len(clip.gaps) for clip in clips] == [0, 0, 0, 1, 0]
    (gap,) = clips[3].gaps
    assert (gap.start, gap.stop) == (pytest.approx(1.3), pytest.approx(4.3))
    assert gap.reason == "there are no frames from 1.30 to 4.30 s"
    assert clips[3].start_time == pytest.approx(1.2) and clips[3].stop_time == pytest.approx(4.6)


def test_a_hole_among_the_first_frames_is_told_and_odd_first_steps_are_soon_forgotten() -> None:
    for first, told in ((3, ["there are no frames from 0.30 to 3.30 s"]), (2, [])):  # of one step nothing is usual
        live = detector()
        clips = [live.push(frame, n / 10 + (3.0 if n >= first else 0.0)) for n, frame in enumerate(pictures(20))]
        assert [gap.reason for clip in clips if clip is not None for gap in clip.gaps] == told
    live = detector()
    odd = [0.0, 0.001, 0.002, *(0.1 * n for n in range(1, 18))]  # the first time stamps of some senders
    for number, frame in enumerate(pictures(20)):
        live.push(frame, odd[number])
    assert live.live.clock.usual == pytest.approx(0.1) and live.live.clock.add(1.8) is None


def test_memory_is_the_same_after_thousands_of_frames() -> None:
    live, frames = detector(temporal_clip_stride=50), pictures(10)
    # Without its first clips, in which everything is made for the first time.
    held: list[int] = []
    tracemalloc.start()
    try:
        for number in range(30_000):
            live.push(frames[number % 10], number / 25)
            if number in (10_000, 29_999):
                held.append(held_by_package())
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 100_000, held


@pytest.mark.parametrize("stride", [3, 4])
@pytest.mark.parametrize("cut", [0, 1, 10, 12])
@pytest.mark.parametrize("temporal", TEMPORAL, ids=lambda fields: fields["temporal_model"])
def test_a_saved_feed_goes_on_elsewhere(tmp_path: Path, stride: int, cut: int, temporal: dict[str, Any]) -> None:
    frames = pictures(23)
    one, other, whole = (detector(temporal_clip_stride=stride, **temporal) for _ in range(3))
    found = _pushed(one, frames[:cut])
    one.live.leave_out("order", "a frame came too late")
    one.save_live(tmp_path / "feed.safetensors")
    feed = other.load_live(tmp_path / "feed.safetensors")
    assert (feed.length, feed.clock.last) == (one.live.length, one.live.clock.last)
    rest = _pushed(other, frames[cut:], cut)
    assert [gap.reason for gap in rest[0].gaps] == ["a frame came too late"]
    same([*found, *rest, *other.live.finish()], [*_pushed(whole, frames), *whole.live.finish()])


def test_a_state_of_another_model_or_none_is_refused(tmp_path: Path) -> None:
    live, path = detector(), tmp_path / "feed.safetensors"
    _pushed(live, pictures(6))
    live.save_live(path)
    with pytest.raises(CheckpointError, match=r"under another model \(different: model, rule\)"):
        detector(temporal_clip_stride=3, temporal_hidden_size=9).load_live(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"recording")
    data[place : place + 2] = b"xx"
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="not the state of a feed"):
        live.load_live(path)
    with pytest.raises(CorruptFileError, match="does not exist"):
        live.load_live(tmp_path / "none.safetensors")

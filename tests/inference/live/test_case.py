"""Cameras of a case pushed frame by frame: the same as their recordings at once, and what happens when one is away."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.feeds import detector, held_by_package, same
from helpers.videos import numbered_frame, write_video
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError, DataError
from m33d_hf.inference.live.clips import ClipPrediction
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.modeling.video_reading_m33d import probe_video, read_video
from m33d_hf.training.tasks.detection.feature_extraction import encode

SIZE = (32, 48)
KINDS: list[dict[str, Any]] = [{}, {"temporal_cameras": ["right", "left"]}]
NAMED = ["mean", "side by side"]


def film(path: Path, frames: int, first: int = 0, rate: int = 25, **options: Any) -> Path:
    """A video whose frames are numbered from `first`."""
    pixels = [numbered_frame(first + number, SIZE) for number in range(frames)]
    return write_video(path, frames, rate=rate, size=SIZE, frames=pixels, **options)


def moments(paths: Mapping[str, Path], offsets: Mapping[str, float]) -> list[tuple[float, str, np.ndarray, float]]:
    """(moment on the clock of the case, camera, frame, its own time) of all cameras, as they would come."""
    found = []
    for name, path in paths.items():
        times = probe_video(path).times
        for number, frame in enumerate(read_video(path, range(times.count))):
            own = float(times.at(number))
            found.append((own + offsets.get(name, 0.0), name, frame, own))
    return sorted(found, key=lambda each: each[:2])


def pushed(live: ActionDetector, frames: Sequence[tuple[float, str, np.ndarray, float]]) -> list[ClipPrediction]:
    """What comes out while the frames go in, by their own times."""
    return [clip for _, name, frame, own in frames for clip in live.push(frame, own, camera=name)]


OTHERS: list[tuple[str, int, int, float]] = [  # frames, rate, offset of the second camera
    ("together", 41, 25, 0.0),
    ("began half a frame later", 41, 25, 0.02),
    ("began earlier", 44, 25, -0.13),
    ("began late and ended early", 12, 25, 0.5),
    ("another rate", 15, 10, 0.07),
    ("twice the rate", 70, 50, 0.0),
    ("half of a clip", 22, 25, 0.0),
]


@pytest.mark.parametrize("kind", KINDS, ids=NAMED)
@pytest.mark.parametrize("stride", [3, 6])  # overlapping, and with frames in no clip
@pytest.mark.parametrize(("frames", "rate", "offset"), [each[1:] for each in OTHERS], ids=[each[0] for each in OTHERS])
def test_pushed_frames_of_two_cameras_give_what_their_recordings_give(
    tmp_path: Path, kind: dict[str, Any], stride: int, frames: int, rate: int, offset: float
) -> None:
    paths = {"left": film(tmp_path / "l.mp4", 42), "right": film(tmp_path / "r.mp4", frames, 9, rate)}
    live, offsets = detector(temporal_clip_stride=stride, **kind), {"right": offset}
    offline = live.detect(paths, offsets=offsets)
    live.begin(["left", "right"], offsets, wait=2.0)
    found = pushed(live, moments(paths, offsets))
    assert not any(clip.cut for clip in found)
    found += live.case.finish()
    same(found, offline.clips)
    assert [clip.cameras for clip in found] == [clip.cameras for clip in offline.clips]
    assert [clip.start_time for clip in found] == pytest.approx([clip.start_time for clip in offline.clips])
    assert [clip.stop_time for clip in found] == pytest.approx([clip.stop_time for clip in offline.clips])


@pytest.mark.parametrize("kind", KINDS, ids=NAMED)
@pytest.mark.parametrize("cut", [0, 1, 17, 40])
def test_a_saved_case_goes_on_elsewhere(tmp_path: Path, kind: dict[str, Any], cut: int) -> None:
    paths = {"left": film(tmp_path / "l.mp4", 30), "right": film(tmp_path / "r.mp4", 12, 9, 10)}
    offsets = {"right": 0.1}
    one, other, whole = (detector(temporal_clip_stride=3, **kind) for _ in range(3))
    one.begin(["left", "right"], offsets)
    whole.begin(["left", "right"], offsets)
    frames = moments(paths, offsets)
    found = pushed(one, frames[:cut])
    one.case.cameras["right"].leave_out("order", "a frame came too late")
    one.save_live(tmp_path / "state")
    case = other.load_case(tmp_path / "state")
    assert (case.length, case.lead, case.first_open) == (one.case.length, one.case.lead, one.case.first_open)
    rest = [*pushed(other, frames[cut:]), *other.case.finish()]
    assert [gap.reason for gap in rest[0].gaps] == ["camera right: a frame came too late"]
    same([*found, *rest], [*pushed(whole, frames), *whole.case.finish()])
    with pytest.raises(CorruptFileError, match="is not the state of a feed but of a case: take it up with load_case"):
        detector().load_live(tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"state of a case under another model \(different: model\)"):
        detector(temporal_clip_stride=3, temporal_hidden_size=9, **kind).load_case(tmp_path / "state")


def _numbered(count: int, first: int = 0) -> list[np.ndarray]:
    return [numbered_frame(first + number, SIZE) for number in range(count)]


def _feed(live: ActionDetector, camera: str, frames: Sequence[np.ndarray], first: float, rate: float = 25.0) -> Any:
    return [clip for n, frame in enumerate(frames) for clip in live.push(frame, first + n / rate, camera=camera)]


def _alternating(live: ActionDetector, cameras: Sequence[str], numbers: range, start: float = 0.0) -> Any:
    found = []
    for number in numbers:
        for shift, name in enumerate(cameras):
            found += live.push(numbered_frame(number + 9 * shift, SIZE), start + number / 25, camera=name)
    return found


def test_one_camera_of_a_case_is_that_camera_to_the_bit() -> None:
    """The right value by a second way: clips by hand, one at a time, through the parts of the model."""
    frames, one, other = _numbered(22), detector(temporal_clip_stride=3), detector(temporal_clip_stride=3)
    plain = [clip for number, frame in enumerate(frames) if (clip := one.push(frame, number / 25)) is not None]
    other.begin(["left"])
    found = _feed(other, "left", frames, 0.0)
    state, wanted = None, []
    for start in range(0, 19, 3):
        picked = torch.stack([one.prepared(frames[start + offset]) for offset in (0, 2)])[None]
        features, logits = encode(one.model, picked, "cpu")
        with torch.inference_mode():
            row, state = one.model.step(features, state)
        wanted.append((row[0].softmax(-1).numpy(), logits[0].softmax(-1).numpy()))
    assert len(found) == len(plain) == len(wanted) == 7
    for one_clip, other_clip, (probabilities, clipwise) in zip(plain, found, wanted, strict=True):
        for clip in (one_clip, other_clip):
            assert np.array_equal(clip.probabilities, probabilities) and np.array_equal(clip.clipwise, clipwise)
        assert (one_clip.start_time, one_clip.stop_time) == (other_clip.start_time, other_clip.stop_time)
        assert (one_clip.cameras, other_clip.cameras) == ((), ("left",))


def test_the_mean_and_the_features_side_by_side_are_those_of_the_cameras_by_hand() -> None:
    for kind in KINDS:
        live = detector(**kind)
        live.begin(["left", "right"])
        found, state = _alternating(live, ["left", "right"], range(16)), None
        for clip in found:
            rows = []
            for shift in (0, 9):
                picked = [live.prepared(numbered_frame(clip.start + shift + n, SIZE)) for n in (0, 2)]
                rows.append(encode(live.model, torch.stack(picked)[None], "cpu")[0])
            right_left = [rows[1], torch.ones(1, 1), rows[0], torch.ones(1, 1)]
            joined = torch.cat(right_left, 1) if kind else (rows[0] + rows[1]) / 2
            with torch.inference_mode():
                row, state = live.model.step(joined, state)
            np.testing.assert_allclose(clip.probabilities, row[0].softmax(-1).numpy(), atol=1e-6)
        assert len(found) == 4


@pytest.mark.parametrize("kind", KINDS, ids=NAMED)
@pytest.mark.parametrize("away", ["left", "right"])
def test_a_camera_that_is_away_is_told_once_and_takes_part_again(kind: dict[str, Any], away: str) -> None:
    live, there = detector(**kind), "right" if away == "left" else "left"
    live.begin(["left", "right"], wait=0.5)
    found = _alternating(live, ["left", "right"], range(20))
    found += _alternating(live, [there], range(20, 60))
    found += _alternating(live, ["left", "right"], range(60, 80))
    both = ("left", "right")
    assert [(clip.start, clip.stop) for clip in found] == [(start, start + 4) for start in range(0, 80, 4)]
    assert [clip.cameras for clip in found] == [both] * 5 + [(there,)] * 10 + [both] * 5
    assert [clip.start_time for clip in found] == pytest.approx([0.16 * n for n in range(20)])
    told = [gap.reason for clip in found for gap in clip.gaps if "there are no frames" not in gap.reason]
    assert told == [
        f"camera {away}: its frames lie more than 0.5 s behind; it is missing until it takes part again",
        f"camera {away}: it takes part again",
    ]


def test_clips_are_held_no_longer_than_the_time_to_wait() -> None:
    live = detector()
    live.begin(["left", "right"], wait=0.5)
    assert _alternating(live, ["left", "right"], range(8)) and _alternating(live, ["left"], range(8, 20)) == []
    # The last frame of the right one ended at 0.32 s: it is left at the first one that begins behind 0.82 s.
    clips = [_alternating(live, ["left"], range(number, number + 1)) for number in range(20, 22)]
    assert [len(each) for each in clips] == [0, 3]


def test_a_camera_that_lags_is_missing_and_told_once_and_not_with_every_frame() -> None:
    live = detector()
    live.begin(["left", "right"], wait=0.5)
    found = []
    for number in range(60):  # the clock of the right one is ten seconds late from the ninth frame on
        found += live.push(numbered_frame(number, SIZE), number / 25 + (10.0 if number >= 8 else 0.0), camera="left")
        found += live.push(numbered_frame(number, SIZE), number / 25, camera="right")
    told = [gap.reason for clip in found for gap in clip.gaps if "right" in gap.reason]
    assert told == ["camera right: its frames lie more than 0.5 s behind; it is missing until it takes part again"]
    assert [len(clip.cameras) for clip in found] == [2] * 2 + [1] * 13 and len(live.case.open) == 0


def test_a_camera_that_never_begins_leaves_the_lead_to_the_next(tmp_path: Path) -> None:
    alone, live = detector(), detector()
    live.begin(["left", "right"], wait=0.5)
    found = [*_feed(live, "right", _numbered(30), 7.0), *live.case.finish()]
    wanted = [alone.push(frame, number / 25) for number, frame in enumerate(_numbered(30))]
    same(found, [*(clip for clip in wanted if clip is not None), *alone.live.finish()])
    assert live.case.lead == "right" and {clip.cameras for clip in found} == {("right",)}
    assert [gap.reason for gap in found[0].gaps] == [
        "camera left: it has not begun for 0.5 s; it is missing until it takes part again"
    ]
    # At once, when the end comes before that.
    short = detector()
    short.begin(["left", "right"], wait=100.0)
    assert _feed(short, "right", _numbered(30), 7.0) == []
    same(short.case.finish(), found)


def test_where_the_leading_camera_ends_first_the_case_goes_on(tmp_path: Path) -> None:
    """Offline a case ends with its first camera; what that cuts short is the same here, and more follows."""
    paths, live = {"left": film(tmp_path / "l.mp4", 18), "right": film(tmp_path / "r.mp4", 40, 9)}, detector()
    live.begin(["left", "right"], {}, wait=0.3)
    found, offline = pushed(live, moments(paths, {})), live.detect(paths).clips
    assert [clip.stop for clip in found] == list(range(4, 41, 4)) and [clip.stop for clip in offline][-2:] == [16, 18]
    for one, other in zip(found, offline, strict=False):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert [clip.cameras for clip in found[3:6]] == [("left", "right"), ("left", "right"), ("right",)]


def test_frames_of_the_leading_camera_that_come_after_the_case_went_on_are_left_out() -> None:
    live = detector()
    live.begin(["left", "right"], wait=0.3)
    _alternating(live, ["left", "right"], range(8))
    left = live.case.cameras["left"]
    before = left.arrived
    _alternating(live, ["right"], range(8, 30))
    # Where its clock is now, and when that was, so that it goes on rightly when it is taken up again.
    assert left.length == 28 and left.clock.last == pytest.approx(27 / 25)
    assert before is not None and left.arrived == pytest.approx(before + 20 / 25)
    with pytest.raises(DataError, match="a frame came after the case had gone on without it"):
        live.push(numbered_frame(8, SIZE), 8 / 25, camera="left")


def test_a_hole_in_a_further_camera_is_missing_and_not_what_was_shown_long_ago(tmp_path: Path) -> None:
    """Live and recorded: the clips inside of the hole are without it."""
    ticks = [*range(0, 80, 4), *range(200, 280, 4)]  # of 10 ms; nothing from 0.8 to 2 s
    right = film(tmp_path / "r.mkv", 40, 9, pts=ticks)
    paths, live = {"left": film(tmp_path / "l.mp4", 70), "right": right}, detector()
    offline = live.detect(paths)
    live.begin(["left", "right"], {}, wait=5.0)
    found = [*pushed(live, moments(paths, {})), *live.case.finish()]
    same(found, offline.clips)
    shown = [len(clip.cameras) for clip in offline.clips]
    assert shown == [len(clip.cameras) for clip in found]
    assert shown == [2] * 5 + [1] * 7 + [2] * 6  # half of a clip counts


@pytest.mark.parametrize("before", [3, 5, 8])
def test_a_hole_among_the_first_frames_of_a_camera_is_one(tmp_path: Path, before: int) -> None:
    ticks = [*range(0, 4 * before, 4), *range(60, 140, 4)]  # of 10 ms; nothing up to 0.6 s
    paths = {"left": film(tmp_path / "l.mp4", 36), "right": film(tmp_path / "r.mkv", before + 20, 9, pts=ticks)}
    live = detector()
    live.begin(["left", "right"], {}, wait=5.0)
    found, offline = [*pushed(live, moments(paths, {})), *live.case.finish()], live.detect(paths).clips
    same(found, offline)
    assert [clip.cameras for clip in found] == [clip.cameras for clip in offline]
    assert len(found[2].cameras) == 1 and len(found[4].cameras) == 2


@pytest.mark.parametrize("kind", KINDS, ids=NAMED)
@pytest.mark.parametrize("wait", [0.5, 30.0])
@pytest.mark.parametrize("before", [22, 20], ids=["within a clip", "between two clips"])
@pytest.mark.parametrize("back", [-1, 1], ids=["the lead comes back last", "the lead comes back first"])
def test_a_pause_of_all_cameras_is_a_hole_and_no_clips(
    tmp_path: Path, kind: dict[str, Any], wait: float, before: int, back: int
) -> None:
    left = [*range(0, 4 * before, 4), *range(400, 488, 4)]  # of 10 ms; nothing up to 4 s
    right = [*range(0, 4 * before, 4), *range(400 + back, 488, 4)]
    films = {"left": (len(left), 0, left), "right": (len(right), 9, right)}
    paths = {name: film(tmp_path / f"{name}.mkv", count, at, pts=pts) for name, (count, at, pts) in films.items()}
    live = detector(**kind)
    offline = live.detect(paths)
    live.begin(["left", "right"], {}, wait)
    found = [*pushed(live, moments(paths, {})), *live.case.finish()]
    same(found, offline.clips)
    assert [clip.cameras for clip in found] == [clip.cameras for clip in offline.clips]
    assert [len(clip.cameras) for clip in found][:5] == [2] * 5 and len(found) == 11
    times = {name: [each[::2] for each in moments({name: path}, {})] for name, path in paths.items()}
    sources = {name: ((frame, moment) for moment, frame in each) for name, each in times.items()}
    same(list(live.follow(sources, offsets={}, wait=wait)), offline.clips)


def test_a_case_that_is_taken_up_after_a_long_break_has_no_clips_of_the_break(tmp_path: Path) -> None:
    for cameras in (["left", "right"], ["right", "left"]):  # the order in which they come back
        live = detector()
        live.begin(["left", "right"], wait=0.5)
        found = _alternating(live, ["left", "right"], range(10))
        live.save_live(tmp_path / "state")
        live.load_case(tmp_path / "state")
        found += _alternating(live, cameras, range(10, 32), 60.0)
        assert [clip.start for clip in found] == list(range(0, 32, 4)) and all(clip.readable for clip in found)
        assert found[2].stop_time == pytest.approx(60.48) and max(clip.latency or 0.0 for clip in found) < 60
        assert {clip.cameras for clip in found[3:]} == {("left", "right")}


@pytest.mark.parametrize("first", [1, 2, 3, 5, 9, 30])
def test_a_time_stamp_far_ahead_is_a_hole_of_its_camera_alone(tmp_path: Path, first: int) -> None:
    """From the given frame on the clock of the right camera is an hour ahead; the left one leads, and ends first."""
    live, alone = detector(), detector()
    live.begin(["left", "right"], wait=0.5)
    alone.begin(["left"])
    found, wanted = [], []
    for number in range(120):
        if number < 100:
            found += live.push(numbered_frame(number, SIZE), number / 25, camera="left")
            wanted += alone.push(numbered_frame(number, SIZE), number / 25, camera="left")
        ahead = 3600.0 if number >= first else 0.0
        found += live.push(numbered_frame(number, SIZE), ahead + number / 25, camera="right")
        if number == 70:
            live.save_live(tmp_path / "state")
            live.load_case(tmp_path / "state")
    assert len(live.case.cameras["right"].kept) < 40, "no more than the time to wait is kept"
    found += live.case.finish()
    assert [(clip.start, clip.stop_time) for clip in found] == [(clip.start, clip.stop_time) for clip in wanted]
    assert all(clip.readable for clip in found) and not live.case.cameras["left"].away
    assert {clip.cameras for clip in found[first // 4 + 1 :]} == {("left",)}


def test_what_another_camera_shows_after_a_pause_of_all_goes_on_without_the_lead() -> None:
    live = detector()
    live.begin(["left", "right"], wait=0.5)
    found = _alternating(live, ["left", "right"], range(12))
    found += _alternating(live, ["right"], range(12, 40), 60.0)
    assert [clip.cameras for clip in found] == [("left", "right")] * 3 + [("right",)] * 7
    assert [clip.start_time for clip in found[2:5]] == pytest.approx([0.32, 60.48, 60.64])
    told = [gap.reason for clip in found for gap in clip.gaps]
    assert "camera left: there are no frames from 0.48 to 60.48 s" in told
    with pytest.raises(DataError, match="after the case had gone on without it"):
        live.push(numbered_frame(12, SIZE), 60.5, camera="left")


def test_a_clock_that_jumps_ahead_while_the_lead_is_away_does_not_lead_the_others_along() -> None:
    live = detector()
    live.begin(["left", "right", "top"], wait=0.5)
    found = _alternating(live, ["left", "right", "top"], range(20))
    for number in range(20, 100):
        found += live.push(numbered_frame(number, SIZE), 60.0 + number / 25, camera="top")
        found += live.push(numbered_frame(number, SIZE), number / 25, camera="right")
    assert [clip.stop_time for clip in found] == pytest.approx([0.16 * n for n in range(1, 26)])
    assert [clip.cameras for clip in found] == [("left", "right", "top")] * 5 + [("right",)] * 20


def test_times_of_another_clock_do_not_hold_a_push() -> None:
    live = detector()
    live.begin(["left", "right"])
    found = _alternating(live, ["left"], range(2)) + live.push(numbered_frame(0, SIZE), 1.7e9, camera="right")
    found += _alternating(live, ["left"], range(2, 60))
    assert [clip.cameras for clip in found] == [("left",)] * 15


def test_times_of_one_clock_place_the_cameras(tmp_path: Path) -> None:
    """Without offsets: the right camera began 0.3 s after the left one, by the clock that both go by."""
    live, other = detector(), detector()
    live.begin(["left", "right"])
    other.begin(["left", "right"], {"right": 0.3})
    frames = [(n / 25, "left", frame, n / 25) for n, frame in enumerate(_numbered(30))]
    frames += [(0.3 + n / 25, "right", frame, n / 25) for n, frame in enumerate(_numbered(23, 9))]
    frames.sort(key=lambda each: each[:2])
    found = [clip for moment, name, frame, _ in frames for clip in live.push(frame, 1.7e9 + moment, camera=name)]
    same(found, pushed(other, frames))
    assert [len(clip.cameras) for clip in found] == [1, 1, *[2] * 5]


def test_what_cannot_be_is_refused_and_the_case_goes_on() -> None:
    live = detector()
    with pytest.raises(ConfigError, match=r"no case by several cameras was begun; .* begin\(\['left', 'right'\]\)"):
        live.push(_numbered(1)[0], 0.0, camera="left")
    for cameras, more, words in (
        (["left", "left"], {}, "the cameras are .*; pass a list of names, each once"),
        ("left", {}, "pass a list of names"),
        ([1], {}, "pass a list of names"),
        ([], {}, "no video was given"),
        (["left"], {"offsets": {"right": 1.0}}, "offsets has a camera 'right', but the videos are by 'left'"),
        (["left"], {"offsets": {"left": float("inf")}}, "offset of camera 'left' is inf"),
        (["left"], {"wait": 0.0}, "wait is 0.0; it must be above 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            live.begin(cameras, **more)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by camera 'light', but the model was trained on the cameras right, left"):
        detector(**KINDS[1]).begin(["light"])
    with pytest.raises(ConfigError, match="looks back only"):
        detector(temporal_causal=False).begin(["left"])
    live.begin(["left", "right"])
    with pytest.raises(ConfigError, match=r"no camera 'rigth'; the case was begun with 'left', 'right'.*'right'"):
        live.push(_numbered(1)[0], 0.0, camera="rigth")
    with pytest.raises(ConfigError, match=r"begun with the cameras left, right: pass push\(frame, time, camera="):
        live.push(_numbered(1)[0], 0.0)
    found = _alternating(live, ["left", "right"], range(6))
    for moment in (0.1, float("nan")):
        with pytest.raises(DataError, match=r"of the one before is 0\.200 s|which is no number"):
            live.push(_numbered(1)[0], moment, camera="right")
    with pytest.raises(DataError, match="a frame is 8 x 8 pixels, but the frames before are 32 x 48"):
        live.push(np.zeros((8, 8, 3), np.uint8), 0.3, camera="right")
    found += _alternating(live, ["left", "right"], range(6, 12))
    other = detector()
    other.begin(["left", "right"])
    same(found, _alternating(other, ["left", "right"], range(12)))


@pytest.mark.slow
def test_memory_is_the_same_after_thousands_of_frames() -> None:
    live, frames = detector(temporal_clip_stride=50), _numbered(10)
    live.begin(["left", "right"], wait=0.5)
    held: list[int] = []
    tracemalloc.start()
    try:
        for number in range(12_000):
            live.push(frames[number % 10], number / 25, camera="left")
            if not 4000 < number < 6000:  # then it is away
                live.push(frames[number % 7], number / 25, camera="right")
            if number in (3500, 11_999):
                held.append(held_by_package())
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 100_000, held

"""Streams, growing files and iterators of several cameras: as their recordings, and what happens when one is away."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.feeds import detector, growing, memory_held, pictures, same, sender
from helpers.videos import numbered_frame, write_video
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, UnreachableError
from m33d_hf.inference.live.camera import LATE

KINDS: list[dict[str, Any]] = [{}, {"temporal_cameras": ["right", "left"]}]
NAMED = ["mean", "side by side"]
Camera = Iterator[tuple[np.ndarray, float]]


def _film(path: Path, frames: int = 60, first: int = 0, rate: int = 25) -> Path:
    pixels = [numbered_frame(first + number, (32, 48)) for number in range(frames)]
    return write_video(path, frames, rate=rate, size=(32, 48), frames=pixels, codec="mpeg2video")


@pytest.mark.parametrize("kind", KINDS, ids=NAMED)
@pytest.mark.parametrize(("rate", "frames", "offset"), [(25, 60, 0.02), (50, 135, -0.3)])
def test_streams_of_two_cameras_give_what_their_recordings_give(
    tmp_path: Path, kind: dict[str, Any], rate: int, frames: int, offset: float
) -> None:
    films = {"left": _film(tmp_path / "l.ts"), "right": _film(tmp_path / "r.ts", frames, 7, rate)}
    live, offsets = detector(temporal_clip_stride=3, **kind), {"right": offset}
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(sender(path.read_bytes())) for name, path in films.items()}
        stream = live.follow(addresses, timeout=20, wait=20, offsets=offsets)
        found = list(stream)
    offline = live.detect(films, offsets=offsets)
    same(found, offline.clips)
    assert [clip.cameras for clip in found] == [clip.cameras for clip in offline.clips]
    assert {clip.cameras for clip in found} >= {("left", "right")}
    assert stream.ended is not None and stream.ended.kind == "closed" and stream.ended.frames == 60
    assert {name: kind for name, (kind, _) in stream.ended.cameras.items()} == {"left": "closed", "right": "closed"}


def test_growing_files_of_two_cameras_give_what_their_recordings_give(tmp_path: Path) -> None:
    films = {"left": _film(tmp_path / "l.ts"), "right": _film(tmp_path / "r.ts", 60, 7)}
    live, targets = detector(), {name: tmp_path / f"{name}_live.ts" for name in films}
    with ExitStack() as stack:
        for name, path in films.items():
            stack.enter_context(growing(targets[name], path.read_bytes(), pause=0.02))
        stream = live.follow(targets, growing=True, timeout=2, wait=10)
        found = list(stream)
    same(found, live.detect(films).clips)
    assert {clip.cameras for clip in found} == {("left", "right")}
    assert stream.ended is not None and stream.ended.kind == "stalled"
    assert stream.ended.cameras["right"] == ("stalled", "the file has not grown for 2 s")


def _camera(count: int, side: int = 16, start: float = 0.0, rate: float = 10.0, pause: float = 0.0) -> Camera:
    for number, frame in enumerate(pictures(count, side)):
        time.sleep(pause)
        yield frame, start + number / rate


def _kinds(stream: Any) -> dict[str, str]:
    return {name: kind for name, (kind, _) in stream.ended.cameras.items()}


def test_one_followed_camera_of_a_case_is_that_camera_to_the_bit() -> None:
    one, other = detector(temporal_clip_stride=3), detector(temporal_clip_stride=3)
    plain, case = list(one.follow(_camera(23), timeout=5)), list(other.follow({"left": _camera(23)}, timeout=5))
    assert len(plain) == len(case) == 8
    for left, right in zip(plain, case, strict=True):
        assert (left.start, left.stop, left.cut) == (right.start, right.stop, right.cut)
        assert left.stop_time == right.stop_time
        assert np.array_equal(left.probabilities, right.probabilities) and np.array_equal(left.clipwise, right.clipwise)


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_camera_that_hangs_is_left_after_the_time_to_wait_and_the_rest_is_told(gone: str) -> None:
    plugged = threading.Event()

    def hanging() -> Camera:
        yield from _camera(10)
        plugged.wait()

    there = "right" if gone == "left" else "left"
    live, waits = detector(), []
    sources = {"left": _camera(40), "right": _camera(40)} | {gone: hanging()}
    stream = live.follow(sources, timeout=3, wait=1)
    begun, found = time.monotonic(), []
    for clip in stream:
        found.append(clip)
        waits.append(time.monotonic() - begun)
    plugged.set()
    assert [clip.stop for clip in found] == list(range(4, 41, 4))
    # Of the third clip it has shown two frames of four: half of it.
    assert [clip.cameras for clip in found] == [("left", "right")] * 3 + [(there,)] * 7
    told = [gap.reason for clip in found for gap in clip.gaps]
    assert told == [f"camera {gone}: no frame came for 1.1 s; it is missing until it takes part again"]
    assert waits[2] - waits[1] > 0.9, "the clip that it broke off waited for it"
    assert found[2].latency is not None and found[2].latency > 0.9
    assert stream.ended is not None and stream.ended.kind == "stalled"
    assert _kinds(stream) == {gone: "stalled", there: "finished"}
    assert stream.ended.cameras[gone][1].startswith("no frame came for ")


def test_an_address_that_sends_no_more_has_stalled_while_the_others_go_on(tmp_path: Path) -> None:
    """Not broken, though FFmpeg gives the connection up."""
    data = _film(tmp_path / "r.ts").read_bytes()
    with sender(data[: len(data) // 2], then="hold") as address:
        sources: dict[str, Any] = {"left": _camera(40, rate=25.0, pause=0.1), "right": address}
        stream = detector().follow(sources, timeout=1, wait=0.5)
        found = list(stream)
    assert _kinds(stream) == {"left": "finished", "right": "stalled"}
    assert [len(clip.cameras) for clip in found][-3:] == [1, 1, 1]


def test_a_camera_that_pauses_takes_part_again() -> None:
    def pausing() -> Camera:
        for number, frame in enumerate(pictures(60)):
            if number == 10:
                time.sleep(2.5)
            yield frame, number / 10

    live = detector()
    stream = live.follow({"left": _camera(60, pause=0.07), "right": pausing()}, timeout=5, wait=0.5)
    cameras = [len(clip.cameras) for clip in stream]
    assert len(cameras) == 15 and cameras[:2] == [2, 2] and cameras[-2:] == [2, 2] and 1 in cameras
    assert _kinds(stream) == {"left": "finished", "right": "finished"}


def test_a_camera_that_never_begins_or_fails_is_survived(tmp_path: Path) -> None:
    film, live = _film(tmp_path / "l.ts"), detector()
    with sender(then="close") as nobody:
        pass
    with sender(film.read_bytes()) as address:
        stream = live.follow({"left": nobody, "right": address}, timeout=2)
        found = list(stream)
    same(found, live.detect(film).clips)
    assert {clip.cameras for clip in found} == {("right",)} and live.case.lead == "right"
    assert stream.ended is not None and stream.ended.kind == "broken"
    assert _kinds(stream) == {"left": "broken", "right": "closed"}
    assert "Check the address" in stream.ended.cameras["left"][1]
    assert found[0].gaps[0].reason.startswith("camera left: broken: tcp://127.0.0.1")

    def failing() -> Camera:
        yield from _camera(9)
        raise RuntimeError("unplugged")

    stream = detector().follow({"left": _camera(20), "right": failing()}, timeout=5, wait=1)
    assert [len(clip.cameras) for clip in stream] == [2, 2, 1, 1, 1]
    assert stream.ended is not None
    assert stream.ended.cameras["right"] == ("broken", "the iterator failed (RuntimeError: unplugged)")
    with pytest.raises(CorruptFileError, match=r"a\.ts: does not exist, after waiting 0\.5 s"):
        next(detector().follow({"left": tmp_path / "a.ts", "right": tmp_path / "b.ts"}, growing=True, timeout=0.5))
    with pytest.raises(UnreachableError, match=r"none of the cameras left, right has a frame to follow; left: it has"):
        next(detector().follow({"left": [], "right": []}, timeout=0.5))
    with pytest.raises(DataError, match=r"gave ndarray; it must give \(frame, seconds\)"):
        list(detector().follow({"left": _camera(20), "right": pictures(3)}, timeout=5))  # type: ignore[dict-item]


def test_frames_of_one_camera_that_cannot_be_used_are_left_out_and_told() -> None:
    live, other = detector(), detector()
    given: list[tuple[Any, Any]] = list(_camera(12))
    bad = [(given[0][0], float("nan")), (given[0][0], 0.1), (np.zeros((8, 8, 3), np.uint8), 0.55)]
    found = list(live.follow({"left": _camera(12), "right": [*given[:6], *bad, *given[6:]]}, timeout=5))
    same(found, list(other.follow({"left": _camera(12), "right": given}, timeout=5)))
    told = [(gap.frames, gap.reason) for clip in found for gap in clip.gaps]
    assert told == [
        (1, "camera right: a frame has the time nan, which is no number of seconds"),
        (1, "camera right: a frame has the time 0.100 s, but that of the one before is 0.500 s"),
        (1, "camera right: a frame is 8 x 8 pixels, but the frames before are 16 x 16"),
    ]


def test_a_camera_whose_clock_was_set_back_is_broken_and_the_others_go_on() -> None:
    def camera() -> Camera:
        yield from _camera(6)
        while True:
            time.sleep(0.05)
            yield pictures(1)[0], 0.0

    stream = detector().follow({"left": _camera(30), "right": camera()}, timeout=1, wait=5)
    assert [len(clip.cameras) for clip in stream] == [2, 2, 1, 1, 1, 1, 1, 1]
    assert stream.ended is not None and _kinds(stream) == {"left": "finished", "right": "broken"}
    assert stream.ended.cameras["right"][1].startswith("for 1 s no frame could be used: a frame has the time 0.000 s")


@pytest.mark.parametrize("jumping", ["left", "right"])
def test_a_camera_whose_clock_jumps_ahead_does_not_hold_the_others(jumping: str) -> None:
    def camera() -> Camera:
        for number, frame in enumerate(pictures(40)):
            yield frame, number / 10 + (86400.0 if number >= 10 else 0.0)

    there = "right" if jumping == "left" else "left"
    stream = detector().follow({"left": _camera(40), "right": _camera(40)} | {jumping: camera()}, timeout=5, wait=1)
    found = list(itertools.islice(stream, 10))
    stream.close()
    assert [clip.cameras for clip in found] == [("left", "right")] * 3 + [(there,)] * 7
    assert [gap.reason for clip in found for gap in clip.gaps] == [
        f"camera {jumping}: its next frame lies 86400.0 s ahead; it is missing until it takes part again"
    ]


def _jumping(count: int, first: int, ahead: float, last: int = 10_000) -> Camera:
    """Its clock is ahead from a frame on, up to another one."""
    for number, (frame, moment) in enumerate(_camera(count)):
        yield frame, moment + (ahead if first <= number < last else 0.0)


@pytest.mark.parametrize(("last", "stops"), [(21, []), (30, [44, 48, 50]), (40, [44, 48, 52, 56, 60])])
def test_a_clock_that_jumps_ahead_gives_no_clips_that_nobody_shows(last: int, stops: list[int]) -> None:
    """Where the lead has ended, what the other one shows an hour later goes on: of one frame nothing, of more clips."""
    stream = detector().follow({"left": _camera(40), "right": _jumping(40, 20, 3000.0, last)}, timeout=1, wait=1)
    found = list(stream)
    assert [clip.stop for clip in found] == [*range(4, 41, 4), *stops]
    assert [clip.cameras for clip in found] == [("left", "right")] * 5 + [("left",)] * 5 + [("right",)] * len(stops)
    assert found[9].stop_time == pytest.approx(4.0) and _kinds(stream)["left"] == "finished"


def test_a_lead_that_is_silent_for_a_while_is_not_left_behind_by_a_clock_that_jumped() -> None:
    def pausing() -> Camera:
        for number, (frame, moment) in enumerate(_camera(40)):
            time.sleep(1.6 if number == 28 else 0.0)
            yield frame, moment

    stream = detector().follow({"left": pausing(), "right": _jumping(40, 20, 3000.0)}, timeout=5, wait=0.5)
    found = list(stream)
    assert [clip.cameras for clip in found[5:]] == [("left",)] * 5 + [("right",)] * 5
    assert all(clip.readable for clip in found) and not any(LATE in gap.reason for clip in found for gap in clip.gaps)


def test_the_last_clip_goes_to_the_end_of_the_others_where_the_lead_is_gone() -> None:
    found = list(detector().follow({"left": _camera(16), "right": _camera(42)}, timeout=5, wait=1))
    assert [(clip.start, clip.stop, clip.cut) for clip in found][-2:] == [(36, 40, False), (40, 42, True)]
    assert found[-1].stop_time == pytest.approx(4.2) and found[-1].cameras == ("right",)


def test_what_a_source_raises_before_its_first_frame_ends_its_camera_and_not_the_case() -> None:
    def failing() -> Camera:
        raise OSError("no such device")
        yield

    stream = detector().follow({"left": _camera(20), "right": failing()}, timeout=5, wait=1)
    found = list(stream)
    assert [clip.cameras for clip in found] == [("left",)] * 5
    reason = "its source failed (OSError: no such device)"
    assert stream.ended is not None and stream.ended.cameras["right"] == ("broken", reason)
    assert found[0].gaps[0].reason.startswith(f"camera right: broken: {reason}")
    with pytest.raises(OSError, match="no such device"):
        list(detector().follow({"left": failing(), "right": failing()}, timeout=5))


def test_a_case_is_taken_up_as_it_was_begun(tmp_path: Path) -> None:
    live = detector()
    list(live.follow({"left": _camera(9), "right": _camera(9)}, timeout=5, offsets={"right": 0.1}))
    more = {"left": _camera(8, start=0.9), "right": _camera(8, start=0.9)}
    for source, offsets, words in (
        (_camera(8, start=0.9), None, r"begun with the cameras left, right: to go on with it, follow camera -> source"),
        (more, {"rigth": 0.1}, r"offsets has a camera 'rigth', but the videos are by 'left', 'right'.*'right'"),
        (more, {"right": 0.2}, r"begun with other offsets \(left=0, right=0\.1\): give the same, or none"),
    ):
        with pytest.raises(ConfigError, match=words):
            live.follow(source, resume=True, offsets=offsets)  # type: ignore[arg-type]
    assert live.case.length == 9
    rest = list(live.follow(more, timeout=5, resume=True, offsets={"right": 0.1, "left": 0.0}))
    assert [clip.start for clip in rest] == [8, 12, 16] and rest[0].cameras == ("left", "right")


def test_a_leading_camera_that_comes_back_late_catches_up() -> None:
    """What the case went on without is left out, for longer than a camera without a usable frame is broken."""

    def late() -> Camera:
        for number, frame in enumerate(pictures(80)):
            time.sleep(1.2 if number == 10 else 0.05 if 10 < number < 40 else 0.0)
            yield frame, number / 10

    stream = detector().follow({"left": late(), "right": _camera(80, pause=0.06)}, timeout=1, wait=0.4)
    found = list(stream)
    assert _kinds(stream) == {"left": "finished", "right": "finished"}
    assert [clip.start for clip in found] == list(range(0, 80, 4)) and found[-1].cameras == ("left", "right")
    assert any(gap.frames and LATE in gap.reason for clip in found for gap in clip.gaps)


def test_addresses_lie_where_their_first_frames_arrive() -> None:
    """The second camera is switched on 1.5 s after the first; the stamps of both begin at 0."""
    live = detector()
    case = live.begin(["left", "right"])
    case.by_arrival = True
    for name, arrived in {"left": 100.0, "right": 101.5}.items():
        case.take(name, pictures(1)[0], 0.0, arrived)
    assert [camera.last for camera in case.cameras.values()] == [0.0, 1.5]


def test_files_that_stalled_are_read_on_from_where_they_were(tmp_path: Path) -> None:
    films = {"left": _film(tmp_path / "l.ts"), "right": _film(tmp_path / "r.ts", 60, 7)}
    live, other, targets = detector(), detector(), {name: tmp_path / f"{name}_live.ts" for name in films}
    for name, path in films.items():
        data = path.read_bytes()
        targets[name].write_bytes(data[: int(0.62 * len(data))])
    found = list(live.follow(targets, growing=True, timeout=0.5, wait=5))
    live.save_live(tmp_path / "state")
    for name, path in films.items():
        targets[name].write_bytes(path.read_bytes())
    first = other.load_case(tmp_path / "state").first_open
    rest = list(other.follow(targets, growing=True, timeout=0.5, wait=5, resume=True))
    assert 4 <= first < 60 and rest[0].start == first
    same([*(clip for clip in found if clip.start < first), *rest], other.detect(films).clips)
    with pytest.raises(ConfigError, match="the case is by the cameras left, right; follow these, in this order"):
        other.follow({"right": [], "left": []}, resume=True)


def test_stopping_and_closing_end_every_camera() -> None:
    live = detector()
    stream = live.follow({"left": _camera(4000), "right": _camera(4000)}, timeout=5)
    found = [next(stream), next(stream)]
    stream.stop()
    found += stream
    assert stream.ended is not None and stream.ended.kind == "stopped"
    assert _kinds(stream) == {"left": "stopped", "right": "stopped"} and len(found) < 30
    other = detector().follow({"left": _camera(400)}, timeout=5)
    next(other)
    other.close()
    assert other.ended is not None and other.ended.kind == "stopped" and other.ended.frames >= 4


def test_what_makes_no_sense_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    live, film = detector(), _film(tmp_path / "l.ts", 8)
    address = "tcp://127.0.0.1:1"
    for sources, more, words in (
        ({"left": film}, {}, r"l\.ts is a complete recording; find the phases of several cameras with detect"),
        ({"left": film, "right": address}, {"growing": True}, r"the files \(left\) begin earlier than the others"),
        ({"left": address}, {"wait": -1}, "wait is -1; it must be above 0"),
        ({"left": address}, {"wait": "2"}, "wait is '2'; it must be above 0"),
        ({"left": address}, {"offsets": {"left": "1"}}, "the offset of camera 'left' is '1'; it must be a number"),
        ({"left": address}, {"offsets": {"right": 1}}, "offsets has a camera 'right'"),
        ({}, {}, "no video was given"),
        (address, {"offsets": {"left": 1}}, "offsets are those of several cameras"),
        ({"left": address}, {"resume": True}, "no case by several cameras was begun"),
    ):
        with pytest.raises(ConfigError, match=words):
            live.follow(sources, **more)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by camera 'light', but the model was trained on the cameras right, left"):
        detector(**KINDS[1]).follow({"light": address})


@pytest.mark.slow
def test_memory_stays_the_same_over_a_long_case(tmp_path: Path) -> None:
    data = {"left": _film(tmp_path / "l.ts", 1200), "right": _film(tmp_path / "r.ts", 1200, 7)}
    live = detector(temporal_clip_stride=25)
    with ExitStack() as stack:
        send = {name: sender(path.read_bytes(), pause=0, chunk=18800) for name, path in data.items()}
        addresses = {name: stack.enter_context(each) for name, each in send.items()}
        held = memory_held(live.follow(addresses, timeout=30, wait=30, offsets={}), 5, (15, 45))
    assert held[1] - held[0] < 100_000, held

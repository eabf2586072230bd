"""Streams, growing files and iterators: followed to their end, which is told, and taken up again."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.feeds import detector, growing, memory_held, pictures, same, sender
from helpers.videos import cut_short, write_video
from m33d_hf.data.sources.videos.files import cached_info
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, UnreachableError
from m33d_hf.inference.detection.watched_video import WatchedVideo
from m33d_hf.inference.live.arrivals import StreamFrames, grows, shown_address
from m33d_hf.modeling.video_reading_m33d import iterate_wanted, probe_video, read_video


def _film(path: Path, frames: int = 60, first: int = 0, **options: Any) -> Path:
    """MPEG-TS, as cameras send it; the frames are numbered from `first`."""
    from helpers.videos import numbered_frame

    pixels = [numbered_frame(first + number) for number in range(frames)]
    return write_video(path, frames, codec="mpeg2video", frames=pixels, **options)


def test_a_stream_gives_what_its_recording_gives(tmp_path: Path) -> None:
    film, live = _film(tmp_path / "film.ts"), detector(temporal_clip_stride=3)
    with sender(film.read_bytes()) as address:
        stream = live.follow(address, timeout=20)
        found = list(stream)
    offline = live.detect(film)
    same(found, offline.clips)
    assert [clip.start_time for clip in found] == pytest.approx([clip.start_time for clip in offline.clips])
    assert stream.ended is not None
    assert (stream.ended.kind, stream.ended.frames, stream.ended.seconds) == ("closed", 60, pytest.approx(2.4))
    assert "nothing tells whether all was sent" in stream.ended.reason
    assert all(clip.cut or (clip.latency is not None and 0 < clip.latency < 20) for clip in found)


def test_a_stream_that_stalls_ends_with_what_was_seen(tmp_path: Path) -> None:
    film, live = _film(tmp_path / "film.ts"), detector()
    begun = time.monotonic()
    with sender(film.read_bytes()[: film.stat().st_size // 2], then="hold") as address:
        stream = live.follow(address, timeout=2)
        found = list(stream)
    assert stream.ended is not None and stream.ended.kind == "stalled"
    assert stream.ended.reason == "no frame came for 2 s" and time.monotonic() - begun < 30
    whole = [clip for clip in found if not clip.cut]
    assert 3 < len(whole) < 15
    same(whole, live.detect(film).clips[: len(whole)])


def test_a_broken_stream_is_taken_up_again(tmp_path: Path) -> None:
    parts = [_film(tmp_path / "a.ts", 30), _film(tmp_path / "b.ts", 30, first=30)]
    live, other = detector(), detector()
    with sender(*(part.read_bytes() for part in parts), then="reset") as address:
        first = live.follow(address, timeout=20)
        found = [clip for clip in first if not clip.cut]
        assert first.ended is not None and first.ended.kind == "broken"
        assert "the connection broke (" in first.ended.reason
        live.save_live(tmp_path / "state")
        time.sleep(1.0)
        before = other.load_live(tmp_path / "state").length
        second = other.follow(address, timeout=20, resume=True)
        rest = list(second)
    again, gap = rest[0].gaps
    assert "the feed was taken up again" in again.reason and gap.start is not None and gap.stop is not None
    assert 1.0 <= gap.stop - gap.start + 0.04 < 20
    # The pause of a second counts; a broken connection may take some frames with it.
    assert rest[-1].stop_time is not None and rest[-1].stop_time > rest[-1].stop / 25 + 0.9
    # What came of both parts, as a folder of pictures, at once.
    after = (second.ended.frames if second.ended else 0) - before
    assert 25 <= before <= 30 and 25 <= after <= 30
    folder = tmp_path / "frames"
    folder.mkdir()
    taken = [*read_video(parts[0], range(before)), *read_video(parts[1], range(after))]
    for number, frame in enumerate(taken):
        Image.fromarray(frame).save(folder / f"{number}.png")
    same([*found, *rest], live.detect(folder).clips)


def test_nobody_there_and_nothing_sent_are_errors_without_the_password() -> None:
    with sender(then="close") as address:
        pass  # nobody listens there any more
    secret = address.replace("tcp://", "tcp://me:secret@")
    with pytest.raises(UnreachableError, match="Check the address") as caught:
        next(detector().follow(secret, timeout=2))
    assert "secret" not in str(caught.value) and "127.0.0.1" in str(caught.value)
    with sender(b"", then="hold") as address, pytest.raises(UnreachableError, match="no frame came for 1 s"):
        next(detector().follow(address, timeout=1))
    assert shown_address("rtsp://me:a@b@10.0.0.1:554/cam?key=1") == "rtsp://10.0.0.1:554/cam"


def test_a_growing_file_is_followed_while_it_is_written(tmp_path: Path) -> None:
    film, live, target = _film(tmp_path / "film.ts", 61), detector(), tmp_path / "live.ts"
    with growing(target, film.read_bytes(), pause=0.03) as writer:
        stream = live.follow(target, growing=True, timeout=3)
        found = [next(stream)]
        assert writer.is_alive()  # the first clips are told long before the file is complete
        found += stream
    assert stream.ended is not None
    assert (stream.ended.kind, stream.ended.reason) == ("stalled", "the file has not grown for 3 s")
    same(found, live.detect(film).clips)


@pytest.mark.parametrize(("share", "least"), [(0.3, 0), (0.62, 1)])  # of .3, all is read to tell what it is
def test_a_file_that_stalled_is_read_on_from_where_it_was(tmp_path: Path, share: float, least: int) -> None:
    film, live, other = _film(tmp_path / "film.ts"), detector(), detector()
    data, target = film.read_bytes(), tmp_path / "live.ts"
    target.write_bytes(data[: int(share * len(data))])
    found = list(live.follow(target, growing=True, timeout=0.5))
    live.save_live(tmp_path / "state")
    target.write_bytes(data)
    first = other.load_live(tmp_path / "state").assembler.first_open()
    rest = list(other.follow(target, growing=True, timeout=0.5, resume=True))
    assert least <= first < 60 and rest[0].start == first
    same([*(clip for clip in found if clip.start < first), *rest], other.detect(film).clips)


def test_files_that_cannot_be_read_while_they_grow(tmp_path: Path) -> None:
    usual = cut_short(write_video(tmp_path / "film.mp4", 30), 0.5)
    with pytest.raises(CorruptFileError, match=r"being written can be read as MPEG-TS \(\.ts\), Matroska"):
        next(detector().follow(usual, growing=True, timeout=0.5))
    with pytest.raises(CorruptFileError, match=r"does not exist, after waiting 0\.5 s for it"):
        next(detector().follow(tmp_path / "none.ts", growing=True, timeout=0.5))
    (tmp_path / "empty.ts").touch()
    with pytest.raises(CorruptFileError, match="is empty, after waiting"):
        next(detector().follow(tmp_path / "empty.ts", growing=True, timeout=0.5))
    with pytest.raises(ConfigError, match="timeout is 0"):
        detector().follow(usual, growing=True, timeout=0)
    with pytest.raises(ConfigError, match="growing=True"):
        detector().follow(usual, resume=True)


def test_damage_in_a_stream_is_told_as_in_its_recording(tmp_path: Path) -> None:
    film, live = write_video(tmp_path / "film.ts", 90, codec="libx264"), detector()
    data = bytearray(film.read_bytes())
    place = len(data) * 2 // 5 // 188 * 188  # inside one packet, so that nothing but a picture is hurt
    data[place + 30 : place + 150] = b"\x55" * 120
    film.write_bytes(data)
    offline = live.detect(film)
    assert offline.unreadable
    with sender(bytes(data)) as address:
        found = list(live.follow(address, timeout=20))
    places = [[(clip.start, clip.stop) for clip in clips] for clips in (found, offline.clips)]
    assert places[0] == places[1]
    hurt = [[clip.start for clip in clips if not clip.readable] for clips in (found, offline.clips)]
    assert hurt[0] and hurt[0] == hurt[1]
    for one, other in zip(found, offline.clips, strict=True):
        if one.readable and other.readable:
            np.testing.assert_allclose(one.clipwise, other.clipwise, atol=1e-6)
    first = next(clip for clip in found if not clip.readable)
    assert any(gap.reason == "a frame does not decode" and gap.frames for gap in first.gaps)


def _frames(path: Path) -> tuple[list[bool], list[bool]]:
    """Which frames can be used: as they come from a stream, and of the recording."""
    live = [arrival.picture is not None for arrival in StreamFrames(str(path), 5)]
    video = WatchedVideo(path, lambda path, start: iterate_wanted(path, lambda _: True, start, cached_info(path)))
    return live, [frame is not None for _, frame in video]


@pytest.mark.parametrize("place", [37, 79, 91])
def test_pictures_that_are_overwritten_hurt_the_same_frames_live_and_recorded(tmp_path: Path, place: int) -> None:
    """H.264 with B-frames: behind the damage the decoder gives frames in another order than they are shown in."""
    film = write_video(tmp_path / "film.ts", 60, codec="libx264", options={"bf": "2"})
    data = bytearray(film.read_bytes())
    for packet in range(place, place + 5):
        data[packet * 188 + 20 : packet * 188 + 180] = np.random.default_rng(packet).bytes(160)
    film.write_bytes(data)
    live, recorded = _frames(film)
    assert live == recorded and not all(live)


@pytest.mark.parametrize("place", [27, 47, 61])
def test_behind_packets_that_are_lost_a_stream_gives_up_to_three_frames_more(tmp_path: Path, place: int) -> None:
    """The end of a damaged recording is not trusted: what its last packet makes the decoder give is left out there."""
    film = write_video(tmp_path / "film.ts", 60, codec="libx264", options={"bf": "2"})
    data = bytearray(film.read_bytes())
    del data[place * 188 : (place + 4) * 188]
    film.write_bytes(data)
    live, recorded = _frames(film)
    assert live[: len(recorded)] == recorded and 1 <= len(live) - len(recorded) <= 3
    # So clips are the same but for those that reach into the last frames.
    model = detector()
    found, wanted = list(model.follow("file://" + str(film), timeout=20)), model.detect(film).clips
    whole = [clip for clip in wanted if clip.stop < len(recorded)]
    same(found[: len(whole)], whole)


def test_a_picture_that_changes_its_size_is_scaled_and_told(tmp_path: Path) -> None:
    small = [np.full((32, 48, 3), 90, np.uint8)] * 12
    one = _film(tmp_path / "a.ts", 12)
    other = write_video(tmp_path / "b.ts", 12, codec="mpeg2video", size=(32, 48), frames=small, pts=range(48, 96, 4))
    live = detector()
    with sender(one.read_bytes() + other.read_bytes()) as address:
        found = list(live.follow(address, timeout=20))
    told = [gap.reason for clip in found for gap in clip.gaps]
    assert "the picture changed to 32 x 48 pixels; it is scaled to the first size" in told
    assert found[0].readable and probe_video(one).height == 64 and live.live.size == (64, 96)


def test_frames_of_an_iterator_that_cannot_be_used_are_left_out_and_told() -> None:
    frames, live, other = pictures(12), detector(), detector()
    given: list[tuple[Any, Any]] = [(frame, n / 10) for n, frame in enumerate(frames)]
    bad = [(frames[0], float("nan")), (frames[0], 0.1), (np.zeros((8, 8, 3), np.uint8), 0.55), (frames[0], None)]
    stream = live.follow([*given[:6], *bad, *given[6:]], timeout=5)
    found = list(stream)
    same(found, list(other.follow(given, timeout=5)))
    told = [(gap.frames, gap.reason) for gap in found[1].gaps]
    assert told == [
        (2, "a frame has the time nan, which is no number of seconds"),
        (1, "a frame has the time 0.100 s, but that of the one before is 0.500 s"),
        (1, "a frame is 8 x 8 pixels, but the frames before are 16 x 16"),
    ]
    assert found[0].gaps == found[2].gaps == ()
    assert stream.ended is not None and (stream.ended.kind, stream.ended.frames) == ("finished", 12)


def test_a_feed_of_which_nothing_can_be_used_any_more_is_broken() -> None:
    def camera() -> Iterator[tuple[np.ndarray, float]]:
        for number, frame in enumerate(pictures(6)):
            yield frame, number / 10
        while True:  # its clock was set back
            time.sleep(0.05)
            yield pictures(1)[0], 0.0

    stream = detector().follow(camera(), timeout=1)
    found = list(stream)
    assert [(clip.start, clip.stop, clip.cut) for clip in found] == [(0, 4, False), (4, 6, True)]
    assert stream.ended is not None and stream.ended.kind == "broken"
    assert stream.ended.reason == (
        "for 1 s no frame could be used: a frame has the time 0.000 s, but that of the one before is 0.500 s"
    )


def test_an_iterator_that_fails_hangs_or_gives_something_else() -> None:
    def failing(after: int) -> Iterator[tuple[np.ndarray, float]]:
        yield from ((frame, n / 10) for n, frame in enumerate(pictures(after)))
        raise RuntimeError("unplugged")

    stream = detector().follow(failing(9), timeout=5)
    assert [clip.stop for clip in stream] == [4, 8, 9]
    assert stream.ended is not None
    assert (stream.ended.kind, stream.ended.reason) == ("broken", "the iterator failed (RuntimeError: unplugged)")
    with pytest.raises(RuntimeError, match="unplugged"):
        next(detector().follow(failing(0), timeout=5))

    plugged = threading.Event()

    def hanging() -> Iterator[tuple[np.ndarray, float]]:
        yield from ((frame, n / 10) for n, frame in enumerate(pictures(5)))
        plugged.wait()

    stream = detector().follow(hanging(), timeout=1)
    assert [clip.stop for clip in stream] == [4, 5] and stream.ended is not None and stream.ended.kind == "stalled"
    plugged.set()
    with pytest.raises(DataError, match=r"gave ndarray; it must give \(frame, seconds\)"):
        next(detector().follow(pictures(3), timeout=5))  # type: ignore[arg-type]
    with pytest.raises(UnreachableError, match="there is no frame to follow"):
        next(detector().follow([], timeout=5))


def test_stopping_tells_what_was_seen_and_pushing_goes_on() -> None:
    frames, live, other = pictures(20), detector(), detector()
    endless = ((frames[n % 20], n / 10) for n in itertools.count())
    stream = live.follow(endless, timeout=5)
    found = [next(stream), next(stream)]
    stream.stop()
    found += [clip for clip in stream if not clip.cut]
    assert stream.ended is not None and stream.ended.kind == "stopped"
    taken = stream.ended.frames
    more = [live.push(frames[n % 20], n / 10) for n in range(taken, 80)]
    wanted = [other.push(frames[n % 20], n / 10) for n in range(80)]
    same([*found, *(clip for clip in more if clip)], [clip for clip in wanted if clip])


def test_memory_stays_the_same_over_a_long_stream(tmp_path: Path) -> None:
    data = _film(tmp_path / "film.ts", 2500).read_bytes()
    live = detector(temporal_clip_stride=25)
    with sender(data, pause=0, chunk=18800) as address:
        held = memory_held(live.follow(address, timeout=30), 10, (30, 95))
    assert held[1] - held[0] < 100_000, held


def test_a_stream_whose_stamps_run_backwards_is_told(tmp_path: Path) -> None:
    """The sender begins again: what follows lies before what was seen, is left out, and counted."""
    film, live = _film(tmp_path / "film.ts", 30), detector()
    with sender(film.read_bytes() * 2) as address:
        stream = live.follow(address, timeout=20)
        found = list(stream)
    assert stream.ended is not None and stream.ended.frames == 30
    same(found, live.detect(film).clips)
    gaps = [gap for clip in found for gap in clip.gaps if gap.frames]
    assert sum(gap.frames for gap in gaps) >= 25
    assert any("but that of the one before is" in gap.reason for gap in gaps)


@pytest.mark.parametrize(
    ("container", "so"),
    [(None, True), ("mpegts", True), ("MP4", True), ("matroska,webm", True), ("h264", True), ("avi", True)]
    + [(name, False) for name in ("hls", "concat", "sdp", "image2", "lavfi", "webm_dash_manifest", "v4l2")],
)
def test_files_of_which_formats_grow(container: str | None, so: bool) -> None:
    assert grows(container) is so

"""Frames are shown when their file says: rates that change, rounded stamps, late starts; what is missing is told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.shared_data import shared
from helpers.videos import UNEVEN_STAMPS, cut_short, write_sound, write_uneven, write_video
from m33d_hf.modeling import video_reading_m33d
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video, probe_video
from m33d_hf.modeling.video_times_m33d import FrameTimes, missing_between, times_of

av = pytest.importorskip("av")

TRUE = np.array(UNEVEN_STAMPS) / 40
SUFFIXES = ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi", "a.webm", "a.flv"]
CODECS = {".avi": "mpeg4", ".webm": "libvpx", ".flv": "flv1"}


def _times(info: VideoInfo) -> FrameTimes:
    assert info.times is not None
    return info.times


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_container_tells_the_true_times(tmp_path: Path, name: str) -> None:
    path = write_uneven(tmp_path / name, CODECS.get(Path(name).suffix, "libx264"))
    info = probe_video(path, "pyav")
    times = _times(info)
    assert info.num_frames == 100 and not info.lacks
    np.testing.assert_allclose(times.at(np.arange(100)), TRUE, atol=1.1e-3)
    assert times.duration == pytest.approx(25.0, abs=2e-3) and info.fps == pytest.approx(4.0, abs=1e-3)
    # A second way: what the decoder stamps on the frames themselves.
    with av.open(str(path)) as container:
        decoded = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times.at(np.arange(100)), np.array(decoded) - decoded[0], atol=1.1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_decord_tells_the_same_times_with_and_without_pyav(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decord = pytest.importorskip("decord")
    path = write_uneven(tmp_path / name)
    own = decord.VideoReader(str(path)).get_frame_timestamp(range(100))[:, 0]
    np.testing.assert_allclose(_times(probe_video(path, "decord")).at(np.arange(100)), own, atol=1e-3)
    monkeypatch.setattr(video_reading_m33d, "pyav_available", lambda: False)
    alone = probe_video(path)
    assert alone.backend == "decord"
    np.testing.assert_allclose(_times(alone).at(np.arange(100)), TRUE, atol=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_count_from_the_first_frame(tmp_path: Path, name: str) -> None:
    late = write_uneven(tmp_path / name, shift=120)
    with av.open(str(late)) as container:
        assert next(container.decode(video=0)).time > 2.9
    np.testing.assert_allclose(_times(probe_video(late, "pyav")).at(np.arange(100)), TRUE, atol=1.1e-3)


def test_rounded_stamps_of_an_even_rate_are_even(tmp_path: Path) -> None:
    path = tmp_path / "ntsc.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30000, 1001))
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(90):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    info = probe_video(path, "pyav")
    assert info.uneven is None and info.fps == pytest.approx(30000 / 1001)
    assert _times(info).at(60) == 60 / info.fps


def test_stamps_decide_where_the_header_says_another_rate() -> None:
    times = times_of(range(0, 5000, 50), Fraction(1, 1000), 25.0)
    assert times.starts is None and times.fps == 20.0 and times.duration == 5.0


def test_a_time_is_turned_into_frames_and_back() -> None:
    times = times_of(UNEVEN_STAMPS, Fraction(1, 40), 10.0, last=4)
    for frame in (0, 7, 50, 64, 99, 100):
        assert times.frames_until(float(times.at(frame))) == pytest.approx(frame)
    assert times.at(64) == pytest.approx(10.6) and times.at(104) == pytest.approx(26.0)
    assert times.frames_until(26.0) == pytest.approx(104)
    middles = times.middles()
    assert middles[49] == pytest.approx(4.95) and middles[50] == pytest.approx(5.2)


def test_the_last_frame_before_a_hole_tells_nothing_of_the_hole() -> None:
    times = times_of([0, 1, 2, 62, 63], Fraction(1, 10), None)
    assert times.middles().tolist() == pytest.approx([0.05, 0.15, 0.25, 6.25, 6.35]), "not 3.2, half a minute later"


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.flv", "a.avi", "a.wmv", "a.mp4"])
def test_a_recording_that_is_cut_short_says_so(tmp_path: Path, name: str) -> None:
    codec = {**CODECS, ".wmv": "wmv2"}.get(Path(name).suffix, "libx264")
    header = {"movflags": "faststart"} if name == "a.mp4" else None
    whole = write_video(tmp_path / name, 200, codec=codec, container_options=header)
    assert not probe_video(whole, "pyav").lacks
    info = probe_video(cut_short(whole), "pyav")
    assert 50 < info.num_frames < 160
    (lack,) = info.lacks
    assert lack.after == info.num_frames and lack.start == pytest.approx(info.num_frames / 25)
    assert lack.stop == pytest.approx(8.0, abs=0.05) and lack.frames == pytest.approx(200 - info.num_frames, abs=1)
    assert f"announces 8.0 s, but only {info.num_frames / 25:.1f} s can be decoded" in info.incomplete


def test_a_transport_stream_that_ends_inside_a_packet_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.ts", 100, codec="mpeg2video")
    assert not probe_video(whole, "pyav").lacks
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: 188 * 60 + 100])
    (lack,) = probe_video(cut, "pyav").lacks
    assert lack.stop is None and "ends inside a packet" in lack.reason


def test_sound_that_lasts_longer_than_the_picture_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with av.open(str(path), "w") as container:
        picture, sound = container.add_stream("flv1", rate=25), container.add_stream("aac", rate=44100, layout="mono")
        picture.height, picture.width, picture.pix_fmt = 64, 96, "yuv420p"
        for _ in range(50):
            container.mux(picture.encode(av.VideoFrame(96, 64, "yuv420p")))
        container.mux(picture.encode())
        for number in range(4 * 44):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 1024 * number, Fraction(1, 44100)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.duration > 3.9e6
    assert not probe_video(path, "pyav").lacks
    assert probe_video(cut_short(path, 0.7), "pyav").num_frames <= 50


def test_sound_that_begins_later_than_a_header_is_looked_for_is_passed_over(tmp_path: Path) -> None:
    """As in a live recording: 5 MB of pictures, then the first packet of a stream that nothing announced."""
    path, late, rng = tmp_path / "a.flv", tmp_path / "late.flv", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        picture, sound = container.add_stream("flv1", rate=25), container.add_stream("aac", rate=44100, layout="mono")
        picture.height, picture.width, picture.pix_fmt, picture.bit_rate = 240, 320, "yuv420p", 20_000_000
        for _ in range(60):
            pixels = rng.integers(0, 256, (240, 320, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode())
        for number in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 1024 * number, Fraction(1, 44100)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    data, kept, sounds, place = path.read_bytes(), bytearray(), bytearray(), 13
    while place < len(data):  # tags: kind, three bytes of length, seven more, content, four of length
        stop = place + 15 + int.from_bytes(data[place + 1 : place + 4], "big")
        if data[place] in (8, 9):  # sound and pictures; what tells of the sound is left out
            (sounds if data[place] == 8 else kept).extend(data[place:stop])
        place = stop
    late.write_bytes(data[:4] + b"\x01" + data[5:13] + kept + sounds)
    with av.open(str(late)) as container:
        assert len(container.streams) == 1 and len(kept) > 5e6
        with pytest.raises(IndexError):
            list(container.demux())
    info = probe_video(late, "pyav")
    assert info.num_frames == 60 and not info.lacks
    assert len(list(iterate_video(late, backend="pyav"))) == 60


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_a_hole_in_the_middle_is_told(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, 250, codec="mpeg2video", gop=10, container_options=_small_clusters(name))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5] + bytes(len(data) // 5) + data[len(data) * 3 // 5 :])
    info = probe_video(path, "pyav")
    holes = [lack for lack in info.lacks if lack.stop is not None and 0 < lack.after < info.num_frames]
    assert sum(lack.frames for lack in holes) > 20 and "there are no frames from" in info.incomplete
    assert _times(info).duration == pytest.approx(10.0, abs=0.3)


def _small_clusters(name: str) -> dict[str, str]:
    return {"cluster_time_limit": "400"} if name.endswith("mkv") else {}


def test_pauses_of_a_variable_rate_are_no_holes() -> None:
    assert missing_between(times_of(UNEVEN_STAMPS, Fraction(1, 40), 10.0)) == []
    one_late = [*range(100), 103, *range(104, 200)]
    assert missing_between(times_of(one_late, Fraction(1, 25), 25.0)) == []
    (hole,) = missing_between(times_of([*range(100), *range(150, 250)], Fraction(1, 25), 25.0))
    assert (hole.after, hole.frames, hole.start, hole.stop) == (100, 50, 4.0, 6.0)


def test_no_sample_is_called_incomplete_but_the_one_whose_start_does_not_decode() -> None:
    told = {}
    for path in sorted(shared("videos").rglob("*.*")):
        if path.suffix in (".avi", ".mp4", ".mkv", ".mov", ".webm", ".gif"):
            told[path.name] = probe_video(path, "pyav").incomplete
    assert len(told) > 15
    assert {name for name, words in told.items() if words} <= {"discard_first_keyframe.mp4"}


def test_files_without_pictures_stay_errors(tmp_path: Path) -> None:
    from m33d_hf.errors import CorruptFileError

    with pytest.raises(CorruptFileError, match="no video stream"):
        probe_video(write_sound(tmp_path / "a.wav"), "pyav")

"""Frames of videos: the right ones, upright, from good files; a reason from bad ones; no leak, crash or hang."""

import gc
import math
import multiprocessing
import os
import random
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from helpers.shared_data import ROOT, shared
from helpers.videos import number_in, numbered_frame, write_sound, write_video
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.modeling import video_decord_m33d, video_pyav_m33d
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video, iterate_wanted, probe_video, read_video

READERS = ["pyav", *(["decord"] if video_decord_m33d.available() else [])]
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "videos").rglob("*") if path.is_file())
NOT_VIDEOS = {"videos/torchvision_videos_README.txt"}
# (frames, height, width) counted with the ffmpeg libraries by hand; headers of some say otherwise.
KNOWN = {
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": (72, 240, 560),  # header 73
    "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": (74, 240, 320),  # header 75
    "discard_first_keyframe.mp4": (25, 64, 64),  # header 30
    "flipping_a_pancake.mkv": (310, 240, 426),  # header 0
    "nasa_13013.mp4": (390, 270, 480),  # the better of two video streams
    "testsrc2_mpeg4.mp4": (1, 64, 64),
    "testsrc2_odd_height_and_width_mpeg2.mp4": (10, 81, 121),
    "unordered.mov": (4, 50, 50),
    "v_SoccerJuggling_g23_c01.avi": (240, 240, 320),
}
# swscale, which both readers convert colours with, has its quirks at 10 bits and at odd sizes.
CONVERSION = {"h264_10bits.mp4": 5.0, "testsrc2_odd_height_and_width_mpeg2.mp4": 6.0}


def read_all(path: Path, backend: str) -> tuple[VideoInfo, np.ndarray]:
    info = probe_video(path, backend)
    return info, read_video(path, range(info.num_frames), info=info)


@pytest.mark.skipif(bool(FILES), reason="sample videos are here")
def test_sample_videos() -> None:
    shared("videos")


@pytest.mark.parametrize("relative", [file for file in FILES if file not in NOT_VIDEOS])
def test_every_sample_video(relative: str) -> None:
    path = shared(relative)
    info, frames = read_all(path, "auto")
    assert frames.shape == (info.num_frames, info.height, info.width, 3) and frames.dtype == np.uint8
    assert info.fps is not None and 5 <= info.fps <= 60
    if path.name in KNOWN:
        assert (info.num_frames, info.height, info.width) == KNOWN[path.name]
    chosen = random.Random(0).choices(range(info.num_frames), k=7)
    for given in (info, None):  # any order and repeats, with and without a probe before
        assert np.array_equal(read_video(path, chosen, info=given), frames[chosen])
    with pytest.raises(IndexError, match=f"frame {info.num_frames} of a video of {info.num_frames} frames"):
        read_video(path, [info.num_frames], info=info)
    step = max(1, info.num_frames // 5)
    for number, frame in iterate_video(path, start=step, step=step):
        assert np.array_equal(frame, frames[number])


@pytest.mark.skipif("decord" not in READERS, reason="decord is not installed")
@pytest.mark.parametrize("relative", [file for file in FILES if file not in NOT_VIDEOS])
def test_decord_and_pyav_agree(relative: str) -> None:
    path = shared(relative)
    info, frames = read_all(path, "pyav")
    try:
        other, theirs = read_all(path, "decord")
    except CorruptFileError:
        assert path.name in ("animated.gif", "av1_video.mkv")  # decord knows neither; nothing else may be refused
        return
    assert (other.num_frames, other.height, other.width) == (info.num_frames, info.height, info.width)
    assert other.fps == pytest.approx(info.fps, rel=1e-3)
    difference = np.abs(frames.astype(np.int16) - theirs).mean(axis=(1, 2, 3))
    assert difference.max() <= CONVERSION.get(path.name, 0.01)
    chosen = random.Random(1).choices(range(info.num_frames), k=5)
    assert np.array_equal(read_video(path, chosen, info=other), theirs[chosen])


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("relative", sorted(NOT_VIDEOS.intersection(FILES)))
def test_text_is_not_a_video(relative: str, backend: str) -> None:
    with pytest.raises(CorruptFileError):  # FFmpeg would render it as an animation
        probe_video(shared(relative), backend)


def damaged(path: Path, folder: Path) -> list[Path]:
    """The file cut off at two places, and with bytes in its middle changed, few and many."""
    data = path.read_bytes()
    copies = {f"cut{share}": data[: len(data) * share // 100] for share in (60, 97)}
    for count in (20, 300):
        draws, changed = random.Random(count), bytearray(data)
        for _ in range(count):
            changed[draws.randrange(len(data) // 4, len(data))] ^= draws.randrange(1, 256)
        copies[f"flip{count}"] = bytes(changed)
    written = []
    for name, content in copies.items():
        written.append(folder / f"{name}{path.suffix}")
        written[-1].write_bytes(content)
    return written


@pytest.mark.parametrize("relative", [file for file in FILES if file not in NOT_VIDEOS])
def test_damaged_samples_decode_or_are_refused(relative: str, tmp_path: Path) -> None:
    path = shared(relative)
    _, intact = read_all(path, "pyav")
    still = sum(np.array_equal(intact[number], intact[number - 1]) for number in range(1, len(intact)))
    large = path.stat().st_size > 200_000
    for copy in damaged(path, tmp_path):
        for backend in ["pyav"] if large else READERS:
            try:
                info = probe_video(copy, backend)
            except CorruptFileError as error:
                assert error.path == str(copy) and error.reason
                continue
            assert info.num_frames >= 1
            previous, repeats = None, 0
            numbers = random.Random(0).sample(range(info.num_frames), min(3, info.num_frames))
            try:
                for number, frame in iterate_video(copy, backend):
                    assert frame.shape == (info.height, info.width, 3)
                    if copy.stem.startswith("cut"):
                        difference = np.abs(frame.astype(np.int16) - intact[number]).mean()
                        assert difference <= CONVERSION.get(path.name, 0.01), f"frame {number} of {copy} ({backend})"
                    repeats += previous is not None and np.array_equal(frame, previous)
                    previous = frame
                read_video(copy, numbers, info=info)
            except CorruptFileError as error:
                assert not copy.stem.startswith("cut"), f"{backend}: {error}"
                assert error.reason
            assert repeats <= still, f"{copy.name}: frames repeat ({backend})"


CASES = {
    "plain.mp4": {},
    "b_frames.avi": {"options": {"bf": "2"}},
    "b_frames.mp4": {"options": {"bf": "2"}},
    "variable_rate.mp4": {"codec": "libx264", "pts": [4 * k + k % 3 + 30 * (k // 10) for k in range(50)]},
    "late_start.mkv": {"codec": "libx264", "pts": [1000 + 4 * k + k % 3 for k in range(50)]},
    "late_start.mp4": {"codec": "libx264", "pts": [1000 + 4 * k for k in range(50)]},
    "open_groups.mkv": {"codec": "libx264", "options": {"x264-params": "open-gop=1:bframes=3:keyint=12"}},
    "open_groups.ts": {"codec": "libx264", "options": {"x264-params": "open-gop=1:bframes=3:keyint=12"}},
    "leading_pictures.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=0"}},
    "program.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "hidden_frames.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "one_group.mp4": {"gop": 1000},
    "no_container.m4v": {},
}


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_frame_numbers_are_those_shown(name: str, backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 50, **CASES[name])  # type: ignore[arg-type]
    try:
        info, frames = read_all(path, backend)
    except CorruptFileError:
        assert backend == "decord" and name in ("open_groups.ts", "no_container.m4v")
        return
    assert [number_in(frame) for frame in frames] == list(range(50))
    for chosen in ([49], [30], [44, 13, 44, 0], [12], [11, 23, 24, 25], [5, 48]):
        assert [number_in(frame) for frame in read_video(path, chosen, info=info)] == chosen
    assert [number for number, frame in iterate_video(path, backend, 3, 99, 9)] == list(range(3, 50, 9))
    assert all(number == number_in(frame) for number, frame in iterate_video(path, backend, 3, 99, 9))


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("width", [2, 8, 16, 17, 24, 48, 50, 72])
def test_widths_whose_rows_are_padded(width: int, backend: str, tmp_path: Path) -> None:
    # decord counts the padding of a row as further channels.
    colours = np.random.default_rng(0).integers(0, 256, (4, 20, width, 3), np.uint8)
    path = write_video(tmp_path / "narrow.avi", 4, codec="huffyuv", size=(20, width), pix_fmt="rgb24", frames=colours)
    info = probe_video(path, backend)
    assert (info.height, info.width) == (20, width)
    assert np.array_equal(read_video(path, [3, 0], backend, info), colours[[3, 0]])


@pytest.mark.parametrize("backend", READERS)
def test_pictures_that_build_up_over_frames(backend: str, tmp_path: Path) -> None:
    # At frame numbers that are multiples of 16 the decoder hands such pictures out before they are whole.
    options = {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
    path = write_video(tmp_path / "gradual.mp4", 60, codec="libx264", options=options)
    info = probe_video(path, backend)
    assert info.num_frames == 60
    for chosen in ([59], [52, 30], [16, 4], [58, 49, 2]):
        assert [number_in(frame) for frame in read_video(path, chosen, info=info)] == chosen


@pytest.mark.parametrize("backend", READERS)
def test_trimmed_file_keeps_its_last_frames(backend: str, tmp_path: Path) -> None:
    # The edit list hides the first 26 of 60 frames, and with them two whole groups of pictures.
    stamps = [4 * (number - 26) for number in range(60)]
    path = write_video(tmp_path / "trimmed.mp4", 60, codec="libx264", pts=stamps)
    info, frames = read_all(path, backend)
    assert [number_in(frame) for frame in frames] == list(range(26, 60))
    assert [number_in(frame) for frame in read_video(path, [33, 0, 12], info=info)] == [59, 26, 38]


def test_truncated_file_with_an_index_in_front(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    path = write_video(tmp_path / "whole.mp4", 120, codec="libx264", container_options=options)
    cut = tmp_path / "cut.mp4"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 7 // 10])
    info, frames = read_all(cut, "pyav")  # decord refuses it
    assert 40 < info.num_frames < 120  # the header still says 120
    assert [number_in(frame) for frame in frames] == list(range(info.num_frames))


def turned(path: Path, degrees: int, target: Path) -> Path:
    """A copy whose track header says: turn the picture clockwise by `degrees`."""
    data = path.read_bytes()
    place = data.index(b"tkhd") + 4
    place += 4 + (20 if data[place] == 0 else 32) + 16
    cosine, sine = (round(function(math.radians(degrees))) << 16 for function in (math.cos, math.sin))
    matrix = struct.pack(">9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    target.write_bytes(data[:place] + matrix + data[place + 36 :])
    return target


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_upright(degrees: int, backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "flat.mp4", 5)
    flat = read_video(path, [2], backend)[0]
    copy = turned(path, degrees, tmp_path / "turned.mp4")
    info = probe_video(copy, backend)
    expected = np.rot90(flat, -degrees // 90)
    assert (info.height, info.width) == expected.shape[:2]
    assert np.array_equal(read_video(copy, [2], backend, info)[0], expected)


@pytest.mark.parametrize("backend", READERS)
def test_metadata_that_is_not_utf8(backend: str, tmp_path: Path) -> None:
    import av

    path = tmp_path / "named.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Operation am Knie!!"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for number in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert b"Knie" in data
    path.write_bytes(data.replace(b"Knie", b"Kn\xefe"))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)) as container:
        container.metadata["title"]
    assert [number_in(frame) for frame in read_video(path, range(4), backend)] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"concat:a|b.mp4", b"a%d\n.mp4"])
def test_file_names_that_are_not_utf8_or_look_like_addresses(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", 3).rename(os.fsdecode(name))
    path = Path(os.fsdecode(name))
    assert number_in(read_video(path, [2], "pyav")[0]) == 2
    if "decord" in READERS and name[3] == 0xE9:  # decord takes no such name
        with pytest.raises(CorruptFileError, match="not UTF-8"):
            probe_video(path, "decord")


@pytest.mark.parametrize("backend", READERS)
def test_files_that_are_no_videos(backend: str, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(random.Random(0).randbytes(5000))
    write_sound(tmp_path / "sound.wav")
    write_sound(tmp_path / "cover.mp4", cover=True)
    reasons = {"missing.mp4": "does not exist", "empty.mp4": "is empty", "noise.mp4": "open", "sound.wav": "stream"}
    reasons["cover.mp4"] = "no video stream .it holds: audio, cover picture"
    for name, reason in reasons.items():
        for call in (lambda path: probe_video(path, backend), lambda path: read_video(path, [0], backend)):
            with pytest.raises(CorruptFileError, match=reason) as caught:
                call(tmp_path / name)
            assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("backend", READERS)
def test_video_of_one_frame(backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", 1)
    info = probe_video(path, backend)
    assert info.num_frames == 1
    assert [number_in(frame) for frame in read_video(path, [0, 0, 0], info=info)] == [0, 0, 0]


def test_folder_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(numbered_frame(number)).save(folder / f"frame{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    (folder / "frame11.png").rename(folder / "frame①.png")  # a digit that is no number: text, behind those
    assert [number_in(frame) for frame in read_video(folder, range(12))] == list(range(12))
    (folder / "frame①.png").rename(folder / "frame11.png")
    info = probe_video(folder)
    assert info == VideoInfo(12, None, 64, 96, "frames")
    assert [number_in(frame) for frame in read_video(folder, [11, 2, 10], info=info)] == [11, 2, 10]
    assert [number for number, _ in iterate_video(folder, start=9)] == [9, 10, 11]
    Image.fromarray(numbered_frame(3)[:32]).save(folder / "frame3.png")
    with pytest.raises(CorruptFileError, match=r"frame3.png: is 32 x 96, but the first picture is 64 x 96"):
        read_video(folder, [3])
    (folder / "frame4.png").write_bytes((folder / "frame5.png").read_bytes()[:90])
    with pytest.raises(CorruptFileError, match=r"frame4.png: truncated PNG"):
        read_video(folder, [4])
    with pytest.raises(ConfigError, match="folder of pictures"):
        probe_video(folder, "decord")
    (tmp_path / "bare").mkdir()
    with pytest.raises(CorruptFileError, match="holds no pictures"):
        probe_video(tmp_path / "bare")


def test_depth_maps_are_no_frames(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(CorruptFileError, match="depth map"):
        probe_video(tmp_path)


def test_unknown_words(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(ConfigError, match="Did you mean 'decord'"):
        probe_video(path, "decrod")
    with pytest.raises(ConfigError, match="reads folders"):
        probe_video(path, "frames")
    with pytest.raises(ConfigError, match="step"):
        next(iterate_video(path, step=0))
    with pytest.raises(IndexError, match="frame -1"):
        read_video(path, [-1])


@pytest.mark.skipif("decord" not in READERS, reason="decord is not installed")
def test_auto_is_pyav_else_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    assert probe_video(path).backend == "pyav"
    assert probe_video(path, "decord").backend == "decord"
    monkeypatch.setattr(video_pyav_m33d, "_library", lambda: None)
    assert probe_video(path).backend == "decord"
    with pytest.raises(ImportError, match="pip install av"):
        probe_video(path, "pyav")


@pytest.mark.parametrize("backend", READERS)
def test_frames_that_are_not_wanted_are_not_converted(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 40)
    info, converted = probe_video(path, backend), []
    pixels = video_pyav_m33d.Pictures.of
    monkeypatch.setattr(
        video_pyav_m33d.Pictures, "of", lambda self, frame: converted.append(frame) or pixels(self, frame)
    )
    found = list(iterate_wanted(path, lambda number: number % 7 == 3, 5, info))
    assert [number for number, _ in found] == list(range(5, 40))
    assert [number for number, frame in found if frame is not None] == [10, 17, 24, 31, 38]
    assert all(number_in(frame) == number for number, frame in found if frame is not None)
    assert len(converted) == (5 if backend == "pyav" else 0)
    with pytest.raises(ConfigError, match="start is -1"):
        next(iterate_wanted(path, lambda number: True, -1, info))


def test_damage_shows_in_frames_that_are_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.avi", 60)
    info, walk, expected = probe_video(path), video_pyav_m33d.Cursor._walk_to, []
    monkeypatch.setattr(
        video_pyav_m33d.Cursor, "_walk_to", lambda self, number: None if number == 20 else walk(self, number)
    )
    with pytest.raises(CorruptFileError) as told:
        expected.extend(number for number, _ in iterate_video(path, info=info))
    found = []
    with pytest.raises(CorruptFileError) as same:
        found.extend(number for number, _ in iterate_wanted(path, lambda number: False, info=info))
    assert found == expected == list(range(20)) and str(same.value) == str(told.value)


def test_a_named_backend_never_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(video_decord_m33d, "_library", lambda: None)
    assert probe_video(path).backend == "pyav"
    with pytest.raises(ImportError, match="pip install decord"):
        probe_video(path, "decord")
    monkeypatch.setattr(video_pyav_m33d, "_library", lambda: None)
    with pytest.raises(ImportError, match="PyAV or decord"):
        probe_video(path)


def test_decord_is_not_loaded_for_what_pyav_reads(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    code = (
        "import sys; from m33d_hf.modeling.video_reading_m33d import read_video\n"
        f"read_video({str(path)!r}, [0, 2]); sys.exit('decord' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_decord_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_pyav_m33d, "_library", lambda: None)
    path = write_video(tmp_path / "b.avi", 50, options={"bf": "2"})
    info, frames = read_all(path, "auto")
    assert info.backend == "decord"
    assert [number_in(frame) for frame in frames] == list(range(50))
    assert number_in(read_video(path, [31], info=info)[0]) == 31


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("backend", READERS)
def test_memory_stays_flat_over_two_thousand_reads(backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 8)
    info = probe_video(path, backend)
    for _ in range(100):
        read_video(path, [1, 6], info=info)
    before = resident()
    for _ in range(2000):
        read_video(path, [1, 6], info=info)
    assert resident() - before < 20  # MiB; 2000 clips of two frames are 70


@pytest.mark.parametrize("backend", READERS)
def test_long_videos_stream_at_constant_memory(backend: str, tmp_path: Path) -> None:
    blank = np.zeros((96, 128, 3), np.uint8)
    path = write_video(tmp_path / "long.mp4", 4000, size=(96, 128), frames=[blank] * 4000)
    count = 0
    for count, _ in enumerate(iterate_video(path, backend), start=1):
        if count == 500:
            before = resident()
    assert count == 4000
    assert resident() - before < 30  # MiB; 3500 frames are 123


@pytest.mark.parametrize("backend", READERS)
def test_threads_have_their_own_readers(backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 40)
    info = probe_video(path, backend)

    def shown(number: int) -> int:
        return number_in(read_video(path, [number], info=info)[0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shown, [*range(40)] * 3)) == [*range(40)] * 3


class _Clips(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, path: Path, info: VideoInfo) -> None:
        self.path, self.info = path, info

    def __len__(self) -> int:
        return self.info.num_frames

    def __getitem__(self, index: int) -> int:
        return number_in(read_video(self.path, [index], info=self.info)[0])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.parametrize("backend", READERS)
def test_forked_workers(backend: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24)
    info = probe_video(path, backend)
    read_video(path, [3, 20], info=info)  # the parent has used the reader before it forks
    unfinished = iterate_video(path, backend)
    next(unfinished)  # and even has one open
    loader = torch.utils.data.DataLoader(
        _Clips(path, info), batch_size=6, num_workers=2, timeout=20, multiprocessing_context="fork"
    )
    assert torch.cat(list(loader)).tolist() == list(range(24))
    assert number_in(next(unfinished)[1]) == 1


def test_readers_go_without_the_garbage_collector(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30, codec="libx264")
    info = probe_video(path, "pyav")
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            read_video(path, [29, 3], info=info)
        left = [each for each in gc.get_objects() if type(each) in (video_pyav_m33d.VideoFile, video_pyav_m33d.Cursor)]
    finally:
        gc.enable()
    assert not left


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("open files are counted in /proc")
    path = write_video(tmp_path / "a.mp4", 12)
    write_sound(tmp_path / "sound.wav")
    for backend in READERS:
        read_all(path, backend)
        with pytest.raises(CorruptFileError):
            probe_video(tmp_path / "sound.wav", backend)
    names = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    assert not [name for name in names if str(tmp_path) in name]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
def test_a_seek_ends_at_the_start_point_and_not_one_before(name: str, tmp_path: Path) -> None:
    """Where frames are reordered: a seek that ends too early decodes everything between for nothing."""
    path = write_video(tmp_path / name, 100, codec="libx264", gop=25, options={"bf": "2", "sc_threshold": "0"})
    index = probe_video(path, "pyav").index
    assert index is not None and len(index.keys) == 4
    with video_pyav_m33d.VideoFile(path) as file:
        for place, key in enumerate(index.keys):
            assert file.seek(key)
            first = next(file.container.demux(file.stream))
            assert index.number_of(first.pts) == index.number_of_key(place) == 25 * place

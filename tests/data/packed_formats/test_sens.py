"""ScanNet's recordings: every field where a second writer put it, damage found and named."""

import logging
from pathlib import Path

import numpy as np
import pytest

from helpers.sens_files import MATRICES, RATE, depth_ramp, sens_bytes, smooth_picture, write_sens
from m33d_hf.data.files.files import load_map, load_rgb, read_map, size_and_orientation
from m33d_hf.data.files.packed import file_of, packed_frame, packed_name
from m33d_hf.data.packed_formats import sens
from m33d_hf.errors import CorruptFileError

SIZE = (24, 32)
HEADER = 12 + len(b"StructureSensor") + 256 + 8 + 16 + 4 + 8
FRAME = 64 + 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "cache"))
    sens._index.cache_clear()
    return tmp_path / "cache" / "sens"


def test_header_poses_and_stamps(tmp_path: Path):
    index = sens.read_index(write_sens(tmp_path / "a.sens"))
    header = index.header
    assert (header.sensor, header.color_kind, header.depth_kind) == ("StructureSensor", "JPEG", "zlib")
    assert (header.color_size, header.depth_size, header.depth_shift) == ((48, 64), SIZE, 1000.0)
    for number, name in enumerate(("color_intrinsic", "color_extrinsic", "depth_intrinsic", "depth_extrinsic")):
        assert header.matrices[name] == tuple(MATRICES[number].ravel())
    assert index.num_frames == 3 and index.lack is None
    (pose, stamps), (lost, _) = (sens.read_track(tmp_path / "a.sens", number) for number in (2, 1))
    assert (pose == np.eye(4) * 3).all() and np.isneginf(lost).all() and stamps == (2 * RATE, 2 * RATE + 7)
    with pytest.raises(CorruptFileError, match="there are 3 frames"):
        sens.read_track(tmp_path / "a.sens", 3)


@pytest.mark.parametrize("color_kind", ["JPEG", "PNG", "raw"])
@pytest.mark.parametrize("depth_code", [0, 1])
def test_pictures_and_maps(tmp_path: Path, color_kind: str, depth_code: int):
    file = write_sens(tmp_path / "a.sens", color_kind=color_kind, depth_code=depth_code)
    for number in (2, 0):
        picture = load_rgb(packed_name(str(file), "color", number))
        apart = np.abs(picture.values.astype(int) - smooth_picture(number, (48, 64)).astype(int)).max()
        assert picture.orientation == 1 and apart <= (3 if color_kind == "JPEG" else 0)
        depth = read_map(packed_name(str(file), "depth", number))
        assert depth.dtype == np.uint16 and (depth == depth_ramp(number, SIZE)).all()
    assert size_and_orientation(f"{file}#color-1") == (48, 64, 1)
    assert size_and_orientation(f"{file}#depth-1") == (*SIZE, 1)


def test_names_of_frames():
    frame = packed_frame("scans/a#1/scene0000_00.sens#depth-120")
    assert frame is not None and (str(frame.file), frame.stream, frame.number) == (
        "scans/a#1/scene0000_00.sens",
        "depth",
        120,
    )
    assert file_of("x.sens#color-3") == "x.sens"
    for name in ("x.sens", "x.png#color-3", "x.sens#color", "a#b/c.png", "v.mp4#12"):
        assert packed_frame(name) is None and file_of(name) == name


def test_the_end_may_lack_the_inertial_readings(tmp_path: Path):
    assert sens.read_index(write_sens(tmp_path / "a.sens", imu=False)).num_frames == 3


def cut_places(data: bytes) -> list[int]:
    """Where the frames begin, stepping through the bytes by hand."""
    places, at = [], HEADER
    for _ in range(3):
        places.append(at)
        color, depth = np.frombuffer(data, "<u8", 2, at + 80)
        at += FRAME + int(color) + int(depth)
    return [*places, at]


@pytest.mark.parametrize("place", ["header", "sizes", "colour", "depth"])
def test_a_recording_cut_short_is_read_as_far_as_it_goes(tmp_path: Path, place: str):
    file = write_sens(tmp_path / "a.sens")
    data = file.read_bytes()
    start, end = cut_places(data)[2:]
    stop = {"header": start + 20, "sizes": start + 90, "colour": start + FRAME + 5, "depth": end - 3}[place]
    file.write_bytes(data[:stop])
    index = sens.read_index(file)
    assert index.num_frames == 2 and "frame 2 of 3" in (index.lack or "")
    assert (read_map(f"{file}#depth-1") == depth_ramp(1, SIZE)).all()
    with pytest.raises(CorruptFileError, match="2 frames"):
        read_map(f"{file}#depth-2")


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 10**9])
def test_a_wrong_length_ends_the_recording(tmp_path: Path, value: int):
    file = write_sens(tmp_path / "a.sens")
    data = bytearray(file.read_bytes())
    at = cut_places(bytes(data))[1] + 80
    data[at : at + 8] = np.array(value, "<u8").tobytes()
    file.write_bytes(data)
    index = sens.read_index(file)
    assert index.num_frames == 1 and f"{value:,} bytes of colour" in (index.lack or "")


def test_damaged_headers_are_refused(tmp_path: Path):
    file = tmp_path / "a.sens"
    whole = sens_bytes([smooth_picture(0, (48, 64))], [depth_ramp(0, SIZE)])

    def refused(data: bytes, match: str) -> None:
        file.write_bytes(data)
        with pytest.raises(CorruptFileError, match=match):
            sens.read_index(file)

    refused(whole[:5], "middle of its header")
    refused(whole[:200], "middle of its header")
    refused(b"\x05" + whole[1:], "version 4")
    refused(whole[:4] + np.array(2**63, "<u8").tobytes() + whole[12:], "9,223,372,036,854,775,808 bytes")
    refused(whole[:HEADER], "no complete frame")
    refused(b"", "version|header")
    at = 12 + 15 + 256
    refused(whole[:at] + b"\x09" + whole[at + 1 :], "colour compression is 9")
    refused(whole[: at + 8] + np.array(2**31, "<u4").tobytes() + whole[at + 12 :], "pixels")
    refused(whole[: at + 24] + np.array(np.nan, "<f4").tobytes() + whole[at + 28 :], "depth shift is nan")
    refused(whole[: at + 28] + np.array(2**60, "<u8").tobytes() + whole[at + 36 :], "frames")
    with pytest.raises(CorruptFileError, match="does not exist"):
        sens.read_index(tmp_path / "none.sens")


def test_damaged_frames_are_refused_one_by_one(tmp_path: Path):
    file = write_sens(tmp_path / "a.sens")
    data = bytearray(file.read_bytes())
    start = cut_places(bytes(data))[1]
    color = int(np.frombuffer(data, "<u8", 1, start + 80)[0])
    data[start + FRAME + 2 : start + FRAME + 40] = bytes(38)  # JPEG
    data[start + FRAME + color + 2] ^= 0xFF  # zlib
    file.write_bytes(data)
    for stream in ("color", "depth"):
        with pytest.raises(CorruptFileError, match=rf"a\.sens#{stream}-1"):
            load_rgb(f"{file}#{stream}-1") if stream == "color" else load_map(f"{file}#{stream}-1")
    assert (read_map(f"{file}#depth-2") == depth_ramp(2, SIZE)).all()


def test_maps_of_another_size_are_refused(tmp_path: Path):
    file = tmp_path / "a.sens"
    pictures = [smooth_picture(i, (48, 64)) for i in range(3)]
    file.write_bytes(sens_bytes(pictures, [depth_ramp(0, SIZE), depth_ramp(1, (24, 31)), depth_ramp(2, (24, 33))]))
    for number in (1, 2):
        with pytest.raises(CorruptFileError, match=r"do not fit|too long"):
            read_map(f"{file}#depth-{number}")


def test_occi_is_refused_by_name(tmp_path: Path):
    file = write_sens(tmp_path / "a.sens", depth_code=2)
    with pytest.raises(CorruptFileError, match="occi"):
        read_map(f"{file}#depth-0")


def test_the_index_is_made_once_per_file(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    file = write_sens(tmp_path / "a.sens")
    first = sens.read_index(file)
    assert [kept.suffix for kept in cache.iterdir()] == [".npz"]
    sens._index.cache_clear()  # as another process
    monkeypatch.setattr(sens, "_scan", None)
    again = sens.read_index(file)
    assert (again.places == first.places).all() and again.lack is None


def test_a_changed_file_gets_an_index_of_its_own(tmp_path: Path):
    file = write_sens(tmp_path / "a.sens")
    assert sens.read_index(file).num_frames == 3
    write_sens(file, count=5)
    assert sens.read_index(file).num_frames == 5


def test_a_damaged_index_is_made_anew(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture):
    file = write_sens(tmp_path / "a.sens")
    sens.read_index(file)
    kept = next(cache.iterdir())
    data = bytearray(kept.read_bytes())
    data[200] ^= 0xFF
    kept.write_bytes(data)
    sens._index.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert (read_map(f"{file}#depth-2") == depth_ramp(2, SIZE)).all()
    assert "built again" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("M33D_CACHE", str(tmp_path / "file"))
    assert sens.read_index(write_sens(tmp_path / "a.sens")).num_frames == 3


@pytest.mark.extras
def test_another_reader_finds_the_same(tmp_path: Path):
    other = pytest.importorskip("scenezoo.io.sens")
    file = write_sens(tmp_path / "a.sens", count=4)
    ours, theirs = sens.read_index(file), other.read_sens_index(file)
    assert theirs.color_offsets.tolist() == ours.places[:, 0].tolist()
    assert theirs.depth_offsets.tolist() == ours.places[:, 2].tolist()
    assert (theirs.color_size, theirs.depth_size) == (ours.header.color_size[::-1], ours.header.depth_size[::-1])
    assert np.array_equal(theirs.camera_to_world, [sens.read_track(file, number)[0] for number in range(4)])
    assert tuple(theirs.depth_intrinsic.ravel()) == ours.header.matrices["depth_intrinsic"]

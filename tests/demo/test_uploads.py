"""demo/uploads.py: pictures, depth maps and videos of visitors, and what is said of everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.prediction import picture, save_pictures
from helpers.videos import write_video
from m33d_hf.demo import uploads
from m33d_hf.demo.uploads import LONGEST_SIDE, check_video, read_clip_depth, read_depth_upload, read_upload
from m33d_hf.errors import DataError


def test_pictures_come_upright_and_within_bounds(tmp_path: Path) -> None:
    (small,) = save_pictures(tmp_path, 1)
    assert read_upload(str(small)) == (pytest.approx(picture(0)), "")
    turned = Image.fromarray(picture(0))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert read_upload(str(tmp_path / "turned.png"))[0].shape == (60, 48, 3)
    Image.fromarray(picture(1, 90, 2600)).save(tmp_path / "wide.png")
    pixels, note = read_upload(str(tmp_path / "wide.png"))
    assert pixels.shape == (44, LONGEST_SIDE, 3) and "2600 x 90 was reduced to 1280 x 44" in note


@pytest.mark.parametrize("content", [b"just words", b"", b"\x89PNG\r\n\x1a\n broken", b"%PDF-1.4"])
def test_what_is_no_picture_is_said_to_be(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "holiday.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^holiday.png cannot be used as a picture \(.*\). Drop one of .jpg, .jpeg"):
        read_upload(str(path))


def test_depth_maps_are_brought_to_the_picture(tmp_path: Path) -> None:
    stored = np.arange(1, 13, dtype=np.uint16).reshape(3, 4) * 1000
    Image.fromarray(stored).save(tmp_path / "d.png")
    path = str(tmp_path / "d.png")
    assert np.array_equal(read_depth_upload(path, (3, 4), None), stored)
    doubled = read_depth_upload(path, (6, 8), "millimetre")
    assert doubled.dtype == np.float32 and np.array_equal(doubled, np.repeat(np.repeat(stored / 1000, 2, 0), 2, 1))
    with pytest.raises(DataError, match=r"d.png has 4 x 3 values, the picture 4 x 4 pixels"):
        read_depth_upload(path, (4, 4), None)
    (tmp_path / "e.png").write_text("no map")
    with pytest.raises(DataError, match=r"e.png cannot be used as a depth map"):
        read_depth_upload(str(tmp_path / "e.png"), (3, 4), None)


def test_videos_are_checked_before_others_have_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, 6)
    assert check_video(str(path)).num_frames == 6
    monkeypatch.setattr(uploads, "LONGEST_VIDEO", 5)
    with pytest.raises(DataError, match=r"v.mp4 has 6 frames; this page takes up to 5"):
        check_video(str(path))
    (tmp_path / "w.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"w.mp4 cannot be used as a video .*Drop one of"):
        check_video(str(tmp_path / "w.mp4"))


def test_the_depth_of_a_video_comes_frame_by_frame_or_in_one_file(tmp_path: Path) -> None:
    maps = np.arange(12, dtype=np.uint16)[:, None, None] * 100 + np.ones((12, 6, 8), np.uint16)
    paths = [str(tmp_path / f"f{number}.png") for number in range(12)]
    for path, values in zip(paths, maps, strict=True):
        Image.fromarray(values).save(path)
    found = read_clip_depth(sorted(paths), 12, (12, 16), "millimetre")  # by name alone, f10 would follow f1
    assert found.shape == (12, 12, 16) and np.allclose(found[:, ::2, ::2], maps / 1000)
    circled = Path(paths[0]).rename(tmp_path / "a①.png")  # a digit that is no number
    assert np.array_equal(read_clip_depth([*paths[1:], str(circled)], 12, (12, 16), "millimetre"), found)
    circled.rename(paths[0])
    np.save(tmp_path / "all.npy", maps)
    assert np.array_equal(read_clip_depth([str(tmp_path / "all.npy")], 12, (12, 16), "millimetre"), found)
    with pytest.raises(DataError, match="11 depth maps were given, the video has 12 frames"):
        read_clip_depth(paths[1:], 12, (12, 16), None)
    with pytest.raises(DataError, match=r"all\.npy holds 12 maps, the video 13 frames"):
        read_clip_depth([str(tmp_path / "all.npy")], 13, (12, 16), None)
    np.save(tmp_path / "flat.npy", maps[0])
    with pytest.raises(DataError, match=r"maps of a video are \(T, H, W\)"):
        read_clip_depth([str(tmp_path / "flat.npy")], 12, (12, 16), None)
    (tmp_path / "bad.npy").write_text("no")
    with pytest.raises(DataError, match="it is no NPY file"):
        read_clip_depth([str(tmp_path / "bad.npy")], 12, (12, 16), None)

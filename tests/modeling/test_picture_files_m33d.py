"""Pictures as modeling code reads them, and the boundary around foreign decoders."""

from pathlib import Path

import numpy as np
import pytest

from helpers.map_files import binary_pgm, millimetres, picture, pictures
from m33d_hf.errors import ConfigError, CorruptFileError, decoding
from m33d_hf.inference.depth_items import list_items
from m33d_hf.inference.detection_files import find_videos
from m33d_hf.modeling.picture_files_m33d import file_orientation, lies_unknown, read_picture
from m33d_hf.modeling.video_reading_m33d import probe_video


@pytest.mark.parametrize("raised", [MemoryError(), RecursionError(), SyntaxError("x"), KeyError("k"), OSError(5, "io")])
def test_whatever_a_decoder_raises_is_a_damaged_file(raised: Exception):
    wanted = pytest.raises(CorruptFileError, match=r"^a\.png: cannot be decoded \(.+\); try another$")
    with wanted as caught, decoding("a.png", cure="; try another"):
        raise raised
    assert caught.value.__cause__ is raised


def test_what_is_ours_or_the_users_passes():
    with pytest.raises(ConfigError, match=r"^mine$"), decoding("a.png"):
        raise ConfigError("mine")
    with pytest.raises(KeyboardInterrupt), decoding("a.png"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", [name for name in pictures() if name != "jpeg"])
def test_pictures(tmp_path: Path, name: str):
    suffix, data = pictures()[name]
    (tmp_path / f"a{suffix}").write_bytes(data)
    pixels, orientation = read_picture(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pixels, picture())
    assert orientation == file_orientation(tmp_path / f"a{suffix}") == 1


def test_more_than_eight_bits_are_no_picture(tmp_path: Path):
    (tmp_path / "a.pgm").write_bytes(binary_pgm(millimetres()))
    with pytest.raises(CorruptFileError, match="depth map"):
        read_picture(tmp_path / "a.pgm")


def test_when_a_map_may_lie_either_way():
    assert not lies_unknown(1, (4, 4), (4, 4))
    assert not lies_unknown(6, (6, 4), (3, 2))  # upright, as its picture
    assert lies_unknown(6, (6, 4), (4, 6))  # as the picture is stored
    assert lies_unknown(6, (4, 4), (4, 4)) and lies_unknown(3, (6, 4), (6, 4)) and lies_unknown(2, (6, 4), (6, 4))


def test_messages_that_find_nothing_say_what_lay_there(tmp_path: Path):
    for name in ("a.heic", "b.heic", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    for look in (probe_video, lambda path: find_videos([path]), lambda path: list_items(path, "images")):
        with pytest.raises(Exception, match=r"2 \.heic, 1 \.txt") as caught:
            look(tmp_path)
        assert ".webp" in str(caught.value)

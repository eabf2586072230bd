"""EXIF orientation: pictures are upright wherever they are read, and maps beside them follow or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers.image_utils import load_image

from helpers.frames_on_disk import depth_array, label_array, rgb_array, save
from m33d_hf.data.depth.maps import find_depth_maps
from m33d_hf.data.files.files import load_map, load_rgb, read_map, read_rgb, size_and_orientation
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import DataError
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.picture_files_m33d import turned_upright
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import probe_video, read_video

SUFFIXES = (".png", ".jpg", ".webp", ".tif")


def save_tagged(path: Path, values: np.ndarray, orientation: int) -> Path:
    """A picture or map with an orientation note, values as given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(path.suffix, {})
    Image.fromarray(values).save(path, exif=exif, **options)
    return path


def upright(path: Path) -> np.ndarray:
    """Pillow's own turning, which transformers' pipelines use."""
    return np.array(ImageOps.exif_transpose(Image.open(path)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_folders_of_frames_processors_and_pipelines_agree(tmp_path: Path, orientation: int, suffix: str):
    path = save_tagged(tmp_path / f"frames/0{suffix}", rgb_array(3, (20, 32)), orientation)
    expected = upright(path)
    assert expected.shape[:2] == ((32, 20) if orientation >= 5 else (20, 32))
    pixels, lies = load_rgb(path)
    np.testing.assert_array_equal(pixels, expected)
    assert lies == orientation and size_and_orientation(path)[:2] == expected.shape[:2]
    np.testing.assert_array_equal(read_video(path.parent, [0])[0], expected)
    assert (probe_video(path.parent).height, probe_video(path.parent).width) == expected.shape[:2]
    np.testing.assert_array_equal(np.array(load_image(str(path))), expected)
    for processor in (M33DImageProcessor(size=16), M33DImageProcessorPil(size=16)):
        wanted = processor(expected, return_tensors="pt").pixel_values
        for given in (str(path), path, Image.open(path), load_image(str(path)), [Image.open(path)]):
            assert torch.equal(processor(given, return_tensors="pt").pixel_values, wanted)
    video = M33DVideoProcessor(size=16)
    wanted = video(expected[None], return_tensors="pt").pixel_values
    for given in (Image.open(path), [Image.open(path)], str(path.parent)):
        assert torch.equal(video(given, return_tensors="pt").pixel_values, wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_pillows(orientation: int):
    values = depth_array(1, (5, 7))
    image = Image.fromarray(values)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(turned_upright(values, orientation), np.array(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", [3, 6, 8, 5])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_maps_with_an_orientation_of_their_own(tmp_path: Path, suffix: str, orientation: int):
    stored = depth_array(0)
    path = save_tagged(tmp_path / f"a{suffix}", stored, orientation)
    values, lies = load_map(path)
    np.testing.assert_array_equal(values, turned_upright(stored, orientation))
    assert lies == orientation and size_and_orientation(path)[:2] == values.shape and values.dtype == np.uint16


@pytest.mark.parametrize("value", [0, 9, 77])
def test_a_senseless_orientation_turns_nothing(tmp_path: Path, value: int):
    np.testing.assert_array_equal(read_rgb(save_tagged(tmp_path / "a.jpg", np.full((8, 9, 3), 7, np.uint8), value)), 7)


def write_pairs(root: Path, orientation: int, size: tuple[int, int], depth: tuple[int, int]) -> Path:
    for number in range(3):
        save_tagged(root / f"color/{number}.png", rgb_array(number, size), orientation)
        save(root / f"depth/{number}.png", depth_array(number, depth))
    return root


@pytest.mark.parametrize(
    ("orientation", "size"), [(6, (24, 32)), (8, (24, 32)), (3, (24, 32)), (2, (24, 32)), (6, (32, 32)), (3, (32, 32))]
)
def test_untagged_depth_as_stored_is_refused_with_the_cure(tmp_path: Path, orientation: int, size: tuple[int, int]):
    root = write_pairs(tmp_path, orientation, size, size)
    for align in ("refuse", "depth_to_rgb", "rgb_to_depth"):
        told = rf"EXIF orientation {orientation} .*--data.options.orientation as_rgb"
        with pytest.raises(DataError, match=told) as caught:
            FolderSource(root, align=align)
        assert "align=" not in str(caught.value)
    source = FolderSource(root, orientation="as_rgb")
    assert any("are turned with them" in note for note in source.notes)
    sample = source[1].read([0])
    np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), upright(root / "color/1.png"))
    stored = turned_upright(depth_array(1, size), orientation)
    np.testing.assert_array_equal((sample.depth[0, 0].nan_to_num() * 1000).round().numpy(), stored)
    alone = source[1].read_maps([0], {"depth"})
    assert torch.equal(alone.depth.nan_to_num(), sample.depth.nan_to_num())
    plain = FolderSource(write_pairs(tmp_path / "plain", 1, size, size))
    assert FolderSource(root, orientation="as_rgb").digest() != plain.digest()


def test_depth_that_can_only_be_upright_is_taken_as_it_is(tmp_path: Path):
    source = FolderSource(write_pairs(tmp_path, 6, (24, 32), (32, 24)))
    assert any("3 of 3 checked pictures have an EXIF orientation, 6 (3 times)" in note for note in source.notes)
    sample = source[2].read([0])
    assert sample.rgb.shape[-2:] == sample.depth.shape[-2:] == (32, 24)
    np.testing.assert_array_equal((sample.depth[0, 0].nan_to_num() * 1000).round().numpy(), depth_array(2, (32, 24)))


def test_depth_that_is_upright_by_statement(tmp_path: Path):
    root = write_pairs(tmp_path, 3, (24, 32), (24, 32))
    sample = FolderSource(root, orientation="upright")[0].read([0])
    np.testing.assert_array_equal((sample.depth[0, 0].nan_to_num() * 1000).round().numpy(), depth_array(0))
    np.testing.assert_array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), upright(root / "color/0.png"))


def test_tagged_depth_goes_with_its_picture(tmp_path: Path):
    write_pairs(tmp_path, 6, (24, 32), (24, 32))
    for number in range(3):
        save_tagged(tmp_path / f"depth/{number}.png", depth_array(number), 6)
    sample = FolderSource(tmp_path)[1].read([0])
    millimetres = (sample.depth[0, 0].nan_to_num() * 1000).round().numpy()
    np.testing.assert_array_equal(millimetres, np.rot90(depth_array(1), -1))


def test_labels_and_later_frames_are_held_to_the_same_rule(tmp_path: Path):
    for number in range(60):
        save(tmp_path / f"color/{number}.png", rgb_array(number))
        save(tmp_path / f"depth/{number}.png", depth_array(number))
        save(tmp_path / f"label/{number}.png", label_array(number))
    save_tagged(tmp_path / "color/1.png", rgb_array(1), 3)  # not among those looked at first
    source = FolderSource(tmp_path, num_classes=4)
    with pytest.raises(DataError, match="EXIF orientation 3"):
        source[1].read([0])
    with pytest.raises(DataError, match=r"label.1\.png has the EXIF orientation 3"):
        source[1].read_maps([0], {"rgb", "segmentation"})
    assert source[1].read_maps([0], {"rgb"}).rgb is not None


def test_pictures_alone_are_turned_and_it_is_said(tmp_path: Path):
    for number in range(2):
        save_tagged(tmp_path / f"{number}.jpg", rgb_array(number), 6)
    source = FolderSource(tmp_path, depth="none")
    assert source[0].read([0]).rgb.shape[-2:] == (32, 24)
    assert any("are turned upright" in note for note in source.notes)


def test_processors_refuse_maps_that_may_lie_either_way(tmp_path: Path):
    path = save_tagged(tmp_path / "a.jpg", rgb_array(0), 3)
    metres = depth_array(0) / np.float32(1000)
    processor = M33DImageProcessor(size=16)
    for given in (str(path), Image.open(path)):
        with pytest.raises(DataError, match="EXIF orientation 3"):
            processor(given, metres)
        with pytest.raises(DataError, match="EXIF orientation 3"):
            processor([given], None, [label_array(0)])
    tagged = Image.fromarray(label_array(0))
    tagged.getexif()[274] = 3
    turned = processor(str(path), None, [tagged], return_tensors="pt")["labels"]
    plain = processor(read_rgb(path), None, [label_array(0)[::-1, ::-1]], return_tensors="pt")["labels"]
    assert torch.equal(turned, plain)
    assert read_map(save(tmp_path / "d.png", depth_array(0))).shape == (24, 32)


@pytest.mark.parametrize("upright_note", [True, False])
def test_depth_beside_a_folder_of_frames(tmp_path: Path, upright_note: bool):
    spec = {"kind": "metric", "unit": "millimetre", **({"provenance": {"upright": True}} if upright_note else {})}
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth/depth_spec.json").write_text(json.dumps(spec))
    for number in range(3):
        save_tagged(tmp_path / f"data/v/{number}.png", rgb_array(number), 3 if number == 1 else 1)
        save(tmp_path / f"depth/v/{number}.png", depth_array(number))
    video = VideoFile("v", tmp_path / "data/v", find_depth_maps(tmp_path / "depth", "v"))
    assert video.read([0, 2]).depth is not None
    assert video.read_maps([1], {"rgb"}).rgb is not None
    if upright_note:
        sample = video.read([1])
        np.testing.assert_array_equal((sample.depth[0, 0].nan_to_num() * 1000).round().numpy(), depth_array(1))
        return
    with pytest.raises(DataError, match=r"EXIF orientation 3 .*extract_depth\.py"):
        video.read([1])


def test_folders_of_frames_with_phases_take_the_option_too(tmp_path: Path):
    write_pairs(tmp_path / "videos/v", 3, (24, 32), (24, 32))
    (tmp_path / "phase_annotations").mkdir()
    (tmp_path / "phase_annotations/v-phase.txt").write_text("Frame\tPhase\n0\ta\n1\ta\n2\tb\n")
    options = {"root": tmp_path, "phase_names": ["a", "b"]}
    with pytest.raises(DataError, match="EXIF orientation 3"):
        build_source("phases", **options)
    assert len(build_source("phases", orientation="as_rgb", **options)) == 1


ROTATIONS = {90: 8, 180: 3, -90: 6}  # degrees of a display matrix, counter-clockwise, and what EXIF calls that


def write_turned_video(path: Path, degrees: int, size: tuple[int, int], count: int = 6) -> Path:
    """A video whose file says to turn its frames."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        if degrees:
            stream.set_display_rotation(degrees)
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb_array(number, size), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("size", [(32, 48), (32, 32)])
@pytest.mark.parametrize("degrees", ROTATIONS)
def test_depth_beside_a_video_that_is_stored_lying(tmp_path: Path, degrees: int, size: tuple[int, int]):
    write_turned_video(tmp_path / "rgb.mp4", degrees, size)
    assert probe_video(tmp_path / "rgb.mp4").orientation == ROTATIONS[degrees]
    for number in range(6):
        save(tmp_path / f"depth/{number:06d}.png", depth_array(number, size))
    with pytest.raises(DataError, match=r"its video is stored so.*--data.options.orientation as_rgb"):
        FolderSource(tmp_path, depth_unit="millimetre")
    source = FolderSource(tmp_path, depth_unit="millimetre", orientation="as_rgb")
    assert any("are turned with them" in note for note in source.notes)
    sample = source[2].read([0])
    stored = np.rot90(depth_array(2, size), degrees // 90)
    np.testing.assert_array_equal((sample.depth[0, 0].nan_to_num() * 1000).round().numpy(), stored)
    assert sample.rgb.shape[-2:] == stored.shape


@pytest.mark.parametrize("size", [(32, 48), (32, 32)])
@pytest.mark.parametrize("degrees", [*ROTATIONS, 0])
def test_sidecar_depth_of_a_video_that_is_stored_lying(tmp_path: Path, degrees: int, size: tuple[int, int]):
    path = write_turned_video(tmp_path / "a.mp4", degrees, size)
    for number in range(6):
        save(tmp_path / f"depth/a/{number}.png", depth_array(number, size))
    spec = {"kind": "metric", "unit": "millimetre"}
    (tmp_path / "depth/depth_spec.json").write_text(json.dumps(spec))
    if degrees:
        with pytest.raises(DataError, match="EXIF orientation"):
            VideoFile("a", path, find_depth_maps(tmp_path / "depth", "a")).read([1])
        (tmp_path / "depth/depth_spec.json").write_text(json.dumps({**spec, "provenance": {"upright": True}}))
        if size[0] != size[1] and degrees % 180:  # it is not what it is said to be
            with pytest.raises(DataError, match="of another aspect ratio"):
                VideoFile("a", path, find_depth_maps(tmp_path / "depth", "a")).read([1])
        for number in range(6):
            save(tmp_path / f"depth/a/{number}.png", np.rot90(depth_array(number, size), degrees // 90))
    assert VideoFile("a", path, find_depth_maps(tmp_path / "depth", "a")).read([1]).depth is not None


def test_depth_with_a_note_of_its_own_is_not_said_to_be_left(tmp_path: Path):
    for number in range(3):
        save_tagged(tmp_path / f"color/{number}.png", rgb_array(number, (24, 32)), 6)
        save_tagged(tmp_path / f"depth/{number}.png", depth_array(number, (24, 32)), 6)
    source = FolderSource(tmp_path)
    assert any("only if they have their own orientation" in note for note in source.notes)
    assert source[0].read([0]).depth.shape[-2:] == (32, 24)

"""Depth of another camera in the `folder` source: registered as the function alone registers it, bad files refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import depth_array, label_array, rgb_array, save
from m33d_hf.data.depth.calibration import Calibration, Camera, write_calibration
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.sample import holes_of
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.scripts.check_data import main as check_data

COLOR, DEPTH = (40, 60), (24, 32)
MOVED = ((1.0, 0.0, 0.0, 0.05), (0.0, 1.0, 0.0, -0.01), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
CALIBRATION = Calibration(Camera(60, 40, 50.0, 50.0, 30.2, 19.6), Camera(32, 24, 26.0, 26.0, 15.0, 12.1), MOVED)


def write(root: Path, count: int = 2) -> Path:
    for i in range(count):
        save(root / f"color/{i}.png", rgb_array(i, COLOR))
        save(root / f"depth/{i}.png", depth_array(i, DEPTH))
        save(root / f"label/{i}.png", label_array(i, COLOR))
    write_calibration(root / "calibration.json", CALIBRATION)
    return root


def source(root: Path, **options: object) -> FolderSource:
    return FolderSource(root, **({"calibration": "calibration.json", "depth_unit": "mm"} | options))  # type: ignore[arg-type]


def test_depth_comes_registered_and_colour_untouched(tmp_path: Path):
    """Sizes of another aspect ratio, which `align` refuses."""
    found = source(write(tmp_path), num_classes=4)
    sample = found[1].read([0])
    assert np.array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), rgb_array(1, COLOR))
    assert np.array_equal(sample.segmentation[0].numpy(), label_array(1, COLOR))
    metres = depth_array(1, DEPTH).astype(np.float32) / np.float32(1000)
    expected = register_depth(np.where(metres > 0, metres, np.nan), CALIBRATION)
    assert sample.depth.shape == (1, 1, *COLOR) and np.array_equal(sample.depth[0, 0].numpy(), expected, equal_nan=True)
    assert np.isfinite(expected).mean() > 0.3 and any("registered" in note for note in found.notes)
    depth_alone = found[1].read_maps([0], {"depth"})
    assert depth_alone.rgb is None and torch.equal(depth_alone.depth.nan_to_num(), sample.depth.nan_to_num())


def test_without_it_nothing_changes(tmp_path: Path):
    with pytest.raises(DataError, match=r"calibration \(--data.options.calibration"):
        source(write(tmp_path), calibration=None)


def test_each_sequence_has_its_own(tmp_path: Path):
    """The nearest file above a sequence counts; the digest tells calibrations apart."""
    write(tmp_path / "one" / "a")
    write(tmp_path / "one" / "b")
    (tmp_path / "one" / "b" / "calibration.json").unlink()
    other = Calibration(CALIBRATION.color, CALIBRATION.depth)
    write_calibration(tmp_path / "one" / "calibration.json", other)
    found = source(tmp_path)
    maps = {found[i].key: found[i].read([0]).depth[0, 0].numpy() for i in range(4)}
    metres = depth_array(0, DEPTH).astype(np.float32) / np.float32(1000)
    metres = np.where(metres > 0, metres, np.nan)
    assert np.array_equal(maps["one/a/0"], register_depth(metres, CALIBRATION), equal_nan=True)
    assert np.array_equal(maps["one/b/0"], register_depth(metres, other), equal_nan=True)
    before = found.digest()
    write_calibration(tmp_path / "one" / "calibration.json", CALIBRATION)
    assert source(tmp_path).digest() != before


def test_clips_and_a_path_of_its_own(tmp_path: Path):
    write(tmp_path / "data" / "a", 3)
    (tmp_path / "data" / "a" / "calibration.json").rename(tmp_path / "cameras.json")
    found = source(tmp_path / "data", unit="clips", clip_length=3, calibration=str(tmp_path / "cameras.json"))
    assert found[0].read([0, 1, 2]).depth.shape == (3, 1, *COLOR)


def test_phases_find_it_above_the_folder_of_videos(tmp_path: Path):
    """As the source `folder` does of the same root."""
    (write(tmp_path / "videos/case1") / "calibration.json").rename(tmp_path / "calibration.json")
    how = {"depth": "auto", "depth_unit": "mm", "calibration": "calibration.json"}
    (found,) = PhasesSource(tmp_path, unit="videos", fps=10, **how).videos  # type: ignore[arg-type]
    (expected,) = source(tmp_path, unit="clips", clip_length=2)
    mine, theirs = (video.read([0, 1]).depth.nan_to_num() for video in (found.handle, expected))
    assert torch.equal(mine, theirs) and mine.shape[-2:] == COLOR and bool((mine > 0).any())


def test_a_sequence_without_calibration(tmp_path: Path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "b" / "calibration.json").unlink()
    with pytest.raises(ConfigError, match=r"'calibration.json'.*'b'"):
        source(tmp_path)


def test_sizes_that_differ_are_found_before_training(tmp_path: Path):
    content = CALIBRATION.to_dict()
    content["color"] |= {"width": 120, "height": 80}
    (write(tmp_path) / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"color picture is 60 x 40.*120 x 80"):
        source(tmp_path)


def test_a_later_frame_of_another_size_is_one_file_that_cannot_be_used(tmp_path: Path):
    save(write(tmp_path, 4) / "depth/1.png", depth_array(1, (12, 16)))
    save(tmp_path / "color/2.png", rgb_array(2, (20, 30)))
    found = source(tmp_path)
    for row, file, words in ((1, "depth/1.png", "depth picture is 16 x 12"), (2, "color/2.png", "color .* is 30 x 20")):
        with pytest.raises(CorruptFileError, match=words) as caught:
            found[row].read([0])
        assert caught.value.path == str(tmp_path / file)
    clips = source(tmp_path, unit="clips", clip_length=4)
    holes = holes_of(clips[0].read([0, 1, 3]))
    assert [(hole.place, hole.path, hole.damaged) for hole in holes] == [(1, str(tmp_path / "depth/1.png"), True)]
    with pytest.raises(CorruptFileError, match="color picture is 30 x 20"):  # a picture is no hole
        clips[0].read([1, 2])


def test_check_data_lists_a_later_frame_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save(write(tmp_path / "frames", 20) / "depth/7.png", depth_array(7, (12, 16)))
    words = ["--data.options.calibration", "calibration.json", "--data.options.depth_unit", "mm"]
    assert check_data([str(tmp_path / "frames"), *words, "--output", str(tmp_path / "out")]) == 1
    assert "depth picture is 16 x 12" in capsys.readouterr().out
    (listed,) = read_skipped(tmp_path / "out" / "skipped_files.csv")
    assert listed.path == str(tmp_path / "frames/depth/7.png")


def test_labels_of_another_size_are_still_refused(tmp_path: Path):
    write(tmp_path)
    for i in range(2):
        save(tmp_path / f"label/{i}.png", label_array(i, (20, 30)))
    with pytest.raises(DataError, match=r"differ in size"):
        source(tmp_path, num_classes=4)
    assert source(tmp_path, num_classes=4, align="depth_to_rgb")[0].read([0]).segmentation.shape[-2:] == COLOR


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "rgb_to_depth"}, "align=rgb_to_depth"),
        ({"orientation": "upright"}, "orientation=upright"),
        ({"depth_kind": "inverse", "depth_unit": None}, "inverse depth"),
    ],
)
def test_options_that_contradict_it(tmp_path: Path, options: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        source(write(tmp_path), **options)


def test_pictures_that_exif_turns(tmp_path: Path):
    write(tmp_path)
    exif = Image.Exif()
    exif[274] = 3
    for i in range(2):
        Image.fromarray(rgb_array(i, COLOR)).save(tmp_path / f"color/{i}.png", exif=exif)
    with pytest.raises(DataError, match=r"EXIF orientation"):
        source(tmp_path)

"""Windows of sequences whose own names end as names of windows do: each is read by its own sequence's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from m33d_hf.data.depth.calibration import Calibration, Camera, write_calibration
from m33d_hf.data.measuring.samples import scene_of
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.windows import cut_windows
from m33d_hf.errors import DataError

COLOR, DEPTH = (40, 60), (24, 32)


def test_a_window_knows_its_sequence() -> None:
    sequences = {key: [Frame(f"{key}/{i}") for i in range(4)] for key in ("u", "cam@60")}
    for cut in ({"clip_length": 2, "windows": None}, {"clip_length": 2, "windows": None, "clip_stride": 2}):
        windows = cut_windows(sequences, notes=[], **cut)  # type: ignore[arg-type]
        assert {key: window.sequence for key, window in windows.items()} == {
            "u@0": "u", "u@2": "u", "cam@60@0": "cam@60", "cam@60@2": "cam@60",
        }  # fmt: skip
        assert windows["cam@60@2"].frames == tuple(sequences["cam@60"][2:])


def test_depth_has_its_own_unit(tmp_path: Path) -> None:
    write_frames(tmp_path / "cam@30", 3, scale=5000)
    write_frames(tmp_path / "cam", 3)
    unit = {"cam@30": "tum", "*": "mm"}
    frames = {each.key: each for each in FolderSource(tmp_path, depth_unit=unit)}
    clips = FolderSource(tmp_path, depth_unit=unit, unit="clips")
    assert clips.groups() == ["cam", "cam@30"] and [scene_of(clip) for clip in clips] == ["cam", "cam@30"]
    for clip in clips:
        depth = clip.read([1]).depth
        expected = depth_array(1, scale=5000 if clip.key == "cam@30" else 1000) / (
            5000 if clip.key == "cam@30" else 1000
        )
        assert np.allclose(depth[0, 0].nan_to_num().numpy(), expected)
        assert np.array_equal(depth.nan_to_num(), frames[f"{clip.key}/1"].read([0]).depth.nan_to_num())


def test_depth_is_registered_by_its_own_calibration(tmp_path: Path) -> None:
    for key in ("cam@60", "u"):
        for i in range(2):
            save(tmp_path / key / f"color/{i}.png", rgb_array(i, COLOR))
            save(tmp_path / key / f"depth/{i}.png", depth_array(i, DEPTH))
    cameras = Camera(60, 40, 50.0, 50.0, 30.2, 19.6), Camera(32, 24, 26.0, 26.0, 15.0, 12.1)
    write_calibration(tmp_path / "c.json", Calibration(*cameras))
    clips = FolderSource(tmp_path, unit="clips", depth_unit="mm", calibration="c.json")
    assert [clip.reader.calibration for clip in clips] == [Calibration(*cameras)] * 2
    depth = [clip.read([0]).depth for clip in clips]
    assert depth[0].shape[-2:] == COLOR and np.array_equal(depth[0], depth[1], equal_nan=True)


def test_two_windows_of_one_name_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "cam", 4)
    write_frames(tmp_path / "cam@2", 2)
    options = {"unit": "clips", "depth_unit": "mm", "clip_length": 2}
    with pytest.raises(DataError, match=r"'cam' and one of 'cam@2' would both be called 'cam@2'"):
        FolderSource(tmp_path, **options)
    with pytest.raises(DataError, match=r"'cam@2'.*--data\.options\.windows 1, without clip_stride"):
        FolderSource(tmp_path, clip_stride=2, **options)
    assert [clip.length for clip in FolderSource(tmp_path, windows=1, **options)] == [4, 2]

"""Depth beside a video of which single frames are missing or damaged: NaN there, and never another frame's depth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from m33d_hf.data.depth.maps import DepthMaps, find_depth_maps
from m33d_hf.data.depth.writing import DepthVideoWriter, written_spec
from m33d_hf.data.sample import Hole
from m33d_hf.errors import CorruptFileError, DataError

FRAMES = 6


def values(frame: int) -> np.ndarray:
    """Millimetres that tell the frame."""
    return np.full((3, 4), 1000 + frame, np.uint16)


def folder_of(root: Path, numbers: list[int], first: int = 0, stated: int | None = None) -> DepthMaps:
    (root / "v").mkdir(parents=True)
    spec = {"kind": "metric", "unit": "millimetre"} | ({} if stated is None else {"first_frame": stated})
    (root / "depth_spec.json").write_text(json.dumps(spec))
    for number in numbers:
        Image.fromarray(values(number - first)).save(root / "v" / f"{number:06d}.png")
    maps = find_depth_maps(root, "v")
    assert maps is not None
    return maps


def told(read: tuple[torch.Tensor | None, list[Hole]]) -> list[int | None]:
    """The frame that each map is of, None for a hole, which must be told too."""
    maps, holes = read
    assert maps is not None and maps.shape[1:] == (1, 3, 4)
    empty = [place for place, each in enumerate(maps) if bool(each.isnan().all())]
    assert empty == [hole.place for hole in holes]
    return [None if place in empty else round(float(each[0, 0, 0]) * 1000) - 1000 for place, each in enumerate(maps)]


@pytest.mark.parametrize("gone", [[0], [2], [5], [0, 1, 4], [1, 3, 5]])
@pytest.mark.parametrize("first", [0, 1])
def test_frames_that_miss_are_holes_and_the_others_stay_what_they_are(
    tmp_path: Path, gone: list[int], first: int
) -> None:
    numbers = [frame + first for frame in range(FRAMES) if frame not in gone]
    maps = folder_of(tmp_path, numbers, first, stated=first).of_video(FRAMES, "v.mp4")
    wanted = [None if frame in gone else frame for frame in range(FRAMES)]
    assert told(maps.read_clip(range(FRAMES))) == wanted
    assert told(maps.read_clip([5, 2, 3, 3, 2])) == [wanted[frame] for frame in (5, 2, 3, 3, 2)]
    assert maps.missing(FRAMES) == gone
    with pytest.raises(DataError, match=rf"no depth for frame {gone[0]} \(number {gone[0] + first}; "):
        maps.read(range(FRAMES))  # what is no clip has no holes


@pytest.mark.parametrize(
    ("numbers", "frames", "wanted"),
    [
        ([0, 1, 2, 3, 4, 5], 6, 0),
        ([1, 2, 3, 4, 5, 6], 6, 1),
        ([3, 4, 5, 6], 6, 1),  # the last is that of a video counted from 1
        ([0, 1, 2], 6, 0),
        ([0, 1], 6, "made from other frames"),
        ([1, 2, 3, 4, 5], 6, 'unknown whether the first one is 0 or 1. Add "first_frame": 0'),
        ([4, 5], 6, 'unknown whether the first one is 0 or 1. Add "first_frame": 0'),
        ([0, 1, 2, 3, 4, 5, 6], 6, "made from other frames"),
        ([1, 2, 3, 4, 5, 6, 7], 6, "made from other frames"),
        ([11, 12, 13, 14, 15, 16], 6, "lowest frame number is 11"),
        (list(range(100)), 102, 0),
        (list(range(100)), 104, "made from other frames"),
    ],
)
def test_no_frame_gets_the_depth_of_another(tmp_path: Path, numbers: list[int], frames: int, wanted: int | str) -> None:
    maps = folder_of(tmp_path, numbers, first=0)
    if isinstance(wanted, str):
        with pytest.raises(DataError) as caught:
            maps.of_video(frames, "v.mp4")
        assert wanted in str(caught.value)
        return
    read = told(maps.of_video(frames, "v.mp4").read_clip(range(frames)))
    assert [number for number in read if number is not None] == numbers
    assert all(number in (None, frame + wanted) for frame, number in enumerate(read))


def test_damage_is_a_hole_unless_nothing_else_is_there(tmp_path: Path) -> None:
    maps = folder_of(tmp_path, list(range(FRAMES))).of_video(FRAMES, "v.mp4")
    (tmp_path / "v" / "000002.png").write_bytes(b"torn")
    (tmp_path / "v" / "000003.png").unlink()
    found = maps.of_video(FRAMES, "v.mp4").read_clip([1, 2, 3, 4])
    assert told(found) == [1, None, None, 4]
    assert [(Path(hole.path).name, hole.damaged) for hole in found[1]] == [("000002.png", True), ("v", False)]
    with pytest.raises(CorruptFileError, match=r"000002\.png"):
        maps.read_clip([2, 3])
    nothing, holes = maps.read_clip([3, 3])
    assert nothing is None and [hole.place for hole in holes] == [0, 1]


@pytest.mark.parametrize("form", ["png", "parquet"])
def test_our_own_files_of_a_video_know_how_many_frames_it_has(tmp_path: Path, form: str) -> None:
    (tmp_path / "depth_spec.json").write_text(json.dumps(written_spec("relative").to_dict()))
    writer = DepthVideoWriter(tmp_path, "v", "relative", form)
    writer.append(np.stack([np.linspace(frame, frame + 1, 12).reshape(3, 4) for frame in range(FRAMES)]))
    writer.finish()
    maps = find_depth_maps(tmp_path, "v")
    assert maps is not None
    for frames in (FRAMES - 1, FRAMES + 1):
        with pytest.raises(DataError, match="made from other frames"):
            maps.of_video(frames, "v.mp4")
    if form == "png":
        whole = maps.read(range(FRAMES))
        (tmp_path / "v" / "000004.png").unlink()
        again = maps.of_video(FRAMES, "v.mp4")
        found, holes = again.read_clip(range(FRAMES))
        assert found is not None and again.missing(FRAMES) == [4]
        assert [(hole.place, hole.reason, hole.damaged) for hole in holes] == [(4, "has no 000004.png", False)]
        kept = [0, 1, 2, 3, 5]
        assert torch.equal(found[kept], whole[kept]) and bool(found[4].isnan().all())


def test_an_array_must_have_every_frame(tmp_path: Path) -> None:
    (tmp_path / "depth_spec.json").write_text('{"kind": "metric", "unit": "millimetre"}')
    np.save(tmp_path / "v.npy", np.stack([values(frame) for frame in range(FRAMES)]))
    maps = find_depth_maps(tmp_path, "v")
    assert maps is not None and maps.of_video(FRAMES, "v.mp4") is maps
    with pytest.raises(DataError, match="made from other frames"):  # nothing tells which one is missing
        maps.of_video(FRAMES + 1, "v.mp4")

"""Clips of folders of frames of which some lack depth: holes in the clip, told; pictures stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.frames_on_disk import depth_array, rgb_array, save, write_frames
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample, holes_of, read_sample
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.frames.frames import FrameSequence
from m33d_hf.data.sources.phases.source import PhasesSource
from m33d_hf.errors import CorruptFileError

FRAMES = 8
UNIT: dict[str, Any] = {"depth_unit": "mm"}


def spoil(root: Path, gone: list[int], torn: list[int] | None = None) -> Path:
    for number in gone:
        (root / f"depth/{number}.png").unlink()
    for number in torn or []:
        file = root / f"depth/{number}.png"
        file.write_bytes(file.read_bytes()[:60])
    return root


def clip_of(root: Path, **options: Any) -> FrameSequence:
    return FolderSource(root, unit="clips", **{**UNIT, **options})[0]


def empty(sample: RGBDSample) -> list[int]:
    """The frames that are all holes, which are those that are told."""
    assert sample.depth is not None and sample.rgb is not None
    found = [place for place, each in enumerate(sample.depth) if not bool(each.isfinite().any())]
    assert found == [hole.place for hole in holes_of(sample)]
    return found


@pytest.mark.parametrize("gone", [[0], [3], [7], [0, 1, 7]])
@pytest.mark.parametrize("torn", [[], [4], [2, 5]])
def test_frames_without_depth_are_holes_of_the_clip(tmp_path: Path, gone: list[int], torn: list[int]) -> None:
    whole = clip_of(write_frames(tmp_path / "whole", FRAMES)).read(range(FRAMES))
    root = spoil(write_frames(tmp_path / "data", FRAMES), gone, torn)
    clip = clip_of(root)
    assert clip.length == FRAMES and clip.missing_depth == gone
    sample = clip.read(range(FRAMES))
    assert empty(sample) == sorted([*gone, *torn])
    assert sample.rgb is not None and sample.depth is not None and whole.depth is not None
    assert torch.equal(sample.rgb, whole.rgb)
    kept = [frame for frame in range(FRAMES) if frame not in (*gone, *torn)]
    assert torch.equal(sample.depth[kept].nan_to_num(-1), whole.depth[kept].nan_to_num(-1))
    damaged = {hole.place: Path(hole.path).name for hole in holes_of(sample) if hole.damaged}
    assert damaged == {number: f"{number}.png" for number in torn}
    taken = clip.read([kept[0], gone[0], gone[0]])
    assert empty(taken) == [1, 2]
    assert not holes_of(read_sample(clip, range(FRAMES), ["rgb"])), "who looks at RGB alone misses nothing"


def test_the_source_says_what_is_missing(tmp_path: Path) -> None:
    root = spoil(write_frames(tmp_path, FRAMES), [2, 5])
    source = FolderSource(root, unit="clips", **UNIT)
    assert "the depth of 2 of 8 frames is missing, and counts as a hole: in 1 sequence, the first: frames, frame 2" in (
        source.notes
    )
    assert not source.unpaired
    every = FolderSource(root, unit="clips", require_depth=False, **UNIT)
    assert every[0].missing_depth == [2, 5]
    assert not any("counts as a hole" in note for note in FolderSource(root, **UNIT).notes), "of pictures"


def test_a_clip_without_any_depth_is_one_of_rgb_and_damage_of_all_is_an_error(tmp_path: Path) -> None:
    root = spoil(write_frames(tmp_path, FRAMES), [2, 3], [4, 5])
    clip = clip_of(root)
    sample = clip.read([2, 3])
    assert sample.depth is None and sample.rgb is not None and [hole.place for hole in holes_of(sample)] == [0, 1]
    for frames in ([4, 5], [3, 4]):
        with pytest.raises(CorruptFileError, match=r"depth.4\.png"):
            clip.read(frames)
    assert read_sample(clip, [4, 5], ["rgb"]).rgb is not None


def test_a_picture_without_its_depth_stays_what_it_was(tmp_path: Path) -> None:
    root = spoil(write_frames(tmp_path, FRAMES), [2], [4])
    source = FolderSource(root, **UNIT)
    assert [source[row].key for row in range(len(source))] == ["0", "1", "3", "4", "5", "6", "7"]
    assert [entry.path for entry in source.unpaired] == ["color/2.png"]
    with pytest.raises(CorruptFileError, match=r"depth.4\.png"):
        source[3].read([0])
    alone = FolderSource(root, require_depth=False, **UNIT)
    assert alone[2].read([0]).depth is None and not holes_of(alone[2].read([0]))


def test_depth_of_another_rate_keeps_the_frames_that_have_it(tmp_path: Path) -> None:
    root = spoil(write_frames(tmp_path, FRAMES), [1, 2, 4, 5, 7])
    source = FolderSource(root, unit="clips", **UNIT)
    assert source[0].length == 3 and len(source.unpaired) == 5 and source[0].missing_depth == []


def test_an_associated_depth_file_that_is_missing_is_a_hole(tmp_path: Path) -> None:
    write_frames(tmp_path, 4)
    lines = [f"color/{number}.png depth/{number}.png\n" for number in range(4)]
    (tmp_path / "associations.txt").write_text("".join(lines))
    spoil(tmp_path, [1])
    assert empty(clip_of(tmp_path).read(range(4))) == [1]
    assert len(FolderSource(tmp_path, **UNIT)) == 3


@pytest.mark.parametrize("align", ["depth_to_rgb", "rgb_to_depth"])
@pytest.mark.parametrize("gone", [[0], [2], [0, 3]])
def test_sizes_are_brought_together_without_the_missing_map(tmp_path: Path, align: str, gone: list[int]) -> None:
    for number in range(4):
        save(tmp_path / f"color/{number}.png", rgb_array(number, (48, 64)))
        save(tmp_path / f"depth/{number}.png", depth_array(number, (24, 32)))
    whole = clip_of(tmp_path, align=align).read(range(4))
    sample = clip_of(spoil(tmp_path, gone), align=align).read(range(4))
    assert empty(sample) == gone and sample.depth is not None and whole.depth is not None
    assert sample.rgb is not None and torch.equal(sample.rgb, whole.rgb)
    assert sample.depth.shape == whole.depth.shape
    alone = read_sample(clip_of(tmp_path, align=align, require_depth=False), range(4), ["rgb"])
    assert torch.equal(alone.rgb, whole.rgb) and alone.depth is None and not holes_of(alone)  # type: ignore[arg-type]


@pytest.mark.parametrize("gone", [[0], [1]])
def test_calibrated_recordings_may_lack_depth_too(tmp_path: Path, gone: list[int]) -> None:
    camera = {"width": 32, "height": 24, "fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5}
    eye = np.eye(4).tolist()
    (tmp_path / "calibration.json").write_text(json.dumps({"color": camera, "depth": camera, "depth_to_color": eye}))
    spoil(write_frames(tmp_path / "a", 4), gone)
    source = PhasesSource(tmp_path, unit="videos", calibration="calibration.json", fps=10, depth_scale=1000)
    assert empty(source[0].read(range(4))) == gone
    assert any(note.startswith("the depth of 1 of 4 frames is missing") for note in source.notes)


def test_what_needs_depth_takes_another_clip(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_frames(tmp_path / name, 4)
    spoil(tmp_path / "b", [0, 1, 2])
    spoil(tmp_path / "b", [3])
    source = FolderSource(tmp_path, unit="clips", require_depth=False, **UNIT)
    kinds: dict[str, Any] = {"num_frames": 4, "train": True, "maps": ["rgb", "depth"]}
    needed = [SampleDataset(source, required=["depth"], **kinds)[0, row] for row in range(3)]
    assert all(isinstance(sample, RGBDSample) and sample.depth is not None for sample in needed)
    (entry,) = needed[1].meta["skipped"]  # type: ignore[union-attr]
    assert "no frame of the clip b[0,1,2,3] has depth: the recording has no depth" in entry.reason
    both = SampleDataset(source, **kinds)[0, 1]
    assert isinstance(both, RGBDSample) and both.depth is None and both.rgb is not None, "RGB alone where that is seen"


@pytest.mark.parametrize(("stride", "left"), [(None, ["a@0", "a@8"]), (2, ["a@0", "a@2", "a@6", "a@8"])])
def test_windows_without_any_depth_are_left_out_before_anything_is_read(
    tmp_path: Path, stride: int | None, left: list[str]
) -> None:
    spoil(write_frames(tmp_path / "a", 12), [4, 5, 6, 7])
    options = {"unit": "clips", "clip_length": 4, "clip_stride": stride, **UNIT}
    source = FolderSource(tmp_path, **options)
    assert [source[number].key for number in range(len(source))] == left
    assert [(entry.path, entry.reason) for entry in source.unpaired] == [("a@4", "no frame of the window has depth")]
    said = [note for note in source.notes if "left out" in note]
    assert len(said) == 1 and "none of its frames has depth: 1 window, a@4" in said[0]
    for number in range(len(source)):
        depth = source[number].read(range(4)).depth
        assert depth is not None and bool(depth.isfinite().any())
    with_rgb_alone = FolderSource(tmp_path, **options, require_depth=False)
    assert len(with_rgb_alone) == len(left) + 1 and not with_rgb_alone.unpaired

"""Video files as handles: lazy, picklable, with depth by the same frame numbers."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.shared_data import shared
from helpers.videos import number_in, numbered_frame, write_video
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import EvaluationTransform, build_transform, checked_size
from m33d_hf.data.depth.maps import find_depth_maps, read_sidecar_spec
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import Hole, RGBDSample, VideoHandle, read_sample
from m33d_hf.data.sources.videos import files as video_files
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES, VideoFile, cached_info
from m33d_hf.errors import CorruptFileError, DataError


@dataclass(frozen=True)
class RampDepth:
    """Depth maps of half the picture's size: metres equal to the frame number, a hole in the corner."""

    length: int

    @property
    def reading_rules(self) -> dict[str, Any]:
        return {}

    def require_upright(self, orientations: object, picture: tuple[int, int], maps: torch.Tensor) -> None:
        assert len(orientations) == len(maps)

    def require_same_view(self, picture: tuple[int, int], maps: torch.Tensor) -> None:
        pass

    def of_video(self, num_frames: int, video: object) -> RampDepth:
        if num_frames != self.length:
            raise DataError(f"{video} has {num_frames} frames, but its depth {self.length}")
        return self

    def missing(self, num_frames: int) -> list[int]:
        return []

    def read_clip(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[Hole]]:
        return self.read(indices), []

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        maps = torch.stack([torch.full((1, 32, 48), float(index)) for index in indices])
        maps[..., :4, :4] = math.nan
        return maps


def test_a_handle_reads_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "class" / "a.mp4", 20)
    video = VideoFile("class/a", Path("class/a.mp4"), label=3, root=tmp_path)
    assert isinstance(video, VideoHandle)
    assert (video.length, video.fps) == (20, 25.0)
    sample = pickle.loads(pickle.dumps(video)).read([7, 2, 7])
    assert sample.key == "class/a[7,2,7]" and sample.label == 3 and sample.depth is None
    assert sample.rgb is not None and sample.rgb.dtype == torch.uint8 and sample.rgb.shape == (3, 3, 64, 96)
    assert [number_in(frame) for frame in sample.rgb.permute(0, 2, 3, 1).numpy()] == [7, 2, 7]
    assert sample.meta == {"path": str(tmp_path / "class/a.mp4"), "frames": [7, 2, 7], "fps": 25.0}
    with pytest.raises(IndexError, match="frame 20"):
        video.read([20])


def test_depth_comes_by_frame_number_and_at_the_pictures_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    sample = VideoFile("a", path, depth=RampDepth(12)).read([0, 11, 5])
    assert sample.depth is not None and sample.depth.shape == (3, 1, 64, 96) and sample.depth.dtype == torch.float32
    assert sample.depth[:, 0, 63, 95].tolist() == [0.0, 11.0, 5.0]
    assert torch.isnan(sample.depth).sum() == 3 * 8 * 8  # the hole grows with the map and swallows nothing else
    with pytest.raises(DataError, match="has 12 frames, but its depth 13"):
        VideoFile("a", path, depth=RampDepth(13)).read([0])


@pytest.mark.parametrize(("shape", "fits"), [((64, 64), False), ((40, 90), False), ((45, 80), True), ((90, 160), True)])
def test_depth_of_another_view_is_refused(tmp_path: Path, shape: tuple[int, int], fits: bool) -> None:
    """Measured depth; a network may have squeezed the whole picture into its input."""
    path = write_video(tmp_path / "a.mp4", 4, size=(90, 160))
    np.save(tmp_path / "a.npy", np.full((4, *shape), 1500, np.uint16))
    for kind, unit in (("metric", "mm"), ("inverse", None)):
        maps = find_depth_maps(tmp_path, "a", read_sidecar_spec(tmp_path, kind=kind, unit=unit))
        video = VideoFile("a", path, depth=maps)
        assert video.read_maps([0], {"rgb"}).rgb is not None  # which opens no depth
        if fits or kind == "inverse":
            depth = video.read([0, 2]).depth
            assert depth is not None and depth.shape == (2, 1, 90, 160) and depth.isfinite().all()
            continue
        for named in (None, {"depth"}, {"rgb", "depth"}):
            with pytest.raises(DataError, match=f"depth a is {shape[0]}x{shape[1]}, but its pictures are 90x160"):
                video.read_maps([0, 2], named)


def test_metric_depth_of_a_network_that_squeezed_whole_pictures_is_used_where_its_file_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, size=(108, 192))
    np.save(tmp_path / "a.npy", np.full((4, 64, 128), 1500, np.uint16))  # the next multiples of 32
    (tmp_path / "depth_spec.json").write_text('{"provenance": {"same_view": false}, "unit": "mm"}')
    with pytest.raises(DataError, match=r'another aspect ratio.*"provenance": \{"same_view": true\} into depth_spec'):
        VideoFile("a", path, depth=find_depth_maps(tmp_path, "a")).read([0])
    (tmp_path / "depth_spec.json").write_text('{"provenance": {"same_view": true}}')
    maps = find_depth_maps(tmp_path, "a", read_sidecar_spec(tmp_path, unit="mm"))
    depth = VideoFile("a", path, depth=maps).read([0, 2]).depth
    assert depth is not None and depth.shape == (2, 1, 108, 192) and (depth == 1.5).all()


class NoDepth(RampDepth):
    """Depth that must not be opened."""

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        raise AssertionError("depth was read")


def test_maps_that_are_not_named_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    sample = VideoFile("a", path, depth=NoDepth(7)).read_maps([3], {"rgb"})  # of another length, too
    assert sample.depth is None and sample.rgb is not None and sample.key == "a[3]"
    batch = SampleDataset([VideoFile("a", path, depth=NoDepth(12))], num_frames=2, maps=["rgb"])[0, 0]
    assert batch.depth is None and batch.rgb is not None
    video = VideoFile("a", path, depth=RampDepth(12))
    both = video.read([3, 5])
    assert video.read_maps([3, 5], {"segmentation"}).depth is not None  # whoever misses a map hears what is there
    monkeypatch.setattr(video_files, "read_video", None)
    alone = video.read_maps([3, 5], {"depth"})
    assert alone.rgb is None and alone.depth is not None and both.depth is not None
    torch.testing.assert_close(alone.depth, both.depth, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(IndexError, match="frame 12"):
        video.read_maps([12], {"depth"})


class NoisyDepth(RampDepth):
    """Every pixel differs, one in ten is a hole."""

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        maps = [torch.rand((1, 32, 48), generator=torch.Generator().manual_seed(index)) for index in indices]
        return torch.stack([each.masked_fill(each < 0.1, math.nan) for each in maps])


class Looking(EvaluationTransform):
    """Hands samples on as it got them."""

    def __call__(self, sample: RGBDSample) -> RGBDSample:
        return sample


@pytest.mark.parametrize("train", [True, False])
def test_depth_placed_from_its_own_resolution_is_that_aligned_first(tmp_path: Path, train: bool) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    video = VideoFile("a", path, depth=NoisyDepth(12))
    coarse = video.read_maps([3, 5], {"rgb", "depth"})
    assert coarse.depth is not None
    assert not coarse.aligned and coarse.depth.shape == (2, 1, 32, 48) and (coarse.height, coarse.width) == (64, 96)
    again, whole = coarse.align(), video.read([3, 5])
    for sample in (again, whole, read_sample(video, [3, 5], {"rgb", "depth"})):
        assert sample.aligned and sample.depth.shape == (2, 1, 64, 96)
        assert torch.equal(sample.depth.nan_to_num(-1), whole.depth.nan_to_num(-1))
    transform = build_transform(TransformOptions(), train, (32, 40))
    found, wanted = (
        SampleDataset([video], transform, num_frames=4, train=train, maps=maps)[1, 0]
        for maps in (["rgb", "depth"], None)  # without names everything is read, and aligned
    )
    assert found.aligned and found.depth.shape == (4, 1, 32, 40) and torch.equal(found.rgb, wanted.rgb)
    assert torch.equal(found.depth.nan_to_num(-1), wanted.depth.nan_to_num(-1)) and found.depth.isnan().any()
    # A transform of somebody else's gets what the documentation of samples says, also one that derives from ours.
    for transform in (lambda sample: sample, Looking(TransformOptions(), (32, 40))):
        foreign = SampleDataset([video], transform, num_frames=4, maps=["rgb", "depth"])[0, 0]
        assert foreign.aligned and foreign.depth.shape[-2:] == foreign.rgb.shape[-2:] == (64, 96)
    assert video.read_maps([3, 5], {"rgb", "depth"}).only({"depth"}).depth.shape == (2, 1, 64, 96)
    short = dataclasses.replace(coarse, depth=coarse.depth[:1])
    with pytest.raises(DataError, match="differ in size or frame count"):
        checked_size(short, (1, 1))


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    asked: list[str] = []
    real = video_files.probe_video
    monkeypatch.setattr(video_files, "probe_video", lambda p, b: asked.append(str(p)) or real(p, b))
    video, twin = VideoFile("a", path), VideoFile("a", path)
    assert asked == []
    assert video.length == twin.length == 5 and video.read([1]).num_frames == 1
    assert asked == [str(path)]
    write_video(path, 9)
    os.utime(path, ns=(1, 1))  # another state of the file
    assert video.length == 9


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.avi").write_bytes(b"RIFF" + bytes(100))
    for name in ("bad.avi", "missing.avi"):
        video = VideoFile("a", Path(name), root=tmp_path)
        for look in (lambda v: v.length, lambda v: v.fps, lambda v: v.read([0])):
            with pytest.raises(CorruptFileError, match=name):
                look(video)


def test_bad_videos_are_skipped_in_training_and_dropped_in_evaluation(tmp_path: Path) -> None:
    good, bad = write_video(tmp_path / "good.mp4", 12), tmp_path / "bad.mp4"
    bad.touch()
    source = [VideoFile("bad", bad), VideoFile("good", good)]
    train = SampleDataset(source, num_frames=4, train=True)[(0, 0)]
    assert train.key.startswith("good[")
    assert [Path(skipped.path).name for skipped in train.meta["skipped"]] == ["bad.mp4"]
    assert SampleDataset(source, num_frames=4)[(0, 0)].meta["dropped"]


def test_one_frame_fills_a_clip(tmp_path: Path) -> None:
    video = VideoFile("one", write_video(tmp_path / "one.mp4", 1))
    sample = SampleDataset([video], num_frames=4, frame_stride=2)[(0, 0)]
    assert sample.rgb is not None and sample.rgb.shape == (4, 3, 64, 96)
    assert torch.equal(sample.rgb, sample.rgb[:1].expand_as(sample.rgb))


def test_folders_of_pictures(tmp_path: Path) -> None:
    for number in range(11):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"{number}.png")
    video = VideoFile("frames", tmp_path)
    assert (video.length, video.fps) == (11, None)
    sample = video.read([10, 9])
    assert sample.rgb is not None
    assert np.array_equal(sample.rgb[0].permute(1, 2, 0).numpy(), numbered_frame(10))


def test_a_real_clip() -> None:
    video = VideoFile("v", shared("videos/ucf101/SoccerJuggling/v_SoccerJuggling_g23_c01.avi"))
    assert video.length == 240 and video.path.suffix in VIDEO_SUFFIXES
    assert video.fps == pytest.approx(30000 / 1001)
    assert video.read([0, 239]).rgb is not None
    assert cached_info(video.file) is video.info

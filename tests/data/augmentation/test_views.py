"""Clip sampling, repeated augmentation and the views of a test video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.augmentation.views import crop_offset, frame_indices, segment_indices, take_frames
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler, StepSampler
from m33d_hf.data.randomness import Draw, generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, CorruptFileError


class Video:
    """Frames whose first channel is their number and whose others are the column and the row."""

    fps = 25.0

    def __init__(self, key: str, length: int, reads: list[list[int]], error: Exception | None = None) -> None:
        self.key, self.length, self.reads, self.error = key, length, reads, error

    def read(self, indices: Sequence[int]) -> RGBDSample:
        if self.error is not None:
            raise self.error
        self.reads.append(list(indices))
        frames = torch.empty(len(indices), 3, 32, 48, dtype=torch.uint8)
        frames[:, 0] = torch.tensor(list(indices), dtype=torch.uint8)[:, None, None]
        frames[:, 1] = torch.arange(48, dtype=torch.uint8)
        frames[:, 2] = torch.arange(32, dtype=torch.uint8)[:, None]
        return RGBDSample(f"{self.key}{list(indices)}", frames, label=1)


class Videos:
    """A source of videos of given lengths; counts what is read."""

    name = "videos"
    depth_spec = None

    def __init__(self, *lengths: int, errors: dict[int, Exception] | None = None) -> None:
        self.lengths, self.errors = lengths, errors or {}
        self.reads: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Video:
        return Video(f"v{index}", self.lengths[index], self.reads, self.errors.get(index))


# Span sampling -----------------------------------------------------------------------------------------------


def reference_span(length: int, num_frames: int, stride: int, end: int) -> list[int]:
    """VideoMAE's test, word by word, frame by frame."""
    span = num_frames * stride
    if length <= span:
        count = length // stride
        points = [0.0] if count == 1 else [i * length / (count - 1) for i in range(count)]
        points += [float(length)] * (num_frames - count)
        return [int(min(point, length - 1)) for point in points]
    start = end - span
    points = [start + i * span / max(num_frames - 1, 1) for i in range(num_frames)]
    return [min(int(point), end - 1) for point in points]


@pytest.mark.parametrize(("num_frames", "stride"), [(16, 4), (8, 2), (5, 3), (2, 1), (1, 4)])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 15, 16, 17, 31, 63, 64, 65, 66, 97, 300])
def test_span_sampling_is_the_reference(length, num_frames, stride):
    span = num_frames * stride
    for seed in range(5):
        found = frame_indices(length, num_frames, stride, generator_of(seed), "span")
        assert len(found) == num_frames and min(found) >= 0 and max(found) < length
        ends = range(span, length) if length > span else [0]
        assert found in [reference_span(length, num_frames, stride, end) for end in ends]


def test_span_sampling_in_numbers():
    assert frame_indices(65, 16, 4, generator_of(0), "span") == [
        0,
        4,
        8,
        12,
        17,
        21,
        25,
        29,
        34,
        38,
        42,
        46,
        51,
        55,
        59,
        63,
    ]
    assert frame_indices(10, 16, 4, None, "span") == [0] + [9] * 15
    assert frame_indices(3, 4, 4, None, "span") == [2, 2, 2, 2]
    ends = {frame_indices(70, 16, 4, generator_of(seed), "span")[0] for seed in range(200)}
    assert ends == set(range(6))  # ends 64 to 69
    assert frame_indices(70, 16, 4, None, "span")[0] == 3  # the middle
    with pytest.raises(ConfigError, match=r"clip_sampling is 'spam'.*span"):
        SampleDataset(Videos(5), clip_sampling="spam")


def test_the_data_set_samples_spans():
    source = Videos(200)
    dataset = SampleDataset(source, num_frames=4, frame_stride=4, train=True, clip_sampling="span")
    starts = {int(dataset[(epoch, 0)].rgb[0, 0, 0, 0]) for epoch in range(40)}
    assert len(starts) > 20
    assert all(np.diff(read).tolist() == [5, 5, 5] or sum(np.diff(read)) == 15 for read in source.reads)
    SampleDataset(source, num_frames=4, frame_stride=4, clip_sampling="span")[(0, 0)]
    assert source.reads[-1] == frame_indices(200, 4, 4, None, "span")


# Repeated augmentation ---------------------------------------------------------------------------------------


def training(source, **changes):
    transform = build_transform(TransformOptions(randaugment_ops=1), True, 16)
    return SampleDataset(source, transform, num_frames=4, frame_stride=2, train=True, seed=5, **changes)


def test_views_are_other_augmentations_of_the_same_frames_read_once():
    source = Videos(50)
    views = training(source, num_views=3)[(2, 0)]
    assert len(source.reads) == 1 and len(views) == 3
    assert [view.meta["draw"] for view in views] == [Draw(5, 2, number) for number in range(3)]
    assert len({view.rgb.numpy().tobytes() for view in views}) == 3
    plain = SampleDataset(source, num_frames=4, frame_stride=2, train=True, seed=5, num_views=2)[(2, 0)]
    assert torch.equal(plain[0].rgb, plain[1].rgb)


def test_the_first_view_is_what_one_view_would_be():
    for epoch in range(5):
        alone = training(Videos(50))[(epoch, 0)]
        first = training(Videos(50), num_views=2)[(epoch, 0)][0]
        assert torch.equal(alone.rgb, first.rgb) and alone.meta == first.meta and alone.key == first.key


def test_skipped_files_are_listed_once():
    source = Videos(50, 50, errors={0: CorruptFileError("0.avi", "truncated")})
    views = training(source, num_views=2)[(0, 0)]
    assert [view.meta["skipped"] for view in views] == [[("0.avi", "truncated", "v0")], []]


def test_a_video_of_one_frame_fills_a_clip():
    for sampling in ("stride", "span"):
        views = training(Videos(1), num_views=2, clip_sampling=sampling)[(0, 0)]
        assert views[1].rgb.shape == (4, 3, 16, 16)
        test = evaluation(Videos(1), 5, 3, clip_sampling=sampling)[(0, 0)]
        assert len(test) == 15 and (test[14].rgb[:, 0] == 0).all()


# Views of a test video ---------------------------------------------------------------------------------------


def evaluation(source, segments, crops, size=16, frames=4, stride=2, **changes):
    transform = build_transform(TransformOptions(), False, size)
    return SampleDataset(
        source, transform, num_frames=frames, frame_stride=stride, num_segments=segments, num_crops=crops, **changes
    )


@pytest.mark.parametrize("length", [1, 16, 61, 64, 65, 100, 299])
def test_segments_are_the_reference(length):
    grid = list(range(0, length, 4))
    while len(grid) < 16:
        grid.append(grid[-1])
    expected = [grid[int(k * max((len(grid) - 16) / 4, 0)) :][:16] for k in range(5)]
    assert segment_indices(length, 16, 4, 5) == expected


def test_one_segment_is_the_centre_clip():
    for sampling in ("stride", "span"):
        assert segment_indices(90, 8, 2, 1, sampling) == [frame_indices(90, 8, 2, sampling=sampling)]


def test_crops_are_spread_along_the_longer_side():
    assert [crop_offset(75, crop, 3) for crop in range(3)] == [0, 37, 75] and crop_offset(75, 0, 1) == 37
    views = evaluation(Videos(40), 1, 3)[(0, 0)]  # 32 x 48 becomes 16 x 24
    columns = [view.rgb[0, 1, 0].float() for view in views]
    for view, left in zip(columns, (0, 4, 8)):
        assert float((view - (2 * (torch.arange(16) + left) + 0.5)).abs().max()) <= 1  # two columns averaged
    assert all(torch.equal(view.rgb[:, 2], views[0].rgb[:, 2]) for view in views)


def test_five_by_three_views_with_their_names_from_one_read():
    source = Videos(100)
    views = evaluation(source, 5, 3)[(0, 0)]
    assert [(view.meta["segment"], view.meta["crop"]) for view in views] == [(s, c) for s in range(5) for c in range(3)]
    assert {view.meta["index"] for view in views} == {0} and {view.label for view in views} == {1}
    assert {view.key for view in views} == {"v0"}, "one name for all views of a video"
    (read,) = source.reads
    assert max(Counter(read).values()) == 1 and read == sorted(read)
    for view in views:
        assert view.rgb[:, 0, 0, 0].tolist() == segment_indices(100, 4, 2, 5)[view.meta["segment"]]


def test_one_by_one_is_the_plain_evaluation():
    plain = evaluation(Videos(70), None, None)[(0, 0)]
    (view,) = evaluation(Videos(70), 1, 1)[(0, 0)]
    assert torch.equal(view.rgb, plain.rgb) and (view.meta["segment"], view.meta["crop"]) == (0, 0)
    middle = evaluation(Videos(70), 1, 3)[(0, 0)][1]
    assert torch.equal(middle.rgb, plain.rgb)


def test_maps_move_with_the_crops():
    sample = Video("v", 9, []).read([0, 1])
    sample.depth = sample.rgb[:, 1:2].float()
    sample.segmentation = sample.rgb[:, 1].clone()
    sample.meta["modalities"] = {"thermal": sample.rgb[:, 1:2].float()}
    transform = build_transform(TransformOptions(), False, (32, 32))
    for crop, view in enumerate(transform.crops(sample, 3)):
        expected = torch.arange(32) + 8 * crop
        assert torch.equal(view.depth[1, 0, 5], expected.float()) and torch.equal(view.rgb[1, 1, 5], expected.byte())
        assert torch.equal(view.segmentation[0, 7], expected.byte())
        assert torch.equal(view.meta["modalities"]["thermal"][0, 0, 3], expected.float())
    picked = take_frames(sample, [1, 1, 0])
    assert picked.rgb[:, 0, 0, 0].tolist() == [1, 1, 0] and picked.meta["modalities"]["thermal"].shape[0] == 3


def test_an_unreadable_test_video_is_dropped():
    source = Videos(50, 50, errors={0: CorruptFileError("0.avi", "truncated")})
    sample = evaluation(source, 2, 2)[(0, 0)]
    assert sample.meta["dropped"] and sample.meta["skipped"] == [("0.avi", "truncated", "v0")]


def test_views_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="num_views is 2, but num_views applies to training only"):
        SampleDataset(Videos(5), num_views=2)
    with pytest.raises(ConfigError, match="for training, use num_views"):
        SampleDataset(Videos(5), train=True, num_segments=5)
    with pytest.raises(ConfigError, match="more than one crop requires an EvaluationTransform"):
        SampleDataset(Videos(5), num_crops=3)
    with pytest.raises(ConfigError, match="num_segments is -1"):
        SampleDataset(Videos(5), num_segments=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_views_pass_the_loader(workers):
    def collate(items):
        return [view.rgb for item in items for view in item]

    dataset = training(Videos(50, 50, 50), num_views=2)
    loader = build_loader(dataset, collate, StepSampler(3, 3, seed=5, total_steps=1), num_workers=workers)
    (batch,) = list(loader)
    rows = StepSampler(3, 3, seed=5).step_rows(0)
    expected = [view.rgb for row in rows for view in dataset[row]]
    assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True)) and len(batch) == 6
    test = build_loader(evaluation(Videos(50, 9), 2, 2), collate, EvaluationSampler(2, 2), num_workers=workers)
    assert len(next(iter(test))) == 8

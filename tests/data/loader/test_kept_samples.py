"""Samples that stay in memory are what reading again would give, whatever is done to them; and no more than fit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from helpers.frames_on_disk import write_frames
from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.kept_samples import KeptSamples
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import CorruptFileError


class Counted:
    """One picture per row, drawn from the row's number, and how often each was read."""

    name = "counted"
    fps, length = None, 1

    def __init__(self, size: int = 6, broken: Sequence[int] = ()) -> None:
        self.size, self.broken = size, set(broken)
        self.reads: dict[int, int] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Counted:
        self.row = index
        self.key = f"row{index}"
        return self

    def read(self, indices: Sequence[int]) -> RGBDSample:
        self.reads[self.row] = self.reads.get(self.row, 0) + 1
        if self.row in self.broken:
            raise CorruptFileError(self.key, "torn")
        generator = torch.Generator().manual_seed(self.row)
        rgb = torch.randint(0, 256, (1, 3, 8, 10), generator=generator, dtype=torch.uint8)
        depth = torch.rand(1, 1, 8, 10, generator=generator)
        normals = torch.rand(1, 3, 8, 10, generator=generator)
        return RGBDSample(self.key, rgb=rgb, depth=depth, meta={"modalities": {"normals": normals}})


PIXELS = 8 * 10 * (3 + 4 + 12)


def spoil(sample: RGBDSample) -> RGBDSample:
    """What a careless transform does: everything in place."""
    assert sample.rgb is not None and sample.depth is not None
    sample.rgb.zero_()
    sample.depth.fill_(-1.0)
    sample.meta["modalities"]["normals"].zero_()
    sample.meta["mine"] = True
    return sample


def test_what_is_kept_is_read_once_and_equal_whatever_was_done_to_it() -> None:
    source, fresh = Counted(), Counted()
    kept = SampleDataset(source, spoil, keep_bytes=10**6)
    for epoch in range(3):
        for row in (4, 0, 5, 1, 2, 3):
            sample = kept[(epoch, row)]
            assert isinstance(sample, RGBDSample) and sample.rgb is not None and not sample.rgb.any()
    assert source.reads == dict.fromkeys(range(6), 1)
    seen: list[RGBDSample] = []
    looking = SampleDataset(source, lambda sample: seen.append(sample) or sample, keep_bytes=10**6)  # type: ignore[func-returns-value]
    looking[(0, 2)], looking[(1, 2)]
    expected = fresh[2].read([0])
    for sample in seen:
        assert "mine" not in sample.meta
        assert torch.equal(sample.rgb, expected.rgb) and torch.equal(sample.depth, expected.depth)  # type: ignore[arg-type]
        assert torch.equal(sample.meta["modalities"]["normals"], expected.meta["modalities"]["normals"])


def test_no_more_is_kept_than_fits_and_the_first_stay() -> None:
    source = Counted()
    dataset = SampleDataset(source, None, keep_bytes=2 * PIXELS + PIXELS // 2)
    for epoch in range(3):
        for row in range(6):
            dataset[(epoch, row)]
    assert source.reads == {0: 1, 1: 1, 2: 3, 3: 3, 4: 3, 5: 3}


def test_who_reads_once_takes_no_room() -> None:
    source = Counted()
    dataset = SampleDataset(source, None, keep_bytes=2 * PIXELS + PIXELS // 2)
    once = dataset.reading_once()
    for row in (5, 4, 3, 3):
        once[(0, row)]
    assert source.reads == {5: 1, 4: 1, 3: 2}
    for epoch in range(2):
        for row in range(3):
            dataset[(epoch, row)]
    assert source.reads == {5: 1, 4: 1, 3: 2, 0: 1, 1: 1, 2: 2}, "the room for two is that of the first two"


def test_a_file_that_cannot_be_read_is_tried_again_and_reported_every_time() -> None:
    source = Counted(broken=[3])
    dataset = SampleDataset(source, None, keep_bytes=10**6)
    for epoch in range(2):
        found = dataset[(epoch, 3)]
        assert isinstance(found, RGBDSample) and found.meta["dropped"]
        assert [file.key for file in found.meta["skipped"]] == ["row3"]
    assert source.reads == {3: 2}


def test_a_twin_that_reads_other_maps_is_not_given_those_of_the_first(tmp_path: Path) -> None:
    write_frames(tmp_path, 2)
    source = FolderSource(tmp_path, split="all", depth_unit="millimetre")
    both = SampleDataset(source, None, keep_bytes=10**8)
    twin = copy.copy(both)
    twin.maps = frozenset({"depth"})
    first, other, again = both[(0, 0)], twin[(0, 0)], both[(1, 0)]
    assert first.rgb is not None and other.rgb is None and torch.equal(first.rgb, again.rgb)  # type: ignore[union-attr]


def test_another_process_starts_empty() -> None:
    kept = KeptSamples(10**6)
    kept.put(0, RGBDSample("a", rgb=torch.zeros(1, 3, 2, 2, dtype=torch.uint8)))
    sent = pickle.loads(pickle.dumps(kept))
    assert kept.get(0) is not None and sent.get(0) is None
    assert (sent.budget, sent.held, kept.held) == (10**6, 0, 12)


def test_training_samples_of_files_are_bit_equal_with_and_without(tmp_path: Path) -> None:
    """Through the real transforms, which round by the strides of what they are given."""
    write_frames(tmp_path, 5)
    options = TransformOptions(train_crop="random_resized", flip=0.5, color_jitter=0.5)
    transform = build_transform(options, True, (32, 32), (8, 8))
    source = FolderSource(tmp_path, split="all", depth_unit="millimetre")
    sets = [SampleDataset(source, transform, train=True, seed=3, keep_bytes=size) for size in (0, 10**8)]
    for epoch in range(3):
        rows = [(epoch, row) for row in range(len(source))]
        for plain, kept in zip(*(each.__getitems__(rows) for each in sets), strict=True):
            assert isinstance(plain, RGBDSample) and isinstance(kept, RGBDSample)
            assert plain.key == kept.key and torch.equal(plain.rgb, kept.rgb)  # type: ignore[arg-type]
            assert torch.equal(plain.depth.nan_to_num(-1), kept.depth.nan_to_num(-1))  # type: ignore[union-attr]


def test_what_will_be_held_is_told_from_what_is_read() -> None:
    """Two of six samples are read: six will be held, or as much as there is room for."""
    for budget, expected in ((10**6, 6 * PIXELS), (4 * PIXELS, 4 * PIXELS)):
        data = SampleDataset(Counted(), None, keep_bytes=budget)
        assert data.bytes_once_read() == 0
        for row in (3, 1):
            data[(0, row)]
        assert data.bytes_once_read() == expected

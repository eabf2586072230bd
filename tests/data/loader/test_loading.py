"""Order, frames, replacement and resume of the data path."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.augmentation.views import frame_indices
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler, StepSampler
from m33d_hf.data.loader.worker_forking import ForkContext
from m33d_hf.data.randomness import Draw, generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, LabelError


class Clip:
    """A video whose frames hold their own number."""

    fps = None

    def __init__(self, key: str, length: int, error: Exception | None = None) -> None:
        self.key = key
        self.length = length
        self.error = error

    def read(self, indices: Sequence[int]) -> RGBDSample:
        if self.error is not None:
            raise self.error
        frames = torch.tensor(list(indices), dtype=torch.uint8).view(-1, 1, 1, 1)
        return RGBDSample(f"{self.key}:{list(indices)}", rgb=frames.expand(-1, 3, 4, 4).contiguous())


class Clips:
    """A source of clips, some of which cannot be read."""

    name = "clips"

    def __init__(self, size: int, length: int = 1, errors: dict[int, Exception] | None = None) -> None:
        self.size = size
        self.length = length
        self.errors = errors or {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Clip:
        return Clip(f"clip{index:03d}", self.length, self.errors.get(index))


def add_noise(sample: RGBDSample) -> RGBDSample:
    """Stand in for an augmentation: noise as a function of the draw and the key."""
    generator = sample.meta["draw"].generator(sample.key, "transform")
    sample.rgb = sample.rgb + torch.randint(0, 9, sample.rgb.shape, generator=generator, dtype=torch.uint8)
    return sample


def collate(samples: list[RGBDSample]) -> dict:
    """Stack what is there."""
    kept = [sample for sample in samples if not sample.meta.get("dropped")]
    return {
        "rgb": torch.stack([sample.rgb for sample in kept]),
        "meta": {
            "keys": [sample.key for sample in kept],
            "skipped": [file for sample in samples for file in sample.meta["skipped"]],
        },
    }


def batches(
    num_workers: int, *, size: int = 23, batch: int = 4, steps: int = 8, multiprocessing_context=None, **sampling
) -> list[dict]:
    source = Clips(size, length=20, errors={3: CorruptFileError("3.png", "truncated")})
    dataset = SampleDataset(source, add_noise, num_frames=2, frame_stride=3, train=True, seed=11)
    sampler = StepSampler(size, batch, seed=11, total_steps=steps, **sampling)
    options = {"num_workers": num_workers, "multiprocessing_context": multiprocessing_context}
    return list(build_loader(dataset, collate, sampler, pin_memory=False, **options))


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert [batch["meta"] for batch in left] == [batch["meta"] for batch in right]
    assert all(torch.equal(a["rgb"], b["rgb"]) for a, b in zip(left, right, strict=True))


# Frames --------------------------------------------------------------------------------------------


def test_frames_of_a_long_video_start_anywhere_in_the_span():
    starts = {frame_indices(70, 16, 4, generator_of(seed))[0] for seed in range(200)}
    assert starts == set(range(7))  # VideoMAE: [0, length - 63) for a span of 64
    assert frame_indices(70, 16, 4, generator_of(0)) == frame_indices(70, 16, 4, generator_of(0))


def test_frames_of_the_centre_and_of_a_short_video():
    assert frame_indices(20, 4, 2) == [6, 8, 10, 12]
    assert frame_indices(10, 5, 4, generator_of(0)) == [0, 4, 8, 8, 8]
    assert frame_indices(1, 3, 4) == [0, 0, 0]


def test_training_clips_depend_on_seed_and_epoch_only():
    source = Clips(2, length=200)
    first = SampleDataset(source, num_frames=2, train=True, seed=0)
    assert first[(4, 1)].key == SampleDataset(source, num_frames=2, train=True, seed=0)[(4, 1)].key
    assert len({first[(epoch, 1)].key for epoch in range(20)}) > 10
    centre = SampleDataset(source, num_frames=2, seed=0)
    assert centre[(0, 1)].key == centre[(7, 1)].key == "clip001:[99, 100]"


def test_sample_carries_its_draw():
    sample = SampleDataset(Clips(3), seed=9)[(2, 1)]
    assert sample.meta["draw"] == Draw(9, 2, 0) and sample.meta["index"] == 1 and sample.meta["skipped"] == []


def test_indices_choose_a_subset():
    dataset = SampleDataset(Clips(9), indices=[7, 2])
    assert len(dataset) == 2 and dataset[(0, 0)].key.startswith("clip007")
    with pytest.raises(DataError, match=r"\[9\] are outside the source's 9"):
        SampleDataset(Clips(9), indices=[9])


def test_empty_source_and_senseless_frames_are_refused():
    with pytest.raises(DataError, match="holds no samples"):
        SampleDataset(Clips(0))
    with pytest.raises(ConfigError, match="num_frames"):
        SampleDataset(Clips(1), num_frames=0)


# Unreadable files ----------------------------------------------------------------------------------


def test_training_replaces_an_unreadable_file_deterministically():
    errors = {2: CorruptFileError("2.png", "truncated"), 5: FileNotFoundError(2, "No such file", "5.png")}
    dataset = SampleDataset(Clips(8, errors=errors), train=True, seed=1)
    keys = [dataset[(epoch, 2)].key for epoch in range(30)]
    assert keys == [dataset[(epoch, 2)].key for epoch in range(30)]
    assert len(set(keys)) > 3 and not any(key.startswith(("clip002", "clip005")) for key in keys)
    skipped = dataset[(0, 2)].meta["skipped"]
    assert skipped[0] == ("2.png", "truncated", "clip002")
    missing = dataset[(0, 5)].meta["skipped"][0]
    assert missing.path == "5.png" and "No such file" in missing.reason


def test_evaluation_drops_an_unreadable_file():
    dataset = SampleDataset(Clips(4, errors={1: CorruptFileError("1.png", "empty")}), seed=1)
    loader = build_loader(dataset, collate, EvaluationSampler(4, 4), pin_memory=False)
    (batch,) = list(loader)
    assert [key[:7] for key in batch["meta"]["keys"]] == ["clip000", "clip002", "clip003"]
    assert batch["meta"]["skipped"] == [("1.png", "empty", "clip001")]


def test_nothing_readable_is_an_error_that_names_the_last_file():
    errors = {index: CorruptFileError(f"{index}.png", "not a PNG") for index in range(5)}
    for size in (1, 5):
        dataset = SampleDataset(Clips(size, errors=errors), train=True)
        with pytest.raises(DataError, match=r"10 files in a row .*\.png: not a PNG"):
            dataset[(0, 0)]


def test_wrong_labels_are_not_skipped():
    dataset = SampleDataset(Clips(3, errors={0: LabelError("0.png: label 77")}), train=True)
    with pytest.raises(LabelError, match="77"):
        dataset[(0, 0)]


# Loader --------------------------------------------------------------------------------------------


def test_workers_change_nothing_and_resume_mid_epoch_is_exact():
    whole = batches(0)
    assert_same(batches(2), whole)
    for workers in (0, 2):
        assert_same(batches(workers, start_step=3), whole[3:])


def test_two_ranks_see_the_batches_of_one():
    whole = batches(0)
    halves = [batches(0, batch=2, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        left, right = halves[0][step]["rgb"], halves[1][step]["rgb"]
        assert torch.equal(torch.stack([left, right], 1).flatten(0, 1), batch["rgb"])


def test_the_loader_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    batches(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_in_a_worker_keeps_its_type():
    errors = {index: CorruptFileError(f"{index}.png", "not a PNG") for index in range(5)}
    dataset = SampleDataset(Clips(5, errors=errors), train=True)
    loader = build_loader(dataset, collate, StepSampler(5, 2, total_steps=1), num_workers=1, pin_memory=False)
    with pytest.raises(DataError, match="files in a row"):
        next(iter(loader))


@pytest.mark.parametrize("context", multiprocessing.get_all_start_methods())
def test_every_way_of_starting_workers_gives_the_same_batches(context):
    assert_same(batches(1, multiprocessing_context=context), batches(0))


def test_forked_workers_are_known_to_have_started():
    loader = build_loader(
        SampleDataset(Clips(2)), collate, EvaluationSampler(2, 1), num_workers=1, multiprocessing_context="fork"
    )
    assert isinstance(loader.multiprocessing_context, ForkContext)


def test_an_unknown_way_of_starting_workers_is_refused():
    with pytest.raises(ConfigError, match=r"'forkserve'.* mean 'forkserver'"):
        batches(1, multiprocessing_context="forkserve")


def test_a_script_that_leaves_its_loader_in_the_middle_ends():
    code = (
        "from test_loading import Clips, EvaluationSampler, SampleDataset, build_loader, collate\n"
        "sampler = EvaluationSampler(9, 2)\n"
        "loader = build_loader(SampleDataset(Clips(9)), collate, sampler, num_workers=2, pin_memory=False)\n"
        "print(len(next(iter(loader))['rgb']))\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


class DepthClip(Clip):
    """A video with depth and labels that says which maps it was asked for."""

    asked: ClassVar[list[object]] = []

    def read_maps(self, indices: Sequence[int], maps: object) -> RGBDSample:
        self.asked.append(maps)
        return self.read(indices)

    def read(self, indices: Sequence[int]) -> RGBDSample:
        sample = super().read(indices)
        sample.depth = torch.ones(len(indices), 1, 4, 4)
        sample.segmentation = torch.zeros(len(indices), 4, 4, dtype=torch.uint8)
        return sample


def test_maps_that_are_not_needed_are_neither_asked_for_nor_kept():
    class Source(Clips):
        def __getitem__(self, index: int) -> Clip:
            return DepthClip("clip", 3)

    sample = SampleDataset(Source(2), maps=["rgb", "segmentation"])[0, 0]
    assert sample.depth is None and sample.rgb is not None and sample.segmentation is not None
    assert DepthClip.asked[-1] == {"rgb", "segmentation"}
    assert SampleDataset(Source(2))[0, 0].depth is not None


def test_a_sample_with_none_of_the_needed_maps_stays_whole():
    sample = SampleDataset(Clips(2), maps=["depth"])[0, 0]
    assert sample.rgb is not None and sample.depth is None


def test_other_modalities_are_kept_by_name():
    maps = {"flow": torch.zeros(1, 2, 4, 4), "normals": torch.zeros(1, 3, 4, 4)}
    sample = RGBDSample("a", torch.zeros(1, 3, 4, 4, dtype=torch.uint8), meta={"modalities": maps, "fps": 2})
    assert list(sample.only(["rgb", "flow"]).meta["modalities"]) == ["flow"]
    assert sample.only(["rgb", "flow"]).meta["fps"] == 2 and sample.only(["rgb", "flow", "normals"]) is sample


@pytest.mark.parametrize("num_views", [1, 2])
def test_a_batch_of_rows_is_bit_equal_to_each_row(num_views):
    options = TransformOptions(train_crop="resize", color_jitter=0.6, grayscale=0.3)
    source = Clips(9, length=20, errors={3: CorruptFileError("3.png", "truncated")})
    dataset = SampleDataset(source, build_transform(options, True, 6), num_frames=2, train=True, num_views=num_views)
    rows = [(epoch, index) for epoch in range(2) for index in range(9)]
    for row, found in zip(rows, dataset.__getitems__(rows), strict=True):
        alone = dataset[row]
        pairs = zip(found, alone, strict=True) if num_views > 1 else [(found, alone)]
        for mine, wanted in pairs:
            assert mine.key == wanted.key and torch.equal(mine.rgb, wanted.rgb)
            assert mine.meta["skipped"] == wanted.meta["skipped"]

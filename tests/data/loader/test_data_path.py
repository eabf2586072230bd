"""The whole path of the data, source to batch: the same tensors whatever the workers, the ranks and the start."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.collation import PretrainingCollator
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality

SIZE = 21


class Frame:
    """One RGB-D frame of noise; frame 4 cannot be read."""

    length, fps = 1, None

    def __init__(self, index: int) -> None:
        self.index, self.key = index, f"frame{index}"

    def read(self, indices: Sequence[int]) -> RGBDSample:
        if self.index == 4:
            raise CorruptFileError("4.png", "truncated")
        generator = generator_of(self.index)
        rgb = torch.randint(0, 256, (1, 3, 40, 50), generator=generator, dtype=torch.uint8)
        return RGBDSample(self.key, rgb, torch.rand(1, 1, 40, 50, generator=generator) + 1)


class Frames:
    """A source of frames."""

    name = "frames"

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Frame:
        return Frame(index)


def batches(num_workers: int = 0, batch: int = 4, **sampling) -> list[dict]:
    config = M33DConfig(
        image_size=32,
        patch_size=8,
        modalities=[rgb_modality(mask_ratio=0.5), depth_modality(mask_ratio=0.5, drop_probability=0.5)],
    )
    transform = build_transform(TransformOptions(color_jitter=0.5, blur=0.5), True, 32, 8)
    dataset = SampleDataset(Frames(), transform, train=True, seed=3)
    sampler = StepSampler(SIZE, batch, seed=3, total_steps=8, **sampling)
    collator = PretrainingCollator(config)
    return list(build_loader(dataset, collator, sampler, num_workers=num_workers, pin_memory=False))


def flat(batch: dict) -> dict[str, torch.Tensor]:
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    for group in ("keep", "hide"):
        tensors |= {f"{group}.{name}": value for name, value in batch[group].items()}
    return tensors


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys() and len(left) == 6
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.fixture(scope="module")
def whole() -> list[dict]:
    return batches()


@pytest.mark.parametrize(("workers", "start"), [(0, 3), (2, 0), (2, 3), (1, 7)])
def test_resuming_mid_epoch_with_any_workers_is_bit_exact(whole, workers, start):
    resumed = batches(workers, start_step=start)
    assert len(resumed) == 8 - start
    for left, right in zip(resumed, whole[start:], strict=True):
        assert_equal(flat(left), flat(right))
        assert left["meta"] == right["meta"]


def test_two_ranks_interleaved_are_one(whole):
    ranks = [batches(batch=2, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        halves = [flat(rank[step]) for rank in ranks]
        joined = {name: torch.stack([half[name] for half in halves], 1).flatten(0, 1) for name in halves[0]}
        assert_equal(joined, flat(batch))


def test_accumulated_micro_batches_are_one(whole):
    parts = [flat(part) for part in batches(batch=2, accumulation=2)]
    for step, batch in enumerate(whole):
        pair = parts[2 * step : 2 * step + 2]
        assert_equal({name: torch.cat([part[name] for part in pair]) for name in pair[0]}, flat(batch))


def test_the_unreadable_frame_is_replaced_and_reported(whole):
    skipped = {file for batch in whole for file in batch["meta"]["skipped"]}
    assert skipped == {("4.png", "truncated", "frame4")}
    assert all(len(batch["meta"]["keys"]) == 4 for batch in whole)
    assert not any("frame4" in batch["meta"]["keys"] for batch in whole)

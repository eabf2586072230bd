"""Depth in the batches of task models: as pre-training has it, hidden by key alone, mixed as the pixels beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.shared_data import shared
from helpers.tiny import CLIP, tiny_config
from m33d_hf.data.augmentation.mixing import MixDraw
from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.collation import (
    ClipClassificationCollator,
    PretrainingCollator,
    SegmentationCollator,
    deferring,
)
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.loader.task_inputs import MixDepth, stacked_depth
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessorPil
from m33d_hf.training.tasks.base import to_device

BOTH = {"task_inputs": ["rgb", "depth"], "num_labels": 3}


def sample(key: str, frames: int = 1, epoch: int = 0, **changes: Any) -> RGBDSample:
    generator = torch.Generator().manual_seed(sum(map(ord, key)))
    depth = torch.rand(frames, 1, 32, 32, generator=generator) * 3 + 1
    depth[..., :5] = math.nan
    values: dict[str, Any] = {
        "rgb": torch.randint(0, 256, (frames, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "depth": depth,
        "segmentation": torch.randint(0, 3, (frames, 32, 32), generator=generator, dtype=torch.uint8),
        "label": 1,
        "meta": {"draw": Draw(0, epoch), "index": 0, "skipped": []},
    }
    return RGBDSample(key, **(values | changes))


def test_depth_is_what_pretraining_makes_of_it() -> None:
    config = tiny_config(**BOTH)
    samples = [sample("a"), sample("b")]
    found, known = SegmentationCollator(config)(samples), PretrainingCollator(config)(samples)
    for name in ("pixel_values", "depth_values", "depth_mask"):
        assert torch.equal(found[name], known[name]), name
    clips = [sample("a", 4), sample("b", 4)]
    config = tiny_config(**BOTH, **CLIP)
    found, known = ClipClassificationCollator(config, train=False)(clips), PretrainingCollator(config)(clips)
    for name in ("pixel_values", "depth_values", "depth_mask"):
        assert torch.equal(found[name], known[name]), name


@pytest.mark.parametrize(("inputs", "names"), [
    (None, {"pixel_values", "depth_values", "depth_mask"}),
    (["rgb"], {"pixel_values"}),
    (["depth"], {"depth_values", "depth_mask"}),
])  # fmt: skip
def test_only_the_inputs_that_are_asked_for(inputs: list[str] | None, names: set[str]) -> None:
    batch = SegmentationCollator(tiny_config(**BOTH), inputs=inputs)([sample("a")])
    assert set(batch) == names | {"labels", "meta"}
    assert set(SegmentationCollator(tiny_config(num_labels=3))([sample("a")])) == {"pixel_values", "labels", "meta"}


def test_a_sample_without_depth_is_all_hole() -> None:
    batch = SegmentationCollator(tiny_config(**BOTH))([sample("a"), sample("b", depth=None)])
    assert not batch["depth_mask"][1].any() and bool((batch["depth_values"][1] == 0).all())
    assert batch["depth_mask"][0].float().mean() == pytest.approx(27 / 32)


def test_depth_is_hidden_with_the_stated_probability_by_seed_epoch_and_key_alone() -> None:
    samples = [sample(f"k{number}", epoch=number % 3) for number in range(400)]
    hidden = stacked_depth(samples, 0.3).isnan().flatten(1).all(1)
    assert 0.22 < hidden.float().mean() < 0.38  # 0.3 with a standard deviation of 0.023
    again = torch.cat([stacked_depth([each], 0.3) for each in reversed(samples)]).isnan().flatten(1).all(1)
    assert torch.equal(again.flip(0), hidden), "neither the batch nor its order has a say"
    other = stacked_depth([sample(f"k{number}", epoch=7) for number in range(400)], 0.3).isnan().flatten(1).all(1)
    assert not torch.equal(other, hidden), "another epoch hides others"
    assert not stacked_depth(samples, 0.0).isnan().flatten(1).all(1).any()
    with pytest.raises(ConfigError, match="read the source through SampleDataset"):
        stacked_depth([sample("a", meta={})], 0.5)


def test_only_training_with_both_inputs_hides() -> None:
    samples = [sample(f"k{number}") for number in range(40)]

    def share(config: Any, **options: Any) -> float:
        batch = SegmentationCollator(config, **options)(samples)
        return float((~batch["depth_mask"].flatten(1).any(1)).float().mean())

    assert 0.2 < share(tiny_config(**BOTH), train=True) < 0.8
    assert share(tiny_config(**BOTH)) == 0
    assert share(tiny_config(**BOTH, depth_dropout=0.0), train=True) == 0
    assert share(tiny_config(task_inputs=["depth"], num_labels=3), train=True) == 0, "it would see nothing"


def _mixed(box: tuple[int, int, int, int] | None) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 2, 1, 6, 6, generator=generator) < 0.7
    values = torch.randn(3, 2, 1, 6, 6, generator=generator) * mask
    batch = {"depth_values": values.clone(), "depth_mask": mask.clone()}
    MixDepth("depth_values", "depth_mask", MixDraw(0.25, box)).apply(batch)
    return values, mask, batch


def test_mixup_blends_what_both_rows_have() -> None:
    values, mask, batch = _mixed(None)
    for row, other in ((0, 2), (1, 1), (2, 0)):
        known = mask[row] & mask[other]
        assert torch.equal(batch["depth_mask"][row], known)
        expected = torch.where(known, 0.25 * values[row] + 0.75 * values[other], 0.0)
        torch.testing.assert_close(batch["depth_values"][row], expected)


def test_cutmix_exchanges_a_box_of_values_and_mask() -> None:
    values, mask, batch = _mixed((1, 4, 2, 6))
    for name, before in (("depth_values", values), ("depth_mask", mask)):
        expected = before.clone()
        expected[..., 1:4, 2:6] = before.flip(0)[..., 1:4, 2:6]
        assert torch.equal(batch[name], expected), name


def test_pixels_depth_and_targets_are_mixed_by_one_draw() -> None:
    """Whoever finishes the batch; with depth alone the targets are mixed as well."""
    config = tiny_config(**BOTH, **CLIP, depth_dropout=0.0)
    clips = [sample(key, 4, label=number % 3) for number, key in enumerate("abcd")]
    options = MixingOptions(mixup=0.0, cutmix=1.0, probability=1.0)
    collator = ClipClassificationCollator(config, options, TransformOptions(erasing=1.0), train=True)
    batch, plain = collator(clips), ClipClassificationCollator(config, train=True)(clips)
    moved = (batch["depth_values"] != plain["depth_values"]) | (batch["depth_mask"] != plain["depth_mask"])
    partner = plain["depth_values"].flip(0)
    assert moved.any() and torch.equal(batch["depth_values"][moved], partner[moved])
    finished = to_device(deferring(collator)(clips), torch.device("cpu"))
    assert all(torch.equal(finished[name], batch[name]) for name in finished)
    alone = ClipClassificationCollator(config, options, train=True, inputs=["depth"])(clips)
    assert torch.equal(alone["labels"], batch["labels"]) and "pixel_values" not in alone
    assert torch.equal(alone["depth_values"], batch["depth_values"])


@pytest.mark.parametrize(
    ("folder", "rgb", "depth", "unit"),
    [
        ("rgbd_pairs/slambook_ch7_tum", "1.png", "1_depth.png", "tum"),
        ("rgbd_pairs/esanet_kinect2", "sample_rgb.png", "sample_depth.png", "millimetre"),
    ],
)
def test_real_frames_come_as_the_processor_gives_them(
    folder: str, rgb: str, depth: str, unit: str, tmp_path: Any
) -> None:
    """Files of two cameras through source, transform and collator, and through the processor: bit-equal."""
    real = shared(folder)
    for kind, name in (("rgb", rgb), ("depth", depth)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.png").write_bytes((real / name).read_bytes())
    config = tiny_config(**BOTH)
    source = FolderSource(tmp_path, split="all", depth_unit=unit)
    options = TransformOptions(eval_crop="resize")
    dataset = SampleDataset(source, build_transform(options, False, (32, 32), 8), maps=["rgb", "depth"])
    read = dataset[(0, 0)]
    assert isinstance(read, RGBDSample)
    read.segmentation = torch.zeros(1, 32, 32, dtype=torch.uint8)
    batch = SegmentationCollator(config)([read])
    processor = M33DImageProcessorPil.from_model_config(config, depth_unit=unit)
    picture, stored = Image.open(tmp_path / "rgb/a.png"), np.array(Image.open(tmp_path / "depth/a.png"))
    found = processor(picture, depth=stored, return_tensors="pt")
    for name in ("pixel_values", "depth_values", "depth_mask"):
        assert torch.equal(found[name], batch[name]), name
    assert 0.3 < batch["depth_mask"].float().mean() <= 1

"""A run that read stored depth saves what it took it for: the same files give its processor the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.frames_on_disk import write_frames
from helpers.tiny import CLIP, SMALL
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import build_task

OPTIONS = {"depth_unit": "tum", "max_depth": 6.0}


def _arguments(root: Path, task: str, **model: Any) -> RunArguments:
    args = RunArguments(task=task, output_dir=str(root / "out"), cpu=True)
    args.model = {**SMALL, "image_size": [16, 24], **model}
    args.data.source, args.data.root, args.data.options = "folder", str(root), dict(OPTIONS)
    args.data.train_split, args.data.eval_split, args.data.num_workers = "all", "all", 0
    return args


def _saved(args: RunArguments, folder: Path) -> tuple[Any, Any]:
    """(the evaluation data of a run with its collator applied to each row, the run's depth spec)."""
    task = build_task(args.task)
    model = task.build_model(args)
    train_set, eval_set = task.build_datasets(args, model)
    assert eval_set is not None
    task.save_processor(model, args, folder)
    collate = task.build_collator(args, model, train=False)
    return [collate([eval_set[0, row]]) for row in range(len(eval_set))], train_set.source.depth_spec


def _same(found: Any, expected: Any) -> None:
    for name in ("pixel_values", "depth_values", "depth_mask"):
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("crop", ["center", "pad", "resize"])
def test_pictures_of_pretraining(tmp_path: Path, crop: str) -> None:
    write_frames(tmp_path, 3, scale=5000.0, size=(29, 41))
    args = _arguments(tmp_path, "pretraining")
    args.transforms.eval_crop = crop
    batches, spec = _saved(args, tmp_path / "out")
    assert spec == DepthSpec(unit="tum", max_depth=6.0)
    for backend in (M33DImageProcessor, M33DImageProcessorPil):
        processor = backend.from_pretrained(tmp_path / "out")
        assert processor.depth_spec == spec.to_dict()
        for number, batch in enumerate(batches):
            picture = Image.open(tmp_path / f"color/{number}.png")
            depth = Image.open(tmp_path / f"depth/{number}.png")
            assert depth.mode == "I;16" and not batch["depth_mask"].all()
            _same(processor(picture, depth=depth, return_tensors="pt"), batch)


def test_clips_of_pretraining(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 8, "v/color/{i}.png", "v/depth/{i}.png", scale=5000.0, size=(29, 41))
    args = _arguments(tmp_path / "data", "pretraining", **CLIP)
    args.data.frame_stride = 2
    (batch,), spec = _saved(args, tmp_path / "out")
    processor = M33DVideoProcessor.from_pretrained(tmp_path / "out")
    assert processor.depth_spec == spec.to_dict()
    depth = [np.array(Image.open(tmp_path / f"data/v/depth/{number}.png")) for number in range(8)]
    _same(processor(tmp_path / "data/v/color", depth=depth, return_tensors="pt"), batch)


def test_a_depth_model_tells_what_its_labels_were(tmp_path: Path) -> None:
    write_frames(tmp_path, 2, scale=5000.0)
    args = _arguments(tmp_path, "depth_estimation", num_hidden_layers=4, depth_head_width=16)
    batches, spec = _saved(args, tmp_path / "out")
    processor = M33DImageProcessor.from_pretrained(tmp_path / "out", depth_standardization="none")
    for number, batch in enumerate(batches):
        maps = [np.array(Image.open(tmp_path / f"{kind}/{number}.png")) for kind in ("color", "depth")]
        found = processor(maps[0], depth=maps[1], return_tensors="pt")
        assert torch.equal(found["pixel_values"], batch["pixel_values"])
        assert torch.equal(found["depth_mask"][:, 0], batch["labels"].isfinite())
        assert torch.equal(found["depth_values"][:, 0], batch["labels"].nan_to_num(0.0))
    assert processor.depth_spec == spec.to_dict()

"""What a run saves to serve its model with prepares pictures as its evaluation did, to the bit, for every recipe."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from m33d_hf.data.augmentation.options import TransformOptions
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import RGBDSample
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.training.processes.checkpoints import is_complete
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.recipe.recipes import recipe_chain, recipe_names
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task, to_device
from m33d_hf.training.tasks.building import save_processor, starting_config

# Landscape, portrait, odd, nearly square, and smaller than most canvases.
SIZES = [(120, 160), (160, 120), (97, 131), (101, 100), (40, 57), (50, 49)]
CHANGES: list[dict[str, Any]] = [
    {},
    {"eval_crop": "center", "image_size": [48, 64]},
    {"eval_crop": "center", "image_size": [64, 48], "resize_mode": "bicubic"},
    {"eval_crop": "pad", "image_size": [48, 64]},
    {"eval_crop": "resize", "image_size": [64, 48], "resize_mode": "bicubic"},
]
FEW = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def _task_of(recipe: str) -> str:
    return [tree["task"] for _, tree in recipe_chain(recipe) if "task" in tree][-1]


def _of_clips(recipe: str) -> bool:
    return any(tree.get("model", {}).get("num_frames", 1) > 1 for _, tree in recipe_chain(recipe))


def _arguments(recipe: str, changes: dict[str, Any]) -> RunArguments:
    task = _task_of(recipe)
    words = ["--recipe", recipe, "--output_dir", "unused"]
    if task == "pretraining" and not any("method" in tree for _, tree in recipe_chain(recipe)):
        words += ["--method", "m33d"]
        staged = any("stage" in tree for _, tree in recipe_chain(recipe))
        words += [] if staged or _of_clips(recipe) else ["--stage", "2"]
    args = resolve(words, task).args
    args.model |= FEW
    for name, value in changes.items():
        if name == "image_size":
            args.model["image_size"] = value
        else:
            setattr(args.transforms, name, value)
    return args


def _served_and_evaluated(args: RunArguments, folder: Path, size: tuple[int, int]) -> tuple[list[Any], torch.Tensor]:
    """Pixel values of the saved processors (both backends for images), and of the run's own evaluation."""
    config = starting_config(args)
    several = args.task == "video_classification" and args.evaluation.num_crops > 1
    save_processor(config, args, folder, several_crops=several)
    frames = np.random.default_rng(sum(size)).integers(0, 256, (config.num_frames, *size, 3), dtype=np.uint8)
    transform = build_transform(args.transforms, False, config.image_height_width, 1)
    sample = RGBDSample("a", rgb=torch.from_numpy(frames).permute(0, 3, 1, 2), label=0)
    sample = transform.crops(sample, 1)[0] if several else transform(sample)
    task = build_task(args.task)
    maps = task.maps(config)  # type: ignore[attr-defined]
    if "segmentation" in maps:
        sample.segmentation = torch.zeros(1, *config.image_height_width, dtype=torch.uint8)
    if "depth" in maps:
        sample.depth = torch.ones(config.num_frames, 1, *config.image_height_width)
    collator = task.build_collator(args, SimpleNamespace(config=config), train=False)  # type: ignore[arg-type]
    sample.meta |= {"segment": 0, "crop": 0, "index": 0, "draw": Draw(0, 0)}
    expected = to_device(collator([sample]), torch.device("cpu"))["pixel_values"]
    if config.num_frames > 1:
        processor = M33DVideoProcessor.from_pretrained(folder)
        assert processor.frame_stride == args.data.frame_stride or "temporal_frame_stride" not in args.model
        return [processor(frames, return_tensors="pt")["pixel_values"]], expected
    picture = Image.fromarray(frames[0])
    both = (M33DImageProcessor.from_pretrained(folder), M33DImageProcessorPil.from_pretrained(folder))
    inputs = (picture, frames[0], torch.from_numpy(frames[0]).permute(2, 0, 1))
    return [each(given, return_tensors="pt")["pixel_values"] for each in both for given in inputs], expected


NAMES = [name for name in recipe_names() if _task_of(name) != "action_detection"]


@pytest.mark.parametrize("recipe", NAMES)
def test_served_equals_evaluated_to_the_bit(recipe: str, tmp_path: Path) -> None:
    for number, changes in enumerate(CHANGES):
        for size in SIZES[number::2] if number else SIZES[:4]:
            args = _arguments(recipe, changes)
            served, expected = _served_and_evaluated(args, tmp_path / f"{number}", size)
            for pixels in served:
                assert torch.equal(pixels, expected), (recipe, changes, size)


def test_fields_are_those_that_users_of_transformers_know(tmp_path: Path) -> None:
    save_processor(starting_config(_arguments("nyuv2_depth", {})), _arguments("nyuv2_depth", {}), tmp_path)
    told = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert told["do_center_crop"] and told["size"] == {"shortest_edge": 256}
    assert told["crop_size"] == {"height": 256, "width": 256}
    save_processor(starting_config(_arguments("nyuv2_semseg", {})), _arguments("nyuv2_semseg", {}), tmp_path)
    told = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert told["do_pad"] and told["size"] == {"max_height": 640, "max_width": 640}
    assert told["pad_size"] == {"height": 640, "width": 640} and not told["do_center_crop"]


MODEL: dict[str, Any] = {
    "image_size": [16, 24],
    "patch_size": 8,
    **FEW,
    "num_hidden_layers": 4,
    "segmentation_head_width": 8,
    "segmentation_head_depth": 1,
    "segmentation_head_upscale": 2,
    "depth_head_width": 16,
}


@pytest.mark.parametrize("crop", ["center", "resize", "pad"])
@pytest.mark.parametrize("name", ["semantic_segmentation", "depth_estimation"])
def test_metrics_of_the_served_model_are_those_of_evaluation(tmp_path: Path, name: str, crop: str) -> None:
    args = RunArguments(task=name, output_dir=str(tmp_path / "out"), cpu=True)
    args.model = dict(MODEL)
    args.data.options = {"num_frames": 6, "image_size": [31, 34], "cache_dir": str(tmp_path / "cache")}
    args.data.num_workers, args.train.max_steps, args.train.batch_size = 0, 2, 3
    args.transforms.eval_crop, args.transforms.train_crop = crop, "random"
    args.evaluation.every_steps, args.logging.trackers, args.logging.progress = 1, [], False
    args.logging.pictures = False
    task = build_task(name)
    result = train(args, task)
    best = tmp_path / "out" / "checkpoints" / "best"
    assert is_complete(best) and "preprocessor_config.json" in json.loads((best / "COMPLETE").read_text())["files"]
    segmentation = name == "semantic_segmentation"
    kind = M33DForSemanticSegmentation if segmentation else M33DForDepthEstimation
    model = kind.from_pretrained(tmp_path / "out").eval()
    data = task.build_eval_dataset(args, model)
    processor = M33DImageProcessor.from_pretrained(tmp_path / "out")
    assert M33DImageProcessor.from_pretrained(best).to_dict() == processor.to_dict()
    judge: Any = ConfusionMatrix(int(model.config.num_labels), 255) if segmentation else DepthMetrics()
    for number in range(len(data.source)):
        sample = data.source[number].read([0])
        labels = sample.segmentation[0].numpy() if segmentation else sample.depth[0, 0].numpy()
        maps = {"segmentation_maps" if segmentation else "depth": labels}
        picture = Image.fromarray(sample.rgb[0].permute(1, 2, 0).contiguous().numpy())
        batch = processor(picture, **maps, return_tensors="pt")
        with torch.no_grad():
            output = model(batch["pixel_values"])
        if segmentation:
            judge.update(output.logits, batch["labels"])
            whole = processor.post_process_semantic_segmentation(output, [labels.shape])[0]
            outside = whole.eq(255)
        else:
            expected = build_transform(TransformOptions(eval_crop=crop), False, [16, 24], 1)(sample).depth[:, 0]
            judge.update(output.predicted_depth, expected)
            whole = processor.post_process_depth_estimation(output, [labels.shape])[0]["predicted_depth"]
            outside = whole.eq(0)
        assert whole.shape == labels.shape
        # 31 x 34 covers 16 x 24 as 22 x 24: rows 0-2 and 19-21 of 22 are cut off.
        rows = [row for row in range(31) if not 3 <= (row + 0.5) * 22 / 31 < 19] if crop == "center" else []
        assert outside.any(dim=1).nonzero()[:, 0].tolist() == rows and outside[rows].all()
    found = judge.compute()
    if segmentation:
        assert float(found["mean_iou"]) == result.metrics["eval/miou"]
        assert float(found["pixel_accuracy"]) == result.metrics["eval/pixel_accuracy"]
    else:
        for metric in ("delta1", "rmse", "abs_rel"):
            # Sums over one picture and over a batch differ in their last bits.
            assert float(found[metric]) == pytest.approx(result.metrics[f"eval/{metric}"], rel=1e-9)

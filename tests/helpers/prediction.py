"""Folders with tiny models of every task, as runs leave them, and what predict.py is called with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.depth_models import shake
from helpers.tiny import CLIP, tiny_config
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.sharding import Place
from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForSemanticSegmentation
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

ALONE = Place(0, 1, 0)
NAMES = {0: "floor", 1: "wall", 2: "lamp"}


def save_segmentation(folder: Path, seed: int = 0, **processing: Any) -> Path:
    """Three classes, a head whose logits differ between pixels."""
    config = tiny_config(id2label=NAMES, label2id={name: number for number, name in NAMES.items()})
    model = M33DForSemanticSegmentation(config)
    shake(model, seed)
    model.save_pretrained(folder)
    M33DImageProcessor.from_model_config(config, **processing).save_pretrained(folder)
    return folder


def save_clips(folder: Path, seed: int = 0, **processing: Any) -> Path:
    """Three classes of clips of four frames."""
    config = tiny_config(**CLIP, id2label=NAMES, label2id={name: number for number, name in NAMES.items()})
    model = M33DForVideoClassification(config)
    shake(model, seed)
    model.save_pretrained(folder)
    M33DVideoProcessor.from_model_config(config, **processing).save_pretrained(folder)
    return folder


def save_phases(folder: Path, seed: int = 0) -> Path:
    """Three phases, by clips of four frames."""
    config = tiny_config(**CLIP, id2label=NAMES, label2id={name: number for number, name in NAMES.items()})
    model = M33DForVideoActionDetection(config)
    shake(model, seed)
    model.save_pretrained(folder)
    return folder


def save_pretraining(folder: Path, **config: Any) -> Path:
    """A pre-training model of pictures, or of clips with `num_frames`."""
    torch.manual_seed(0)
    made = tiny_config(**config)
    M33DForPreTraining(made).save_pretrained(folder)
    processor = M33DImageProcessor if made.num_frames == 1 else M33DVideoProcessor
    processor.from_model_config(made).save_pretrained(folder)
    return folder


def options(model: Path, given: Path | str, output: Path, **changes: Any) -> PredictionOptions:
    """Options for one input; short, on the CPU."""
    values: dict[str, Any] = {"batch_size": 3, "workers": 2, "device": "cpu", **changes}
    return PredictionOptions(str(model), [str(given)], output, **values)


def picture(seed: int = 0, height: int = 48, width: int = 60) -> np.ndarray:
    """(H, W, 3) uint8 with structure: a ramp and blocks."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 140, width)[None, :, None] + np.linspace(0, 80, height)[:, None, None]
    blocks = rng.uniform(-60, 60, (height // 6 + 1, width // 6 + 1, 3)).repeat(6, axis=0).repeat(6, axis=1)
    return np.clip(ramp + blocks[:height, :width], 0, 255).astype(np.uint8)


def save_pictures(folder: Path, count: int, **size: int) -> list[Path]:
    """`p0.png` .. in a folder, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(number, **size)).save(path)
    return paths

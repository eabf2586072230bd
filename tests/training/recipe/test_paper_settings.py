"""Every recipe of the paper against Tables 9 to 14 and the sampling of frames, cell by cell, from a typed file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from m33d_hf.data.labels.nyu40 import NYU40, UNLABELLED
from m33d_hf.data.sources.scannet.label_ids import classes_of
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.recipe.recipes import RECIPES

TYPED = yaml.safe_load((Path(__file__).parent / "paper_settings.yaml").read_text(encoding="utf-8"))
PRETRAINING, CLIPS, DETECTION = "pretraining", "video_classification", "action_detection"
SEGMENTATION, DEPTH = "semantic_segmentation", "depth_estimation"
# (table, column) -> the recipes that it describes, with their tasks.
RECIPES_OF = {
    ("table_9", "OR-AR"): [("orar_pretrain", PRETRAINING)],
    ("table_9", "UCF-101"): [("ucf101_pretrain", PRETRAINING), ("ucf101_pretrain_scratch", PRETRAINING)],
    ("table_10", "OR-AR"): [("orar_finetune", CLIPS), ("orar_temporal", DETECTION)],
    ("table_10", "UCF-101"): [("ucf101_finetune", CLIPS)],
    ("table_11", "OR-AR"): [("orar_pretrain", PRETRAINING)],
    ("table_11", "UCF-101"): [("ucf101_pretrain", PRETRAINING), ("ucf101_pretrain_scratch", PRETRAINING)],
    ("table_11", "ScanNet"): [("scannet_stage2", PRETRAINING)],
    ("table_12", "ScanNet"): [("scannet_stage1", PRETRAINING), ("scannet_stage2", PRETRAINING)],
    ("table_13", "ScanNet"): [("scannet_semseg", SEGMENTATION)],
    ("table_13", "NYUv2"): [("nyuv2_semseg", SEGMENTATION)],
    ("table_14", "NYUv2"): [("nyuv2_depth", DEPTH)],
}
# Rows that do not concern a recipe: stage 1 has no masks and no reconstruction; the temporal model reads features of a
# frozen encoder, extracted once, and has two rows of its own where the first stage has others.
FROZEN = ("Base learning rate", "Epochs", "Flip augmentation", "Mixup", "CutMix", "drop path", "drop out",
          "Layer-wise lr decay")  # fmt: skip
NOT_FOR = {
    "scannet_stage1": ("Stage-2 epochs", "alpha", "beta"),
    "scannet_stage2": ("Stage-1 epochs",),
    "orar_temporal": FROZEN,
    "orar_finetune": ("Temporal Model learning rate", "Temporal Model Epochs"),
    "ucf101_finetune": ("Temporal Model learning rate", "Temporal Model Epochs"),
}
MASKING = {"tube": "Tube", "random": "Random", "motion": "SurgMAE"}


def _model(args: RunArguments) -> M33DConfig:
    made = M33DConfig(**args.model)
    made.check()
    return made


def _size(args: RunArguments) -> list[int]:
    return list(_model(args).image_height_width)


def _mixed(share: float) -> Any:
    return share or "None"


def _crops(args: RunArguments) -> Any:
    """What an augmentation cell names of a recipe."""
    names = {"Gaussian Blur": args.transforms.blur > 0, "ColorJitter": args.transforms.color_jitter > 0}
    if args.recipe == "nyuv2_depth":
        names = {"RandomCrop": args.transforms.train_crop == "random", "Color jitter": args.transforms.color_jitter > 0}
    if args.transforms.train_crop == "multiscale":
        return "MultiScaleCrop"
    return [name for name, there in names.items() if there]


def _epochs(args: RunArguments) -> Any:
    """Table 9 prints both lengths of UCF-101 in one cell."""
    epochs = int(args.train.epochs or 0)
    return "100 or 800" if args.recipe.startswith("ucf101_pretrain") and epochs in (100, 800) else epochs


READ: dict[str, Callable[[RunArguments], Any]] = {
    "Optimizer": lambda args: "AdamW",  # the only one there is (test_optimization)
    "Optimizer betas": lambda args: args.optim.betas,
    "Base learning rate": lambda args: args.optim.learning_rate,
    "Weight decay": lambda args: args.optim.weight_decay,
    "Learning rate schedule": lambda args: {"cosine": "cosine decay"}.get(args.optim.schedule, args.optim.schedule),
    "gradient clipping": lambda args: "None" if args.optim.clip_grad_norm is None else args.optim.clip_grad_norm,
    "Warmup epochs": lambda args: args.optim.warmup_epochs,
    "Warmup learning rate": lambda args: args.optim.warmup_lr,
    "Epochs": _epochs,
    "Stage-1 epochs": lambda args: args.train.epochs,
    "Stage-2 epochs": lambda args: args.train.epochs,
    "Flip augmentation": lambda args: args.transforms.flip > 0,
    "Augmentation": _crops,
    "Num of Frames": lambda args: _model(args).num_frames,
    "sampling rate": lambda args: args.data.frame_stride,
    "alpha": lambda args: _model(args).spec("rgb").weight,
    "beta": lambda args: _model(args).spec("depth").weight,
    "gamma": lambda args: _model(args).contrastive_weight,
    "eta": lambda args: _model(args).matching_weight,
    "Mixup": lambda args: _mixed(args.mixing.mixup),
    "CutMix": lambda args: _mixed(args.mixing.cutmix),
    "drop path": lambda args: _model(args).drop_path_rate,
    "Drop path": lambda args: _model(args).drop_path_rate,
    "drop out": lambda args: _model(args).classifier_dropout,
    "Layer-wise lr decay": lambda args: args.optim.layer_decay,
    "Temporal Model learning rate": lambda args: args.optim.learning_rate,
    "Temporal Model Epochs": lambda args: args.train.epochs,
    "RGB Masking strategy": lambda args: MASKING[_model(args).spec("rgb").masking],
    "RGB Masking ratio": lambda args: _model(args).spec("rgb").mask_ratio,
    "Depth Masking strategy": lambda args: MASKING[_model(args).spec("depth").masking],
    "Depth Masking ratio": lambda args: _model(args).spec("depth").mask_ratio,
    "Input resolution": _size,
    "Color jitter": lambda args: args.transforms.color_jitter > 0,
    "RandomGaussianBlur": lambda args: args.transforms.blur > 0,
    "RandomHorizontalFlip": lambda args: args.transforms.flip > 0,
    "Batch Size": lambda args: args.train.batch_size * args.train.accumulation,
}


def _number(value: Any) -> Any:
    """YAML takes 1e-4 for text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


CELLS = [
    pytest.param(recipe, task, row, cell, id=f"{recipe}-{row}".replace(" ", "_"))
    for (table, column), recipes in RECIPES_OF.items()
    for recipe, task in recipes
    for row, cell in TYPED[table][column].items()
    if row not in NOT_FOR.get(recipe, ()) and cell != "?"
]


@pytest.mark.parametrize(("recipe", "task", "row", "cell"), CELLS)
def test_a_recipe_has_what_the_paper_prints(recipe: str, task: str, row: str, cell: Any) -> None:
    assert READ[row](parse_arguments(["--recipe", recipe], task)) == _number(cell)


def test_every_cell_is_asked_of_some_recipe() -> None:
    tables = {name: columns for name, columns in TYPED.items() if name.startswith("table_")}
    assert {(table, column) for table, columns in tables.items() for column in columns} == set(RECIPES_OF)
    for (table, column), recipes in RECIPES_OF.items():
        asked = {row for recipe, _ in recipes for row in TYPED[table][column] if row not in NOT_FOR.get(recipe, ())}
        left = {"Temporal Model learning rate", "Temporal Model Epochs"} if column == "UCF-101" else set()
        assert asked == set(TYPED[table][column]) - left
    assert len(CELLS) > 120


def test_frames_and_classes_of_scannet() -> None:
    typed = TYPED["sampling"]["ScanNet"]
    for recipe in ("scannet_stage1", "scannet_stage2"):
        assert parse_arguments(["--recipe", recipe], PRETRAINING).data.options["every"] == typed["pre-training frames"]
    options = parse_arguments(["--recipe", "scannet_semseg"], SEGMENTATION).data.options
    assert options["every"] == typed["fine-tuning frames"] and options["num_classes"] == typed["classes"]
    assert len(classes_of(options["num_classes"])) == typed["classes"]


def test_classes_of_nyuv2() -> None:
    options = parse_arguments(["--recipe", "nyuv2_semseg"], SEGMENTATION).data.options
    assert options["labels"] == "auto" and TYPED["sampling"]["NYUv2"]["classes"] == len(set(NYU40) - {UNLABELLED})


@pytest.mark.parametrize("name", ("orar_temporal", "bases/orar_pretrain"))
def test_what_the_paper_leaves_open_is_said_in_the_recipe(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    words = " ".join(line.strip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "leaves open" in words

"""Heads of fine-tuned MultiMAE models that are ours too: ConvNeXt (`semseg`) and DPT for regression (`depth`).

Both have the shapes of the paper's models, so they are taken over whole. Other heads of its trainers (linear,
Segmenter, DPT for segmentation) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from m33d_hf.weights.formats.layout import Neutral, Row, parameter_rows, row

SEGMENTATION, DEPTH = "segmentation_head", "depth_head"

_CONVNEXT = r"output_adapters\.semseg"
_DPT = r"output_adapters\.depth"
_CONVNEXT_BLOCK = {"dwconv": "depthwise", "norm": "norm", "pwconv1": "fc1", "pwconv2": "fc2"}
# The original holds these four and a list of the same layers: one state dict names every tensor twice.
_LEVELS = (1, 2, 3, 4)


def _level_rows(level: int) -> tuple[Row, ...]:
    stem, fusion = rf"{_DPT}\.act_{level}_postprocess\.(?P<n>\d)", rf"{_DPT}\.scratch\.refinenet{level}"
    ours = f"{DEPTH}.fusions.{level - 1}"
    pairs = [(stem, rf"{DEPTH}.stems.{level - 1}.\g<n>")]
    pairs.append((rf"{_DPT}\.scratch\.layer{level}_rn", f"{DEPTH}.laterals.{level - 1}"))
    units = (("resConfUnit1", "skip_unit"), ("resConfUnit2", "unit"))
    for theirs, name in units if level < len(_LEVELS) else units[1:]:
        pairs.append((rf"{fusion}\.{theirs}\.conv(?P<c>[12])", rf"{ours}.{name}.conv\g<c>"))
    return parameter_rows([*pairs, (rf"{fusion}\.out_conv", f"{ours}.projection")])


ROWS: tuple[Row, ...] = (
    *parameter_rows(
        [
            (rf"{_CONVNEXT}\.proj_dec", f"{SEGMENTATION}.projection"),
            (rf"{_CONVNEXT}\.final_layer", f"{SEGMENTATION}.classifier"),
            *(
                (rf"{_CONVNEXT}\.blocks\.(?P<n>\d+)\.{theirs}", rf"{SEGMENTATION}.blocks.\g<n>.{ours}")
                for theirs, ours in _CONVNEXT_BLOCK.items()
            ),
        ]
    ),
    *(each for level in _LEVELS for each in _level_rows(level)),
    *parameter_rows(
        [
            (rf"{_DPT}\.head\.{number}", f"{DEPTH}.{ours}")
            for number, ours in ((0, "reduce"), (2, "refine"), (4, "predict"))
        ]
    ),
    # Variants that compute something else; a name that our heads do not have makes them one of another shape.
    row(rf"{_CONVNEXT}\.blocks\.(?P<n>\d+)\.gamma", rf"{SEGMENTATION}.blocks.\g<n>.layer_scale"),
    row(rf"{_DPT}\.scratch\.refinenet(?P<n>\d)\.(?P<u>\w+)\.(?P<b>bn\d)\.weight", rf"{DEPTH}.\g<b>.\g<u>.\g<n>"),
    row(rf"{_DPT}\.(?:act_postprocess|scratch\.layer_rn)\.\d\..+", reason="the same tensor under a second name"),
    row(
        rf"{_DPT}\.scratch\.refinenet4\.resConfUnit1\..+", reason="an idle unit: the coarsest level has nothing to add"
    ),
)

# What reads the encoder's tokens, with the dimension of their channels.
_READS = (
    (re.compile(rf"{_CONVNEXT}\.proj_dec\.weight"), -1),
    (re.compile(rf"{_DPT}\.act_[1-4]_postprocess\.0\.weight"), 1),
)


def reading_dimension(key: str) -> int | None:
    """The dimension of a weight along which it reads channels of the encoder's tokens; None where it reads none."""
    return next((dim for pattern, dim in _READS if pattern.fullmatch(key)), None)


def obstacles(neutral: Neutral, targets: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Prefix of weights of our heads -> why they cannot be taken over; None when they can, as a whole.

    The layer of classes has a prefix of its own: other classes leave the rest of the head in use.

    Args:
        neutral: the checkpoint.
        targets: weights of the model.
    """
    found = {head: _head_obstacle(head, neutral, targets) for head in (SEGMENTATION, DEPTH)}
    classes = f"{SEGMENTATION}.classifier"
    return {classes: found[SEGMENTATION] or _classes_obstacle(f"{classes}.weight", neutral, targets), **found}


def _head_obstacle(head: str, neutral: Neutral, targets: Mapping[str, Tensor]) -> str | None:
    ours = {name: tuple(tensor.shape) for name, tensor in targets.items() if name.startswith(f"{head}.")}
    theirs = {
        name: tuple(weight.tensor.shape) for name, weight in neutral.weights.items() if name.startswith(f"{head}.")
    }
    if not ours:
        return f"head of a fine-tuned model; this model has no {head}"
    if not theirs:
        return f"the checkpoint has no {head}"
    classes = f"{head}.classifier."
    for name in sorted(ours.keys() | theirs.keys()):
        if name.startswith(classes):
            continue
        if ours.get(name) != theirs.get(name):
            shapes = f"{theirs.get(name)} in the checkpoint and {ours.get(name)} in this model"
            return f"a head of a different shape: {name} is {shapes}"
    return None


def _classes_obstacle(name: str, neutral: Neutral, targets: Mapping[str, Tensor]) -> str | None:
    theirs, ours = neutral.weights.get(name), targets.get(name)
    if theirs is None or ours is None or theirs.tensor.shape == ours.shape:
        return None
    return f"the checkpoint's head has {theirs.tensor.shape[0]} classes, but the model has {ours.shape[0]}"


def head_fields(neutral: Neutral) -> dict[str, Any]:
    """`M33DConfig` arguments that fit the checkpoint's heads; empty where it has none."""
    weights = {name: weight.tensor for name, weight in neutral.weights.items()}
    fields: dict[str, Any] = {}
    classes = weights.get(f"{SEGMENTATION}.classifier.weight")
    projection = weights.get(f"{SEGMENTATION}.projection.weight")
    if classes is not None and projection is not None and classes.ndim > 1:
        width = classes.shape[1]
        blocks = {name.split(".")[2] for name in weights if name.startswith(f"{SEGMENTATION}.blocks.")}
        fields |= {"segmentation_head_width": width, "segmentation_head_depth": len(blocks)}
        fields |= {"segmentation_head_upscale": isqrt(projection.shape[0] // width), "num_labels": classes.shape[0]}
    laterals = [weights.get(f"{DEPTH}.laterals.{n}.weight") for n in range(len(_LEVELS))]
    if all(lateral is not None and lateral.ndim == 4 for lateral in laterals):
        known = [lateral for lateral in laterals if lateral is not None]
        fields |= {"depth_head_width": known[0].shape[0], "depth_head_stem_channels": [t.shape[1] for t in known]}
    return fields

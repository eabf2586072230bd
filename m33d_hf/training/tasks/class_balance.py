"""Unequal classes: weights in the loss (`train.class_weights`) and how often samples are drawn (`train.sampling`).

Both are off by default. With class weights the loss of a clip of class c counts w_c times; with balanced sampling clips
of rare classes are drawn more often. Either makes every class count alike; both together do so twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from m33d_hf.data.files.text_files import decode_file
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import ConfigError, LabelError, nearest_name_hint
from m33d_hf.modeling.clip_model_m33d import M33DClipModel
from m33d_hf.training.recipe.arguments import RunArguments

NONE, BALANCED, SHUFFLED = "none", "balanced", "shuffled"


def is_balanced(args: RunArguments) -> bool:
    """Whether a run treats classes differently at all."""
    return args.train.class_weights != NONE or args.train.sampling != SHUFFLED


def weights_file(args: RunArguments) -> Path | None:
    """The file that `train.class_weights` names; None where it names a way."""
    chosen = args.train.class_weights
    return None if chosen in (NONE, BALANCED) else Path(chosen)


def class_counts(labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """(L,) int64 clips of each class.

    Args:
        labels: per sample the (S,) class ids of its clips, 255 where there is none.
        classes: L.
    """
    every = np.concatenate([np.empty(0, np.int64), *labels]).astype(np.int64)
    return np.bincount(every[every != IGNORE_INDEX], minlength=classes)


def class_weights(args: RunArguments, counts: np.ndarray, names: Sequence[str]) -> np.ndarray | None:
    """(L,) float64 weights of `train.class_weights`, with a mean of 1 over the labelled training clips.

    "balanced" is in inverse proportion to the number of clips; a class without any has 0. Since the mean is 1, the
    learning rate means the same as without weights.

    Raises:
        ConfigError: no such way, or a file that is not there.
        LabelError: a file that lacks a class, has one twice or another, or a weight that is no number from 0 on.
    """
    chosen = args.train.class_weights
    if chosen == NONE:
        return None
    path = weights_file(args)
    if path is None:
        raw = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
    else:
        raw = _read_weights(path, names)
    total = float((raw * counts).sum())
    if not total:
        raise LabelError(f"train.class_weights {chosen}: every class that has training clips has weight 0.")
    return np.asarray(raw * counts.sum() / total)


def draw_weights(labels: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """(N,) float64 how often each sample is drawn in relation to the others, so that classes are seen alike.

    The mean over the labelled clips of a sample of 1 / (clips of their class); 0 for a sample without any. For samples
    of one clip each, every class is then drawn equally often; of whole videos, those with rare phases come more often.
    """
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
    kept = [each[each != IGNORE_INDEX].astype(np.int64) for each in labels]
    return np.array([float(inverse[each].mean()) if len(each) else 0.0 for each in kept])


def balanced_draws(
    args: RunArguments, labels_of: Callable[[RunArguments, SampleDataset], list[np.ndarray]], dataset: SampleDataset
) -> np.ndarray | None:
    """`draw_weights` of a data set with `train.sampling balanced`, else None."""
    if args.train.sampling == SHUFFLED:
        return None
    labels = labels_of(args, dataset)
    classes = 1 + max(int(each.max(initial=0, where=each != IGNORE_INDEX)) for each in labels)
    return draw_weights(labels, class_counts(labels, classes))


def weigh_classes(args: RunArguments, model: nn.Module, labels: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Give a clip model the weights of `train.class_weights`.

    Raises:
        ConfigError, LabelError: see `class_weights`.
    """
    weights = class_weights(args, class_counts(labels, len(names)), names)
    cast(M33DClipModel, model).weigh_classes(None if weights is None else torch.from_numpy(weights))


def describe_balance(args: RunArguments, labels: Sequence[np.ndarray], names: Sequence[str]) -> list[str]:
    """Lines for the start of a run and its report."""
    lines, counts = [], class_counts(labels, len(names))
    weights = class_weights(args, counts, names)
    if weights is not None:
        shown = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, weights, strict=True))
        lines.append(f"class weights ({args.train.class_weights}): {shown}; a clip counts 1 on average")
    if args.train.sampling == SHUFFLED:
        return lines
    after = drawn_shares(labels, draw_weights(labels, counts), len(names))
    shares = zip(names, counts / counts.sum(), after, strict=True)
    shown = ", ".join(f"{name} {100 * now:.1f} % (of all {100 * before:.1f} %)" for name, before, now in shares)
    lines.append(f"balanced sampling, with replacement; clips of an epoch, on average: {shown}")
    if weights is not None:
        lines.append("WARNING: class weights and balanced sampling both favour rare classes; usually one is enough")
    return lines


def drawn_shares(labels: Sequence[np.ndarray], weights: np.ndarray, classes: int) -> np.ndarray:
    """(L,) share of each class among the clips that are seen when samples are drawn by `weights`."""
    seen = np.zeros(classes)
    for each, weight in zip(labels, weights, strict=True):
        seen += weight * np.bincount(each[each != IGNORE_INDEX].astype(np.int64), minlength=classes)
    return np.asarray(seen / seen.sum())


def _read_weights(path: Path, names: Sequence[str]) -> np.ndarray:
    if not path.is_file():
        raise ConfigError(
            f"train.class_weights is {str(path)!r}, which is neither none, balanced nor a file; a file has a line "
            "'name<TAB>weight' for each class."
        )
    found: dict[str, float] = {}
    for number, line in enumerate(decode_file(path).text.splitlines(), 1):
        if not line.strip():
            continue
        name, tab, text = (part.strip() for part in line.rpartition("\t"))
        if not tab and "\t" not in line:
            raise LabelError(f"{path}, line {number}: {line.strip()[:80]!r} is not 'name<TAB>weight'.")
        if name not in names:
            raise LabelError(f"{path}, line {number}: {name!r} is none of the classes.{nearest_name_hint(name, names)}")
        if name in found:
            raise LabelError(f"{path}, line {number}: the class {name!r} has a weight already.")
        found[name] = _weight(path, number, text)
    missing = [name for name in names if name not in found]
    if missing:
        raise LabelError(f"{path}: no weight for {', '.join(missing)}; every class needs one.")
    return np.array([found[name] for name in names])


def _weight(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise LabelError(f"{path}, line {number}: the weight {text!r} is not a number from 0 on.")
    return value

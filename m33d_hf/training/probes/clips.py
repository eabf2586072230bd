"""Probes of an encoder on frozen features of the training and evaluation clips.

The encoder of a checkpoint (pre-trained, fine-tuned, foreign; random without one) sees every clip once, the centre
view without augmentation. Processes share the clips; the main one probes.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from m33d_hf.acceleration import place
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.randomness import seeded
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.errors import CheckpointError, ConfigError, DataError
from m33d_hf.evaluation.probes import KnnOptions, LinearOptions, knn_probe, linear_probe
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.training.processes.guards import output_lock
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loaders import build_eval_feed, overlap_lines
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import to_device
from m33d_hf.training.tasks.building import config_of, load_weights, starting_config
from m33d_hf.training.tasks.class_numbers import assume_classes
from m33d_hf.training.tasks.video_classification import VideoClassificationTask
from m33d_hf.weights.own import find_own

Encoder = Callable[[Tensor], Tensor]


class Features(NamedTuple):
    """Frozen features of one split: (N, D) float32, and (N,) int64 class ids, on the CPU in the order of the data."""

    features: Tensor
    labels: Tensor


def probe_run(
    args: RunArguments, knn: KnnOptions | None = None, linear: LinearOptions | None = None
) -> dict[str, float]:
    """Probe the encoder, with the arguments of run_video_classification.

    `args.init_from` None probes random weights (drawn by `args.seed`). Training features are those of
    `data.train_split` after all label subsets, test features those of `data.eval_split`. Training options (steps,
    augmentation, mixing) have no effect here, and neither do `evaluation.num_segments` and `num_crops`.

    Args:
        args: arguments of clip classification.
        knn: options of the nearest neighbours; None for the defaults.
        linear: options of the linear classifier; None for the defaults.

    Returns:
        "knn/top1", "knn/top5", "linear/...": see `m33d_hf.evaluation.probes`; "samples/train", "samples/test";
        "seconds/features", "seconds/knn", "seconds/linear". The same on every rank.

    Raises:
        ConfigError: another task, data without classes or without an evaluation split, options out of range.
        CheckpointError: `init_from` cannot be read or does not fit.
        DataError: data that cannot be used, too many unusable files, features that are not finite.
    """
    if args.task != "video_classification":
        raise ConfigError(
            f"the recipe is for {args.task}, but probes require class labels of clips: pass --recipe with a recipe of "
            "video classification (or --dense and a recipe of semantic segmentation)."
        )
    knn, linear = knn or KnnOptions(), linear or LinearOptions()
    with ExitStack() as stack:
        accelerator = stack.enter_context(open_accelerator(args))
        if accelerator.is_main_process:
            stack.enter_context(output_lock(args.output_dir))
        ranks = Ranks(accelerator)
        started = time.perf_counter()
        parts = frozen_features(args, accelerator, ranks)
        extracted = time.perf_counter() - started
        classes = int(max(part.labels.max() for part in parts)) + 1
        (found,) = [
            value
            for value in ranks.gather_objects(_probe(parts, classes, knn, linear, accelerator) if ranks.main else None)
            if value is not None
        ]
        if isinstance(found, Exception):
            raise found
        sizes = {"samples/train": float(len(parts[0].labels)), "samples/test": float(len(parts[1].labels))}
        return {**found, **sizes, "seconds/features": extracted}


def _probe(
    parts: tuple[Features, Features], classes: int, knn: KnnOptions, linear: LinearOptions, accelerator: Accelerator
) -> dict[str, float] | Exception:
    """Both probes; what goes wrong is handed back, so that the other processes hear of it."""
    data = [values.to(accelerator.device) for part in parts for values in part]
    train, train_labels, test, test_labels = data
    found: dict[str, float] = {}
    try:
        started = time.perf_counter()
        near = knn_probe(train, train_labels, test, test_labels, knn.k, knn.temperature, classes)
        found |= {f"knn/{name}": value for name, value in near.items()}
        found["seconds/knn"] = time.perf_counter() - started
        started = time.perf_counter()
        fitted = linear_probe(train, train_labels, test, test_labels, classes, linear)
        found |= {f"linear/{name}": value for name, value in fitted.items()}
        found["seconds/linear"] = time.perf_counter() - started
    except (ConfigError, DataError) as error:
        return error
    return found


def frozen_features(args: RunArguments, accelerator: Accelerator, ranks: Ranks) -> tuple[Features, Features]:
    """Features of the training and the evaluation clips, whole on every rank.

    For a model fine-tuned on clips, they are the normalised mean of the tokens that its classifier reads; for all
    others, the mean of the tokens after the encoder's final norm.

    Raises:
        ConfigError, CheckpointError, DataError: see `probe_run`.
    """
    args = copy.deepcopy(args)
    args.evaluation.num_segments = args.evaluation.num_crops = 1
    assume_classes(args)
    pooled = _has_pooled_norm(args.init_from)
    task = VideoClassificationTask()
    # Of any other checkpoint this model is needed for its classes and sizes alone.
    model: Any = build_model(args if pooled else dataclasses.replace(args, init_from=None), task)
    train_set, test_set = task.build_datasets(args, model)
    if test_set is None:
        raise ConfigError("There are no test clips to probe: pass --data.eval_split (or --data.eval_root).")
    warnings = overlap_lines(args, train_set, test_set)
    ranks.on_main(lambda: print("".join(f"{line}\n" for line in warnings), end="", file=sys.stderr, flush=True))
    place(model, accelerator.device).eval()
    encoder = model.encode_clips if pooled else _mean_tokens(frozen_encoder(args, accelerator.device))
    train, test = (
        _extract(args, task, model, encoder, centre_views(args, model, dataset), accelerator, ranks)
        for dataset in (train_set, test_set)
    )
    return train, test


def _has_pooled_norm(init_from: str | None) -> bool:
    """Whether the checkpoint is a model fine-tuned on clips, which has a norm of its own for the pooled tokens."""
    own = None if init_from is None else find_own(init_from)
    if own is None:
        return False
    names: set[str] = set()
    for file in own.files:
        try:
            with safe_open(file, framework="pt") as tensors:
                names |= set(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}; choose another --init_from.") from error
    return "fc_norm.weight" in names


def frozen_encoder(args: RunArguments, device: torch.device) -> M33DModel:
    """The RGB encoder of `init_from` in eval mode, or a random one, on the device.

    It ends in the encoder's final norm, whose weights are the identity where a checkpoint has none.

    Raises:
        CheckpointError: `init_from` cannot be read or does not fit.
    """
    with seeded(args.seed, "model"):
        model = M33DModel._from_config(
            starting_config(args), modalities=["rgb"], attn_implementation=args.train.attn_implementation
        )
    if args.init_from is not None:
        report = load_weights(args, model)
        if os.environ.get("RANK", "0") == "0":
            print(report.summary_by_part(), file=sys.stderr, flush=True)
    place(model, device).eval()
    return model


def _mean_tokens(model: M33DModel) -> Encoder:
    return lambda pixels: model.extract_features(pixels)["rgb"].mean(dim=1)


def centre_views(args: RunArguments, model: nn.Module, dataset: SampleDataset) -> SampleDataset:
    """The same samples as in an evaluation: the frames in the middle, the centre crop, in lists of one view."""
    config = config_of(model)
    return SampleDataset(
        dataset.source,
        build_transform(args.transforms, False, config.image_height_width, config.patch_height_width),
        num_frames=dataset.num_frames,
        frame_stride=dataset.frame_stride,
        seed=args.seed,
        indices=dataset.indices,
        clip_sampling=dataset.clip_sampling,
        num_segments=1,
        num_crops=1,
    )


def _extract(
    args: RunArguments,
    task: VideoClassificationTask,
    model: nn.Module,
    encoder: Encoder,
    dataset: SampleDataset,
    accelerator: Accelerator,
    ranks: Ranks,
) -> Features:
    """This rank's share of the clips through the encoder, and then those of all; clips without a label are left out."""
    feed = build_eval_feed(args, task, model, dataset, ranks)
    own: list[tuple[int, int, Tensor]] = []
    with ExitStack() as stack, torch.no_grad():
        stack.callback(feed.close)
        for batch in feed:
            if "pixel_values" not in batch:
                continue
            pixels = to_device(batch, accelerator.device)["pixel_values"]
            with accelerator.autocast():
                features = encoder(pixels).float().cpu()
            numbers = [view[0] for view in batch["meta"]["views"]]
            found = zip(numbers, batch["labels"].tolist(), features, strict=True)
            own += [row for row in found if row[1] != IGNORE_INDEX]
        feed.check(ranks)
    rows = sorted((row for part in ranks.gather_objects(own) for row in part), key=lambda row: row[0])
    if not rows:
        raise DataError("none of the clips to probe has a label; use a source with clip labels (--data.source).")
    return Features(torch.stack([row[2] for row in rows]), torch.tensor([row[1] for row in rows]))

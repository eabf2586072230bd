"""The dense probe: a linear classifier of frozen patch tokens, evaluated as a segmentation of the pixels.

The label of a patch is the most common class of its pixels; the logits of the patches are upsampled bilinearly. This
limits the result, not only the encoder: use it to compare encoders with each other, not with fine-tuned models.
"""

from __future__ import annotations

import copy
import sys
import time
from contextlib import ExitStack
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.randomness import generator_of
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.evaluation.metrics import ConfusionMatrix
from m33d_hf.evaluation.probes import LinearFit, LinearOptions, fit_linear
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.training.probes.clips import centre_views, frozen_encoder
from m33d_hf.training.processes.guards import output_lock
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.loaders import build_eval_feed, overlap_lines
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import to_device
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.semantic_segmentation import SemanticSegmentationTask

AT_ONCE = 32  # images whose logits are enlarged together


class Tokens(NamedTuple):
    """Frozen tokens of one split on the CPU: (N, h, w, D) float32, and labels (N, H, W) of the pixels."""

    features: Tensor
    labels: Tensor


def dense_probe_run(args: RunArguments, linear: LinearOptions | None = None) -> dict[str, float]:
    """Probe the RGB encoder, with the arguments of run_semantic_segmentation.

    Training images are those of `data.train_split` after `data.max_train_samples`, test images those of
    `data.eval_split`; the held-out part consists of whole images.

    Returns:
        "linear/miou", "linear/pixel_accuracy"; "linear/strength", "linear/converged", "linear/iterations",
        "linear/gradient", "linear/train_top1" and "linear/held_out_top1" of the patches, see
        `m33d_hf.evaluation.probes.linear_probe`; "samples/train", "samples/test"; "seconds/features", "seconds/linear".

    Raises:
        ConfigError: several processes, another task, no evaluation data, options out of range.
        CheckpointError: `init_from` cannot be read or does not fit.
        DataError: data that cannot be used, features that are not finite.
    """
    if args.task != "semantic_segmentation":
        raise ConfigError(f"the recipe is for {args.task}; the dense probe requires a recipe of semantic segmentation.")
    linear = linear or LinearOptions()
    with ExitStack() as stack:
        accelerator = stack.enter_context(open_accelerator(args))
        if accelerator.num_processes > 1:
            raise ConfigError("the dense probe runs in a single process: start it with python, without a launcher.")
        stack.enter_context(output_lock(args.output_dir))
        started = time.perf_counter()
        train, test, config = _all_tokens(args, accelerator)
        extracted = time.perf_counter() - started
        ignored, classes = config.semantic_loss_ignore_index, int(config.num_labels or 0)
        fit, found = _fit(train, config.patch_height_width, classes, ignored, linear, accelerator.device)
        matrix = _judge(fit, test, ConfusionMatrix(classes, ignored, accelerator.device), accelerator.device).compute()
        return {
            "linear/miou": float(matrix["mean_iou"]),
            "linear/pixel_accuracy": float(matrix["pixel_accuracy"]),
            **{f"linear/{name}": value for name, value in found.items()},
            "samples/train": float(len(train.labels)),
            "samples/test": float(len(test.labels)),
            "seconds/features": extracted,
            "seconds/linear": time.perf_counter() - started - extracted,
        }


def patch_labels(labels: Tensor, patch: tuple[int, int], classes: int, ignored: int) -> Tensor:
    """The most common class of each patch, the lower id in a tie; `ignored` if no pixel has a class.

    Args:
        labels: (N, H, W) class ids or `ignored`.
        patch: height and width of a patch in pixels, which divide H and W.
        classes: number of classes.
        ignored: label of pixels that do not count.

    Returns:
        (N, H / height, W / width) int64.
    """
    parts = labels.long().unfold(1, patch[0], patch[0]).unfold(2, patch[1], patch[1]).flatten(3)
    votes = torch.stack([(parts == number).sum(dim=-1) for number in range(classes)])
    most, chosen = votes.max(dim=0)
    return chosen.masked_fill(most == 0, ignored)


def _all_tokens(args: RunArguments, accelerator: Accelerator) -> tuple[Tokens, Tokens, M33DConfig]:
    task = SemanticSegmentationTask()
    plain = copy.deepcopy(args)
    plain.init_from = None  # this model is needed for its classes and sizes alone
    model = build_model(plain, task)
    train_set, test_set = task.build_datasets(args, model)
    for line in task.describe(args, model, train_set):
        print(line, file=sys.stderr, flush=True)
    if test_set is None:
        raise ConfigError("There are no test images to probe: pass --data.eval_split (or --data.eval_root).")
    print(
        "".join(f"{line}\n" for line in overlap_lines(args, train_set, test_set)), end="", file=sys.stderr, flush=True
    )
    encoder = frozen_encoder(args, accelerator.device)
    train, test = (
        _extract(args, task, model, encoder, centre_views(args, model, part), accelerator)
        for part in (train_set, test_set)
    )
    return train, test, config_of(model)


def _extract(
    args: RunArguments,
    task: SemanticSegmentationTask,
    model: nn.Module,
    encoder: M33DModel,
    dataset: SampleDataset,
    accelerator: Accelerator,
) -> Tokens:
    ranks = Ranks(accelerator)
    feed = build_eval_feed(args, task, model, dataset, ranks)
    tokens, labels = [], []
    with ExitStack() as stack, torch.no_grad():
        stack.callback(feed.close)
        for batch in feed:
            if "pixel_values" not in batch:
                continue
            inputs = to_device(batch, accelerator.device)
            pixels = inputs["pixel_values"]
            with accelerator.autocast():
                found = encoder.extract_features(pixels)["rgb"]
            _, height, width = encoder.grid_of(pixels[:, None])
            tokens.append(found.float().unflatten(1, (height, width)).cpu())
            labels.append(inputs["labels"].cpu())
        feed.check(ranks)
    features = torch.cat(tokens)
    if not features.isfinite().all():
        raise DataError("the features are not finite; check --init_from, and use --train.precision bf16 or no.")
    return Tokens(features, torch.cat(labels))


def _fit(
    train: Tokens, patch: tuple[int, int], classes: int, ignored: int, linear: LinearOptions, device: torch.device
) -> tuple[LinearFit, dict[str, float]]:
    labels = patch_labels(train.labels, patch, classes, ignored)
    count = len(labels)
    order = torch.randperm(count, generator=generator_of(linear.seed, "held-out images"))
    held = torch.zeros(labels.shape, dtype=torch.bool)
    held[order[: min(count - 1, max(1, int(linear.held_out * count)))]] = True
    used = labels != ignored
    if not used.any():
        raise DataError("no patch of the training images has a class; check the labels of --data.source.")
    return fit_linear(train.features[used].to(device), labels[used], classes, linear, held[used])


def _judge(fit: LinearFit, test: Tokens, matrix: ConfusionMatrix, device: torch.device) -> ConfusionMatrix:
    for features, labels in zip(test.features.split(AT_ONCE), test.labels.split(AT_ONCE), strict=True):
        logits = fit.logits(features.flatten(0, 2).to(device).double()).unflatten(0, features.shape[:3])
        sides = tuple(labels.shape[1:])
        large = nn.functional.interpolate(logits.permute(0, 3, 1, 2), sides, mode="bilinear", align_corners=False)
        matrix.update(large, labels.to(device))
    return matrix

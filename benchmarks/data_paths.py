"""The training paths whose loaders are measured: a recipe, what is bare decoding of its files, and geometry alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from data_readers import read_bytes_pil, read_pictures_pil, read_pyav
from torch.utils.data import DataLoader

from m33d_hf.data.loader.collation import deferring
from m33d_hf.data.loader.finishing import finish
from m33d_hf.data.loader.loading import build_loader
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.loaders import step_sampler
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.tasks.base import build_task

NARROW = "--model.hidden_size 32 --model.num_hidden_layers 2 --model.num_attention_heads 2 --model.intermediate_size 64"
NARROW_DECODER = (
    "--model.decoder_hidden_size 32 --model.decoder_num_hidden_layers 1 --model.decoder_num_attention_heads 2 "
    "--model.decoder_intermediate_size 64"
)
NO_COLOR = "--transforms.color_jitter 0 --transforms.grayscale 0 --transforms.blur 0"
NO_RANDAUGMENT = "--transforms.randaugment_ops 0"
PRETRAINING = "pretraining"
LABELS = "{num_classes: 40}"
EVERY_FRAME = "--data.train_split all --data.options {every: 1}"
GOAL = 0.6


@dataclass(frozen=True)
class TrainingPath:
    """One training path.

    Attributes:
        title: for the table.
        task: name of the task.
        recipe: and further words of the command line.
        data: "action", "real", "frames", "small_frames", "scan", "sun", "rooms" or one of `data_files.PREPARED`: which
            files.
        geometry: words that leave colour out, so that only geometry is left; "" where the recipe has no colour.
        goal: whether the target of 60 % applies: decoding is what such data costs.
    """

    title: str
    task: str
    recipe: str
    data: str
    geometry: str = ""
    goal: bool = True


PATHS = (
    TrainingPath("clips, pre-training, RGB", PRETRAINING, "ucf101_pretrain --method videomae", "action"),
    TrainingPath("clips, pre-training, RGB-D", PRETRAINING, "ucf101_pretrain", "action"),
    TrainingPath("clips, fine-tuning (2 views)", "video_classification", "ucf101_finetune", "action", NO_RANDAUGMENT),
    TrainingPath("RGB-D images, pre-training", PRETRAINING, "scannet_stage2", "frames", NO_COLOR),
    TrainingPath("the same, stored at 256", PRETRAINING, "scannet_stage2", "small_frames", NO_COLOR),
    TrainingPath("prepared Parquet at 256", PRETRAINING, "scannet_stage2 --data.source hub", "prepared", NO_COLOR),
    TrainingPath("tar shards at 256", PRETRAINING, "scannet_stage2 --data.source shards", "shards", NO_COLOR),
    TrainingPath("ScanNet, exported frames", PRETRAINING, f"scannet_stage2 {EVERY_FRAME}", "scan", NO_COLOR),
    TrainingPath(
        "SUN RGB-D, frames", PRETRAINING, "scannet_stage2 --data.source sunrgbd --data.train_split all", "sun", NO_COLOR
    ),
    TrainingPath("depth, fine-tuning", "depth_estimation", "nyuv2_depth", "frames", NO_COLOR),
    TrainingPath(
        "segmentation, fine-tuning",
        "semantic_segmentation",
        f"nyuv2_semseg --data.options {LABELS}",
        "frames",
        NO_COLOR,
    ),
    TrainingPath("rooms images, mae", PRETRAINING, "rooms/pretrain --method mae", "rooms", NO_COLOR, goal=False),
    TrainingPath("rooms images, m33d", PRETRAINING, "rooms/pretrain_stage2", "rooms", NO_COLOR, goal=False),
    TrainingPath("rooms clips, m33d", PRETRAINING, "rooms/pretrain_clips", "rooms", NO_COLOR, goal=False),
    TrainingPath("rooms actions", "video_classification", "rooms/actions", "rooms", NO_COLOR, goal=False),
)

# Those that need no more than videos, again for real ones.
REAL_PATHS = tuple(
    replace(path, title=f"{path.title}, real videos", data="real")
    for path in PATHS
    if path.title in ("clips, pre-training, RGB", "clips, fine-tuning (2 views)")
)


def build(
    path: TrainingPath, words: str, roots: dict[str, Path], batch: int, tiny: bool, workers: int = 0
) -> DataLoader[Any]:
    """The loader that a training run of the recipe has, with a narrow model and this batch size.

    As in a run, it leaves finishing (normalisation and what depends on it) to the device: see `finishing`.
    """
    argv = ["--recipe", path.recipe.split()[0], *_words(path.recipe), *NARROW.split(), *_words("x " + words)]
    argv += ["--output_dir", str(roots["out"]), "--logging.trackers", "[]", "--data.num_workers", str(workers)]
    argv += ["--train.batch_size", str(batch), "--train.accumulation", "1", "--seed", "0"]
    if path.task == PRETRAINING:
        argv += NARROW_DECODER.split()
    if path.data != "rooms":
        argv += ["--data.root", str(roots[path.data]), "--data.eval_split", "null", "--evaluation.every_epochs", "null"]
        argv += ["--model.image_size", "64"] if tiny else []
        argv += ["--data.source", "folder"] if path.data in ("frames", "small_frames") else []  # not that of the recipe
    else:
        # Few are rendered: they cost the loader the same, and repeat in later epochs.
        clips = "clips" in path.recipe or "actions" in path.recipe
        count = f"num_clips: {8 if tiny else 64}" if clips else f"num_frames: {12 if tiny else 384}"
        argv += ["--data.options", f"{{{count}}}", "--data.max_train_samples", "null"]
        argv += ["--data.allow_missing_classes", "true"] if "actions" in path.recipe else []
    args = resolve(argv, path.task).args
    task = build_task(path.task)
    model = build_model(args, task)
    dataset = task.build_datasets(args, model)[0]
    sampler = step_sampler(args, task, dataset, 0, 1, 0, 10**6)
    return build_loader(dataset, deferring(task.build_collator(args, model, train=True)), sampler, num_workers=workers)


def _words(text: str) -> list[str]:
    """The words of a command line after the first; a value in braces is one word."""
    words: list[str] = []
    for word in text.split()[1:]:
        if words and words[-1].count("{") > words[-1].count("}"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def bare_decoding(loader: DataLoader[Any], batches: int) -> Callable[[], int]:
    """A call that decodes the very frames that these batches hold with nothing but the decoding library.

    It returns the number of samples. Rooms are decoded by copying from the memory map.
    """
    dataset: Any = loader.dataset
    rows = [row for rows in islice(iter(loader.batch_sampler), batches) for row in rows]  # type: ignore[arg-type]
    maps = dataset.maps
    jobs: list[Callable[[], Any]] = []
    for epoch, index in rows:
        handle = dataset.source[dataset.indices[index]]
        (clip,) = dataset._try_read(epoch, index, [])  # the frames that are drawn for this epoch
        jobs.append(_job(handle, clip, maps))

    def decode() -> int:
        for job in jobs:
            job()
        return len(jobs)

    return decode


def _job(handle: Any, clip: Any, maps: Any) -> Callable[[], Any]:
    numbers = clip.meta.get("frames")
    if hasattr(handle, "rows"):  # of a table: the bytes are at hand
        decoder = handle.source.decoder
        (row,) = handle.source.rows.read(list(handle.rows), decoder.needed(maps))
        data = [row[column] for _, column in decoder.columns.of_maps(maps)]
        return lambda: read_bytes_pil(data)
    if hasattr(handle, "source"):  # rooms
        arrays = handle.source.arrays()
        names = [{"depth": "sensor"}.get(name, name) for name in maps]
        return lambda: [arrays[name][handle.index][numbers] for name in names]
    if hasattr(handle, "frames"):  # pictures
        frame, root = handle.frames[0], handle.reader.root
        files = {"rgb": frame.rgb, "depth": frame.depth, "segmentation": frame.labels}
        return lambda: read_pictures_pil([root / files[name] for name in maps if files[name]])
    stored = handle.depth.store.path if handle.depth is not None and "depth" in maps else None

    def video() -> Any:
        pixels = read_pyav(handle.file, numbers)
        return pixels, None if stored is None else np.load(stored, mmap_mode="r")[np.array(numbers)]

    return video


def consume(loader: DataLoader[Any], batches: int) -> Callable[[], int]:
    """A call that draws the first batches of a loader; it returns the number of samples (views count as one)."""

    def draw() -> int:
        return sum(len(batch["meta"]["indices"]) for batch in islice(iter(loader), batches))

    return draw


def finishing(loader: DataLoader[Any], batches: int) -> Callable[[], int]:
    """A call that finishes the first batches of a loader on the CPU; it returns the number of samples."""
    drawn = list(islice(iter(loader), batches))

    def call() -> int:
        return sum(len(finish(batch)["meta"]["indices"]) for batch in drawn)

    return call


def describe_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A Markdown table, one line per path: decoding, geometry only, as the recipe says, and what is left to finish."""
    lines = [
        "| path | decoding alone, samples/s | batches, geometry only | share | with colour or RandAugment | share "
        "| finishing, ms/sample here: geometry only, as the recipe says | share with it, each |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        missed = " (missed)" if row["goal"] and row["geometry_share"] < GOAL else ""
        recipe = "- | -"
        if row["recipe_per_second"] is not None:
            recipe = f"{row['recipe_per_second']:,.1f} | {row['recipe_share']:.0%}"
        last = f"{row['finishing_ms']:.2f} | {row['share_with_finishing']:.0%}"
        if row["recipe_finishing_ms"] is not None:
            last = (
                f"{row['finishing_ms']:.2f}, {row['recipe_finishing_ms']:.2f} "
                f"| {row['share_with_finishing']:.0%}, {row['recipe_share_with_finishing']:.0%}"
            )
        lines.append(
            f"| {row['path']} | {row['decoding_per_second']:,.1f} | {row['geometry_per_second']:,.1f} "
            f"| {row['geometry_share']:.0%}{missed} | {recipe} "
            f"| {last} |"
        )
    return lines

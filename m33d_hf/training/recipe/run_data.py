"""The data of a run from its arguments: sources, the samples of them that are used, and data sets. No model."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.loader.kept_samples import GIGABYTE
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.loader.subsets import label_subset, scene_subset
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.remembering import remembered
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources import Source, build_source, source_options
from m33d_hf.data.sources.mixture import Member, MixtureSource, read_members
from m33d_hf.data.sources.roots import name_roots, read_roots
from m33d_hf.data.sources.stated_units import Build, build_each, leave_out
from m33d_hf.errors import ConfigError, DataError, MissingSplitError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.recipes import RecipeNumber
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.recipe.yaml_text import parse_yaml, read_recipe_text


def build_run_source(args: RunArguments, config: M33DConfig, train: bool) -> Source:
    """The training or the evaluation source of a run.

    Options that the source has and the arguments do not set follow the model: `unit` is clips for a clip model; rooms
    are rendered at the model's size and with as many frames as a clip spans. Pre-training takes videos, annotated or
    not. With `data.eval_root` both folders are read whole, and `train_split` and `eval_split` do not apply.

    Raises:
        ConfigError: an option that the source does not have.
        DataError: data that cannot be used; for evaluation data, the message says how to train without it.
    """
    data = args.data
    if train and data.mixture is not None:
        return _build_mixture(args, config)
    options = dict(data.options) if train else {**data.options, **data.eval_options}
    split = "all" if data.eval_root is not None else data.train_split if train else data.eval_split
    root = data.root if train or data.eval_root is None else data.eval_root
    try:
        lacking = root is None and source_options(data.source).get("root") is inspect.Parameter.empty
        if data.mixture is not None and lacking and "root" not in options:
            raise MissingSplitError(f"data.mixture is for training, and the source {data.source!r} has no data.root")
        others = _other_folders(args, config, train)
        if isinstance(root, list):
            return read_roots(name_roots(root), split, options, partial(_build_one, args, config), others)
        build = partial(_build_without, args, config, root, split, options)
        return build_each({"": build}, others)[""] if others else build(())
    except DataError as error:
        if train:
            raise
        told = str(error).rstrip().rstrip(".")
        message = f"Evaluation data: {told}. To train without evaluation, pass --data.eval_split null."
        if isinstance(error, MissingSplitError):
            raise MissingSplitError(message, error.instead) from error
        raise DataError(message) from error


def _other_folders(args: RunArguments, config: M33DConfig, train: bool) -> list[Build]:
    """The folders of the other split, where `data.eval_root` is one and units stated by sequence are those of both."""
    data = args.data
    if data.eval_root is None or data.mixture is not None or {"depth_unit", "depth_scale"} & set(data.eval_options):
        return []
    options = {**data.options, **data.eval_options} if train else dict(data.options)
    options.pop("validation", None)  # whichever part is read: units are stated for all of a folder
    root = data.eval_root if train else data.root
    folders = [] if root is None else root if isinstance(root, list) else [root]
    return [partial(_build_without, args, config, folder, "all", options) for folder in folders]


def _build_without(
    args: RunArguments,
    config: M33DConfig,
    root: str | None,
    split: str | None,
    options: dict[str, Any],
    patterns: Collection[str],
) -> Source:
    """As `_build_one`, without what is stated of the sequences `patterns`."""
    return _build_one(args, config, root, split, leave_out(options, patterns))


def names_training_data(args: RunArguments) -> bool:
    """Whether the arguments say where the training data are: a source that reads files needs their folder."""
    data = args.data
    if data.root is not None or data.mixture is not None or "root" in data.options:
        return True
    return source_options(data.source).get("root") is not inspect.Parameter.empty


def _build_one(
    args: RunArguments, config: M33DConfig, root: str | None, split: str | None, options: dict[str, Any]
) -> Source:
    """A source by its options, completed by what the model and the run say; raises as `build_run_source`."""
    data, options, known = args.data, dict(options), source_options(args.data.source)
    offered: dict[str, Any] = {
        "root": root,
        "split": split,
        "unit": "clips" if config.num_frames > 1 else "frames",
        "cache_dir": data.cache_dir,
    }
    if config.num_frames > 1:
        offered["clip_length"] = config.num_frames * data.frame_stride
    if data.source == "rooms":
        offered["image_size"] = list(config.image_height_width)
        offered["clip_length"] = max(2, config.num_frames * data.frame_stride)
    if args.task == PRETRAINING and data.label_fraction is None and "require_annotations" in known:
        offered |= _without_annotations(options)
    for name, value in offered.items():
        if name in known and value is not None:
            options.setdefault(name, value)
    if root is not None and "root" not in known:
        raise ConfigError(f"The source {data.source!r} reads no folder; remove data.root or set data.source to folder.")
    asked = json.dumps([data.source, options], sort_keys=True, default=repr)
    return remembered(f"source {asked}", lambda: build_source(data.source, **options))


def _without_annotations(options: dict[str, Any]) -> dict[str, Any]:
    """Every video, and what is wrong with labels that nobody learns stops nothing; unless options ask for them."""
    asked = options.get("require_annotations") or options.get("drop_unlabelled")
    return {"require_annotations": False, **({} if asked else {"annotations": "none"})}


def _build_mixture(args: RunArguments, config: M33DConfig) -> Source:
    """The training source of `data.mixture`: each member as it would be built alone, split and unit included.

    Raises:
        ConfigError: entries that cannot be read. Others as the members.
    """
    members, sources = mixture_members(args), {}
    for member in members:
        data = replace(
            args.data,
            source=member.source,
            root=member.root,
            options=dict(member.options),
            train_split=args.data.train_split if member.split is None else member.split,
            eval_root=None,
            mixture=None,
        )
        try:
            sources[member.name] = build_run_source(replace(args, data=data), config, train=True)
        except ConfigError as error:
            raise ConfigError(f"data.mixture, member {member.name}: {error}") from error
    return MixtureSource(sources, [member.weight for member in members])


def mixture_members(args: RunArguments) -> list[Member]:
    """What `data.mixture` states, or the file that it names; empty without one.

    Raises:
        ConfigError: it cannot be read.
    """
    entries = args.data.mixture
    if entries is None:
        return []
    if isinstance(entries, str):
        path = Path(entries).expanduser()
        if not path.is_file():
            raise ConfigError(f"data.mixture is {entries!r}, which is no file. {_MIXTURE}")
        entries = parse_yaml(read_recipe_text(path), str(path))
    return read_members(entries)


_MIXTURE = "Give a YAML or JSON file with a list of {source, root, options, weight}, or the list itself in brackets."


def subset(length: int, count: int | None, seed: int | None) -> list[int] | None:
    """`count` of `length` row numbers, ascending; None for all of them.

    A count set only by a recipe is a maximum: if the data has fewer samples, all are used, and a message says so.

    With a seed they are drawn, and a smaller draw is part of a larger one (low-label protocol); without, they are
    evenly spaced.

    Raises:
        ConfigError: more rows requested than there are.
    """
    if count is None:
        return None
    if count > length and isinstance(count, RecipeNumber):
        if int(os.environ.get("RANK", "0")) == 0:
            asked = plural(count, "training sample")
            print(f"The recipe takes up to {asked}; the data has {length}, so all are used.", flush=True)
        return None
    if count > length:
        raise ConfigError(
            f"{plural(count, 'sample')} {agree(count, 'is', 'are')} requested "
            f"(data.max_train_samples), but the data has only {length}."
        )
    if seed is None:
        return [index * length // count for index in range(count)]
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(length, generator=generator)[:count].tolist())


def build_run_datasets(
    args: RunArguments,
    config: M33DConfig,
    *,
    labelled: bool = False,
    multi_view: bool = False,
    maps: Collection[str] | None = None,
    required: Collection[str] = (),
) -> tuple[SampleDataset, SampleDataset | None]:
    """Training data, and evaluation data unless `data.eval_split` is null and there is no `data.eval_root`.

    Args:
        args: the run.
        config: of the model.
        labelled: see `build_dataset`.
        multi_view: the task evaluates `evaluation.num_segments` x `num_crops` views of each video, in lists.
        maps, required: see `build_dataset`.
    """
    train_set = build_dataset(args, config, True, labelled=labelled, maps=maps, required=required)
    return train_set, build_eval_dataset(args, config, multi_view=multi_view, maps=maps, required=required)


def build_eval_dataset(
    args: RunArguments,
    config: M33DConfig,
    *,
    multi_view: bool = False,
    maps: Collection[str] | None = None,
    required: Collection[str] = (),
) -> SampleDataset | None:
    """Evaluation data only; None unless `data.eval_split` or `data.eval_root` is set; see `build_run_datasets`."""
    if args.data.eval_split is None and args.data.eval_root is None:
        return None
    views = (args.evaluation.num_segments, args.evaluation.num_crops) if multi_view else (None, None)
    segments, crops = views
    return build_dataset(args, config, False, num_segments=segments, num_crops=crops, maps=maps, required=required)


def build_dataset(
    args: RunArguments,
    config: M33DConfig,
    train: bool,
    *,
    labelled: bool = False,
    num_segments: int | None = None,
    num_crops: int | None = None,
    maps: Collection[str] | None = None,
    required: Collection[str] = (),
) -> SampleDataset:
    """One data set: source, subset, transform.

    Args:
        args: the run.
        config: of the model.
        train: training or evaluation data.
        labelled: training learns the source's clip labels. If the source knows them in advance (`labels()`), unlabelled
            samples are left out, and every class must have a sample unless `data.allow_missing_classes`.
        num_segments: clips of an evaluation video; None, with `num_crops` None, for single samples.
        num_crops: crops of each of them.
        maps: the maps to read of a sample, if its files allow a choice; None for all.
        required: those of them without which a clip is of no use (`SampleDataset`).

    Raises:
        ConfigError: more samples, or a share of labels, requested that the source cannot give.
        DataError: data that cannot be used; classes without a sample.
    """
    source = build_run_source(args, config, train)
    transform = build_transform(args.transforms, train, config.image_height_width, config.patch_height_width)
    return SampleDataset(
        source,
        transform,
        num_frames=config.num_frames,
        frame_stride=args.data.frame_stride,
        train=train,
        seed=args.seed,
        indices=run_rows(args, source, train, labelled),
        clip_sampling=args.data.clip_sampling,
        num_views=args.data.num_views if train else 1,
        num_segments=num_segments,
        num_crops=num_crops,
        maps=maps,
        required=required,
        keep_bytes=int(args.data.keep_decoded_gb * GIGABYTE / max(1, args.data.num_workers)) if train else 0,
    )


def run_rows(args: RunArguments, source: Source, train: bool, labelled: bool = False) -> list[int] | None:
    """The rows of a source that a run uses, None for all: what the numbers and shares of the arguments draw, and of
    these what `data.skip_list` does not name, so that a list never changes a draw.

    Raises:
        ConfigError, DataError: as `build_dataset`.
    """
    rows = _training_rows(args, source, labelled) if train else _evaluation_rows(args, source)
    return rows if args.data.skip_list is None else SkipList(args.data.skip_list).rows(source, rows)


def _evaluation_rows(args: RunArguments, source: Source) -> list[int] | None:
    limit = args.data.max_eval_samples
    return subset(len(source), None if limit is None else min(limit, len(source)), None)


def _training_rows(args: RunArguments, source: Source, labelled: bool) -> list[int] | None:
    """Rows of the source to train on, None for all: the share of labels first, then `data.max_train_samples`."""
    data = args.data
    labels = source.labels() if labelled or data.label_fraction is not None else None
    if labels is None or source.action_names is None:
        if data.label_fraction is None:
            return subset(len(source), data.max_train_samples, data.subset_seed)
        if labelled:
            raise ConfigError(
                f"The source {data.source!r} does not know the labels of its samples in advance, which "
                f"data.label_fraction = {data.label_fraction:g} requires; use --data.max_train_samples, or a source "
                "with labels (with unit clips, if it has units)."
            )
        return _limited(scene_subset(_groups(source), data.label_fraction, data.subset_seed), args)
    rows = label_subset(
        labels,
        _groups(source),
        source.action_names,
        1.0 if data.label_fraction is None else data.label_fraction,
        data.subset_seed,
        allow_missing=data.allow_missing_classes,
    )
    if labelled:
        rows = [row for row in rows if labels[row] != IGNORE_INDEX]
    return _limited(rows, args)


def _groups(source: Source) -> list[str]:
    """What is drawn as a whole, by item: its scene or video, else the item itself."""
    return source.groups() or [source[row].key for row in range(len(source))]


def _limited(rows: list[int], args: RunArguments) -> list[int]:
    """At most `data.max_train_samples` of these rows."""
    chosen = subset(len(rows), args.data.max_train_samples, args.data.subset_seed)
    return rows if chosen is None else [rows[row] for row in chosen]

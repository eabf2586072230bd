"""Classes of a clip-classification run: their names, the source options that follow, and the samples per class."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.loader.subsets import missing_classes
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources import source_options
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_run_source
from m33d_hf.training.tasks.class_numbers import evaluation_classes
from m33d_hf.weights.formats.classes import class_names

_SHOWN = 8


def clip_arguments(args: RunArguments, config: M33DConfig, names: Sequence[str] | None = None) -> RunArguments:
    """A copy of the arguments with source options for clip classification, where the source has them and they are not
    set.

    The source yields clips instead of whole videos or frames, as long as the model reads, and none without a label.
    Evaluation data uses the phase names and numbers of the training data, in the order of `names`: see
    `class_numbers.evaluation_classes`.

    Raises:
        ConfigError, DataError, CorruptFileError: a given table of phases that cannot be read.
    """
    changed = copy.deepcopy(args)
    known = source_options(args.data.source)
    offered = {"unit": "clips", "drop_unlabelled": True, "clip_span": config.num_frames * args.data.frame_stride}
    for option, value in offered.items():
        if option in known and changed.data.options.get(option) is None:
            changed.data.options[option] = value
    if names is not None and "phase_names" in known:
        changed.data.eval_options["phase_names"] = evaluation_classes(args, names)
    return changed


def training_classes(args: RunArguments, config: M33DConfig) -> list[str]:
    """Names of the classes in id order: `model.id2label` if given, otherwise those of the training source.

    A run that only evaluates takes those of the evaluation source.

    Raises:
        ConfigError: a source without clip labels, or `model.num_labels` that is not their number.
        DataError: two classes of one name, or too many.
    """
    given = class_names(args.model.get("id2label"))
    if given is not None:
        _check_number(given, "model.id2label")
        return given
    names = build_run_source(clip_arguments(args, config), config, train=not args.eval_only).action_names
    if names is None:
        raise ConfigError(
            f"The source {args.data.source!r} has no clip labels to learn; for classification use ucf101, phases, "
            "procedures or rooms (--data.options.unit clips)."
        )
    check_class_names(names, args.data.source)
    asked = args.model.get("num_labels")
    if asked is not None and asked != len(names):
        raise ConfigError(
            f"model.num_labels is {asked}, but the source {args.data.source!r} has "
            f"{plural(len(names), 'class')}; remove "
            "--model.num_labels."
        )
    return list(names)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Refuse classes with the same name, and more of them than labels can tell apart.

    Raises:
        DataError: two names that are equal, ignoring surrounding spaces, or too many.
    """
    _check_number(names, f"source {source!r}")
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        if name.strip() in seen:
            raise DataError(
                f"source {source!r}: classes {seen[name.strip()]} and {number} are both called {name.strip()!r}; every "
                "class needs its own name. Correct the class list."
            )
        seen[name.strip()] = number


def _check_number(names: Sequence[str], where: str) -> None:
    """Refuse classes beyond `IGNORE_INDEX`: that one would be taken for clips without a label, in loss and metrics."""
    if len(names) > IGNORE_INDEX:
        raise DataError(
            f"{where}: {len(names)} classes, but at most {IGNORE_INDEX} can be trained and scored (0 to "
            f"{IGNORE_INDEX - 1}; {IGNORE_INDEX} says that a clip has no label). Use fewer classes, for example by "
            "leaving out or joining rare ones."
        )


def check_same_classes(names: Sequence[str], dataset: SampleDataset, what: str) -> None:
    """Compare a data set's classes with the model's.

    Raises:
        ConfigError: they differ; both are named.
    """
    found = dataset.source.action_names
    if found is None:
        raise ConfigError(f"The {what} data has no clip labels; use a source with classes, or --data.eval_split null.")
    if list(found) == list(names):
        return
    place = next((i for i, pair in enumerate(zip(found, names, strict=False)) if pair[0] != pair[1]), None)
    where = "" if place is None else f" (class {place}: {found[place]!r} in the data, {names[place]!r} in the model)"
    raise ConfigError(
        f"The {what} data has other classes than the model{where}: {len(found)} in the data ({_listing(found)}), "
        f"{len(names)} in the model ({_listing(names)}). Use the same class list for both (--data.options.phase_names "
        "where the source has it)."
    )


def labels_in_use(dataset: SampleDataset) -> list[int] | None:
    """Class id of every row of the data set; None if the source cannot tell in advance."""
    labels = dataset.source.labels()
    return None if labels is None else [labels[row] for row in dataset.indices]


def check_every_class(args: RunArguments, dataset: SampleDataset, names: Sequence[str]) -> None:
    """Refuse training data in which a class has no sample after all subsets were drawn.

    Raises:
        ConfigError: the source gives no labels (whole videos).
        DataError: classes without a sample, by name, unless `data.allow_missing_classes`.
    """
    labels = labels_in_use(dataset)
    if labels is None and not dataset.source.items_have_labels:
        raise ConfigError(
            f"The samples of the source {args.data.source!r} have no labels in this unit; use clips "
            "(--data.options.unit clips)."
        )
    missing = [] if labels is None else missing_classes(labels, names)
    if missing and not args.data.allow_missing_classes:
        raise DataError(
            f"{len(missing)} of {len(names)} classes have no sample among the {len(dataset)} training samples: "
            f"{_listing(missing)}. Use more samples (--data.max_train_samples), or train without them: "
            "--data.allow_missing_classes true."
        )


def describe_classes(args: RunArguments, dataset: SampleDataset, names: Sequence[str]) -> list[str]:
    """Lines about the classes and the share of the labels in use."""
    lines = [f"{plural(len(names), 'class')}: {_listing(names)}"]
    labels = labels_in_use(dataset)
    if labels is None:
        return lines
    counts = Counter(label for label in labels if label != IGNORE_INDEX)
    per_class = [counts[number] for number in range(len(names)) if counts[number]]
    videos, whole = group_counts(dataset)
    share = "" if args.data.label_fraction is None else f" (data.label_fraction {args.data.label_fraction:g})"
    fewest, most = min(per_class, default=0), max(per_class, default=0)
    lines.append(
        f"labels: {videos} of {plural(whole, 'video')}{share}, {plural(len(labels), 'clip')} of "
        f"{plural(len(per_class), 'class')}, "
        f"{plural(most, 'clip') if fewest == most else f'{fewest} to {most} clips'} per class"
    )
    span, read = dataset.source.clip_span, dataset.num_frames * dataset.frame_stride
    if span is not None and span != read:
        lines.append(
            f"WARNING: clips are {span} source frames long, but the model reads {read} of them ({dataset.num_frames} "
            f"frames, {dataset.frame_stride} apart); the second stage requires --data.options.clip_span {read}"
        )
    missing = missing_classes(labels, names)
    if missing:
        lines.append(f"classes without a training sample: {_listing(missing)}")
    return lines


def class_facts(dataset: SampleDataset, names: Sequence[str]) -> dict[str, Any]:
    """For train_config.json: number of training clips per class, and of videos in use."""
    labels = labels_in_use(dataset)
    if labels is None:
        return {"classes": list(names)}
    counts = Counter(labels)
    videos, whole = group_counts(dataset)
    return {
        "classes": {name: counts[number] for number, name in enumerate(names)},
        "videos": videos,
        "videos_in_source": whole,
    }


def group_counts(dataset: SampleDataset) -> tuple[int, int]:
    """Number of videos in use, and in the source."""
    groups = dataset.source.groups()
    if groups is None:
        return len(set(dataset.indices)), len(dataset.source)
    return len({groups[row] for row in dataset.indices}), len(set(groups))


def describe_share(args: RunArguments, dataset: SampleDataset) -> list[str]:
    """A line on a share of the training data that was drawn by whole scenes; none where all is used."""
    fraction = args.data.label_fraction
    if fraction is None:
        return []
    (drawn, whole), source = group_counts(dataset), dataset.source
    return [
        f"training data: {drawn} of {whole} {source.group_word}, a seeded draw and no published list "
        f"(data.label_fraction {fraction:g}, data.subset_seed {args.data.subset_seed}): {len(dataset)} of "
        f"{plural(len(source), 'sample')}"
    ]


def share_facts(dataset: SampleDataset) -> dict[str, Any]:
    """For train_config.json: how much of the source is trained on, in samples and scenes, and how it was split."""
    drawn, whole = group_counts(dataset)
    facts = {"samples_in_source": len(dataset.source), dataset.source.group_word: [drawn, whole]}
    note = getattr(dataset.source, "split_note", None)
    return facts if note is None else {**facts, "split": note}


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

"""The videos of a detection run, checked against the model, and the location of their features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from m33d_hf.acceleration import place
from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, append_skipped
from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.loader.subsets import label_subset
from m33d_hf.data.progress import tell
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources import source_options
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.processes.guards import memory_named
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_run_source, subset
from m33d_hf.training.tasks.class_numbers import stated_classes, trained_classes
from m33d_hf.training.tasks.detection.cameras import all_cameras, check_cameras, first_cameras
from m33d_hf.training.tasks.detection.feature_dataset import check_known_phases, phase_table
from m33d_hf.training.tasks.detection.feature_extraction import FeatureExtractor, bad_clips, weights_digest
from m33d_hf.training.tasks.detection.features import FeatureStore
from m33d_hf.training.tasks.detection.first_stage import clip_rule, known_phases
from m33d_hf.training.tasks.detection.freshness import is_fresh, reading_rules
from m33d_hf.training.tasks.task_inputs import check_depth_is_there

_FEATURES = "features"  # folder below that of a run


@dataclass(frozen=True)
class Share:
    """Some videos of a source.

    Attributes:
        source: all videos of the split.
        rows: the numbers of those in use, of several cameras of a case the first one.
        name: folder of the split's features.
    """

    source: PhaseSource
    rows: list[int]
    name: str

    @property
    def keys(self) -> list[str]:
        """Keys of the videos in use, of all cameras."""
        return [self.source.videos[row].key for row in self.videos]

    @property
    def videos(self) -> list[int]:
        """Numbers of the videos in use, of all cameras."""
        return all_cameras(self.source, self.rows)


def evaluates(args: RunArguments) -> bool:
    """Whether the run has evaluation data."""
    return args.data.eval_split is not None or args.data.eval_root is not None


def training_share(args: RunArguments, model: M33DForVideoActionDetection, inputs: Sequence[str]) -> Share:
    """The training videos of a run: the share of labels first, then `data.max_train_samples`.

    Args:
        args: the run.
        model: whose classes they must have.
        inputs: what is read of them.

    Raises:
        DataError: a phase that the model does not know, or a class without a training clip.
    """
    source, known = phase_source(args, model.config, True, inputs), known_phases(model.config)
    everything = first_cameras(source)
    check_known_phases(source, known, everything, "training")
    table = phase_table(source.action_names or [], known)
    clips = [(row, int(table[span.label])) for row in everything for span in source.clips(row)]
    data = args.data
    chosen = label_subset(
        [label for _, label in clips],
        [source.videos[row].group for row, _ in clips],
        list(known),
        data.label_fraction,
        data.subset_seed,
        data.allow_missing_classes,
    )
    # Videos without a label teach nothing; extracting their features would only take time.
    rows = sorted({row for row, label in (clips[number] for number in chosen) if label != IGNORE_INDEX})
    part = subset(len(rows), data.max_train_samples, data.subset_seed)
    if model.config.temporal_cameras is not None:
        check_cameras(source, everything, model.config.temporal_cameras, train=True)
    return Share(source, rows if part is None else [rows[i] for i in part], _split_name(args, True))


def clip_labels(share: Share, known: Mapping[str, int]) -> list[np.ndarray]:
    """Per video in use the (S,) model's classes of its clips, 255 where nothing is annotated; reads no frame."""
    table = phase_table(share.source.action_names or [], known)
    return [table[np.array([span.label for span in share.source.clips(row)], np.int64)] for row in share.rows]


def evaluation_share(args: RunArguments, model: M33DForVideoActionDetection, inputs: Sequence[str]) -> Share:
    """The evaluation videos of a run; the arguments are those of `training_share`.

    Raises:
        DataError: a phase that the model does not know, or nothing annotated.
    """
    source = phase_source(args, model.config, False, inputs)
    limit = args.data.max_eval_samples
    cases = first_cameras(source)
    part = subset(len(cases), None if limit is None else min(limit, len(cases)), None)
    rows = [cases[number] for number in part] if part else cases
    check_known_phases(source, known_phases(model.config), rows, "evaluation")
    if model.config.temporal_cameras is not None:
        check_cameras(source, rows, model.config.temporal_cameras, train=False)
    if all(bool((source.videos[row].phases == IGNORE_INDEX).all()) for row in rows):
        raise DataError(
            f"None of the {len(rows)} evaluation videos has an annotated frame. Pass --data.eval_split null to train "
            "without evaluation, or use scripts/detect_actions.py for unlabelled videos."
        )
    return Share(source, rows, _split_name(args, False))


def whole_share(args: RunArguments, model: M33DForVideoActionDetection, train: bool) -> Share:
    """All videos of a split, even if a run uses only part of them.

    Raises:
        DataError: a phase unknown to the model.
    """
    source = phase_source(args, model.config, train, model.task_inputs)
    rows = first_cameras(source)
    check_known_phases(source, known_phases(model.config), rows, "training" if train else "evaluation")
    return Share(source, rows, _split_name(args, train))


def phase_source(args: RunArguments, config: M33DConfig, train: bool, inputs: Sequence[str]) -> PhaseSource:
    """The training or evaluation videos, whole.

    A source is opened alike whatever is read of it, so that features of some inputs are those of the same data.

    Args:
        args: the run.
        config: of the model.
        train: training videos.
        inputs: what is read of them, some or all of the model's `task_inputs`.

    Raises:
        ConfigError: a source of another kind, clip options that contradict the model's clips, or no depth where it is
            read.
        DataError: videos or annotations that cannot be used.
    """
    if args.data.skip_list is not None:
        raise ConfigError(
            "data.skip_list leaves out samples, and this task needs its videos whole; remove bad ones from the split's "
            "list, and leave --data.skip_list out."
        )
    rule = clip_rule(args, config)
    wanted = {"clip_span": rule.span, "clip_stride": rule.clip_stride}
    given = args.data.options if train else {**args.data.options, **args.data.eval_options}
    for name, value in wanted.items():
        if given.get(name) not in (None, value):
            raise ConfigError(
                f"data.options.{name} is {given[name]}, but the clips whose features are extracted span {rule.span} "
                f"frames (num_frames {rule.num_frames} x data.frame_stride {rule.frame_stride}), one every "
                f"{rule.clip_stride} (--features.clip_stride); pass --data.options.{name} {value}."
            )
    known = source_options(args.data.source)
    if not wanted.keys() <= known.keys():
        raise ConfigError(
            f"data.source {args.data.source!r} has no videos that are annotated frame by frame; use phases or "
            "procedures."
        )
    options: dict[str, Any] = {"unit": "clips", "drop_unlabelled": False, **wanted}
    table = _class_table(args, train)
    if table is not None:
        options["phase_names"] = table
    sees_depth = "depth" in config.task_input_names
    if args.data.source == "phases" and not sees_depth and not given.get("require_depth"):
        options["depth"] = given.get("depth") or "none"  # the encoder takes RGB only
    fixed = {name: value for name, value in options.items() if name in known}
    data = dataclasses.replace(
        args.data,
        options={**args.data.options, **fixed},
        eval_options={k: v for k, v in args.data.eval_options.items() if k not in fixed},
    )
    source = build_run_source(dataclasses.replace(args, data=data), config, train)
    if not isinstance(source, PhaseSource):
        raise ConfigError(f"data.source {args.data.source!r} is not a PhaseSource; use phases or procedures.")
    check_depth_is_there(args, inputs, source, "training" if train else "evaluation")
    return source


def _class_table(args: RunArguments, train: bool) -> ClassTable | None:
    """The phases given by the run, or, for annotations that hold numbers, those of the first stage's training."""
    stated = stated_classes(args, train)
    stored = trained_classes(args.init_from) if stated is None else None
    return stated if stored is None or stored.numbers is None else stored


def planned_features(
    args: RunArguments, model: M33DForVideoActionDetection, share: Share, inputs: Sequence[str]
) -> FeatureStore | None:
    """The store if every feature is present, None if some are missing; extracts nothing.

    Raises:
        ConfigError: the folder holds features of another origin.
    """
    store, is_taken = _store(args, model, share, inputs, write=False)
    return store if is_taken or _is_complete(store, share) else None


def extracted_features(
    args: RunArguments, model: M33DForVideoActionDetection, share: Share, inputs: Sequence[str]
) -> FeatureStore:
    """The complete store; all ranks together extract what is missing.

    Args:
        args: the run.
        model: with the first stage's weights.
        share: the videos.
        inputs: what the first stage is given of them.

    Raises:
        ConfigError: the folder holds features of another origin.
        DataError: too many unreadable clips.
    """
    state = PartialState(cpu=args.cpu)
    store, is_taken = _store(args, model, share, inputs, write=state.is_main_process)
    config, data = model.config, args.data
    extractor = FeatureExtractor(
        place(model, state.device).eval(),
        store,
        clip_rule(args, config),
        build_transform(args.transforms, False, config.image_height_width, config.patch_height_width),
        phase_table(share.source.action_names or [], known_phases(config)),
        tuple(inputs),
        args.features.batch_size,
        state.device,
        args.train.precision,
        state.process_index,
        state.num_processes,
        data.num_workers,
        data.prefetch_factor,
        data.max_bad_fraction,
        tell if args.logging.progress and state.is_main_process else None,
    )
    with memory_named(args, extracting=True):
        # A training's features are complete, and not an evaluation's to write to: not even new times of change.
        extractor.run(share.source, [] if is_taken else share.videos)
    model.train()
    bad, total, problems = bad_clips(store, share.keys)
    if state.is_main_process and problems:
        append_skipped(Path(args.output_dir) / FILE_NAME, problems)
    ledger = SkipLedger(Path(args.output_dir) / FILE_NAME, data.max_bad_fraction, total)
    ledger.files = {problem.path: problem for problem in problems if not problem.is_used}
    ledger.check(bad, total)
    return store


def _store(
    args: RunArguments, model: M33DForVideoActionDetection, share: Share, inputs: Sequence[str], write: bool
) -> tuple[FeatureStore, bool]:
    """The store, and whether it is the complete one of a training beside which the run evaluates."""
    whole = tuple(inputs) == model.task_inputs
    name = share.name if whole else f"{share.name}-{'-'.join(inputs)}"
    # Those of all that the model sees say nothing of inputs: they are what they were before there was a choice.
    chosen = {} if whole else {"inputs": list(inputs)}
    origin = {**feature_provenance(args, model, share.source), **chosen}
    own = Path(args.output_dir)
    if args.eval_only and args.features.dir is None:  # beside a training, which may have extracted all of them
        trained = FeatureStore(own.parent / _FEATURES / name, args.features.format)
        if trained.holds(origin) and _is_complete(trained, share):
            return trained, True
    store = FeatureStore(Path(args.features.dir or own / _FEATURES) / name, args.features.format)
    store.open_for(origin, write)
    return store, False


def _is_complete(store: FeatureStore, share: Share) -> bool:
    return all(is_fresh(store, share.source, number) for number in share.videos)


def feature_provenance(args: RunArguments, model: M33DForVideoActionDetection, source: PhaseSource) -> dict[str, Any]:
    """The provenance of features of all that the model sees: the content of features.json."""
    config = model.config
    return {
        "model": args.init_from,
        "weights": weights_digest(model),
        "classes": list(known_phases(config)),
        "feature_size": int(config.hidden_size),
        "source": {"name": source.name, "digest": source.digest()},
        "reading": reading_rules(source),
        "clip": clip_rule(args, config).to_dict(),
        "image": {
            "size": list(config.image_height_width),
            "eval_crop": args.transforms.eval_crop,
            "resize_mode": args.transforms.resize_mode,
        },
        "precision": args.train.precision,
    }


def _split_name(args: RunArguments, train: bool) -> str:
    """Folder of a split's features."""
    if args.data.eval_root is not None:
        return "train" if train else "evaluation"
    return str(args.data.train_split if train else args.data.eval_split)

"""Phases of whole videos by a temporal model over clip features, in the paper a Bi-GRU (Sec. 4.2.2, App. B.1).

`init_from` is the first stage: an output folder of `run_video_classification.py`, whose encoder, norm and classifier
stay frozen. The features of all clips are extracted once and reused by later runs.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.data.progress import tell
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources.frames.frames import spread_indices
from m33d_hf.errors import DataError, MissingDependencyError
from m33d_hf.evaluation.detection_metrics import frame_scores
from m33d_hf.evaluation.detection_results import VideoResult, detection_metrics
from m33d_hf.evaluation.floor_table import floor_table
from m33d_hf.evaluation.phases.floor import FLOOR_METRICS, PhaseFloor
from m33d_hf.evaluation.phases.results import HEADLINES, headline_metrics
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import names_training_data
from m33d_hf.training.tasks.base import Batch, Collator, Task, to_device
from m33d_hf.training.tasks.building import config_of, save_processor
from m33d_hf.training.tasks.class_balance import balanced_draws, describe_balance, is_balanced, weigh_classes
from m33d_hf.training.tasks.class_numbers import class_table_of
from m33d_hf.training.tasks.dense import MeanLoss
from m33d_hf.training.tasks.detection.cameras import describe_cameras
from m33d_hf.training.tasks.detection.data import (
    Share,
    clip_labels,
    evaluates,
    evaluation_share,
    extracted_features,
    planned_features,
    training_share,
    whole_share,
)
from m33d_hf.training.tasks.detection.evaluation_files import draw_timelines, write_evaluation, write_last_evaluation
from m33d_hf.training.tasks.detection.feature_dataset import FeatureCollator, FeatureDataset, FeatureSample
from m33d_hf.training.tasks.detection.features import FeatureStore
from m33d_hf.training.tasks.detection.first_stage import clip_rule, known_phases, load_first_stage
from m33d_hf.training.tasks.detection.input_sets import SharedClips, check_depth_of_videos
from m33d_hf.training.tasks.task_inputs import describe_inputs, judged_inputs

EVALUATION = "evaluation"
HEADLINE = FLOOR_METRICS


class ActionDetectionTask(Task):
    """Trains the temporal model of `M33DForVideoActionDetection` on features of whole videos."""

    metric = "map"
    greater_is_better = True
    headline = HEADLINE
    compared = ("map", "clipwise/map")
    learns_from_features = True
    takes_inputs = True
    balances_classes = True

    def __init__(self) -> None:
        self.args: RunArguments | None = None
        self._last: list[VideoResult] = []
        self._names: list[str] = []
        self._evaluated = False
        self._floor: PhaseFloor | None = None
        self._no_floor: str | None = None

    def build_model(self, args: RunArguments) -> nn.Module:
        """The first stage of `init_from` with a new temporal model, or the trained one if `init_from` is a second
        stage.

        Raises:
            ConfigError: no first stage given, or `model` fields that contradict it.
            CheckpointError: weights that do not fit.
        """
        self.args = args
        model, self.load_report = load_first_stage(args)
        return model.freeze_encoder()

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training videos, and evaluation videos or None, as features; extracts those that are missing.

        A dry run extracts nothing and gives zeros for what is missing.

        Raises:
            ConfigError: a source without long videos, or features of another origin in `features.dir`.
            DataError: phases unknown to the model, a class without a training clip, or too many unreadable clips.
        """
        detector = cast(M33DForVideoActionDetection, model)
        # Both are checked before hours go into either.
        inputs = detector.task_inputs
        training = training_share(args, detector, inputs)
        evaluation = evaluation_share(args, detector, inputs) if evaluates(args) else None
        train_set = _dataset(args, detector, training, _features(args, detector, training, inputs), train=True)
        if is_balanced(args):
            weigh_classes(args, model, train_set.clip_labels(), list(known_phases(config_of(model))))
        if evaluation is None:
            return train_set, None
        if args.evaluation.floor:
            self._floor = PhaseFloor(train_set.clip_labels(), list(known_phases(config_of(model))))
        store = _features(args, detector, evaluation, inputs)
        return train_set, _dataset(args, detector, evaluation, store, train=False)

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation videos only; of the training videos no frame is read, not for the floor either."""
        found = self.build_round_datasets(args, model, [self.inputs_of(config_of(model))])
        return None if found is None else found[0]

    def build_round_datasets(
        self, args: RunArguments, model: nn.Module, sets: Sequence[tuple[str, ...]]
    ) -> list[SampleDataset] | None:
        """Evaluation videos with the features of each input set; a clip counts if it could be read for all of them.

        Raises:
            DataError: videos without depth in a set of `evaluation.inputs` that has it.
        """
        detector = cast(M33DForVideoActionDetection, model)
        if not evaluates(args):
            return None
        read = self.inputs_of(detector.config)
        share = evaluation_share(args, detector, read)
        if args.evaluation.inputs and "depth" in read:
            check_depth_of_videos(share.source, share.videos, clip_rule(args, detector.config))
        if args.evaluation.floor and not args.dry_run:
            if names_training_data(args):
                labels = clip_labels(training_share(args, detector, read), known_phases(detector.config))
                self._floor = PhaseFloor(labels, list(known_phases(detector.config)))
            else:
                self._no_floor = "no trivial floor (evaluation.floor): it needs the training data, --data.root"
        stores = [_features(args, detector, share, inputs) for inputs in sets]
        return [_dataset(args, detector, share, _shared(stores, place), train=False) for place in range(len(sets))]

    def sample_weights(self, args: RunArguments, dataset: SampleDataset) -> np.ndarray | None:
        """Videos with rare phases more often, with `train.sampling balanced`."""
        return balanced_draws(args, lambda _, features: cast(FeatureDataset, features).clip_labels(), dataset)

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """The number of clips, and where their features are."""
        features, rule = cast(FeatureDataset, dataset), clip_rule(args, config_of(model))
        store = features.store
        place = "features not extracted yet: the run will extract them first" if store is None else f"in {store.folder}"
        names = list(known_phases(config_of(model)))
        return [
            *describe_inputs(model, config_of(model).task_input_names, hides=False),
            *(describe_balance(args, features.clip_labels(), names) if is_balanced(args) else []),
            f"{plural(features.clips, 'clip')} of {rule.num_frames} frames, {rule.frame_stride} apart, one every "
            f"{rule.clip_stride} source frames; {features.bad_clips} unreadable; {place}",
            *describe_cameras(features.phases, features.indices, features.lacking, features.cameras),
        ]

    def extract(self, args: RunArguments, model: nn.Module) -> list[Path]:
        """Extract the features of all videos of both splits, even if a run uses only part of them; those of the
        evaluation split for each set of `evaluation.inputs`."""
        detector = cast(M33DForVideoActionDetection, model)
        whole = detector.task_inputs
        wanted = [(whole_share(args, detector, True), whole)]
        if evaluates(args):
            share = whole_share(args, detector, False)
            wanted += [(share, inputs) for inputs in judged_inputs(args, self, model) or [whole]]
        return [extracted_features(args, detector, *each).folder for each in wanted]

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Videos to padded features."""
        return FeatureCollator(train)

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """Features of clips and the phase of each."""
        labels = torch.empty(rows, clips, dtype=torch.int64, device="meta")
        return {"features": torch.empty(rows, clips, config.temporal_input_size, device="meta"), "labels": labels}

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """What `evaluate` returns: the scores of the temporal model and, under "clipwise/", of the first stage."""
        precisions = ["map", "clip_map", "frame_map", *(f"ap/{name}" for name in known_phases(config_of(model)))]
        found = [*precisions, "clip_accuracy", *frame_scores([]), *HEADLINES]
        floor = [f"floor/{name}" for name in FLOOR_METRICS] if args.evaluation.floor else []
        return [*found, *(f"clipwise/{name}" for name in found), "loss", "absent_classes", *floor]

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Scores of the temporal model and, as "clipwise/...", of the first stage's classifier on the same clips.

        Writes tables and `scores.json` to the folder `evaluation` of the output folder; see `evaluation_files`. Those
        of the last evaluation also have pictures, and a table of the frames of each video.

        Returns:
            See `m33d_hf.evaluation.detection_results.detection_metrics` and
            `m33d_hf.evaluation.phases.results.headline_metrics`; "loss", "absent_classes" (their number); and, with
            `evaluation.floor`, `PhaseFloor.metrics`.
        """
        self._evaluated = True
        names = list(known_phases(config_of(model)))
        loss = MeanLoss(accelerator.device)
        results: list[VideoResult] = []
        for batch in loader:
            inputs = to_device(batch, accelerator.device)
            output = model(**inputs)
            loss.add(output.loss_sums["cross_entropy"], output.loss_counts["cross_entropy"])
            temporal = output.logits.float().softmax(-1).cpu()
            results += [_result(sample, temporal[i]) for i, sample in enumerate(batch["meta"]["videos"])]
        mean_loss = loss.compute(accelerator)
        if accelerator.num_processes > 1:
            results = gather_object(results)
        results.sort(key=lambda result: result.row)
        metrics, absent = detection_metrics(results, names)
        metrics |= {**headline_metrics(results, names), "loss": mean_loss, "absent_classes": float(len(absent))}
        metrics |= {} if self._floor is None else self._floor.metrics(results)
        if accelerator.is_main_process and self.args is not None:
            folder = Path(self.args.output_dir) / EVALUATION
            write_evaluation(folder, results, names, metrics, absent)
            self._last, self._names = results, names
            if self.args.eval_only:
                self._draw(folder, names)
        return metrics

    def closing_lines(self, metrics: Mapping[str, float]) -> list[str]:
        """The headline figures of the temporal model, and beside them those of single clips and of the floor."""
        if not metrics:
            return []
        rows = {"temporal model": "", "clip by clip": "clipwise/"}
        if self._floor is not None and all(f"floor/{name}" in metrics for name in HEADLINE):
            rows[self._floor.title] = "floor/"
        figures = {who: [metrics[f"{prefix}{name}"] for name in HEADLINE] for who, prefix in rows.items()}
        return [*floor_table(HEADLINE, figures), *([] if self._no_floor is None else [self._no_floor])]

    def without_files(self) -> ActionDetectionTask:
        """A twin that knows no output folder."""
        twin = copy.copy(self)
        twin.args = None
        return twin

    def _draw(self, folder: Path, names: Sequence[str]) -> None:
        """What is drawn and listed of the last evaluation alone: after training, that of the final model."""
        write_last_evaluation(folder, self._last, names)
        try:
            draw_timelines(folder, self._last, names)
        except MissingDependencyError as error:
            tell(f"no timelines: {error}")

    def draw_last(self, folder: Path, prefix: str, count: int) -> list[Path]:
        """Draw timelines of `count` annotated videos of the last evaluation, spread over them; on the main process.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        if self.args is None or not self._last:
            return []
        annotated = [result for result in self._last if (result.phases != IGNORE_INDEX).any()]
        chosen = [annotated[place] for place in spread_indices(len(annotated), count)]
        return draw_timelines(folder, chosen, self._names, count, prefix)

    def lacks_evaluation(self) -> bool:
        """True until `evaluate` has run, because timelines are drawn from its results."""
        return not self._evaluated

    def save_processor(self, model: nn.Module, args: RunArguments, folder: Path) -> None:
        """Write the preprocessing of this run's evaluation to `folder`; clips are cut by `ClipRule`."""
        save_processor(config_of(model), args, folder, clip_sampling="stride")

    def save(self, model: nn.Module, args: RunArguments) -> None:
        """Save the whole model, as the base class does, and the timelines."""
        super().save(model, args)
        if self._last:
            self._draw(Path(args.output_dir) / EVALUATION, list(known_phases(config_of(model))))

    def describe_data(self, dataset: SampleDataset) -> dict[str, Any]:
        """Videos and clips, and the features' provenance."""
        features = cast(FeatureDataset, dataset)
        found = {"clips": features.clips, "unreadable_clips": features.bad_clips}
        origin = None if features.store is None else features.store.provenance()
        return {**super().describe_data(dataset), **found, "features": origin}

    def class_table(self, model: nn.Module, dataset: SampleDataset) -> ClassTable | None:
        """The model's classes with their numbers in the annotations."""
        return class_table_of(dataset, list(known_phases(config_of(model))))

    def data_digest(self, dataset: SampleDataset) -> str:
        """Digest of the videos in use and of the provenance of their features."""
        features = cast(FeatureDataset, dataset)
        keys = [features.source.videos[row].key for row in features.indices]
        origin = {} if features.store is None else features.store.provenance()
        told = [features.source.digest(), origin.get("weights"), origin.get("clip"), origin.get("precision"), keys]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def knows_digest(self, dataset: SampleDataset) -> bool:
        """Not before all features are there: they say which videos are used."""
        return cast(FeatureDataset, dataset).store is not None


def _features(
    args: RunArguments, model: M33DForVideoActionDetection, share: Share, inputs: Sequence[str]
) -> FeatureStore | None:
    """Features of these inputs; of a dry run None where some are missing."""
    found = planned_features if args.dry_run else extracted_features
    return found(args, model, share, inputs)


def _shared(stores: Sequence[FeatureStore | None], place: int) -> FeatureStore | None:
    """The features of one of several input sets, of the clips that could be read for all."""
    own = stores[place]
    others = [store for number, store in enumerate(stores) if number != place and store is not None]
    return SharedClips(own, others) if own is not None and others else own


def _dataset(
    args: RunArguments, model: M33DForVideoActionDetection, share: Share, store: FeatureStore | None, train: bool
) -> FeatureDataset:
    config = model.config
    return FeatureDataset(
        share.source,
        store,
        clip_rule(args, config),
        known_phases(config),
        share.rows,
        feature_size=config.temporal_input_size,
        train=train,
        cameras=config.temporal_cameras,
    )


def _result(sample: FeatureSample, temporal: torch.Tensor) -> VideoResult:
    video, phases = sample.video, sample.phases
    if video is None or phases is None:
        raise DataError(f"{sample.key}: the sample has no features")
    count = len(video.valid)
    return VideoResult(
        row=sample.meta["index"],
        key=sample.key,
        fps=video.fps,
        temporal=temporal[:count].numpy(),
        clipwise=video.clip_logits.softmax(-1).numpy(),
        labels=video.labels.numpy(),
        valid=video.valid.numpy(),
        starts=video.starts.numpy(),
        stops=video.stops.numpy(),
        phases=phases,
        times=sample.times,
        lacks=sample.lacks,
    )

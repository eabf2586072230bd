"""Shared code of segmentation and depth estimation: models with pre-trained weights, data sets, saving."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from m33d_hf.data.augmentation.transforms import build_transform
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.loader.collation import Collator as SampleCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.sample import RGBDSample
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.floor_table import floor_table
from m33d_hf.evaluation.metrics import accumulator_dtype
from m33d_hf.evaluation.position_floors import PositionMean, PositionMode
from m33d_hf.evaluation.same_answer import SameAnswer
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.run_data import build_dataset, names_training_data
from m33d_hf.training.tasks.base import Batch, Collator, SourceTask, to_device
from m33d_hf.training.tasks.building import build_initialised, config_of, starting_config
from m33d_hf.training.tasks.classes import describe_share, share_facts

logger = logging.getLogger(__name__)

# In an evaluation batch: what predictions are compared with, where that is not what the loss takes.
JUDGED = "judged_labels"
FLOOR_FRAMES = 256  # training frames behind the trivial floor


class DenseTask(SourceTask):
    """Fine-tunes a per-pixel model on images.

    Attributes:
        model_class: the model.
        collator_class: samples to batches.
        label_map: the map of a sample that becomes the labels.
        label_type: of these labels, one per pixel.
        metric_depth: whether labels made of depth must be distances in metres.
        floor_metrics: names of what is also judged of the trivial floor (`evaluation.floor`).
    """

    model_class: type[PreTrainedModel]
    collator_class: type[SampleCollator]
    label_map: str
    label_type: torch.dtype = torch.float32
    metric_depth: bool = True
    floor_metrics: Sequence[str] = ()
    _floor: Tensor | None = None
    _no_floor: str | None = None

    def maps(self, config: M33DConfig) -> Collection[str]:
        """The model's inputs and labels."""
        return (*self.inputs_of(config), self.label_map)

    def required(self, config: M33DConfig) -> Collection[str]:
        """Depth also where the labels are made of it."""
        return ("depth",) if self.label_map == "depth" else super().required(config)

    def config_overrides(self, args: RunArguments) -> dict[str, Any]:
        """Configuration fields that follow from the data instead of the arguments."""
        return {}

    def build_model(self, args: RunArguments) -> nn.Module:
        """The model with the encoder of `init_from`; the head is new.

        Raises:
            ConfigError: a configuration that cannot work, or a clip model.
            CheckpointError: weights that do not fit.
        """
        config = starting_config(args, **self.config_overrides(args))
        if config.num_frames != 1:
            raise ConfigError(
                f"{self.name} works on images, but the configuration has num_frames {config.num_frames}; set "
                "--model.num_frames 1."
            )
        model, self.load_report = build_initialised(args, self.model_class, config)
        return model

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: labels made of depth that is not distance in metres (see `metric_depth`).
        """
        train_set, eval_set = super().build_datasets(args, model)
        for dataset in (train_set, eval_set):
            self._check_depth(args, dataset)
        if args.evaluation.floor and eval_set is not None and not args.dry_run:
            self._floor = self._floor_of(args, config_of(model), train_set)
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data only, or None; the floor is that of the training split of the same data.

        Raises:
            ConfigError: see `build_datasets`.
        """
        eval_set = super().build_eval_dataset(args, model)
        self._check_depth(args, eval_set)
        if args.evaluation.floor and eval_set is not None and not args.dry_run:
            config = config_of(model)
            if names_training_data(args):
                maps, required = self.maps(config), self.required(config)
                frames = build_dataset(args, config, True, maps=maps, required=required)
                self._floor = self._floor_of(args, config, frames)
            else:
                self._no_floor = "no trivial floor (evaluation.floor): it needs the training data, --data.root"
        return eval_set

    def _check_depth(self, args: RunArguments, dataset: SampleDataset | None) -> None:
        spec = None if dataset is None or self.label_map != "depth" else dataset.source.depth_spec
        if self.metric_depth and spec is not None and spec.kind != "metric":
            raise ConfigError(
                f"The depth of source {args.data.source!r} is {spec.kind}, but {self.name} requires metres. Convert "
                "the files to distances; inverse and relative depth can be used for pre-training only."
            )

    def new_floor(self, config: M33DConfig) -> PositionMean | PositionMode:
        """What collects the trivial floor of the task from maps of labels."""
        raise TypeError(f"{type(self).__name__} does not say what a model that looks at nothing predicts")

    def _floor_of(self, args: RunArguments, config: M33DConfig, train_set: SampleDataset) -> Tensor:
        """The prediction of a model that looks at nothing, (H, W), from training frames as an evaluation sees them."""
        transform = build_transform(args.transforms, False, config.image_height_width, config.patch_height_width)
        frames = train_set.with_transform(transform).reading_once()
        frames.maps, floor = frozenset({self.label_map}), self.new_floor(config)
        for row in evenly_spaced(range(len(frames)), FLOOR_FRAMES):
            sample = cast(RGBDSample, frames[(0, row)])
            labels = sample.depth if self.label_map == "depth" else sample.segmentation
            if labels is not None:
                floor.update(labels.flatten(0, -3)[0])
        return floor.map()

    def closing_lines(self, metrics: Mapping[str, float]) -> list[str]:
        """The model beside the trivial floor, where that was judged."""
        names = [name for name in self.floor_metrics if f"floor/{name}" in metrics and name in metrics]
        if not names:
            return [] if self._no_floor is None else [self._no_floor]
        said = (PositionMean if self.label_map == "depth" else PositionMode).said
        rows = {"this model": [metrics[name] for name in names], said: [metrics[f"floor/{name}"] for name in names]}
        return floor_table(names, rows)

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to pixels and labels."""
        return self.collator_class(config_of(model))

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """The share of the training data in use, where one was drawn."""
        return describe_share(args, dataset)

    def describe_data(self, dataset: SampleDataset) -> dict[str, Any]:
        """As the base, with how much of the source is used."""
        return {**super().describe_data(dataset), **share_facts(dataset)}

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """Images and their labels."""
        labels = torch.empty(rows, *config.image_height_width, dtype=self.label_type, device="meta")
        return {**super().example_batch(config, rows), "labels": labels}

    def answers(self, output: Any) -> Tensor | None:
        """What the model answers, (B, H, W): class ids or metres. None: nobody watches whether they are all alike."""
        return None

    def predictions(
        self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator
    ) -> Iterator[tuple[Any, Tensor]]:
        """(output, labels) of every batch on the device, the output computed under the run's precision.

        The labels are those to compare with: of the model's size unless the collator gave others. At the end it warns
        of a model that answered every picture alike.
        """
        same = SameAnswer(accelerator.device)
        for batch in loader:
            inputs = to_device(batch or {}, accelerator.device)
            if not inputs:
                continue
            judged = inputs.pop(JUDGED, inputs["labels"])
            with accelerator.autocast():
                output = model(**inputs)
            answers = self.answers(output)
            if answers is not None:
                same.update(answers)
            yield output, judged
        if same.compute(accelerator) and accelerator.is_main_process:
            logger.warning(
                "The model gives every picture the same map: it looks at nothing. Early in a training that is usual. "
                "If it stays so, the head has died of too large steps: train again with a lower "
                "optim.learning_rate (a third) or more optim.warmup_steps."
            )


class MeanLoss:
    """Sum and count of a loss over an evaluation, on the device; float64 where the device has it."""

    def __init__(self, device: torch.device) -> None:
        self.state = torch.zeros(2, dtype=accumulator_dtype(device), device=device)

    def add(self, total: Tensor, count: Tensor) -> None:
        """Add one batch."""
        self.state += torch.stack([total.detach(), count]).to(self.state)

    def compute(self, accelerator: Accelerator) -> float:
        """Mean over all ranks, 0 where nothing was counted."""
        total, count = accelerator.reduce(self.state, reduction="sum").tolist()
        return total / max(count, 1.0)

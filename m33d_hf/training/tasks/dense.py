"""Shared code of segmentation and depth estimation: models with pre-trained weights, data sets, saving."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from m33d_hf.data.loader.collation import Collator as SampleCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Collator, SourceTask, to_device
from m33d_hf.training.tasks.building import build_initialised, config_of, starting_config
from m33d_hf.training.tasks.classes import describe_share, share_facts

# In an evaluation batch: what predictions are compared with, where that is not what the loss takes.
JUDGED = "judged_labels"


class DenseTask(SourceTask):
    """Fine-tunes a per-pixel model on RGB images.

    Attributes:
        model_class: the model.
        collator_class: samples to batches.
        label_map: the map of a sample that becomes the labels.
        label_type: of these labels, one per pixel.
    """

    model_class: type[PreTrainedModel]
    collator_class: type[SampleCollator]
    label_map: str
    label_type: torch.dtype = torch.float32

    def maps(self, config: M33DConfig) -> Collection[str]:
        """RGB and labels."""
        return ("rgb", self.label_map)

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
        """RGB images and their labels."""
        labels = torch.empty(rows, *config.image_height_width, dtype=self.label_type, device="meta")
        return {**super().example_batch(config, rows), "labels": labels}

    def predictions(
        self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator
    ) -> Iterator[tuple[Any, Tensor]]:
        """(output, labels) of every batch on the device, the output computed under the run's precision.

        The labels are those to compare with: of the model's size unless the collator gave others.
        """
        for batch in loader:
            inputs = to_device(batch or {}, accelerator.device)
            if not inputs:
                continue
            judged = inputs.pop(JUDGED, inputs["labels"])
            with accelerator.autocast():
                output = model(**inputs)
            yield output, judged


class MeanLoss:
    """Sum and count of a loss over an evaluation, on the device; float64 where the device has it."""

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.state = torch.zeros(2, dtype=dtype, device=device)

    def add(self, total: Tensor, count: Tensor) -> None:
        """Add one batch."""
        self.state += torch.stack([total.detach(), count]).to(self.state)

    def compute(self, accelerator: Accelerator) -> float:
        """Mean over all ranks, 0 where nothing was counted."""
        total, count = accelerator.reduce(self.state, reduction="sum").tolist()
        return total / max(count, 1.0)

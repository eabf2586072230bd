"""What segmentation and depth estimation share: models filled from a pre-training, data sets, what is saved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from m33d_hf.data.loader.collation import Collator as SampleCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Collator, Task, to_device
from m33d_hf.training.tasks.building import (
    build_eval_dataset,
    build_initialised,
    build_run_datasets,
    save_processor,
    starting_config,
)
from m33d_hf.weights import ConversionReport


class DenseTask(Task):
    """Fine-tunes a per-pixel model on RGB images.

    Attributes:
        model_class: the model.
        collator_class: samples to batches.
        load_report: what `init_from` filled; None without.
    """

    model_class: type[PreTrainedModel]
    collator_class: type[SampleCollator]

    def __init__(self) -> None:
        self.load_report: ConversionReport | None = None

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
                f"{self.name} works on images, the configuration has num_frames {config.num_frames}; set "
                "model.num_frames to 1."
            )
        model, self.load_report = build_initialised(args, self.model_class, config)
        return model

    @staticmethod
    def config_of(model: nn.Module) -> M33DConfig:
        """The configuration of the unwrapped model, typed."""
        return cast(M33DConfig, model.config)

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None."""
        return build_run_datasets(args, self.config_of(model))

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None."""
        return build_eval_dataset(args, self.config_of(model))

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to pixels and labels."""
        return self.collator_class(self.config_of(model))

    def predictions(
        self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator
    ) -> Iterator[tuple[Any, Tensor]]:
        """(output, labels) of every batch on the device, the output computed under the run's precision."""
        for batch in loader:
            inputs = to_device(batch or {}, accelerator.device)
            if not inputs:
                continue
            with accelerator.autocast():
                output = model(**inputs)
            yield output, inputs["labels"]

    def save_processor(self, model: nn.Module, args: RunArguments, folder: Path) -> None:
        """Write the preprocessing of this run's evaluation to `folder`."""
        save_processor(self.config_of(model), args, folder)

    def save(self, model: nn.Module, args: RunArguments) -> None:
        """Final model, its image processor, and what it was started from."""
        super().save(model, args)
        if self.load_report is not None:
            report = json.dumps(self.load_report.to_dict(), indent=1)
            (Path(args.output_dir) / "initialisation.json").write_text(report, encoding="utf-8")


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

"""The interface between a task and the training loop."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers.utils import logging

from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.loader.finishing import FINISHING, finish
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.training.recipe.arguments import COMPARED, RunArguments
from m33d_hf.training.recipe.run_data import build_eval_dataset, build_run_datasets
from m33d_hf.training.recipe.task_names import TASKS, name_of
from m33d_hf.training.tasks.building import config_of, save_processor
from m33d_hf.weights import ConversionReport

Batch = dict[str, Any]
Collator = Callable[[list[Any]], Batch]


class RegisteredName:
    """Attribute of a class and its instances: the name under which `task_names` registers the class, or its class
    name."""

    def __get__(self, task: object, owner: type) -> str:
        return name_of(owner)


class Task:
    """Base class of the tasks: a model, data sets, a collator and metrics.

    The model that `build_model` returns has a property ``loss_weights -> dict[str, float]``, a method
    ``loss_counts(**batch) -> dict[str, scalar tensor]`` that needs no forward pass, and a forward whose output holds
    ``loss_sums`` with the same keys. The loop minimises sum_k weight_k * sum_k / count_k with sums and counts over the
    whole optimizer step: all micro-batches of all ranks.

    A new task is a subclass and a line in `m33d_hf.training.recipe.task_names`.

    Attributes:
        name: its name in messages, in recipes and on the command line.
        metric: key in the result of `evaluate` that chooses `checkpoints/best`; None keeps no best checkpoint.
        greater_is_better: direction of `metric`.
        headline: the metrics that the line of an evaluation shows; empty: all that are not of single classes.
        compared: metrics in the table of several input sets; empty: `metric` alone.
        compares_samples: whether `evaluate` compares the samples of a batch; batches then hold the same samples for any
            number of processes.
        hides_tokens: whether the model draws masks and encodes only the visible tokens of its modalities.
        learns_from_features: whether a head is trained on features of clips and the encoder is not run.
        balances_classes: whether the task knows `train.class_weights` and `train.sampling`.
        inputs: what the model is given of each sample; None: all of its `task_inputs`.
        takes_inputs: whether `model.task_inputs` and `evaluation.inputs` have a say.
        load_report: which weights `init_from` filled; None without it. An evaluation without training refuses new
            weights.
    """

    name = RegisteredName()
    metric: str | None = None
    greater_is_better: bool = True
    headline: Sequence[str] = ()
    compared: Sequence[str] = ()
    compares_samples: bool = False
    hides_tokens: bool = False
    learns_from_features: bool = False
    balances_classes: bool = False
    inputs: tuple[str, ...] | None = None
    takes_inputs: bool = False
    load_report: ConversionReport | None = None

    def evaluation_batch(self, args: RunArguments) -> int:
        """Samples per process and forward pass of an evaluation.

        Metrics that compare the samples of a batch must not change when users divide train.batch_size by the number of
        processes, so the default does not depend on it.
        """
        return args.evaluation.batch_size or (COMPARED if self.compares_samples else args.train.batch_size)

    def build_model(self, args: RunArguments) -> nn.Module:
        """Build the model on the CPU, with the weights of ``args.init_from`` if given.

        Called with the global generator seeded by ``args.seed``.
        """
        raise TypeError(f"{type(self).__name__} does not say how to build its model")

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None."""
        raise TypeError(f"{type(self).__name__} does not say how to build its data sets")

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data only, for runs that do not train; None without an evaluation split."""
        return self.build_datasets(args, model)[1]

    def build_round_datasets(
        self, args: RunArguments, model: nn.Module, sets: Sequence[tuple[str, ...]]
    ) -> list[SampleDataset] | None:
        """Evaluation data for each set of `evaluation.inputs`, the same samples in all; None without an evaluation
        split.

        Here one data set for all of them, which holds the maps that any of them needs. A task whose data is made from
        the inputs replaces this method.
        """
        dataset = self.build_eval_dataset(args, model)
        return None if dataset is None else [dataset] * len(sets)

    def inputs_of(self, config: M33DConfig) -> tuple[str, ...]:
        """What the model is given of each sample."""
        return config.task_input_names if self.inputs is None else self.inputs

    def sample_weights(self, args: RunArguments, dataset: SampleDataset) -> np.ndarray | None:
        """(N,) how often each training sample is drawn in relation to the others; None draws each once an epoch."""
        return None

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """Lines about the task and its training data, printed at the start of a run and by --dry_run."""
        return []

    def estimates(self, args: RunArguments, model: nn.Module) -> list[str]:
        """Lines that name metrics that depend on how the evaluation data is split into batches; none by default."""
        return []

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to a batch; entries that are no forward arguments go under "meta"."""
        raise TypeError(f"{type(self).__name__} does not say how to build its collator")

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """Forward arguments with the shapes of a training step, for the memory estimate of --dry_run.

        Tensors on the meta device have a shape but no content; tensors that decide what is computed, such as masks, are
        real.

        Args:
            config: of the model.
            rows: samples of a step, with their views.
            clips: number of clips of the longest video, if the task learns from features of clips.
        """
        raise TypeError(f"{type(self).__name__} does not say what its batches look like")

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str] | None:
        """Names of all that `evaluate` may report, so that a mistyped `evaluation.metric` is found before training.

        None if the task cannot tell; the name is then checked by the first evaluation.
        """
        return None

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        """Extra forward arguments for all micro-batches of one optimizer step (berHu's maximum).

        Arguments that differ by micro-batch (a teacher's features) are put into the batches themselves.

        Args:
            model: the unwrapped model, in training mode.
            batches: this rank's micro-batches, on the device. A value that depends on them must be reduced over ranks
                here (see `m33d_hf.training.processes.launch.maximum_over_ranks`).
        """
        return {}

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Metrics of the unwrapped model over this rank's share of the evaluation data, reduced over ranks.

        Called in eval mode without gradients, under a fixed seed. Ranks may get different numbers of batches, so
        nothing may synchronise per batch; every rank reads the loader to its end, as the ranks agree between its
        batches whether a signal stops the run. Batches are on the CPU and unfinished (see `to_device`), and one whose
        files are all bad holds only "meta".
        """
        return {}

    def closing_lines(self, metrics: Mapping[str, float]) -> list[str]:
        """Lines that sum up the last evaluation, for the end of a run; none by default.

        Args:
            metrics: as `evaluate` returns them.
        """
        return []

    def without_files(self) -> Task:
        """A twin whose `evaluate` writes no files, for the dry run, which times an evaluation.

        A task whose `evaluate` writes something replaces this method.
        """
        return copy.copy(self)

    def lacks_evaluation(self) -> bool:
        """Whether `save` would leave out files because this process has not run the evaluation that they are made from.

        This happens if a run was killed after its last evaluation: the loop then evaluates again before it saves. The
        same on every rank.
        """
        return False

    def save(self, model: nn.Module, args: RunArguments) -> None:
        """Write the final model, its processor and what it was started from to ``args.output_dir``.

        Called on the main process only.
        """
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a bar for writing one file
        try:
            model.save_pretrained(args.output_dir)  # type: ignore[operator]
        finally:
            if shown:
                logging.enable_progress_bar()
        self.save_processor(model, args, Path(args.output_dir))
        # safetensors writes for its owner alone; a group that may read the configuration may read the weights.
        for weights in Path(args.output_dir).glob("*.safetensors"):
            shutil.copymode(Path(args.output_dir) / "config.json", weights)
        if self.load_report is not None:
            report = json.dumps(self.load_report.to_dict(), indent=1)
            (Path(args.output_dir) / "initialisation.json").write_text(report, encoding="utf-8")

    def save_processor(self, model: nn.Module, args: RunArguments, folder: Path) -> None:
        """Write the preprocessing of this run's evaluation beside weights in `folder`; called on the main process only.

        Without it, the weights would be used with a geometry that was never evaluated.
        """

    def describe_data(self, dataset: SampleDataset) -> dict[str, Any]:
        """Facts about the training data for train_config.json: the number of samples and the assumed meaning of depth
        values."""
        depth = dataset.source.depth_spec
        return {"samples": len(dataset), "depth": None if depth is None else depth.to_dict()}

    def class_table(self, model: nn.Module, dataset: SampleDataset) -> ClassTable | None:
        """The model's classes with their numbers in the training annotations; None without classes."""
        return None

    def data_digest(self, dataset: SampleDataset) -> str:
        """Digest of the training data, stored in train_config.json and compared on resume."""
        return dataset.source.digest()

    def former_digest(self, dataset: SampleDataset) -> str | None:
        """`data_digest` as earlier versions stored it, whose runs can be resumed, too; None where it is the same."""
        return None

    def eval_digest(self, dataset: SampleDataset) -> str:
        """Digest of the evaluation data, stored in checkpoints: evaluations of other data are not compared."""
        return dataset.source.digest()

    def knows_digest(self, dataset: SampleDataset) -> bool:
        """Whether `data_digest` of a dry run's data is that of the run."""
        return True


class SourceTask(Task):
    """A task with one of our models that reads its samples from a source.

    Attributes:
        depth_spec: the meaning of stored depth in the training source; None where it has none, or is not built.
    """

    depth_spec: DepthSpec | None = None

    def maps(self, config: M33DConfig) -> Collection[str] | None:
        """What the collator reads of a sample ("rgb", "depth", "segmentation", ...); None: all that there is."""
        return None

    def required(self, config: M33DConfig) -> Collection[str]:
        """Those of `maps` that a clip must have to be of use: depth, where the model sees nothing else."""
        maps = self.maps(config) or ()
        return ("depth",) if "depth" in maps and "rgb" not in maps else ()

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None."""
        config = config_of(model)
        train_set, eval_set = build_run_datasets(args, config, maps=self.maps(config), required=self.required(config))
        self.depth_spec = train_set.source.depth_spec
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data only, or None."""
        config = config_of(model)
        return build_eval_dataset(args, config, maps=self.maps(config), required=self.required(config))

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """RGB images or clips, depth beside or instead of them where the model's `task_inputs` say so."""
        frames = (config.num_frames,) if config.num_frames > 1 else ()
        shape, names = (rows, *frames), config.task_input_names
        batch: Batch = {}
        if "rgb" in names:
            batch["pixel_values"] = torch.empty(*shape, 3, *config.image_height_width, device="meta")
        if "depth" in names:
            batch["depth_values"] = torch.empty(*shape, 1, *config.image_height_width, device="meta")
            batch["depth_mask"] = torch.empty_like(batch["depth_values"], dtype=torch.bool)
        return batch

    def save_processor(self, model: nn.Module, args: RunArguments, folder: Path) -> None:
        """Write the preprocessing of this run's evaluation to `folder`."""
        save_processor(config_of(model), args, folder, depth_spec=self.depth_spec)


def build_task(name: str) -> Task:
    """The task registered as `name`, see `m33d_hf.training.recipe.task_names`."""
    module, _, attribute = TASKS[name].partition(":")
    return cast(Task, getattr(importlib.import_module(module), attribute)())


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the forward arguments of a batch to a device and finish them there, if the collator deferred that.

    Every tensor is moved, also in nested dicts; "meta" is left out.
    """
    moved = _moved(batch, device)
    finishing = batch.get("meta", {}).get(FINISHING)
    if finishing is None:
        return moved
    finished = finish({**moved, "meta": {FINISHING: finishing.to(device)}})
    del finished["meta"]
    return finished


def _moved(batch: Batch, device: torch.device) -> Batch:
    moved: Batch = {}
    for name, value in batch.items():
        if name == "meta":
            continue
        if isinstance(value, torch.Tensor):
            moved[name] = value.to(device, non_blocking=True)
        elif isinstance(value, Mapping):
            moved[name] = _moved(dict(value), device)
        else:
            moved[name] = value
    return moved

"""Pre-training: reconstruction, contrastive and matching terms on RGB-D images or clips."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from m33d_hf.data.depth.normals import DEPTH_NORMALS
from m33d_hf.data.loader.collation import PretrainingCollator
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.evaluation.metrics import accumulator_dtype
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Collator, SourceTask, to_device
from m33d_hf.training.tasks.building import build_initialised, config_of, starting_config
from m33d_hf.training.tasks.classes import describe_share
from m33d_hf.training.tasks.distillation import Teacher, build_teacher
from m33d_hf.training.tasks.further_modalities import check_further_modalities, check_normals


class PretrainingTask(SourceTask):
    """Pre-trains `M33DForPreTraining` with the modalities and losses of the method and the recipe.

    Attributes:
        teacher: the teacher of the distillation; None without `distillation_weight`.
    """

    metric = "loss"
    greater_is_better = False
    compares_samples = True  # another sample's depth, mismatched pairs, negatives of the batch
    hides_tokens = True

    def __init__(self) -> None:
        self.teacher: Teacher | None = None
        self._diagnoses = True
        self._drawn_by_labels = False

    def build_model(self, args: RunArguments) -> nn.Module:
        """The model with the weights of `init_from`.

        Raises:
            ConfigError: a configuration that cannot work.
            CheckpointError: weights that do not fit.
        """
        self._diagnoses = args.evaluation.diagnostics
        model, self.load_report = build_initialised(args, M33DForPreTraining, starting_config(args))
        self.teacher = build_teacher(args, cast(M33DForPreTraining, model), self.load_report)
        return model

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        """Training data, and evaluation data or None.

        Raises:
            ConfigError: maps that the data provides and the model does not know, or the other way round; normals of a
                depth that is no distance.
        """
        check_further_modalities(args, config_of(model), train=True)
        self._drawn_by_labels = args.data.label_fraction is not None
        train_set, eval_set = super().build_datasets(args, model)
        for dataset in (train_set, eval_set):
            check_normals(config_of(model), args.data.source, dataset)
        return train_set, eval_set

    def build_eval_dataset(self, args: RunArguments, model: nn.Module) -> SampleDataset | None:
        """Evaluation data alone, or None.

        Raises:
            ConfigError: see `build_datasets`.
        """
        check_further_modalities(args, config_of(model), train=False)
        eval_set = super().build_eval_dataset(args, model)
        check_normals(config_of(model), args.data.source, eval_set)
        return eval_set

    def metric_names(self, args: RunArguments, model: nn.Module) -> list[str]:
        """The losses and, unless switched off, the diagnostics of `M33DForPreTraining` by modality."""
        config = config_of(model)
        losses = ["loss", *(f"loss/{name}" for name in _loss_names(model))]
        if not args.evaluation.diagnostics:
            return losses
        pairs = ("retrieval_accuracy", "retrieval_accuracy_mismatched", "retrieval_chance", "matching_accuracy")
        return [
            *losses,
            *(f"{kind}_{spec.name}" for spec in config.paired_specs for kind in pairs),
            *(f"{spec.name}_loss_{word}" for spec in config.target_specs for word in ("hidden", "visible")),
            *(f"position_share_{spec.name}" for spec in config.input_specs if config.token_budget is None),
        ]

    def describe(self, args: RunArguments, model: nn.Module, dataset: SampleDataset) -> list[str]:
        """A note on metrics that the evaluation only estimates, if there is an evaluation."""
        evaluates = args.data.eval_split is not None or args.data.eval_root is not None
        return [*describe_share(args, dataset), *(self.estimates(args, model) if evaluates else [])]

    def estimates(self, args: RunArguments, model: nn.Module) -> list[str]:
        """Metrics that compare the samples of a batch with each other, where the model has two inputs."""
        if not config_of(model).paired_specs:
            return []
        compared = ["retrieval"] if args.evaluation.diagnostics else []
        tied = any(name.startswith(("contrastive", "matching")) for name in _loss_names(model))
        compared += ["matching and negatives of the batch"] if tied else []
        if not compared:
            return []
        return [
            f"evaluation: {', '.join(compared)} compare the samples of one batch with each other, so they are "
            f"estimates for batches of {self.evaluation_batch(args)} (--evaluation.batch_size); they do not depend on "
            "the number of processes"
        ]

    def maps(self, config: M33DConfig) -> Collection[str]:
        """Those of the modalities; normals are computed from depth."""
        return list(dict.fromkeys("depth" if spec.name == DEPTH_NORMALS else spec.name for spec in config.specs))

    def required(self, config: M33DConfig) -> Collection[str]:
        """Depth, where the method has it: a clip without any would be pre-trained as RGB."""
        return [name for name in self.maps(config) if name == "depth"]

    def example_batch(self, config: M33DConfig, rows: int, clips: int = 1) -> Batch:
        """All modalities with their validity, masks as drawn, and a teacher's features."""
        batch: Batch = {"keep": draw_keep(config, rows, motion=torch.zeros(rows, config.num_tokens))}
        frames = (config.num_frames,) if config.num_frames > 1 else ()
        for spec in config.specs:
            shape = (rows, *frames, spec.channels, *config.image_height_width)
            batch[spec.input_name] = torch.empty(shape, device="meta")
            if spec.mask_name is not None:
                batch[spec.mask_name] = torch.empty(shape, dtype=torch.bool, device="meta")
        if config.distillation_weight > 0:
            features = {spec.name: torch.empty(rows, config.hidden_size, device="meta") for spec in config.input_specs}
            batch["teacher_features"] = features
        return batch

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        """Samples to pixels, standardised depth and drawn masks."""
        return PretrainingCollator(config_of(model))

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        """Put the teacher's features into every micro-batch."""
        if self.teacher is not None:
            for batch in batches:
                batch["teacher_features"] = self.teacher.features(batch)
        return {}

    def data_digest(self, dataset: SampleDataset) -> str:
        """Digest of the training data, and of the teacher if there is one: both must be unchanged when a run
        resumes. Labels, which are not read, are no part of it unless they decide which samples are drawn."""
        source = dataset.source
        return self._with_teacher(source.digest() if self._drawn_by_labels else source.unlabelled_digest())

    def former_digest(self, dataset: SampleDataset) -> str | None:
        """With the labels, which once were part of it; where there are none it is not reckoned again."""
        unlabelled = dataset.source.class_names is dataset.source.action_names is None
        return None if self._drawn_by_labels or unlabelled else self._with_teacher(dataset.source.digest())

    def eval_digest(self, dataset: SampleDataset) -> str:
        """Without labels, which are not read."""
        return dataset.source.unlabelled_digest()

    def _with_teacher(self, digest: str) -> str:
        return digest if self.teacher is None else f"{digest}, teacher {self.teacher.digest()}"

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        """Losses, weighted as in Eq. 5 to 7 and with nothing hidden, and the diagnostics (`evaluation.diagnostics`).

        Returns:
            "loss", "loss/<term>" (unweighted means; left out of both is a term that counted nothing, as distillation
            under --eval_only, where no teacher is), and the model's diagnostics: accuracy of retrieving an RGB token's
            depth token among the matching and among another sample's, matching accuracy, depth loss with depth hidden
            and with depth visible, share of position in the variance of the features. Diagnostics are means over
            batches, weighted by their samples. What compares samples (another sample's token, mismatched pairs,
            negatives of the batch, positions) does so within a batch of the evaluation, and is an estimate: other
            batches give other figures. It is the same for any number of processes, as their batches are
            (`EvaluationSampler`) and train.batch_size has no say in them.
        """
        totals: dict[str, Tensor] = {}
        names = _loss_names(model)
        zero = torch.zeros((), dtype=accumulator_dtype(accelerator.device), device=accelerator.device)

        def add(name: str, value: Tensor) -> None:
            totals[name] = totals.get(name, zero) + value.to(zero.dtype)

        for batch in loader:
            inputs = to_device(batch or {}, accelerator.device)
            if not inputs:
                continue
            inputs.pop("hide", None)  # drawn for training; the diagnostics hide whole modalities themselves
            if self.teacher is not None:
                inputs["teacher_features"] = self.teacher.features(inputs)
            with accelerator.autocast():
                output = model(**inputs, output_diagnostics=self._diagnoses)
            for name in names:
                add(f"sum/{name}", output.loss_sums[name])
                add(f"count/{name}", output.loss_counts[name])
            rows = next(iter(inputs["keep"].values())).shape[0]
            for name, value in (output.diagnostics or {}).items():
                if rows < 2 and name.startswith("matching_accuracy"):
                    continue  # a single sample has no mismatched partner
                add(f"diagnostic/{name}", value * rows)
                add(f"rows/{name}", torch.full_like(value, rows))
        return self._reduce(totals, model, accelerator)

    def _reduce(self, totals: dict[str, Tensor], model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Sum over ranks (which may have seen different diagnostics, or nothing) and divide."""
        weights = cast(dict[str, float], model.loss_weights)
        keys = sorted({*totals, *(f"{kind}/{name}" for name in weights for kind in ("sum", "count"))})
        if accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            keys = sorted(set(gather_object(keys)))
        zero = torch.zeros((), dtype=accumulator_dtype(accelerator.device), device=accelerator.device)
        summed = accelerator.reduce(torch.stack([totals.get(key, zero) for key in keys]), reduction="sum")
        found = dict(zip(keys, summed.tolist(), strict=True))
        means = {name: found[f"sum/{name}"] / found[f"count/{name}"] for name in weights if found[f"count/{name}"] > 0}
        metrics = {f"loss/{name}": mean for name, mean in means.items()}
        metrics["loss"] = sum(weights[name] * mean for name, mean in means.items())
        for key, value in found.items():
            if key.startswith("diagnostic/"):
                name = key.removeprefix("diagnostic/")
                metrics[name] = value / found[f"rows/{name}"]
        return metrics


def _loss_names(model: nn.Module) -> list[str]:
    return list(cast(dict[str, float], model.loss_weights))

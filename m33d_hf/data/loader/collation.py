"""From transformed samples to the batch that a model takes; what is not a forward argument travels under "meta".

Everything random (visible tokens, hidden modalities, erased boxes) is drawn per sample from (seed, epoch, key, view,
purpose), so that a sample looks the same whichever batch, worker or process it is collated in. Mixup and CutMix are the
exception: they mix the rows of a batch (m33d_hf.data.augmentation.mixing).

Normalisation, and what depends on it, is done by m33d_hf.data.loader.finishing. A collator finishes its batches itself
unless it is told to leave that to the consumer (`deferring`); training and evaluation then finish them on their device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from m33d_hf.data.augmentation.batch_rows import as_batch
from m33d_hf.data.augmentation.clips import draw_erasing
from m33d_hf.data.augmentation.mixing import draw_mix, soft_targets
from m33d_hf.data.augmentation.options import MixingOptions, TransformOptions
from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.depth.normals import DEPTH_NORMALS, normal_map
from m33d_hf.data.files.skips import hole_entries
from m33d_hf.data.loader.finishing import (
    FINISHING,
    Batch,
    ChooseByMotion,
    EraseBoxes,
    Finishing,
    Mix,
    NormalizeMap,
    NormalizeRgb,
    StandardizeDepth,
    Step,
    WidenLabels,
    finish,
)
from m33d_hf.data.loader.task_inputs import MixDepth, stacked_depth
from m33d_hf.data.overriding import restated
from m33d_hf.data.plural import plural
from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample, holes_of
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.modeling.masking_m33d import MotionChoice, prepare_keep
from m33d_hf.modeling.preprocessing_m33d import in_planes

Collating = TypeVar("Collating", bound=Callable[..., Batch])


class Collator:
    """What the collators share: samples dropped in evaluation, sizes, normalisation and "meta".

    Lists of views are flattened: the rows of a batch are the views of its first sample, then those of the next.

    ``meta`` holds "keys" (one per row of the batch), "indices" (rows of the data set, dropped ones included), "skipped"
    (list of SkippedFile), where there are any also "incomplete" (list of SkippedFile), of clips with depth "hole_count"
    and "holes" (list of SkippedFile), and in multi-view evaluation "views": (index, segment, crop) per row of the
    batch. A batch whose samples were all dropped holds only ``meta``; an evaluation skips it.

    Args:
        config: of the model that will take the batches; read once.
        check_size: refuse samples whose height and width are not the configured ones. Switch it off to run a model
            at another resolution; the frame count is always checked.
        inputs: what a task model is given of each sample, "rgb", "depth" or both; None: its `task_inputs`.
        train: whether to hide the depth of some samples from a model of both, by `config.depth_dropout`.

    Attributes:
        deferred: leave a `Finishing` in ``meta["finishing"]`` instead of finishing the batch; see `deferring`.
        defers: whether it supports this; False for a subclass that overrides `__call__` without setting it, because
            that would change unfinished batches.
        takes_incomplete: whether `collate` handles `RGBDSample.changes` and `mirrored`, as `_rgb` does (changing and
            mirroring RGB left to the collator); False for a subclass that overrides `collate` without setting it: it
            gets complete samples.
    """

    deferred = False
    defers = True
    takes_incomplete = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        restated(cls, "defers", "__call__")
        restated(cls, "takes_incomplete", "collate")

    def __init__(
        self,
        config: M33DConfig,
        check_size: bool = True,
        inputs: Sequence[str] | None = None,
        train: bool = False,
    ) -> None:
        self.config = config
        self.inputs = config.task_input_names if inputs is None else tuple(inputs)
        both = {"rgb", "depth"} <= set(self.inputs)
        self.depth_dropout = float(config.depth_dropout) if train and both else 0.0
        self.check_size = check_size
        self.specs = {spec.name: spec for spec in config.specs}
        self.num_frames = config.num_frames
        self.size = config.image_height_width
        self.num_labels = int(config.num_labels or 0)

    def __call__(self, samples: Sequence[RGBDSample | list[RGBDSample]]) -> Batch:
        """Collate one batch of samples or lists of views.

        Raises:
            DataError: a sample lacks what the model needs, or has another size; names the key.
            LabelError: labels outside the model's classes.
        """
        items = [item if isinstance(item, list) else [item] for item in samples]
        views = [view for item in items for view in item]
        kept = [view for view in views if not view.meta.get("dropped", False)]
        batch: Batch = {}
        steps: list[Step] = []
        if kept:
            if not self.takes_incomplete:
                kept = [sample.complete() for sample in kept]
            for sample in kept:
                self._check_shape(sample)
            batch, steps = self._collated(kept)
        batch["meta"] = {
            "keys": [sample.key for sample in kept],
            "indices": [item[0].meta["index"] for item in items if "index" in item[0].meta],
            "skipped": [file for view in views for file in view.meta.get("skipped", ())],
        }
        incomplete = [file for view in views for file in view.meta.get("incomplete", ())]
        if incomplete:
            batch["meta"]["incomplete"] = incomplete
        if (holes := _holes(kept)) is not None:
            batch["meta"].update(holes)
        if kept and "segment" in kept[0].meta:
            batch["meta"]["views"] = [(view.meta["index"], view.meta["segment"], view.meta["crop"]) for view in kept]
        if steps:
            batch["meta"][FINISHING] = Finishing(tuple(steps))
        return batch if self.deferred else finish(batch)

    def _collated(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        collated = self.collate(samples)
        if not isinstance(collated, tuple):
            raise ConfigError(
                f"{type(self).__name__}.collate returned a {type(collated).__name__}; it must return (batch, steps), "
                "where steps is [] if nothing is left to do"
            )
        return collated

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """Stack the maps of at least one sample; return the batch and the steps that turn it into forward arguments."""
        raise TypeError(f"{type(self).__name__} does not say how to collate")

    def pixel_values(self, samples: Sequence[RGBDSample]) -> torch.Tensor:
        """Normalised RGB, (B, 3, H, W) float32, with T after B for clips."""
        frames, normalization = self._rgb(samples)
        batch: Batch = {"pixel_values": frames}
        normalization.apply(batch)
        return batch["pixel_values"]

    def _rgb(self, samples: Sequence[RGBDSample]) -> tuple[torch.Tensor, Step]:
        """RGB, (B, 3, H, W) uint8, with T after B for clips, and its normalisation."""
        spec = self._spec("rgb")
        frames = _stacked([_needed(sample.rgb, sample, "RGB") for sample in samples])
        left = (_mirrored(samples), _changes(samples))
        return self._flat(frames), NormalizeRgb("pixel_values", spec.channel_mean, spec.channel_std, None, *left)

    def _task_inputs(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """The maps of `inputs` under the names of forward arguments, as they were read, and what prepares them."""
        batch: Batch = {}
        steps: list[Step] = []
        if "rgb" in self.inputs:
            batch["pixel_values"], normalization = self._rgb(samples)
            steps.append(normalization)
        if "depth" in self.inputs:
            depth, mode = stacked_depth(samples, self.depth_dropout), self.config.depth_standardization
            batch["depth_values"] = self._flat(depth)
            scope = self.config.depth_standardization_scope
            steps.append(StandardizeDepth("depth_values", "depth_mask", mode, scope))
        return batch, steps

    def _spec(self, name: str) -> ModalitySpec:
        return self.specs[name] if name in self.specs else self.config.spec(name)

    def _flat(self, frames_BT: torch.Tensor) -> torch.Tensor:
        """Drop the frame axis for image models."""
        return frames_BT[:, 0] if self.num_frames == 1 else frames_BT

    def _check_shape(self, sample: RGBDSample) -> None:
        if sample.num_frames != self.num_frames:
            raise DataError(
                f"{sample.key}: the sample has {plural(sample.num_frames, 'frame')}, but the model takes "
                f"{self.num_frames}; set "
                "num_frames of the data set to that of the model"
            )
        size = (sample.height, sample.width)
        if self.check_size and size != self.size:
            raise DataError(
                f"{sample.key}: the sample has {size[0]} x {size[1]} pixels, but the model takes {self.size[0]} x "
                f"{self.size[1]}; set image_size of the transform to that of the model"
            )


class PretrainingCollator(Collator):
    """Inputs and targets of every modality, the visible tokens ``keep`` and, where asked for, ``hide``.

    The batch: each modality under its input_name ((B, C, H, W), with T after B for clips; float32; RGB normalised,
    depth standardised, 0 where invalid), its validity (bool) under mask_name, ``keep`` name -> (B, V) int64
    ("joint" alone with a token budget); when a modality has a drop_probability, ``hide`` name -> (B,) bool; when one
    has a denoising_weight, ``noise`` name -> standard normal values like that input.

    A third modality is read from ``sample.meta["modalities"][name]``, (T, C, H, W) float with NaN where invalid;
    ``depth_normals`` is computed from depth.

    Args:
        config: see Collator.
        check_size: see Collator.
        hide: False never hides a modality nor adds noise to it (evaluation with everything shown).
    """

    takes_incomplete = True

    def __init__(self, config: M33DConfig, check_size: bool = True, hide: bool = True) -> None:
        super().__init__(config, check_size)
        self.grid = config.grid
        self.hidden = [spec for spec in self.specs.values() if hide and spec.drop_probability > 0]
        self.denoised = [spec for spec in self.specs.values() if hide and spec.is_denoised]

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """See the class."""
        batch: Batch = {}
        steps: list[Step] = []
        for spec in self.specs.values():
            if spec.target_of is not None:
                continue  # a second target: its pixels are in the batch already
            values, step = self._modality(spec, samples)
            batch[spec.input_name] = self._flat(values)
            steps.append(step)
        keep = self._prepare_keep(samples)
        settled = {name: choice for name, choice in keep.items() if isinstance(choice, torch.Tensor)}
        if len(settled) == len(keep):
            batch["keep"] = settled
        else:
            patch = self.config.patch_height_width
            steps.append(ChooseByMotion(self._spec("rgb").input_name, self.config.tubelet_size, patch, keep))
        if self.hidden:
            batch["hide"] = {spec.name: _draw_hidden(spec, samples) for spec in self.hidden}
        if self.denoised:
            batch["noise"] = {spec.name: _draw_noise(batch[spec.input_name], spec, samples) for spec in self.denoised}
        return batch, steps

    def _modality(self, spec: ModalitySpec, samples: Sequence[RGBDSample]) -> tuple[torch.Tensor, Step]:
        """(B, T, C, H, W) of one modality as it was read, and what makes values and validity of it."""
        if spec.name == "rgb":
            frames = _stacked([_needed(sample.rgb, sample, "RGB") for sample in samples])
            scale = (spec.channel_mean, spec.channel_std)
            left = (_mirrored(samples), _changes(samples))
            return frames, NormalizeRgb(spec.input_name, *scale, spec.mask_name, *left)
        if spec.name == "depth":
            depth = torch.stack([_needed(sample.depth, sample, "depth") for sample in samples])
            mode, scope = self.config.depth_standardization, self.config.depth_standardization_scope
            return depth, StandardizeDepth(spec.input_name, spec.mask_name, mode, scope)
        maps = [_further(sample, spec.name) for sample in samples]
        for sample, map_ in zip(samples, maps, strict=True):
            if (channels := map_.shape[1]) != spec.channels:
                raise DataError(
                    f"{sample.key}: {spec.name} has {channels} channels, but the model takes {spec.channels}."
                )
        return torch.stack(maps), NormalizeMap(spec.input_name, spec.mask_name, spec.channel_mean, spec.channel_std)

    def _prepare_keep(self, samples: Sequence[RGBDSample]) -> Mapping[str, torch.Tensor | MotionChoice]:
        grid = self.grid
        if not self.check_size:
            grid = self.config.grid_for(self.num_frames, samples[0].height, samples[0].width)
        generators = [_draw(sample).generator(sample.key, "mask") for sample in samples]
        return prepare_keep(self.config, len(samples), grid, generators)


class SegmentationCollator(Collator):
    """The model's inputs and ``labels`` (B, H, W) int64, with the config's ignore index where nothing is labelled.

    Depth goes under ``depth_values`` (B, 1, H, W) float32, standardised, and ``depth_mask`` bool.
    """

    takes_incomplete = True

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """See the class."""
        rows = [_needed(sample.segmentation, sample, "a segmentation")[0] for sample in samples]
        for sample, row in zip(samples, rows):
            _check_classes(sample, row, self.num_labels)
        batch, steps = self._task_inputs(samples)
        widening = WidenLabels("labels", self.config.semantic_loss_ignore_index)
        return {**batch, "labels": torch.stack(rows)}, [*steps, widening]


class DepthCollator(Collator):
    """``pixel_values`` and ``labels`` (B, H, W) float32 metres, NaN where invalid."""

    takes_incomplete = True

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """See the class."""
        labels = torch.stack([_needed(sample.depth, sample, "depth")[0, 0] for sample in samples])
        pixels, normalization = self._rgb(samples)
        return {"pixel_values": pixels, "labels": labels.float()}, [normalization]


class ClipClassificationCollator(Collator):
    """The model's inputs and ``labels``: in training (B, L) float32 soft targets, in evaluation (B,) int64 class ids.

    Training erases boxes of RGB view by view, mixes the batch and smooths the labels, in VideoMAE's order; without
    mixing and smoothing the targets are one-hot. Depth, as in `SegmentationCollator`, is mixed as RGB is. In
    evaluation, samples without a label get the label 255, which the models leave out of the loss.

    Args:
        config: see Collator; its `num_labels` is L.
        mixing: options of mixup, CutMix and label smoothing; None for none of these.
        erasing: options of random erasing; None for no erasing.
        train: whether to apply all of this.
        check_size, inputs: see Collator.
    """

    takes_incomplete = True

    def __init__(
        self,
        config: M33DConfig,
        mixing: MixingOptions | None = None,
        erasing: TransformOptions | None = None,
        *,
        train: bool,
        check_size: bool = True,
        inputs: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, check_size, inputs, train)
        self.mixing = mixing or MixingOptions()
        self.erasing = erasing or TransformOptions()
        self.train = train

    def collate(self, samples: Sequence[RGBDSample]) -> tuple[Batch, list[Step]]:
        """See the class."""
        labels = torch.tensor([self._label(sample) for sample in samples], dtype=torch.int64)
        batch, steps = self._task_inputs(samples)
        if not self.train:
            return {**batch, "labels": labels}, steps
        if self.erasing.erasing > 0 and "pixel_values" in batch:
            steps += self._erasing(samples, batch["pixel_values"])
        if self.mixing.mixes:
            steps += self._mixing(samples, batch)
        targets = soft_targets(labels, self.num_labels, self.mixing.label_smoothing)
        return {**batch, "labels": targets}, steps

    def _mixing(self, samples: Sequence[RGBDSample], batch: Batch) -> list[Step]:
        """One draw for all inputs; the targets are mixed once."""
        first, draw = samples[0], _draw(samples[0])
        size = next(iter(batch.values())).shape[-2:]
        drawn = draw_mix(self.mixing, *size, draw.seed, draw.epoch, first.key, "mix")
        steps: list[Step] = []
        if "depth_values" in batch:
            steps.append(MixDepth("depth_values", "depth_mask", drawn))
        return [*steps, Mix("pixel_values" if "pixel_values" in batch else None, "labels", drawn)]

    def _erasing(self, samples: Sequence[RGBDSample], pixels: torch.Tensor) -> list[Step]:
        height, width = pixels.shape[-2:]
        drawn = [draw_erasing(height, width, self.erasing, _draw(one), one.key) for one in samples]
        found = [(row, erasing) for row, erasing in enumerate(drawn) if erasing is not None]
        return [EraseBoxes("pixel_values", found)] if found else []

    def _label(self, sample: RGBDSample) -> int:
        """Class id, or 255 for a sample without one, which only an evaluation may hold."""
        label = IGNORE_INDEX if sample.label is None else sample.label
        if 0 <= label < self.num_labels or (label == IGNORE_INDEX and not self.train):
            return label
        if label == IGNORE_INDEX:
            raise LabelError(
                f"{sample.key}: this training sample has no label; leave such samples out "
                "(--data.options.drop_unlabelled true, if the source has that option) or use a source with labels"
            )
        raise LabelError(
            f"{sample.key}: label {sample.label} is outside the model's {self.num_labels} classes; set "
            "--model.num_labels or correct the class list"
        )


def _holes(samples: Sequence[RGBDSample]) -> dict[str, Any] | None:
    """Of clips with depth: frames that were read, and those whose depth is missing; None of anything else."""
    count = HoleCount()
    read = [sample for sample in samples if _is_first_view(sample)]
    for sample in read:
        if sample.num_frames > 1 or holes_of(sample):
            count.add_sample(sample)
    entries = [entry for sample in read for entry in hole_entries(holes_of(sample), sample.key)]
    return {"hole_count": count, "holes": entries} if count.frames else None


def _is_first_view(sample: RGBDSample) -> bool:
    """Whether it is the first of several views of the same frames."""
    draw: Draw | None = sample.meta.get("draw")
    return not sample.meta.get("crop") and not (draw is not None and draw.view)


def deferring(collator: Collating) -> Collating:
    """A collator that leaves finishing to `training.tasks.base.to_device` if it `defers`; otherwise the collator
    unchanged."""
    if not isinstance(collator, Collator) or not collator.defers:
        return collator
    changed = copy.copy(collator)
    changed.deferred = True
    return changed


def _stacked(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """uint8 RGB (T, 3, H, W) of samples to (B, T, 3, H, W), pixel by pixel in memory where that of all of them is."""
    if (batch := as_batch(clips)) is not None:
        return batch
    if all(clip.stride(1) == 1 for clip in clips):
        return torch.stack([clip.permute(0, 2, 3, 1) for clip in clips]).permute(0, 1, 4, 2, 3)
    return torch.stack([in_planes(clip) for clip in clips])


def _mirrored(samples: Sequence[RGBDSample]) -> torch.Tensor | None:
    """(B,) bool, whose RGB is still to be mirrored; None where no sample's is."""
    rows = [sample.mirrored for sample in samples]
    return torch.tensor(rows) if any(rows) else None


def _changes(samples: Sequence[RGBDSample]) -> list[Any] | None:
    """What is still to be done to the RGB of each row before it is mirrored; None where there is nothing to do."""
    rows = [sample.changes for sample in samples]
    return rows if any(row is not None for row in rows) else None


def _further(sample: RGBDSample, name: str) -> torch.Tensor:
    """The map of a third modality."""
    map_ = sample.meta.get("modalities", {}).get(name)
    if name == DEPTH_NORMALS:
        if map_ is not None:
            raise DataError(f"{sample.key}: {name} is computed from depth; give the source's own map another name.")
        return normal_map(_needed(sample.depth, sample, "depth"))
    if map_ is None:
        raise DataError(
            f"{sample.key}: the sample has no {name}, but the model's configuration requires it. The source folder "
            f"reads it with --data.options.modalities '{{{name}: FOLDER}}'; a source of your own puts it into "
            f'sample.meta["modalities"]. Or remove modalities.{name}.'
        )
    return map_


def _needed(map_: torch.Tensor | None, sample: RGBDSample, what: str) -> torch.Tensor:
    if map_ is None:
        what = what.removeprefix("a ")
        if what == "segmentation":
            raise DataError(
                f"{sample.key}: the sample has no segmentation. The source folder reads label maps once it knows their "
                "classes (--data.options.class_names FILE or --data.options.num_classes N)."
            )
        extract = (
            " For RGB-only data: predict depth with scripts/extract_depth.py, then pass --data.options.depth FOLDER."
        )
        raise DataError(
            f"{sample.key}: the sample has no {what}, but the model's configuration requires it; use a source that "
            "provides it, or a method that does not need it (such as --method "
            f"{'videomae' if sample.num_frames > 1 else 'mae'}).{extract if what == 'depth' else ''}"
        )
    return map_


def _draw(sample: RGBDSample) -> Draw:
    draw = sample.meta.get("draw")
    if draw is None:
        raise ConfigError(
            f"{sample.key}: sample.meta['draw'] is missing; read the source through SampleDataset, which sets it"
        )
    return draw


def _draw_hidden(spec: ModalitySpec, samples: Sequence[RGBDSample]) -> torch.Tensor:
    """(B,) bool: the samples whose visible latents of this modality the decoder must not see."""
    draws = [torch.rand((), generator=_draw(sample).generator(sample.key, f"hide:{spec.name}")) for sample in samples]
    return torch.stack(draws) < spec.drop_probability


def _draw_noise(values: torch.Tensor, spec: ModalitySpec, samples: Sequence[RGBDSample]) -> torch.Tensor:
    """Standard normal noise in the shape of `values`, every sample's from its own generator."""
    draws = [
        torch.randn(row.shape, generator=_draw(sample).generator(sample.key, f"noise:{spec.name}"))
        for row, sample in zip(values, samples, strict=True)
    ]
    return torch.stack(draws)


def _check_classes(sample: RGBDSample, labels: torch.Tensor, classes: int) -> None:
    """Refuse class ids that the model has no logit for, before they become an index error on a device."""
    if labels.dtype == torch.uint8:
        # Without a copy of the labels: a hundredth of the time of what follows, which is needed for the message only.
        values = labels.numpy()
        above = np.count_nonzero(values >= min(classes, IGNORE_INDEX))
        if above == np.count_nonzero(values == IGNORE_INDEX):
            return
    ids = labels[labels != IGNORE_INDEX]
    if ids.numel() == 0 or (int(ids.max()) < classes and int(ids.min()) >= 0):
        return
    values, counts = ids.unique(return_counts=True)
    histogram = ", ".join(f"{value}: {count}" for value, count in zip(values.tolist(), counts.tolist()))
    raise LabelError(
        f"{sample.key}: class ids outside 0 to {classes - 1} (and {IGNORE_INDEX} = ignored); pixels per id: "
        f"{histogram}. Map the labels to the model's classes or set num_labels."
    )

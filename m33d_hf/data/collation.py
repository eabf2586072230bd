"""From transformed samples to the batch that a model takes; what is no forward argument travels under "meta".

Everything random (visible tokens, hidden modalities) is drawn per sample from (seed, epoch, key, view, purpose), so
that a sample looks the same in whatever batch, worker or process it is collated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from m33d_hf.data.randomness import Draw
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.errors import ConfigError, DataError, LabelError
from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
from m33d_hf.modeling.depth_m33d import standardize_depth
from m33d_hf.modeling.masking_m33d import draw_keep, motion_scores
from m33d_hf.modeling.preprocessing_m33d import normalize_rgb

Batch = dict[str, Any]


class Collator:
    """What the collators share: samples dropped in evaluation, sizes, normalisation and "meta".

    ``meta`` holds "keys" (one per row), "indices" (rows of the data set, dropped ones included) and "skipped" (list
    of SkippedFile). A batch whose samples were all dropped holds nothing but ``meta``; an evaluation passes it over.

    Args:
        config: of the model that will take the batches; read once.
        check_size: refuse samples whose height and width are not the configured ones. Switch it off to run a model
            at another resolution; the frame count is always checked.
    """

    def __init__(self, config: M33DConfig, check_size: bool = True) -> None:
        self.config = config
        self.check_size = check_size
        self.specs = {spec.name: spec for spec in config.specs}
        self.num_frames = config.num_frames
        self.size = config.image_height_width
        self.num_labels = int(config.num_labels or 0)

    def __call__(self, samples: Sequence[RGBDSample]) -> Batch:
        """Collate one batch.

        Raises:
            DataError: a sample lacks what the model needs, or has another size; names the key.
            LabelError: labels outside the model's classes.
        """
        kept = [sample for sample in samples if not sample.meta.get("dropped", False)]
        batch: Batch = {}
        if kept:
            for sample in kept:
                self._check_shape(sample)
            batch = self.collate(kept)
        batch["meta"] = {
            "keys": [sample.key for sample in kept],
            "indices": [sample.meta["index"] for sample in samples if "index" in sample.meta],
            "skipped": [file for sample in samples for file in sample.meta.get("skipped", ())],
        }
        return batch

    def collate(self, samples: Sequence[RGBDSample]) -> Batch:
        """Build the forward arguments of at least one sample."""
        raise TypeError(f"{type(self).__name__} does not say how to collate")

    def pixel_values(self, samples: Sequence[RGBDSample]) -> torch.Tensor:
        """Normalised RGB, (B, 3, H, W) float32, with T after B for clips."""
        spec = self._spec("rgb")
        frames = torch.stack([_needed(sample.rgb, sample, "RGB") for sample in samples])
        return self._flat(normalize_rgb(frames, spec.channel_mean, spec.channel_std))

    def _spec(self, name: str) -> ModalitySpec:
        return self.specs[name] if name in self.specs else self.config.spec(name)

    def _flat(self, frames_BT: torch.Tensor) -> torch.Tensor:
        """Drop the frame axis for image models."""
        return frames_BT[:, 0] if self.num_frames == 1 else frames_BT

    def _check_shape(self, sample: RGBDSample) -> None:
        if sample.num_frames != self.num_frames:
            raise DataError(
                f"{sample.key}: the sample has {sample.num_frames} frames, the model takes {self.num_frames}; "
                "set the data set's num_frames to the model's"
            )
        size = (sample.height, sample.width)
        if self.check_size and size != self.size:
            raise DataError(
                f"{sample.key}: the sample has {size[0]} x {size[1]} pixels, the model takes "
                f"{self.size[0]} x {self.size[1]}; give the transform the model's image_size"
            )


class PretrainingCollator(Collator):
    """Inputs and targets of every modality, the visible tokens ``keep`` and, where asked for, ``hide``.

    The batch: each modality under its input_name ((B, C, H, W), with T after B for clips; float32; RGB normalised,
    depth standardised, 0 where invalid), its validity (bool) under mask_name, ``keep`` name -> (B, V) int64 and,
    when a modality has a drop_probability, ``hide`` name -> (B,) bool.

    A third modality is read from ``sample.meta["modalities"][name]``, (T, C, H, W) float with NaN where invalid.

    Args:
        config: see Collator.
        check_size: see Collator.
        hide: False never hides a modality (evaluation with everything shown).
    """

    def __init__(self, config: M33DConfig, check_size: bool = True, hide: bool = True) -> None:
        super().__init__(config, check_size)
        self.grid = config.grid
        self.hidden = [spec for spec in self.specs.values() if hide and spec.drop_probability > 0]
        self._needs_motion = any(spec.masking == "motion" for spec in config.input_specs)

    def collate(self, samples: Sequence[RGBDSample]) -> Batch:
        """Build the forward arguments; see the class."""
        batch: Batch = {}
        for spec in self.specs.values():
            values, valid = self._modality(spec, samples)
            batch[spec.input_name] = self._flat(values)
            if spec.mask_name is not None:
                batch[spec.mask_name] = self._flat(valid)
        batch["keep"] = self._draw_keep(samples, batch)
        if self.hidden:
            batch["hide"] = {spec.name: _draw_hidden(spec, samples) for spec in self.hidden}
        return batch

    def _modality(
        self, spec: ModalitySpec, samples: Sequence[RGBDSample]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, C, H, W) values and bool validity of one modality."""
        if spec.name == "rgb":
            frames = torch.stack([_needed(sample.rgb, sample, "RGB") for sample in samples])
            values = normalize_rgb(frames, spec.channel_mean, spec.channel_std)
            return values, torch.ones_like(values[:, :, :1], dtype=torch.bool)
        if spec.name == "depth":
            depth = torch.stack([_needed(sample.depth, sample, "depth") for sample in samples])
            config = self.config
            return standardize_depth(depth, config.depth_standardization, config.depth_standardization_scope)
        maps = [
            _needed(sample.meta.get("modalities", {}).get(spec.name), sample, spec.name) for sample in samples
        ]
        values = torch.stack(maps).float()
        valid = torch.isfinite(values).all(dim=2, keepdim=True)
        if spec.channel_mean is not None and spec.channel_std is not None:
            mean, std = (torch.tensor(row).view(-1, 1, 1) for row in (spec.channel_mean, spec.channel_std))
            values = (values - mean) / std
        return values.masked_fill(~valid, 0.0), valid

    def _draw_keep(self, samples: Sequence[RGBDSample], batch: Batch) -> dict[str, torch.Tensor]:
        grid, motion = self.grid, None
        if not self.check_size:
            grid = self.config.grid_for(self.num_frames, samples[0].height, samples[0].width)
        if self._needs_motion:
            motion = motion_scores(batch[self._spec("rgb").input_name], self.config)
        generators = [_draw(sample).generator(sample.key, "mask") for sample in samples]
        return draw_keep(self.config, len(samples), grid=grid, generator=generators, motion=motion)


class SegmentationCollator(Collator):
    """``pixel_values`` and ``labels`` (B, H, W) int64, with the config's ignore index where nothing is labelled."""

    def collate(self, samples: Sequence[RGBDSample]) -> Batch:
        """Build the forward arguments; see the class."""
        ignored = self.config.semantic_loss_ignore_index
        rows = [_needed(sample.segmentation, sample, "a segmentation")[0].long() for sample in samples]
        for sample, row in zip(samples, rows):
            _check_classes(sample, row, self.num_labels)
        labels = torch.stack(rows)
        if ignored != IGNORE_INDEX:
            labels = labels.masked_fill(labels == IGNORE_INDEX, ignored)
        return {"pixel_values": self.pixel_values(samples), "labels": labels}


class DepthCollator(Collator):
    """``pixel_values`` and ``labels`` (B, H, W) float32 metres, NaN where invalid."""

    def collate(self, samples: Sequence[RGBDSample]) -> Batch:
        """Build the forward arguments; see the class."""
        labels = torch.stack([_needed(sample.depth, sample, "depth")[0, 0] for sample in samples])
        return {"pixel_values": self.pixel_values(samples), "labels": labels.float()}


class ClassificationCollator(Collator):
    """``pixel_values`` and ``labels`` (B,) int64."""

    def collate(self, samples: Sequence[RGBDSample]) -> Batch:
        """Build the forward arguments; see the class."""
        classes = self.num_labels
        for sample in samples:
            if sample.label is None:
                raise DataError(f"{sample.key}: the sample has no label; use a source that gives one")
            if not 0 <= sample.label < classes:
                raise LabelError(f"{sample.key}: label {sample.label} is outside the model's {classes} classes")
        return {
            "pixel_values": self.pixel_values(samples),
            "labels": torch.tensor([sample.label for sample in samples], dtype=torch.int64),
        }


def _needed(map_: torch.Tensor | None, sample: RGBDSample, what: str) -> torch.Tensor:
    if map_ is None:
        raise DataError(
            f"{sample.key}: the sample has no {what.removeprefix('a ')}, which the model's configuration asks for; "
            "use a source that yields it, or a method without it"
        )
    return map_


def _draw(sample: RGBDSample) -> Draw:
    draw = sample.meta.get("draw")
    if draw is None:
        raise ConfigError(f"{sample.key}: sample.meta['draw'] is missing; SampleDataset sets it")
    return draw


def _draw_hidden(spec: ModalitySpec, samples: Sequence[RGBDSample]) -> torch.Tensor:
    """(B,) bool: the samples whose visible latents of this modality the decoder must not see."""
    draws = [
        torch.rand((), generator=_draw(sample).generator(sample.key, f"hide:{spec.name}")) for sample in samples
    ]
    return torch.stack(draws) < spec.drop_probability


def _check_classes(sample: RGBDSample, labels: torch.Tensor, classes: int) -> None:
    """Refuse class ids that the model has no logit for, before they become an index error on a device."""
    ids = labels[labels != IGNORE_INDEX]
    if ids.numel() == 0 or (int(ids.max()) < classes and int(ids.min()) >= 0):
        return
    values, counts = ids.unique(return_counts=True)
    histogram = ", ".join(f"{value}: {count}" for value, count in zip(values.tolist(), counts.tolist()))
    raise LabelError(
        f"{sample.key}: class ids outside 0 to {classes - 1} (and {IGNORE_INDEX} = ignored); pixels per id: "
        f"{histogram}. Map the labels to the model's classes or set num_labels."
    )

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What a modality is: one entry of `M33DConfig.modalities`, checked."""

from __future__ import annotations

import functools
import typing
from dataclasses import asdict, dataclass
from typing import Any

from transformers.utils import logging

from .errors_m33d import ConfigError, nearest_name_hint
from .fields_m33d import Range, check_value, shown

logger = logging.get_logger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CHOICES = {
    "role": ("input", "target", "both"),
    "masking": ("random", "tube", "frame", "motion"),
    "target_norm": ("none", "pooled", "per_channel"),
    "target_space": ("input", "unit"),
    "loss": ("mse", "l2", "l1"),
}

MODALITY_RANGES: dict[str, Range] = {
    "channels": Range(low=1, high=4096),
    "mask_ratio": Range(low=0, high=1),
    "target_eps": Range(low=0, high=1e6),
    "weight": Range(low=0, high=1e6),
    "drop_probability": Range(low=0, below=1),
    "denoising_weight": Range(low=0, high=1e6),
    "denoising_std": Range(above=0, high=1e6),
    "channel_mean": Range(low=-1e6, high=1e6),
    "channel_std": Range(above=0, high=1e6),
}


def noise_term(name: str) -> str:
    """Name of the loss term and of the prediction that denoising a modality adds."""
    return f"{name}_noise"


@dataclass(frozen=True)
class ModalitySpec:
    """One modality as data: a third one (thermal, normals, a second view) needs an entry, not code.

    Args:
        name: identifies embeddings, encoder, head and loss term ("rgb", "depth", ...).
        channels: values per pixel.
        input_name: forward argument that carries the pixels.
        mask_name: forward argument that marks valid pixels; None when every pixel counts.
        role: "input" is encoded only, "target" is predicted only, "both" is masked, encoded and predicted.
        masking: "random" keeps ``int(N * (1 - ratio))`` tokens (MAE); "tube" masks ``int(ratio * N_frame)``
            positions of every tubelet slot alike (VideoMAE); "frame" masks whole slots; "motion" shows the tokens
            that move (our reading of the paper's "SurgMAE", docs/method.md#motion-masks).
        mask_ratio: share of masked tokens, 0 to 1 (Table 11). 1 only for role "target", 0 only when nothing of the
            modality is predicted.
        target_norm: per-patch normalisation of the target: "pooled" over all values of a patch (MAE),
            "per_channel" (VideoMAE), "none" (MultiMAE's depth).
        target_eps: added to the variance ("pooled") or to the standard deviation ("per_channel") of a patch.
        target_space: "input" takes the target from the normalised input (MAE), "unit" first undoes the input
            normalisation (VideoMAE).
        loss: "mse", "l1" or the literal "l2" norm of Eq. 1 and 2.
        weight: alpha (RGB) or beta (depth) of Eq. 5 and 7; 0 removes the term and its head.
        normalize_prediction: also normalise the predicted patch, as `target_norm` says (the literal text above
            Eq. 1); MAE does not.
        drop_probability: probability, per sample, that all visible latents are hidden from the decoder.
        target_of: this entry is a second target of that input modality, at the same masked positions (MultiMAE's
            "norm_rgb": RGB once more, with normalised patches). Role "target" only.
        denoising_weight: weight of predicting Gaussian noise that is added to the input, at the visible patches with
            an L2 loss; the targets of the masked ones stay clean. 0 adds no noise and has no head. Not in the paper:
            the authors' follow-up (arXiv 2408.02245, known to us only from a summary).
        denoising_std: standard deviation of that noise in units of the normalised input; what is predicted is the
            noise divided by it, so that predicting nothing costs 1 whatever the value.
        channel_mean, channel_std: the input normalisation; None means that the input comes standardised.
    """

    name: str
    channels: int
    input_name: str
    mask_name: str | None = None
    role: str = "both"
    masking: str = "random"
    mask_ratio: float = 0.8
    target_norm: str = "none"
    target_eps: float = 1e-6
    target_space: str = "input"
    loss: str = "mse"
    weight: float = 1.0
    normalize_prediction: bool = False
    drop_probability: float = 0.0
    target_of: str | None = None
    denoising_weight: float = 0.0
    denoising_std: float = 1.0
    channel_mean: tuple[float, ...] | None = None
    channel_std: tuple[float, ...] | None = None

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> ModalitySpec:
        """Build and check a spec.

        Raises:
            ConfigError: an unknown or missing key, or a value outside its range.
        """
        for key in unknown_keys(entry):
            hint = nearest_name_hint(str(key), modality_types())
            raise ConfigError(f"modality {entry.get('name')!r} has an unknown key {key!r}.{hint}")
        for key in ("name", "channels", "input_name"):
            if key not in entry:
                raise ConfigError(
                    f"modality {entry.get('name')!r} has no {key!r}, which every modality entry requires."
                )
        check_entry(entry)
        values = dict(entry)
        for key in ("channel_mean", "channel_std"):
            if values.get(key) is not None:
                values[key] = tuple(float(v) for v in values[key])
        spec = cls(**values)
        spec._check()
        return spec

    def _check(self) -> None:
        where = f"modality {self.name!r}"
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise ConfigError(
                    f"{where}: {key} is {value!r}; it must be one of {', '.join(allowed)}."
                    f"{nearest_name_hint(str(value), allowed)}"
                )
        self._check_denoising(where)
        if self.role == "target" and self.mask_ratio != 1.0:
            raise ConfigError(
                f"{where}: role 'target' is never encoded, so mask_ratio must be 1, not {self.mask_ratio}."
            )
        if self.target_of is not None and (self.role != "target" or self.target_of == self.name):
            raise ConfigError(
                f"{where}: target_of {self.target_of!r} requires role 'target'; set its role to 'target', or "
                "target_of to None."
            )
        if self.role != "target" and self.mask_ratio == 1.0:
            raise ConfigError(
                f"{where}: mask_ratio 1 leaves this input modality without tokens; reduce it or set role to 'target'."
            )
        if self.is_target and self.normalize_prediction and self.target_norm == "none":
            raise ConfigError(
                f"{where}: normalize_prediction with target_norm 'none' would compare a normalised prediction with "
                "an unnormalised target; set target_norm to 'pooled' or 'per_channel', or normalize_prediction to "
                "False."
            )
        if self.is_target and self.mask_ratio == 0.0:
            raise ConfigError(
                f"{where}: mask_ratio 0 leaves nothing to reconstruct; set weight to 0 (stage 1) or mask_ratio above 0."
            )
        for key in ("channel_mean", "channel_std"):
            value = getattr(self, key)
            if value is not None and len(value) != self.channels:
                raise ConfigError(
                    f"{where}: {key} has {len(value)} values, but the modality has {self.channels} channels."
                )
        if (self.channel_mean is None) != (self.channel_std is None):
            raise ConfigError(f"{where}: set both channel_mean and channel_std, or neither.")

    def _check_denoising(self, where: str) -> None:
        if self.denoising_weight > 0 and self.role == "target":
            raise ConfigError(
                f"{where}: role 'target' has no input, so it cannot be denoised; set denoising_weight to 0."
            )

    @property
    def is_input(self) -> bool:
        """Whether the modality is encoded."""
        return self.role in ("input", "both")

    @property
    def source_name(self) -> str:
        """The modality whose pixels and positions this one has: itself, or `target_of`."""
        return self.target_of or self.name

    @property
    def is_denoised(self) -> bool:
        """Whether noise is added to the input and predicted."""
        return self.denoising_weight > 0

    @property
    def is_target(self) -> bool:
        """Whether the modality is reconstructed."""
        return self.role in ("target", "both") and self.weight > 0

    def to_dict(self) -> dict[str, Any]:
        """Return a dict with every field."""
        return asdict(self)


@functools.cache
def modality_types() -> dict[str, Any]:
    """Field -> type of a modality entry."""
    return typing.get_type_hints(ModalitySpec)


def unknown_keys(entry: dict[str, Any]) -> list[str]:
    """The keys of an entry of `M33DConfig.modalities` that are no fields."""
    return [key for key in entry if key not in modality_types()]


def later_fields(entries: list[dict[str, Any]], version: str | None) -> frozenset[str]:
    """Unknown keys of the entries of a saved configuration: told, and to be kept like unknown fields beside them.

    Args:
        entries: of `M33DConfig.modalities`.
        version: of transformers, that saved them; None where no file was read, whose unknown keys are mistakes.
    """
    if version is None:
        return frozenset()
    for entry in entries:
        for key in unknown_keys(entry):
            logger.warning(
                "modality %r has an unknown key %r.%s It is kept as it is and has no effect: a later version may have"
                " written the file (it was saved with transformers %s).",
                entry.get("name"), key, nearest_name_hint(str(key), modality_types()), version,
            )  # fmt: skip
    return frozenset(key for entry in entries for key in unknown_keys(entry))


def check_entry(entry: dict[str, Any]) -> None:
    """Check types and ranges of the known fields of an entry of `M33DConfig.modalities`, each by itself.

    Raises:
        ConfigError: with the modality, the field and what it may hold.
    """
    where = f"modality {shown(entry.get('name'))}"
    for key, hint in modality_types().items():
        if key in entry:
            check_value(f"{where}: {key}", entry[key], hint, MODALITY_RANGES.get(key))


def rgb_modality(**overrides: Any) -> dict[str, Any]:
    """The paper's RGB entry for images: random .8, MAE target, alpha .1 (Tables 11 and 12); override any field."""
    entry: dict[str, Any] = {
        "name": "rgb",
        "channels": 3,
        "input_name": "pixel_values",
        "mask_ratio": 0.8,
        "target_norm": "pooled",
        "loss": "mse",
        "weight": 0.1,
        "channel_mean": IMAGENET_MEAN,
        "channel_std": IMAGENET_STD,
    }
    return entry | overrides


def depth_modality(**overrides: Any) -> dict[str, Any]:
    """The paper's depth entry for images: random .8, L1 on standardised depth, beta 1 (Tables 11 and 12)."""
    entry: dict[str, Any] = {
        "name": "depth",
        "channels": 1,
        "input_name": "depth_values",
        "mask_name": "depth_mask",
        "mask_ratio": 0.8,
        "target_norm": "none",
        "loss": "l1",
        "weight": 1.0,
    }
    return entry | overrides


# Specs are read many times a step, so each distinct list of entries is checked once. A plain dictionary, because
# torch.compile looks through functools' caches into `from_dict`, which it cannot trace.
_KNOWN_SPECS: dict[tuple[tuple[tuple[str, Any], ...], ...], tuple[ModalitySpec, ...]] = {}


def specs_of(entries: tuple[tuple[tuple[str, Any], ...], ...]) -> tuple[ModalitySpec, ...]:
    """The checked specs of the (key, value) pairs of entries."""
    if entries not in _KNOWN_SPECS:
        _KNOWN_SPECS[entries] = tuple(ModalitySpec.from_dict(dict(entry)) for entry in entries)
    return _KNOWN_SPECS[entries]

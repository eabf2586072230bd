# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the processors: checks of names and values, and the meaning of stored depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError

from .clip_sampling_m33d import CLIP_SAMPLINGS
from .depth_m33d import STANDARDIZATION_MODES, STANDARDIZATION_SCOPES
from .depth_spec_m33d import DepthSpec, choice
from .errors_m33d import ConfigError, nearest_name_hint

# Entries of saved transformers processors that are not options.
_SERVICE = frozenset(
    (
        "auto_map", "processor_class", "_processor_class", "image_processor_type", "video_processor_type",
        "feature_extractor_type", "_auto_class", "_valid_processor_keys", "_valid_kwargs_names", "_name_or_path",
        "_commit_hash",
    )
)  # fmt: skip
_REAL = ("image_mean", "image_std", "rescale_factor", "min_depth", "max_depth")  # the library refuses integers
_CHOICES: Mapping[str, Sequence[str]] = {
    "depth_standardization": STANDARDIZATION_MODES,
    "depth_standardization_scope": STANDARDIZATION_SCOPES,
    "clip_sampling": CLIP_SAMPLINGS,
}


def refuse_unknown_options(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse unknown option names; transformers would drop a misspelt option, or keep it unused.

    Raises:
        ConfigError: with the nearest name.
    """
    names = sorted(known)
    for name in given:
        if name not in names and name not in _SERVICE:
            raise ConfigError(f"{what} has no option {name!r}.{nearest_name_hint(name, names)}")


def refuse_other_processor(saved: Mapping[str, Any], own: str) -> None:
    """Refuse the saved options of our processor of the other kind: some are unknown here, others mean another geometry.

    transformers reads an image processor's file for a video processor where the folder has no other. Files of other
    projects pass: VideoMAE's clips, for one, are described by an image processor's.

    Args:
        saved: entries of the file.
        own: "image" or "video", what is to be built.

    Raises:
        ConfigError: with the class that loads the file.
    """
    other = "video" if own == "image" else "image"
    name = str(saved.get(f"{other}_processor_type"))
    if name.startswith("M33D") and not saved.get(f"{own}_processor_type"):
        article = {"image": "an image", "video": "a video"}
        raise ConfigError(
            f"this is the file of {article[other]} processor ({name}), not of {article[own]} processor; load it with "
            f"Auto{other.title()}Processor, or build the processor of the model with "
            f"M33D{own.title()}Processor.from_model_config."
        )


def checked_types(schema: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call with their types checked, and integers turned into floats where floats are meant.

    Raises:
        ConfigError: a value of another type.
    """
    options = {name: _floats(value) if name in _REAL else value for name, value in given.items()}
    try:
        validate_typed_dict(schema, {name: value for name, value in options.items() if name != "video_metadata"})
        return options
    except StrictDataclassError as error:
        raise ConfigError(f"{' '.join(str(error).split()):.400}") from error


def _floats(value: Any) -> Any:
    """Numbers, also in a list or array, as floats; anything else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(_floats(each) for each in value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_values(options: Mapping[str, Any]) -> None:
    """Check values beyond their type: mean, standard deviation and choices.

    Raises:
        ConfigError: a mean or deviation that is not finite, a deviation of 0 or less, an unknown choice, a filter name
            (which PIL's backend would treat as bilinear, whatever it is).
    """
    for name in ("image_mean", "image_std"):
        value = options.get(name)
        if value is None:
            continue
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
            raise ConfigError(f"{name} is {value!r}; it must be one finite number, or one per channel")
        if name == "image_std" and (numbers <= 0).any():
            raise ConfigError(f"image_std is {value!r}; pixels are divided by it, so it must be above 0")
    if isinstance(options.get("resample"), str):
        raise ConfigError(f"resample is {options['resample']!r}; it must be PIL's number: bilinear 2, bicubic 3")
    for name, words in _CHOICES.items():
        if options.get(name) is not None:
            choice(options[name], words, name)


def per_channel(value: float | Sequence[float], name: str, channels: int = 3) -> tuple[float, ...]:
    """A mean or deviation as one number per channel; a single one holds for all, as in transformers.

    Raises:
        ConfigError: a wrong number of values.
    """
    numbers = tuple(float(number) for number in np.atleast_1d(np.asarray(value, dtype=np.float64)))
    if len(numbers) not in (1, channels):
        raise ConfigError(
            f"{name} has {len(numbers)} numbers; it must have one, or one for each of {channels} channels"
        )
    return numbers * channels if len(numbers) == 1 else numbers


def settled_depth(spec: Mapping[str, Any] | DepthSpec | None, unit: str | None) -> tuple[dict[str, Any] | None, Any]:
    """(the complete DepthSpec for JSON, its unit) from a spec, a unit, both, or neither.

    Raises:
        ConfigError: not a DepthSpec, or a unit that contradicts the spec.
    """
    if spec is None:
        found = None if unit is None else DepthSpec(unit=unit)
    else:
        found = spec_of(spec)
        if unit is not None and unit != found.unit and DepthSpec(unit=unit).unit != found.unit:
            raise ConfigError(f"depth_unit is {unit!r}, but depth_spec has {found.unit!r}; pass only one of them")
    return (None, None) if found is None else (found.to_dict(), found.unit)


def spec_of(spec: Mapping[str, Any] | DepthSpec) -> DepthSpec:
    """A `DepthSpec` from itself or from its `to_dict`.

    Raises:
        ConfigError: neither.
    """
    if isinstance(spec, DepthSpec):
        return spec
    if not isinstance(spec, Mapping):
        raise ConfigError(f"depth_spec must be a DepthSpec or its to_dict(), not {type(spec).__name__} {spec!r:.80}")
    return DepthSpec.from_dict(spec)


def overriding_depth(given: Mapping[str, Any], own: Mapping[str, Any] | DepthSpec | None) -> dict[str, Any]:
    """The options of a call, or of loading, with depth_spec and depth_unit resolved against the processor's own spec.

    A unit alone replaces the unit of `own` and keeps the rest of it; a spec replaces it whole.
    """
    options = dict(given)
    if options.get("depth_spec") is not None:
        options["depth_spec"], _ = settled_depth(options["depth_spec"], options.get("depth_unit"))
    elif options.get("depth_unit") is not None and own is not None:
        options["depth_spec"] = spec_of(own).with_changes(unit=options["depth_unit"]).to_dict()
    elif "depth_unit" not in options:
        return options
    if options.get("depth_spec") is not None:
        options["depth_unit"] = None  # part of the spec; the processor's own unit must not contradict it
    return options

"""Options of the sources: types from the annotations of their constructors, ranges by name, checked before any reading.

A source declares the type of an option in its constructor, `every: int = 1`; an `Annotated` type may contain a `Range`.
An option of one name means the same in every source, so their common ranges are defined here.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.depth_spec_m33d import DEPTH_SCALE
from m33d_hf.modeling.fields_m33d import Range, check_value, name_problem

_COUNT = Range(low=1, high=10**9)
_METRES = Range(low=0, high=1e9)
_RENDERED = Range(low=1, high=10**7)
RANGES: Mapping[str, Range] = {
    "every": _COUNT,
    "min_frames": _COUNT,
    "num_frames": _RENDERED,
    "num_clips": _RENDERED,
    "num_videos": _RENDERED,
    "clip_length": Range(low=1, high=10_000),
    "clip_span": Range(low=1, high=10**6),
    "clip_stride": Range(low=1, high=10**6),
    "windows": Range(low=1, high=10**6),
    "num_classes": Range(low=1, high=255),
    "label_offset": Range(low=-(2**31) + 1, high=2**31 - 1),
    "label_start": Range(low=0, high=1),
    "fps": Range(above=0, high=1e6),
    "label_fps": Range(above=0, high=1e6),
    "depth_scale": DEPTH_SCALE,
    "min_depth": _METRES,
    "max_depth": _METRES,
    "max_difference": Range(low=0, high=1e6),
    "length_tolerance": Range(low=0, high=1e9),
    "split_fractions": Range(low=0, high=1),
    "max_unknown": Range(low=0, high=1),
    "first_number": Range(low=0, high=10**9),
    "split_index": Range(low=1, high=3),
    "validation_fraction": Range(above=0, below=1),
    "seed": Range(low=-(2**63), high=2**63 - 1),
    "image_size": Range(low=1, high=4096, length=2),
}
_LOOSE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@functools.cache
def option_types(source: type) -> dict[str, Any]:
    """Option -> type, as the constructor of the source annotates it."""
    hints = typing.get_type_hints(source.__init__, include_extras=True)  # type: ignore[misc]
    return {name: hints.get(name, Any) for name in inspect.signature(source).parameters}


def check_constructor(key: str, source: type) -> None:
    """Refuse a source whose options could not be checked; `key` begins the message.

    Raises:
        ConfigError: an option without its own name or annotation, or an annotation that cannot be used.
    """
    parameters = inspect.signature(source).parameters.values()
    if loose := [str(parameter) for parameter in parameters if parameter.kind in _LOOSE]:
        raise ConfigError(f"{key}: its constructor takes {', '.join(loose)}; name and annotate every option.")
    bare = [parameter.name for parameter in parameters if parameter.annotation is inspect.Parameter.empty]
    if bare:
        raise ConfigError(
            f"{key}: its constructor does not annotate {', '.join(bare)}; options are checked by their types, such as "
            "root: str | Path."
        )
    try:
        option_types(source)
    except NameError as error:
        raise ConfigError(f"{key}: an annotation of its constructor cannot be resolved: {error}.") from error


def check_options(name: str, source: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their values as the source's annotations say (a whole number becomes a float).

    Args:
        name: of the source, for messages.
        source: its class.
        options: by name.

    Raises:
        ConfigError: an option that the source does not have (with the nearest it has), or one of another type or out
            of its range.
    """
    types = option_types(source)
    checked = {}
    for option, value in options.items():
        if option not in types:
            raise ConfigError(
                f"source {name!r} has no option {option!r}; its options are "
                f"{', '.join(types)}.{nearest_name_hint(str(option), types)}"
            )
        # The run fills it in, and whoever reads the message may never have typed it.
        set_by = " (data.train_split, data.eval_split)" if option == "split" else ""
        checked[option] = check_option(f"source {name!r}: {option}{set_by}", option, value, types[option])
    return checked


def check_option(key: str, option: str, value: Any, hint: Any) -> Any:
    """One value as the type `hint`, within the range that goes with the option's name or its `Annotated` type.

    Raises:
        ConfigError: a wrong type, out of range, or text that cannot name a file; `key` begins the message.
    """
    own = next((extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Range)), RANGES.get(option))
    result = check_value(key, value, hint, own)
    if isinstance(result, str | PurePath) and (problem := name_problem(result)) is not None:
        raise ConfigError(f"{key} {problem}.")
    return result

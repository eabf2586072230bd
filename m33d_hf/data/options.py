"""Options as dataclasses: every field has a help sentence and a range, used for checks, messages and help.

The sections of a recipe are such classes; those that belong to the data live here in `data`, where they are used.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.fields_m33d import Range, check_value


def option(default: Any, help: str, **bounds: Any) -> Any:
    """A dataclass field with its documentation; mutable defaults are copied per instance.

    Args:
        default: of the field.
        help: its help sentence, without the range, which `--help` adds.
        bounds: arguments of `Range`; every field that holds numbers has some.
    """
    metadata: dict[str, Any] = {"help": help} | ({"range": Range(**bounds)} if bounds else {})
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_section(options: Any, section: str) -> None:
    """Check every field of a dataclass of options against its type and range.

    Raises:
        ConfigError: names the first invalid field, as "section.field".
    """
    section_class: type = type(options)
    hints = types_of(section_class)
    for field in dataclasses.fields(options):
        key, value, hint = f"{section}.{field.name}", getattr(options, field.name), hints[field.name]
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            words = typing.get_args(hint)
            raise ConfigError(
                f"{key} is {value!r}; it must be one of {', '.join(words)}.{nearest_name_hint(str(value), words)}"
            )
        check_value(key, value, hint, field.metadata.get("range"))


@functools.cache
def types_of(options: type) -> dict[str, Any]:
    """Field -> type of a dataclass of options."""
    return typing.get_type_hints(options)


def choose(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not one of `known`."""
    if value not in known:
        hint = nearest_name_hint(str(value), known)
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}.{hint}")

"""Options as dataclasses: every field has a help sentence and a range, used for checks, messages and help.

The sections of a recipe are such classes; those that belong to the data live here in `data`, where they are used.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Sequence
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.fields_m33d import Range, check_value

_ENTRY = re.compile(r" {4}(\w+(?:,\s*\w+)*):\s*(.*)")  # of the section Args of a docstring


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


def argument_sentences(docstring: str | None) -> dict[str, str]:
    """Name -> sentence of the section `Args:` of a docstring, or of its `Attributes:` where it has no such section.

    An entry may describe several names, "min_depth, max_depth: range in metres", or several entries follow each other
    in one line; the sentence counts for each name.
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    heads = [number for number, line in enumerate(lines) if line in ("Args:", "Attributes:")]
    sentences: dict[str, str] = {}
    names: list[str] = []
    for line in lines[min(heads) + 1 :] if heads else []:
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            names = re.split(r",\s*", entry[1])
            sentences.update(dict.fromkeys(names, entry[2]))
        elif line.strip():
            sentences.update({name: f"{sentences[name]} {line.strip()}".strip() for name in names})
    return sentences


def for_people(sentence: str) -> str:
    """A sentence of a docstring as the command line would say it: null for None, no marks of code."""
    return re.sub(r"\bNone\b", "null", sentence.replace("`", ""))


@functools.cache
def types_of(options: type) -> dict[str, Any]:
    """Field -> type of a dataclass of options."""
    return typing.get_type_hints(options)


def choose(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not one of `known`."""
    if value not in known:
        hint = nearest_name_hint(str(value), known)
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}.{hint}")

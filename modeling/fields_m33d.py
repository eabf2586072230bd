# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What a field may hold: types and ranges, checked and worded at one place for recipes, configurations and options."""

from __future__ import annotations

import collections.abc as abc
import math
import numbers
import os
import types
import typing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from .errors_m33d import ConfigError

_LISTS = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_LONGEST = 60
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of every number of a list or mapping; NaN and infinities are always outside.

    Args:
        low, high: least and largest value.
        above, below: bounds that are outside themselves.
        length: how many numbers a list must have; None for `fewest` to `most`.
        ordered: the numbers of a list must not descend.
        odd: even numbers are outside.
        fewest, most: how many numbers a list may have; no bound above where `most` is None.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None
    ordered: bool = False
    odd: bool = False
    fewest: int = 1
    most: int | None = None

    def words(self) -> str:
        """The range as messages and `--help` say it: "above 0 and at most 1", "two ascending numbers, each ..."."""
        given = {"above": self.above, "at least": self.low, "below": self.below, "at most": self.high}
        parts = [f"{word} {shown(bound)}" for word, bound in given.items() if bound is not None]
        bounds = " and ".join(parts) or "finite"
        if self.odd:
            bounds = f"odd, {bounds}"
        if self.length is None:
            return bounds
        order = "ascending " if self.ordered else ""
        return f"{_COUNTS.get(self.length, self.length)} {order}numbers, each {bounds}"

    def problem(self, value: Any) -> str | None:
        """What is wrong with a number or with those of a list or mapping, as "is 5; it must be ..."; None: nothing."""
        if isinstance(value, abc.Mapping):
            wrong = next((key for key, entry in value.items() if self.problem(entry) is not None), None)
            if wrong is None:
                return None
            return f"has {shown(value[wrong])} for {shown(wrong)}; each must be {self.words()}"
        alone = not isinstance(value, list | tuple)
        entries = [value] if alone else list(value)
        if self.most is not None and len(entries) > self.most:
            return f"has {len(entries)} entries; it may have at most {self.most}"
        fits = len(entries) >= self.fewest and all(self._holds(entry) for entry in entries)
        # A field of "one number or a list" takes one number whatever the length of its list.
        fits = fits and (alone or self.length in (None, len(entries)))
        if fits and self.ordered:
            fits = all(first <= second for first, second in pairwise(entries))
        return None if fits else f"is {shown(value)}; it must be {self.words()}"

    def _holds(self, value: Any) -> bool:
        if not is_number(value) or not _is_finite(value) or (self.odd and value % 2 != 1):
            return False
        enough = (self.low is None or value >= self.low) and (self.above is None or value > self.above)
        return enough and (self.high is None or value <= self.high) and (self.below is None or value < self.below)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def shown(value: Any, longest: int = _LONGEST) -> str:
    """A value for a message: numbers without trailing zeros, everything else as Python writes it, cut when long."""
    if isinstance(value, float) and math.isfinite(value) and value == round(value, 6) and abs(value) < 1e15:
        return str(int(value)) if value == int(value) else f"{value:g}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no numbers of more than 4300 digits
        whole = isinstance(value, int)
        text = f"a number of {value.bit_length()} bits" if whole else f"a {type(value).__name__} too long to show"
    return text if len(text) <= longest else f"{text[:longest]}..."


def name_problem(text: Any) -> str | None:
    """Why a text or path can name no file: "contains a null character", "is too long for a name"; None where it can.

    Text fields name folders, files, patterns, models and choices: what no file system takes is a slip in all of them.
    """
    text = str(text)
    if "\0" in text:
        return "contains a null character"
    try:
        longest = max((len(os.fsencode(part)) for part in text.split("/")), default=0)
    except UnicodeEncodeError:
        return f"is {shown(text)}, which is not valid Unicode (an unpaired surrogate)"
    return f"is {shown(text)}, which is too long for a name" if longest > 255 or len(text) > 4000 else None


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; what `Annotated` adds is left out."""
    if typing.get_origin(hint) is typing.Annotated:
        return options_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(option for member in typing.get_args(hint) for option in options_of(member))
    return (types.NoneType,) if hint is None else (hint,)


def takes_text(hint: Any) -> bool:
    """Whether a field may hold text: str, a path, or words to choose from."""
    for option in options_of(hint):
        if option is str or (isinstance(option, type) and issubclass(option, PurePath)):
            return True
        if typing.get_origin(option) is typing.Literal and any(isinstance(v, str) for v in typing.get_args(option)):
            return True
    return False


def takes_several(hint: Any) -> bool:
    """Whether a field may hold a list or a mapping."""
    return any(_container(option) in (*_LISTS, *_MAPPINGS) for option in options_of(hint))


def item_type(hint: Any) -> Any:
    """Type of the entries where a field may hold a list; Any where nothing is said of them."""
    for option in options_of(hint):
        if _container(option) in _LISTS:
            return (typing.get_args(option) or (Any,))[0]
    return Any


def _container(hint: Any) -> Any:
    return typing.get_origin(hint) or hint


def fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value is of the type `hint`, and the value as that type (an integer becomes a float).

    Understands int, float (finite), bool, str, paths, None, Any, Literal, unions, Annotated, and lists and mappings
    by whatever name, with what is in them. A list stays one where a tuple is asked for: files know no tuples. Keys
    that JSON has turned into text become the integers again that the type asks for.
    """
    if hint is Any or hint is object:
        return True, value
    options = options_of(hint)
    if options != (hint,):
        matches = (fit(value, option) for option in options)
        return next((match for match in matches if match[0]), (False, value))
    container = _container(hint)
    if container in _LISTS:
        return _fit_list(value, hint)
    if container in _MAPPINGS:
        return _fit_mapping(value, hint)
    return _fit_plain(value, hint)


def _fit_plain(value: Any, hint: Any) -> tuple[bool, Any]:
    if typing.get_origin(hint) is typing.Literal:
        return any(type(known) is type(value) and known == value for known in typing.get_args(hint)), value
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool), value
    if hint is float:
        fits = is_number(value) and _is_finite(value)
        return fits, float(value) if fits else value
    if isinstance(hint, type) and issubclass(hint, PurePath):
        return isinstance(value, str | PurePath), value
    return isinstance(hint, type) and isinstance(value, hint), value


def _fit_list(value: Any, hint: Any) -> tuple[bool, Any]:
    if isinstance(value, str | bytes | abc.Mapping) or not isinstance(value, abc.Iterable):
        return False, value
    items = typing.get_args(hint)
    if not isinstance(value, list | tuple | set | frozenset):
        return True, value  # something of a program's own, read once: looking would use it up
    if typing.get_origin(hint) is tuple and items and items[-1] is not Ellipsis and len(items) != len(value):
        return False, value
    found = [fit(entry, items[0] if items else Any) for entry in value]
    return all(fits for fits, _ in found), [entry for _, entry in found]


def _fit_mapping(value: Any, hint: Any) -> tuple[bool, Any]:
    if not isinstance(value, abc.Mapping):
        return False, value
    key_type, entry_type = typing.get_args(hint) or (Any, Any)
    result, fits = {}, True
    for key, entry in value.items():
        if key_type is int and isinstance(key, str) and key.lstrip("-").isdecimal() and len(key) < 20:
            key = int(key)
        key_fits, key = fit(key, key_type)
        entry_fits, result[key] = fit(entry, entry_type)
        fits = fits and key_fits and entry_fits
    return fits, result


def check_value(key: str, value: Any, hint: Any, allowed: Range | None = None) -> Any:
    """`value` as the type `hint`, where it is of that type and its numbers are within `allowed`; None has no range.

    Raises:
        ConfigError: another type, or out of range; `key` begins the message.
    """
    fits, result = fit(value, hint)
    if not fits:
        raise ConfigError(f"{key} must be {described(hint)}, not {shown(value)}.{_wrong_entry(value, hint)}")
    problem = None if allowed is None or result is None else allowed.problem(result)
    if problem is not None:
        raise ConfigError(f"{key} {problem}.")
    return result


def _wrong_entry(value: Any, hint: Any) -> str:
    """Which entry of a longer list is of another type, for the end of a message."""
    if not isinstance(value, list | tuple) or len(value) < 2 or not takes_several(hint):
        return ""
    wrong = (number for number, entry in enumerate(value) if not fit(entry, item_type(hint))[0])
    number = next(wrong, None)
    return "" if number is None else f" Its entry {number}, counted from 0, is {shown(value[number])}."


def _is_program_class(option: Any) -> bool:
    plain = (int, float, bool, str, types.NoneType, PurePath, *_LISTS, *_MAPPINGS)
    return isinstance(option, type) and not issubclass(option, plain) and typing.get_origin(option) is None


def described(hint: Any) -> str:
    """A type in words of a user: "one of a, b", "a number or null", "a list whose entries are each text"."""
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    options = options_of(hint)
    if len(options) > 1:
        # What a program alone can hand over is nothing that a user could write.
        options = tuple(option for option in options if not _is_program_class(option)) or options
        return " or ".join(dict.fromkeys(described(option) for option in options))
    option = options[0]
    if typing.get_origin(option) is typing.Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(option))
    if _container(option) in _LISTS:
        items = [item for item in typing.get_args(option) if item is not Ellipsis]
        return "a list" if not items or items[0] is Any else f"a list whose entries are each {described(items[0])}"
    if _container(option) in _MAPPINGS:
        inner = typing.get_args(option)
        if Any in (inner or (Any,)):
            return "a mapping"
        return f"a mapping of {described(inner[0])} to {described(inner[1])}"
    if isinstance(option, type) and issubclass(option, PurePath):
        return "a path"
    return names.get(option, getattr(option, "__name__", str(option)))

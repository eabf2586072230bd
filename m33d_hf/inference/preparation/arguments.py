"""The command line of scripts/prepare_data.py, with the words that the run scripts use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from m33d_hf.data.sources import Source, build_source, source_option_types, source_options
from m33d_hf.data.sources.options import check_option
from m33d_hf.data.sources.roots import name_roots, read_roots
from m33d_hf.errors import ConfigError
from m33d_hf.inference.preparation.options import PreparationOptions
from m33d_hf.training.recipe.command_line import read_overrides, typed
from m33d_hf.training.recipe.parsing import build


def parse_preparation(words: Sequence[str]) -> PreparationOptions:
    """Options from `--key value` words.

    Raises:
        ConfigError: an unknown key, with the nearest name, or a value of another type or out of its range.
    """
    tree = read_overrides(list(words))
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("options"), dict):
        types = source_option_types(str(data.get("source", PreparationOptions().data.source)))
        data["options"] = {
            name: _option(f"data.options.{name}", name, value, types) for name, value in data["options"].items()
        }
    options: PreparationOptions = build(PreparationOptions, tree, "")
    return options


def _option(key: str, name: str, value: Any, types: dict[str, Any]) -> Any:
    hint = types.get(name, Any)
    plain = typed(value, hint, key)
    return plain if hint is Any else check_option(key, name, plain, hint)


def build_prepared_source(options: PreparationOptions) -> Source:
    """The source that `options.data` names; several folders are read one after the other.

    Raises:
        ConfigError: an unknown source or option, or a root for a source that reads no folder. Others as the source.
    """
    data = options.data
    if isinstance(data.root, list):
        return read_roots(name_roots(data.root), data.split, data.options, partial(_build_one, data.source))
    return _build_one(data.source, data.root, data.split, data.options)


def _build_one(source: str, root: str | None, split: str | None, options: Mapping[str, Any]) -> Source:
    """A source of one folder, or of none; raises as `build_prepared_source`."""
    known, given = source_options(source), dict(options)
    if root is not None and "root" not in known:
        raise ConfigError(f"The source {source!r} reads no folder; remove --data.root or set --data.source.")
    for name, value in {"root": root, "split": split}.items():
        if name in known and value is not None and not (name == "split" and value == "all" and known[name] is not None):
            given.setdefault(name, value)
    return build_source(source, **given)

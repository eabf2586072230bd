"""Readers of on-disk formats, found by name. A source is imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from m33d_hf.data.sources.base import Source
from m33d_hf.data.sources.options import check_options, option_types
from m33d_hf.errors import ConfigError, nearest_name_hint

# name -> (module, class)
SOURCES = {
    "rooms": ("m33d_hf.data.sources.rooms", "RoomsSource"),
    "procedures": ("m33d_hf.data.sources.rooms.procedures", "ProceduresSource"),
    "folder": ("m33d_hf.data.sources.frames.folder", "FolderSource"),
    "tum": ("m33d_hf.data.sources.frames.tum", "TumSource"),
    "phases": ("m33d_hf.data.sources.phases.source", "PhasesSource"),
    "ucf101": ("m33d_hf.data.sources.actions.ucf101", "Ucf101Source"),
}

__all__ = ["SOURCES", "Source", "build_source", "source_class", "source_option_types", "source_options"]


def source_class(name: str) -> type:
    """The class of the source called `name`, imported.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in SOURCES:
        raise ConfigError(
            f"no data source is called {name!r}; there are {', '.join(SOURCES)}.{nearest_name_hint(name, SOURCES)}"
        )
    module, attribute = SOURCES[name]
    return getattr(importlib.import_module(module), attribute)


def source_options(name: str) -> dict[str, Any]:
    """Options of a source with their defaults (`inspect.Parameter.empty` = required)."""
    parameters = inspect.signature(source_class(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def source_option_types(name: str) -> dict[str, Any]:
    """Options of a source with their types, as its constructor annotates them.

    Raises:
        ConfigError: unknown source.
    """
    return option_types(source_class(name))


def build_source(name: str, **options: Any) -> Source:
    """Build the source called `name` from its options.

    Raises:
        ConfigError: unknown source or option (with the nearest known name), a value of another type or out of its
            range, or a required option left out.
        DataError: data that cannot be used, as the source says.
    """
    source = source_class(name)
    for option, default in source_options(name).items():
        if default is inspect.Parameter.empty and options.get(option) is None:
            raise ConfigError(f"source {name!r} needs the option {option!r} (--data.{option})")
    return source(**check_options(name, source, options))

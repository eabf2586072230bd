"""Readers of on-disk formats, found by name or by dotted path (`my_pkg.readers:MySource`).

A source is imported when it is needed.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any

from m33d_hf.data.source import Source
from m33d_hf.data.sources.option_help import describe_source
from m33d_hf.data.sources.options import check_constructor, check_options, option_types
from m33d_hf.errors import ConfigError, nearest_name_hint, type_and_text

# name -> (module, class)
SOURCES = {
    "rooms": ("m33d_hf.data.sources.rooms", "RoomsSource"),
    "procedures": ("m33d_hf.data.sources.rooms.procedures", "ProceduresSource"),
    "folder": ("m33d_hf.data.sources.frames.folder", "FolderSource"),
    "tum": ("m33d_hf.data.sources.frames.tum", "TumSource"),
    "scannet": ("m33d_hf.data.sources.scannet.source", "ScanNetSource"),
    "nyuv2": ("m33d_hf.data.sources.nyuv2.source", "NYUv2Source"),
    "sunrgbd": ("m33d_hf.data.sources.sunrgbd.source", "SunRgbdSource"),
    "scenes": ("m33d_hf.data.sources.scenes.source", "ScenesSource"),
    "hub": ("m33d_hf.data.sources.hub.source", "HubSource"),
    "shards": ("m33d_hf.data.sources.shards.source", "ShardsSource"),
    "phases": ("m33d_hf.data.sources.phases.source", "PhasesSource"),
    "ucf101": ("m33d_hf.data.sources.actions.ucf101", "Ucf101Source"),
}

__all__ = [
    "SOURCES",
    "Source",
    "build_source",
    "describe_options",
    "source_class",
    "source_option_types",
    "source_options",
]


def source_class(name: str) -> type[Source]:
    """The class of the source called `name`, or at the dotted path `name`, imported.

    Raises:
        ConfigError: there is no such source (names the nearest), or the path does not lead to a source.
    """
    if ":" in name:
        return _outside_class(name)
    if name not in SOURCES:
        raise ConfigError(
            f"no data source is called {name!r}; known are {', '.join(SOURCES)}, and your own by its dotted path, such "
            f"as my_package.readers:MySource.{nearest_name_hint(name, SOURCES)}"
        )
    module, attribute = SOURCES[name]
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def _outside_class(path: str) -> type[Source]:
    """The source at `MODULE:CLASS`, whose options are known by the annotations of its constructor."""
    module_name, _, attribute = path.partition(":")
    key = f"data.source {path!r}"
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ConfigError(f"{key} is not a dotted path; write MODULE:CLASS, such as my_package.readers:MySource.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise ConfigError(f"{key}: its module imports {missing!r}, which is not installed.") from error
        raise ConfigError(
            f"{key}: there is no module {missing!r}. Install its package, or set PYTHONPATH to the folder that "
            "contains it."
        ) from error
    except Exception as error:
        raise ConfigError(f"{key}: its module cannot be imported: {type_and_text(error)}") from error
    found = vars(module).get(attribute)
    if found is None:
        near = nearest_name_hint(attribute, [name for name, value in vars(module).items() if isinstance(value, type)])
        raise ConfigError(f"{key}: the module {module_name} ({module.__file__}) has no {attribute!r}.{near}")
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise ConfigError(f"{key} is not a source: expected a class that extends m33d_hf.data.sources.Source.")
    if missing_methods := sorted(found.__abstractmethods__):
        raise ConfigError(f"{key} lacks {', '.join(missing_methods)}; see m33d_hf.data.sources.Source.")
    check_constructor(key, found)
    return found


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


def describe_options(name: str) -> list[str]:
    """Lines for `--help`: what a source is, and its options with types, defaults, ranges and meanings.

    Raises:
        ConfigError: unknown source.
    """
    return describe_source(name, source_class(name), source_option_types(name))


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
            flag = "--data.root" if option == "root" else f"--data.options.{option}"
            raise ConfigError(f"source {name!r} requires the option {option!r} ({flag})")
    return source(**check_options(name, source, options))

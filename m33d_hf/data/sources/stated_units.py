"""Units stated by the names of sequences, where one option serves several folders: each gets what matches there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from m33d_hf.data.depth.options import NoSuchSequenceError
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError, DataError

# Builds a source from its options without the entries of some patterns.
Build = Callable[[Collection[str]], Source]

_OPTIONS = ("depth_unit", "depth_scale")


def leave_out(options: Mapping[str, Any], patterns: Collection[str]) -> dict[str, Any]:
    """The options without what is stated of the sequences `patterns`; a mapping of which nothing stays is left out."""
    kept = dict(options)
    for name in _OPTIONS:
        if patterns and isinstance(stated := kept.get(name), Mapping):
            kept[name] = {pattern: value for pattern, value in stated.items() if str(pattern) not in patterns}
            if not kept[name]:
                del kept[name]
    return kept


def build_each(builds: Mapping[str, Build], others: Iterable[Build] = ()) -> dict[str, Source]:
    """Build the source of every folder, each with what matches there.

    Args:
        builds: name of the folder -> how its source is built; at least one.
        others: of folders that the same options serve and that are not read now; built only to settle whether a
            pattern matches there that matches nowhere else.

    Raises:
        ConfigError: a pattern that matches in none of them. Others as the sources.
    """
    sources, unknown = {}, {}
    for name, build in builds.items():
        sources[name], unknown[name] = _built(build)
    nowhere = set.intersection(*(set() if error is None else {*error.unknown} for error in unknown.values()))
    for build in others:
        if nowhere:
            nowhere &= _unmatched(build)
    errors = [error for error in unknown.values() if error is not None]
    if nowhere:
        raise NoSuchSequenceError(
            {pattern: option for pattern, option in errors[0].unknown.items() if pattern in nowhere},
            [
                f"{name}/{known}" if name else known
                for name, error in unknown.items()
                if error
                for known in error.sequences
            ],
        )
    return sources


def _built(build: Build) -> tuple[Source, NoSuchSequenceError | None]:
    """The source, and what its folder said of patterns that match nothing there, which were left out then."""
    try:
        return build(()), None
    except NoSuchSequenceError as error:
        return build(error.unknown), error


def _unmatched(build: Build) -> set[str]:
    """The patterns that match nothing in a folder that is not read now; none where it cannot be told."""
    try:
        build(())
    except NoSuchSequenceError as error:
        return {*error.unknown}
    except (ConfigError, DataError):
        return set()  # whoever reads that folder is told
    return set()

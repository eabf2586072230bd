"""Reads the small JSON files that lie beside data and describe it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

# Far above what any of these files holds; a file of gigabytes is something else.
_MOST_BYTES = 1 << 24


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        OSError: it cannot be read.
        ValueError: not a regular file, too large, not UTF-8, or not a JSON object; with the reason.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is not a regular file")
    if state.st_size > _MOST_BYTES:
        raise ValueError(f"it has {state.st_size:,} bytes; expected only a few lines")
    return parse_json_object(path.read_bytes())


def parse_json_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object that `text` (UTF-8, with or without a byte order mark) holds.

    Raises:
        ValueError: not UTF-8, not JSON, not an object, a key that occurs twice, or nested too deeply.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 text: {error}") from error
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}; expected an object: {{...}}")
    return content


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return content

"""What a command needs twice is made once: settling looks at the data, then the run reads them; splits share a folder.

Only inside of `remembering`: a program that calls this package again expects the files as they are by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

Made = TypeVar("Made")

_made: dict[str, Any] | None = None


@contextmanager
def remembering() -> Iterator[None]:
    """In the block, `remembered` returns what it has returned before."""
    global _made
    before, _made = _made, {}
    try:
        yield
    finally:
        _made = before


def remembered(key: str, make: Callable[[], Made]) -> Made:
    """What `make` returns; in `remembering`, what it returned when it was called for this key first.

    Args:
        key: names all that the result depends on.
        make: called if nothing is remembered; what it raises is not.
    """
    if _made is None:
        return make()
    if key not in _made:
        _made[key] = make()
    return cast(Made, _made[key])


def forget() -> None:
    """Let go of all that is remembered: a run has its data by now, and lists of a million files are large."""
    if _made is not None:
        _made.clear()

"""Checks of the options of the rendered sources; every message begins with the source's name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from m33d_hf.errors import ConfigError, nearest_name_hint

_SMALLEST_SIDE = 16  # pixels; below that chairs and tables are no longer there


def check_choice(option: str, value: str, known: Sequence[str], source: str = "rooms") -> None:
    """Refuse a value that is not among `known`.

    Raises:
        ConfigError: it is not; names the nearest one.
    """
    if value not in known:
        hint = nearest_name_hint(str(value), known)
        raise ConfigError(f"{source}: {option} is {value!r}; it must be one of {', '.join(known)}.{hint}")


def check_int(option: str, value: int, lowest: int | None = None, source: str = "rooms") -> int:
    """Return an integer of at least `lowest`.

    Raises:
        ConfigError: it is none, or too low.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{source}: {option} is {value!r}; give an integer")
    if lowest is not None and value < lowest:
        raise ConfigError(f"{source}: {option} is {value}; it must be at least {lowest}")
    return value


def check_size(image_size: int | Sequence[int], source: str = "rooms") -> tuple[int, int]:
    """Height and width in pixels, at least 16 each, out of one number or two.

    Raises:
        ConfigError: neither, or too small.
    """
    sides = [image_size, image_size] if isinstance(image_size, int) else image_size
    if isinstance(sides, str) or not isinstance(sides, Sequence) or len(sides) != 2:
        raise ConfigError(f"{source}: image_size is {image_size!r}; give one number or [height, width]")
    height, width = (check_int("image_size", side, _SMALLEST_SIDE, source) for side in sides)
    return height, width


def check_device(device: str, source: str = "rooms") -> str:
    """Return the kind of device, "cpu" or "cuda", even if it is missing: reading rendered data does not need it.

    Raises:
        ConfigError: another device.
    """
    kind = str(device).split(":")[0]
    check_choice("device", kind, ("cpu", "cuda"), source)
    return kind


def require_device(kind: str, source: str = "rooms") -> None:
    """Refuse to render on a missing device.

    Raises:
        ConfigError: CUDA without one.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{source}: device is 'cuda' and these rooms are not in the cache yet, but torch finds no CUDA device; use "
            "device='cpu' (--data.options.device cpu)"
        )

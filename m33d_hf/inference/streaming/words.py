"""What a command line says of feeds, in words of the form NAME=VALUE."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from m33d_hf.errors import ConfigError

# What stands before = in an address or a path holds one of :/. before it.
_NAMED = re.compile(r"([\w-]+)=(.+)")


def live_sources(words: Sequence[str]) -> str | dict[str, str]:
    """An address or a file; or {"left": "rtsp://a"} of ["left=rtsp://a"], of several cameras.

    Raises:
        ConfigError: several without a name, or two of one name.
    """
    named = [match for word in words if (match := _NAMED.fullmatch(word)) is not None]
    if not named and len(words) == 1:
        return words[0]
    if len(named) < len(words):
        bare = next(word for word in words if _NAMED.fullmatch(word) is None)
        raise ConfigError(
            f"--follow takes one address, or those of several cameras as NAME=ADDRESS, such as left={bare}; a file "
            "whose name holds = as ./NAME"
        )
    found = {match[1]: match[2] for match in named}
    if len(found) < len(named):
        raise ConfigError(f"--follow: two cameras have one name: {', '.join(match[1] for match in named)}")
    return found


def camera_offsets(words: Sequence[str]) -> dict[str, float] | None:
    """{"right": 2.5} of ["right=2.5"]; None where there are none.

    Raises:
        ConfigError: a word of another form, or a value that is no number.
    """
    found = {}
    for word in words:
        match = _NAMED.fullmatch(word)
        try:
            value = math.nan if match is None else float(match[2])
        except ValueError:
            value = math.nan
        if match is None or not math.isfinite(value):
            raise ConfigError(f"--offsets takes CAMERA=SECONDS, such as right=2.5, not {word!r}")
        found[match[1]] = value
    return found or None


def stream_options(words: list[str]) -> dict[str, str]:
    """{"rtsp_transport": "tcp"} of ["rtsp_transport=tcp"].

    Raises:
        ConfigError: a word of another form.
    """
    for word in words:
        if "=" not in word.strip("="):
            raise ConfigError(f"--stream_options takes NAME=VALUE, such as rtsp_transport=tcp, not {word!r}")
    return dict((name, value) for name, _, value in (word.partition("=") for word in words))

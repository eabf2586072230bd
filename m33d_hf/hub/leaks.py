"""A last look at what is about to be published: nothing in it may name this machine, its user, or a secret."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from m33d_hf.errors import HubError
from m33d_hf.training.recipe.arguments import RunArguments, fields_of
from m33d_hf.weights.known.released import licence_of

_TOKENS = re.compile(rb"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16})\b")
_SHORTEST = 5  # shorter names of hosts and users ("vm", "root") are words of any text
_LONG = 8  # shorter ones occur in the bytes of weights by chance
_PUBLIC = ("recipe", "method", "hub.")
_BYTES = {".safetensors", ".png", ".mp4"}
_PIECE = 1 << 24


def secrets_of(arguments: Mapping[str, Any], *folders: Path) -> set[str]:
    """What must not be found: this machine's names, folders, and the paths that a run was given.

    Args:
        arguments: of the run, as train_config.json has them.
        folders: of the run.
    """
    found = {str(Path.home()), str(Path.cwd()), socket.gethostname(), *(str(path.resolve()) for path in folders)}
    try:
        found.add(getpass.getuser())
    except (OSError, KeyError):
        found.add("")
    found |= {value for name, value in os.environ.items() if name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    flat = {key for key, _, value in fields_of(RunArguments()) if value is None or isinstance(value, str)}
    for key in flat:
        value: Any = arguments
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if (
            isinstance(value, str)
            and ("/" in value or "\\" in value)
            and not key.startswith(_PUBLIC)
            and licence_of(value) is None
        ):
            found.add(value)
    return {word for word in found if len(word) >= _SHORTEST}


def refuse_leaks(folder: Path, secrets: Iterable[str]) -> None:
    """Search every file, weights included.

    Raises:
        HubError: naming the file and what kind of thing it is; a token is not repeated.
    """
    words = [word.encode() for word in secrets]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for piece in _pieces(path):
            if _TOKENS.search(piece):
                raise HubError(f"{path.relative_to(folder)} holds what looks like an access token; nothing was sent.")
            for word in words:
                if word in piece and (len(word) >= _LONG or path.suffix not in _BYTES):
                    raise HubError(
                        f"{path.relative_to(folder)} names {word.decode()!r}, which belongs to this machine or its "
                        "data; nothing was sent. Take it out of the file that it comes from (class names, notes)."
                    )


def _pieces(path: Path) -> Iterable[bytes]:
    """The content in pieces that overlap."""
    last = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield last + piece
            last = piece[-512:]

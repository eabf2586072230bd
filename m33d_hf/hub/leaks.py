"""A last look at what is about to be published: nothing in it may name this machine, its user, or a secret."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Mapping
from functools import cache
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
_PACKAGE = Path(__file__).resolve().parents[1]
_CODE = _PACKAGE / "modeling"


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
    return {_named(told) for told in found if len(told.rstrip("/\\")) >= _SHORTEST}


def refuse_leaks(folder: Path, secrets: Iterable[str]) -> None:
    """Search every file, weights included; in the package's own files for tokens alone.

    Raises:
        HubError: naming the file and what kind of thing it is; a token is not repeated.
    """
    patterns = {word.encode(): _pattern(word) for word in secrets}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        own = _is_own(path)
        for piece in _pieces(path):
            if _TOKENS.search(piece):
                raise HubError(f"{path.relative_to(folder)} holds what looks like an access token; nothing was sent.")
            for word, pattern in () if own else patterns.items():
                told = word in piece and pattern.search(piece) is not None  # the first is a hundred times faster
                if told and (len(word) >= _LONG or path.suffix not in _BYTES):
                    raise HubError(
                        f"{path.relative_to(folder)} names {word.decode()!r}, which belongs to this machine or its "
                        "data; nothing was sent. Take it out of the file that it comes from (class names, notes)."
                    )


def _named(told: str) -> str:
    """Without separators at the end: with them, /data/ would not be found in file:///data.

    `name/` keeps one, which alone tells it from a class of that name.
    """
    bare = told.rstrip("/\\")
    return bare if "/" in bare or "\\" in bare else told[: len(bare) + 1]


def _pattern(word: str) -> re.Pattern[bytes]:
    """How a secret is searched: a path within others, a name as a whole word.

    A folder of one name, such as /data, is none that other paths only end with. A name that this package's own texts
    have as a word ("camera", "student") is nobody's as such; it tells something in a path or an address: between
    separators or at the end, but not as the name of a file (`live/camera.py`). `name/` is a folder at the beginning of
    a path or within it; where this package's own texts have paths that begin so (`train/loss`), within others alone.
    """
    found = re.escape(word.encode())
    if word[-1] in "/\\":
        begun = rb"(?<![\w.~-])" + found
        return re.compile(begun if re.search(begun, _own_texts()) is None else rb"[/\\]" + found)
    if "/" in word or "\\" in word:
        several = len([part for part in re.split(r"[/\\]", word) if part]) > 1
        return re.compile(found if several else rb"(?<![\w.~-])" + found + rb"(?![\w-])")
    whole = rb"(?<![A-Za-z0-9])" + found + rb"(?![A-Za-z0-9])"
    if re.search(whole, _own_texts()) is None:
        return re.compile(whole)
    return re.compile(
        rb"[/\\]" + found + rb"(?!\.?[\w-])|//" + found + rb"(?!\w)|(?<!\w)" + found + rb"@|@" + found + rb"(?!\w)"
    )


@cache
def _own_texts() -> bytes:
    """What this package itself says, in its code and its cards."""
    texts = [path for path in sorted(_PACKAGE.rglob("*")) if path.suffix in (".py", ".md", ".yaml")]
    return b"\n".join(path.read_bytes() for path in texts)


def _is_own(path: Path) -> bool:
    """Whether a file is as this package has it for everybody: its licence, or code that is copied along."""
    if path.name == "LICENSE":
        return True
    own = _PACKAGE / "model_cards" / "endpoint_handler.py" if path.name == "handler.py" else _CODE / path.name
    return path.suffix == ".py" and own.is_file() and own.read_bytes() == path.read_bytes()


def _pieces(path: Path) -> Iterable[bytes]:
    """The content in pieces that overlap."""
    last = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield last + piece
            last = piece[-512:]

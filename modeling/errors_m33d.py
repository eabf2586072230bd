# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The exception tree of m33d-hf. Every message says what happened, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class M33DError(Exception):
    """Base of every error that m33d-hf raises on purpose."""


class ConfigError(M33DError, ValueError):
    """A configuration, recipe or command line that cannot work."""


class DataError(M33DError, ValueError):
    """Data that cannot be used as it is."""


class CorruptFileError(DataError):
    """A file that is missing, truncated or not decodable."""

    def __init__(self, path: object, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type[CorruptFileError], tuple[str, str]]:
        # Loader workers pickle exceptions; the default would call the class with the message alone.
        return (type(self), (self.path, self.reason))


@contextmanager
def decoding(path: object, what: str = "cannot be decoded", cure: str = "") -> Iterator[None]:
    """Whatever a foreign decoder raises in the block becomes a `CorruptFileError` of `path`; our own errors pass.

    No decoder says completely what it raises for damaged input (a tokenizer's error for a header, a MemoryError for a
    size, a RuntimeError for an encrypted archive), and a list of them is a guess. For calls of such decoders alone:
    around logic of ours it would hide mistakes.
    """
    try:
        yield
    except M33DError:
        raise
    except Exception as error:
        words = str(error).strip() or type(error).__name__
        raise CorruptFileError(path, f"{what} ({words}){cure}") from error


def first_line(error: BaseException) -> str:
    """What a foreign exception says, in one line that is never empty, to stand inside a message of ours.

    The first line that is not empty, and the next where the first only announces it; the name of its type where it
    says nothing, as `MemoryError()` and many others. Of a refusal over HTTP what the server said: huggingface_hub
    keeps that apart (`server_message`), and writes "403 Forbidden: None." where a header has no words.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else type(error).__name__
    response = getattr(error, "response", None)
    if response is None:
        return line
    said = " ".join(str(getattr(error, "server_message", None) or "").split())
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if said and said not in line:
        return f"{status}: {said}"
    return status if "Forbidden: None" in line else line


def type_and_text(error: BaseException) -> str:
    """The type of a foreign exception and its whole text, if it has one."""
    words = str(error).strip()
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class MissingSplitError(DataError):
    """A split that a data set does not have; `instead` is one that it has and that serves for evaluation."""

    def __init__(self, message: str, instead: str | None = None) -> None:
        super().__init__(message)
        self.instead = instead


class DepthUnitError(DataError):
    """Depth whose unit is unknown or implausible."""


class LabelError(DataError):
    """Labels outside the declared classes, or of the wrong shape."""


class CheckpointError(M33DError, RuntimeError):
    """A checkpoint that cannot be read or does not fit."""


class ConversionError(CheckpointError):
    """A foreign checkpoint with keys that cannot be explained."""


class ExportError(CheckpointError):
    """A model that cannot go out in the form asked for, or a file written of it that does not agree with it."""


class ResumeError(CheckpointError):
    """A run that cannot be continued from the given checkpoint."""


class WorkerStartError(M33DError, RuntimeError):
    """Reading processes that were started and never began to work."""


class WorkerLostError(M33DError, RuntimeError):
    """A reading process, or another rank, that ended in the middle of its work: killed, or out of memory."""


class DeviceMemoryError(M33DError, RuntimeError):
    """A device that has less memory than a step or an evaluation needs."""


class UnreachableError(M33DError, RuntimeError):
    """A network, or a storage behind it, that does not answer; nothing is known to be wrong with the data."""


class HubError(M33DError, RuntimeError):
    """Something that cannot be published, or that a hub refused or did not take."""


class NonFiniteLossError(M33DError, RuntimeError):
    """The loss or its gradient became NaN or infinite."""


class MissingDependencyError(M33DError, ImportError):
    """An optional package is needed for what was asked."""


def nearest_name_hint(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of `known`, with `prefix` before it, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {prefix + matches[0]!r}?" if matches else ""

"""Where weights come from, step by step, and the licence that they inherit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CorruptFileError, HubError
from m33d_hf.training.run.reporting import CONFIG
from m33d_hf.weights.known.released import licence_of

NON_COMMERCIAL = "cc-by-nc-4.0"
RANDOM = "random initialisation"
_EMBEDDED = {"rooms", "procedures"}  # rendered by this package; nobody's data
_LONGEST = 16


@dataclass
class Lineage:
    """A chain of trainings, newest first, without paths.

    Attributes:
        steps: sentences.
        licence: of released weights at its start, as cards have it; None where none, or not known.
        known: whether the start of the chain is known.
        sources: data that all of it was trained on.
    """

    steps: list[str] = field(default_factory=list)
    licence: str | None = None
    known: bool = False
    sources: set[str] = field(default_factory=set)


def trace(arguments: Mapping[str, Any]) -> Lineage:
    """Follow `init_from` back, from the arguments of a run.

    Args:
        arguments: of the run; empty where nothing is known.
    """
    found = Lineage()
    for _ in range(_LONGEST):
        if not arguments:
            found.steps.append("weights without a record of how they were made")
            return found
        found.steps.append(_describe(arguments))
        found.sources.add(str((arguments.get("data") or {}).get("source")))
        origin = arguments.get("init_from")
        if origin is None:
            found.steps.append(RANDOM)
            found.known = True
            return found
        before = _arguments_behind(str(origin))
        if before is None:
            found.licence = licence_of(str(origin))
            found.known = found.licence is not None
            name = Path(str(origin)).name
            found.steps.append(f"released weights {name}" if found.known else "weights of unknown origin")
            return found
        arguments = before
    return found


def choose_licence(lineage: Lineage, asked: str | None) -> str:
    """The licence for the card.

    Raises:
        HubError: it has to be said and was not, or it is freer than what the weights were started from.
    """
    if lineage.licence == NON_COMMERCIAL and asked not in (None, NON_COMMERCIAL):
        raise HubError(
            f"--license {asked}: these weights were started from {lineage.steps[-1]}, which are {NON_COMMERCIAL}; what "
            "is trained from them is, too. Leave --license out, or train from weights that allow more (WEIGHTS.md)."
        )
    if asked is not None:
        return asked
    if lineage.licence is not None:
        return lineage.licence
    if lineage.known and lineage.sources <= _EMBEDDED:
        return "apache-2.0"
    why = "the licence of your data may bind them" if lineage.known else f"they go back to {lineage.steps[-1]}"
    raise HubError(
        f"The licence of these weights is not known here: {why}. Say it with --license, such as --license apache-2.0 "
        "or --license other (WEIGHTS.md helps)."
    )


def _describe(arguments: Mapping[str, Any]) -> str:
    recipe, method = arguments.get("recipe"), arguments.get("method")
    words = [str(arguments.get("task", "training")).replace("_", " ")]
    words += [f"recipe {recipe}"] if _public(recipe) else []
    words += [f"method {method}"] if _public(method) else []
    data = arguments.get("data") or {}
    words += [f"data {data['source']}"] if _public(data.get("source")) else []
    return ", ".join([*words, f"seed {arguments.get('seed')}"])


def _public(name: object) -> bool:
    """Whether a name is one of the package's own, not a file or module of the user."""
    return isinstance(name, str) and not name.endswith((".yaml", ".yml")) and ":" not in name and name[:1] not in "/.~"


def _arguments_behind(origin: str) -> Mapping[str, Any] | None:
    """Arguments of the run that left weights in a folder; None where there are none."""
    path = Path(origin).expanduser()
    folder = path.parent if path.is_file() else path
    for place in (folder, folder.parent.parent if folder.resolve().parent.name == "checkpoints" else folder):
        if (place / CONFIG).is_file():
            try:
                arguments = read_sealed_json(place / CONFIG).get("args")
            except CorruptFileError as error:
                raise HubError(f"The lineage of the weights cannot be followed: {error}") from error
            return arguments if isinstance(arguments, dict) else None
    return None

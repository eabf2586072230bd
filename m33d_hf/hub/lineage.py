"""The licence that published weights may have, by where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m33d_hf.errors import CorruptFileError, HubError
from m33d_hf.training.settling.lineage import NON_COMMERCIAL, Lineage, lineage_of

_EMBEDDED = {"rooms", "procedures"}  # rendered by this package; nobody's data


def trace(trained: Mapping[str, Any] | None) -> Lineage:
    """Where the weights of a run come from, by its train_config.json; see `lineage_of`.

    Raises:
        HubError: a file on the way is damaged.
    """
    try:
        return lineage_of(trained)
    except CorruptFileError as error:
        raise HubError(f"The lineage of the weights cannot be followed: {error}") from error


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

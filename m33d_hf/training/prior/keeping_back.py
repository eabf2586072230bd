"""Which training frames a trial run leaves out, to judge on them: whole recordings, or stretches of a few.

Never evaluation data: what is chosen on the frames that a run is judged by says nothing about new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m33d_hf.data.loader.subsets import scene_subset
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import DataError

SHARE = 0.2
STRETCHES = 4  # of each of a few recordings
# As the folder reader's own split: with fewer recordings than this, whole ones would be too coarse.
_FEW_RECORDINGS = 5
_FEWEST, _LEAST_PARTS = 4, 3  # frames that are judged on; samples to one of them


class TooFewFramesError(DataError):
    """There are not enough training frames to keep some back."""


@dataclass(frozen=True)
class KeptBack:
    """A division of training samples.

    Attributes:
        trained: positions that a trial run trains on, ascending.
        judged: the others.
        said: what the others are, for a sentence.
    """

    trained: list[int]
    judged: list[int]
    said: str


def keep_back(groups: Sequence[str]) -> KeptBack:
    """Divide samples, about a fifth of them to judge on.

    With five recordings or more, whole ones are taken, in an order drawn from their names; otherwise the end of every
    quarter of each: stretches, as neighbouring frames look alike, and several, as a run's own evaluation data is one
    stretch next to frames that it trains on.

    Args:
        groups: the recording of every sample, in the order of the samples.

    Raises:
        TooFewFramesError: too few samples.
    """
    members: dict[str, list[int]] = {}
    for position, name in enumerate(groups):
        members.setdefault(name, []).append(position)
    if len(members) >= _FEW_RECORDINGS:
        judged = scene_subset(groups, SHARE, seed=0)
        said = f"{len({groups[row] for row in judged})} of {len(members)} recordings"
    else:
        judged = sorted(row for rows in members.values() for row in _ends(rows))
        said = f"{STRETCHES} stretches" + (f" of each of {len(members)} recordings" if len(members) > 1 else "")
    if len(judged) < _FEWEST or len(groups) < _LEAST_PARTS * len(judged):
        raise TooFewFramesError(
            f"{plural(len(groups), 'training sample')} {agree(len(groups), 'is', 'are')} too few to keep "
            f"{_FEWEST} back, on which the share of the mean depth "
            "per position would be chosen."
        )
    taken = set(judged)
    return KeptBack([row for row in range(len(groups)) if row not in taken], judged, said)


def _ends(rows: list[int]) -> list[int]:
    """The last fifth of every quarter, at least one row."""
    borders = [len(rows) * number // STRETCHES for number in range(STRETCHES + 1)]
    length = max(1, round(SHARE * len(rows) / STRETCHES))
    return [row for end in borders[1:] for row in rows[max(0, end - length) : end]]

"""A split in one line: the sequences of the validation split by name, or a share of whole sequences by a seed."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path

from m33d_hf.data.names import composed
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.splits import Sequences, SplitChoice, canonical_split
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint


def split_by_validation(root: Path, sequences: Sequences, wanted: SplitChoice) -> tuple[Sequences, str]:
    """The sequences of a split where the option `validation` says which are held out; the others are for training.

    Args:
        root: for messages.
        sequences: all of them.
        wanted: its `validation` names sequences, folders above them or patterns with `*` (text with commas, or a list),
            or is a share of them, above 0 and below 1: at least one, drawn by `seed`. A sequence is never cut.

    Returns:
        (sequences, one sentence on how they were chosen).

    Raises:
        ConfigError: a second definition of the splits, a name without a sequence, or a split other than train and
            validation.
        DataError: nothing is left for one of the two.
    """
    if wanted.name is None or wanted.name == "all":
        return sequences, "all frames, not split"
    if wanted.listed is not None or wanted.fractions is not None:
        raise ConfigError("give one of validation, split_list and split_fractions")
    name = canonical_split(wanted.name)
    if name == "test":
        raise ConfigError("the option validation defines the splits train and validation; there is no split 'test'")
    held, how = _by_share(sequences, wanted) if _is_share(wanted.validation) else _by_name(sequences, wanted.validation)
    if not held or len(held) == len(sequences):
        empty = "validation" if not held else "train"
        raise DataError(
            f"{root}: the split {empty!r} is empty: {how} of {len(sequences)} sequences ({_some(sequences)}). Name "
            "fewer or other sequences, or use --data.options.split_fractions, which cuts stretches from few sequences."
        )
    kept = {key: frames for key, frames in sequences.items() if (key in held) == (name == "validation")}
    return kept, f"split {name}: {len(kept)} of {plural(len(sequences), 'sequence')}; validation is {how}"


def _is_share(value: object) -> bool:
    """Whether a value is a share; a larger number is the name of a sequence that is called so."""
    return isinstance(value, int | float) and 0 < value < 1


def _by_share(sequences: Sequences, wanted: SplitChoice) -> tuple[set[str], str]:
    share = float(str(wanted.validation))
    order = sorted(sequences, key=lambda key: hashlib.sha256(f"{wanted.seed}:{key}".encode(errors="replace")).digest())
    count = max(1, round(share * len(order)))
    return set(order[:count]), f"{share:.0%} of the sequences, drawn by seed {wanted.seed}"


def _by_name(sequences: Sequences, stated: object) -> tuple[set[str], str]:
    stated = f"{stated:g}" if isinstance(stated, int | float) else stated
    words = stated.split(",") if isinstance(stated, str) else list(stated if isinstance(stated, list | tuple) else ())
    names = [str(word).strip().strip("/") for word in words if str(word).strip()]
    held: set[str] = set()
    for name in names:
        found = {key for key in sequences if _is_named(composed(key), composed(name))}
        if not found:
            raise ConfigError(
                f"validation names {name!r}, but no sequence is called so; there are {_some(sequences)}."
                f"{nearest_name_hint(name, sequences)}"
            )
        held |= found
    return held, ", ".join(names)


def _is_named(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}/") or fnmatchcase(key, name)


def _some(sequences: Sequences) -> str:
    names = list(sequences)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

"""What was decided from a machine as it was at one moment, made the same in all processes of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from m33d_hf.training.processes.launch import Ranks
from m33d_hf.training.recipe.arguments import RunArguments, put_value

# Of the machine that a process is on, and without a part in what is learnt.
_OWN = frozenset({"data.num_workers", "data.keep_decoded_gb"})


def shared(args: RunArguments, decided: Iterable[str], ranks: Ranks) -> RunArguments:
    """The arguments with what the first process decided, as its memory and cores may be others than ours; collective.

    Args:
        args: of this process.
        decided: dotted keys that no layer sets, as in `Settled.decided`.
        ranks: the processes of the run.

    Returns:
        `args` themselves where nothing differs.
    """
    keys = sorted(set(decided) - _OWN)
    mine = {key: _value(args, key) for key in keys}
    first: dict[str, Any] = ranks.gather_objects(mine)[0]
    if first == mine:
        return args
    changed = copy.deepcopy(args)
    for key, value in first.items():
        put_value(changed, key, value)
    return changed


def _value(args: RunArguments, key: str) -> Any:
    section, _, name = key.partition(".")
    return args.model[name] if section == "model" else getattr(getattr(args, section), name)

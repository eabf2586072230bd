"""Names that could be a folder or a repository of the Hub: a mistyped folder is told before the Hub is asked for it."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.errors import CheckpointError, nearest_name_hint

_OF_MODELS = ("config.json", "train_config.json")
_SHOWN = 8


def refuse_missing_folder(name: str) -> None:
    """Refuse a name that does not exist here but can only be meant for this machine.

    "outputs/dpeth" has the form of a repository's id. It is taken for a folder where "outputs" is one that holds models
    or runs; asking the Hub for it would take half a minute without a network, and end in an answer about the network.

    Raises:
        CheckpointError: names what is there instead.
    """
    path = Path(name)
    if "/" not in name or path.exists() or not path.parent.is_dir():
        return
    beside = sorted(each.name for each in path.parent.iterdir() if any((each / file).is_file() for file in _OF_MODELS))
    if beside:
        hint = nearest_name_hint(path.name, beside)
        listed = ", ".join(beside[:_SHOWN]) + (", .." if len(beside) > _SHOWN else "")
        raise CheckpointError(f"{name} does not exist; {path.parent} has {listed}.{hint}")

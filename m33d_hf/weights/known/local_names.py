"""Names that could be a folder or a repository of the Hub: a mistyped folder is told before the Hub is asked for it."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.errors import CheckpointError, nearest_name_hint

_OF_MODELS = ("config.json", "train_config.json")
_OF_RUNS = "outputs"  # the folder of the recipes' output_dir
_SHOWN = 8


def refuse_missing_folder(name: str) -> None:
    """Refuse a name that does not exist here but can only be meant for this machine.

    "outputs/dpeth" has the form of a repository's id. It is taken for a folder where "outputs" is one that holds models
    or runs, or is that of the recipes' runs; asking the Hub for it would take minutes without a network, and end in an
    answer about the network.

    Raises:
        CheckpointError: names what is there instead.
    """
    path = Path(name)
    if "/" not in name or path.exists():
        return
    around = path.parent.iterdir() if path.parent.is_dir() else ()
    beside = sorted(each.name for each in around if any((each / file).is_file() for file in _OF_MODELS))
    if beside:
        hint = nearest_name_hint(path.name, beside)
        listed = ", ".join(beside[:_SHOWN]) + (", .." if len(beside) > _SHOWN else "")
        raise CheckpointError(f"{name} does not exist; {path.parent} has {listed}.{hint}")
    if path.parts[0] == _OF_RUNS:
        raise CheckpointError(
            f"{name} does not exist, and {path.parent} holds no run here. It is where the runs of the recipes write: "
            "start the run that it names first, or type this command in the folder in which that run was started."
        )

"""What an output folder was made with: written when it is begun, and compared when it is continued."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.recorded_inputs import recorded_inputs
from m33d_hf.inference.output_folders.results_of import PLAN_FILE
from m33d_hf.training.processes.guards import LOCK_FILE

_FOLDERS = ("input", "depth")  # rules that are places


def claim_output(output: Path, model: str, rules: Mapping[str, Any], names: Collection[str] = ()) -> None:
    """Write prediction.json, or check that the one that is there states the same rules.

    The folders of the inputs and of their depth (the rules `input` and `depth`) may differ where they were moved: those
    that are stated are gone, and some of the names are recorded. Whether these stand for the same files is for
    `claim_names` to say; of depth, nobody took note.

    Args:
        output: the folder, which exists.
        model: as it was given, for messages.
        rules: what must be alike for two calls to write into one folder; JSON values.
        names: of the inputs.

    Raises:
        ConfigError: another model or other options, naming every difference, or a folder that holds something else.
        CorruptFileError: the file is damaged.
    """
    from m33d_hf import __version__

    path = output / PLAN_FILE
    if not path.is_file():
        foreign = sorted(entry.name for entry in output.iterdir() if not entry.name.startswith((".", LOCK_FILE)))
        if foreign and not path.is_file():  # another rank may have begun the folder since
            raise ConfigError(
                f"--output {output} holds {foreign[0]}, but no {PLAN_FILE}: it was not begun by a prediction. Choose "
                "an empty or a new folder."
            )
        if not foreign:
            write_sealed_json(path, {"made_by": f"m33d-hf {__version__} predict", "model": model, "rules": dict(rules)})
    found = read_sealed_json(path)  # another rank may have been faster
    before = found.get("rules")
    if not isinstance(before, dict):
        raise ConfigError(f"{path} does not say how the predictions beside it were made; choose another --output.")
    differing = [name for name in rules if before.get(name) != rules[name]]
    moved = all(name in _FOLDERS and _is_moved(before.get(name), rules[name]) for name in differing)
    if differing and moved and not recorded_inputs(output).keys().isdisjoint(names):
        return
    if differing:
        listed = "; ".join(f"{name}: {_short(before.get(name))} there, {_short(rules[name])} now" for name in differing)
        raise ConfigError(
            f"{output} holds predictions by {found.get('model')} made in another way ({listed}). Choose another "
            "--output, or repeat the earlier command to continue it."
        )


def _is_moved(before: Any, now: Any) -> bool:
    """Whether a folder, or several (`Roots.rule`), were given then and now, and nothing is left where they were."""
    former = before.values() if isinstance(before, dict) else [before]
    return None not in (before, now) and not any(os.path.lexists(str(root)) for root in former)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..{text[-44:]}"  # paths differ at their ends, as a rule

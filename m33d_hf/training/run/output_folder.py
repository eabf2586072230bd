"""What an output folder already holds: a run may write to it only where nothing of another run would be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.files.markers import FINAL, MARKER
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError, ResumeError
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import CheckpointStore, find_checkpoints
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.reporting import CONFIG
from m33d_hf.training.run.resume import fact_differences

_LISTED = 8


def refuse_used_folder(args: RunArguments) -> None:
    """Refuse an output folder whose checkpoints or model the run would not continue but replace. Writes nothing.

    Raises:
        ConfigError: it holds checkpoints, and the run does not continue from any.
        ResumeError: it holds checkpoints or a model of another run than the one that is resumed.
        CheckpointError: as `find_checkpoints`.
    """
    store, resumed = CheckpointStore(args.output_dir), find_checkpoints(args.resume, args.output_dir)
    if not resumed and store.step_folders():
        raise ConfigError(
            f"{args.output_dir} holds checkpoints of an earlier run, but --resume none starts a new one. Remove the "
            "folder, choose another --output_dir, or continue with --resume auto."
        )
    if not resumed or same_folder(resumed[0].parent, store.folder):
        return
    held = _held(store)
    source = next(_facts_of_checkpoints(resumed), None)
    if held is None or source is None:  # resuming says what is wrong with every checkpoint
        return
    there = next(_facts_of_checkpoints(store.step_folders()[::-1]), None) or _facts_of_config(Path(args.output_dir))
    if there is None:
        listed = ["it does not say which run they are of"]
    else:
        listed = fact_differences(there, source)
    if listed:
        more = [f"and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
        lines = "".join(f"\n  {line}" for line in [*listed[:_LISTED], *more])
        raise ResumeError(
            f"{args.output_dir} holds {held} of another run than --resume {args.resume}, which would replace them."
            f"{lines}\nChoose another --output_dir, remove the folder if nobody needs it, or leave --resume out to "
            "continue the run that is there."
        )


def same_folder(one: Path, other: Path) -> bool:
    """Whether two paths name the same folder, however they are written."""
    return one.resolve() == other.resolve()


def _held(store: CheckpointStore) -> str | None:
    """What a run would lose, in a word; None where there is nothing."""
    best = store.best()
    if store.step_folders() or best is not None:
        return "checkpoints"
    folder = store.folder.parent
    if not folder.is_dir():
        return None
    weights = any(FINAL.fullmatch(path.name) and path.suffix == ".safetensors" for path in folder.iterdir())
    return "model files" if weights or (folder / MARKER).exists() else None


def _facts_of_checkpoints(folders: list[Path]) -> Iterator[Mapping[str, Any]]:
    for folder in folders:
        try:
            state = read_state(folder)
        except CheckpointError:
            continue  # damaged; the one before tells as much
        if isinstance(state.get("args"), dict):
            yield state


def _facts_of_config(folder: Path) -> Mapping[str, Any] | None:
    """Of a folder without step checkpoints: what its run wrote when it began."""
    try:
        found = read_sealed_json(folder / CONFIG)
    except CorruptFileError:
        return None
    return found if isinstance(found.get("args"), dict) else None

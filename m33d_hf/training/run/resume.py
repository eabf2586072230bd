"""Resuming a run: what must be the same, how its state is restored, and which folders are not its to write to."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.data.files.markers import FINAL, MARKER, damage, file_digest, has_digests, listed_digests
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CheckpointError, ConfigError, CorruptFileError, ResumeError
from m33d_hf.training.processes.checkpoint_files import WEIGHTS, read_average, read_optimizer, read_state, read_weights
from m33d_hf.training.processes.checkpoints import CheckpointStore, find_checkpoints
from m33d_hf.training.processes.ema import WeightAverage
from m33d_hf.training.processes.fsdp2 import local
from m33d_hf.training.processes.saved_state import (
    args_are_plain,
    check_average,
    check_files,
    check_finite,
    check_optimizer,
    check_state,
)
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.differences import FREE, free_between_evaluations, recipe_differences
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.run.plan import RunPlan
from m33d_hf.training.run.reporting import CONFIG
from m33d_hf.training.run.stepping import StepEngine
from m33d_hf.training.tasks.class_balance import weights_file

logger = logging.getLogger(__name__)

# Best weights are compared by what evaluations find: a resumed run may be evaluated on other data or by another
# protocol, and a run that was killed before its first checkpoint leaves them to whatever starts in its folder next.
EVAL_DIGEST = "eval_digest"  # of the evaluation data, in the state of every checkpoint
EVAL_ROWS = "eval_rows_digest"  # of those of its samples that data.skip_list leaves, where there is a list
# Before the name of a digest: the same data's as earlier versions stored it. Only read beside the digest itself.
FORMER = "former_"
# Of these the digest of the data knows nothing: which of its samples are used, and files that arguments name. What
# earlier versions wrote lacks them.
BESIDE_THE_DATA = {
    "num_samples": "training samples",
    "rows_digest": "training samples that data.skip_list leaves",
    "class_weights_digest": "content of the file of train.class_weights",
}
# What these change is in the digest of the data: the videos that are used and, where they are learnt, their labels.
_TOLD_BY_THE_DATA = ("data.options.require_annotations", "data.options.annotations")
_LISTED = 8  # differences in one message


def check_resumable(state: Mapping[str, Any], folder: Path, now: Mapping[str, Any]) -> None:
    """Compare a checkpoint's facts (those of `run_facts`) with those of the run that resumes.

    Raises:
        ResumeError: something that decides the result differs; every difference is listed.
    """
    differences = fact_differences(state, now)
    if differences:
        listed = "".join(f"\n  {line}" for line in differences)
        raise ResumeError(
            f"The run cannot be resumed from {folder}: its recipe was different.{listed}\n{_as_before(state, now)}Undo "
            "the changes, or start a new run with another --output_dir (to keep only the weights, pass the checkpoint "
            "as --init_from)."
        )


def _as_before(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How a pre-training on clips of long videos is resumed that an earlier version began; empty for other runs."""
    asked = [_data_of(facts).get("options") or {} for facts in (before, now)]
    clips = _data_of(now).get("source") == "phases" and asked[1].get("unit") != "videos"
    changed = "data_digest" in now and not _agree("data_digest", before, now)
    if not (clips and changed and now["args"].get("task") == PRETRAINING):
        return ""
    if any("require_annotations" in options for options in asked):
        return ""
    return (
        "If you changed nothing: earlier versions read annotations, and left videos without one out of pre-trainings. "
        "Pass --data.options.require_annotations true to go on as they did. Otherwise: "
    )


def _data_of(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    data = facts["args"].get("data")
    return data if isinstance(data, Mapping) else {}


def fact_differences(before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str] = FREE) -> list[str]:
    """Lines "key: before -> now" for everything that decides a run's result, of facts as in `run_facts`; a digest that
    `now` does not have is not compared, and one that either has with `FORMER` counts as well. Options that only choose
    the data may differ where these are the same."""
    if "data_digest" not in now or _agree("data_digest", before, now):
        free = (*free, *_TOLD_BY_THE_DATA)
    found = [
        f"{key}: {before.get(key)} -> {now[key]}"
        for key in ("data_digest", "effective_batch")
        if key in now and not _agree(key, before, now)
    ]
    found += [
        f"{words}: {before[key]} -> {now[key]}"
        for key, words in BESIDE_THE_DATA.items()
        if key in before and key in now and before[key] != now[key]
    ]
    return recipe_differences(before["args"], now["args"], free) + found


def _agree(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    told = [(facts.get(key), facts.get(FORMER + key, facts.get(key))) for facts in (before, now)]
    return any(one == other for one in told[0] for other in told[1])


def evaluation_differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "key: before -> now" for what makes the metrics of two evaluations incomparable; empty where nothing does.

    Args:
        former: state of a checkpoint or of the best weights.
        now: facts of the run, as in `run_facts`, with `EVAL_DIGEST`; without it folders are compared by name.
    """
    if not isinstance(former.get("args"), Mapping) or not args_are_plain(former["args"]):
        return ["its state.json does not say how it was trained"]
    free = free_between_evaluations(now["args"])
    digests = [facts.get(EVAL_DIGEST) for facts in (former, now)]
    if None in digests:  # of an earlier version
        return fact_differences(former, now, free)
    found = fact_differences(former, now, [*free, "data.eval_root"])
    rows = [facts.get(EVAL_ROWS) for facts in (former, now)]
    if None not in rows and rows[0] != rows[1]:
        found.append(f"evaluation samples that data.skip_list leaves: {rows[0]} -> {rows[1]}")
    return found if _agree(EVAL_DIGEST, former, now) else [*found, f"{EVAL_DIGEST}: {digests[0]} -> {digests[1]}"]


def run_facts(
    args: RunArguments, data_digest: str | None, plan: RunPlan, world_size: int, rows: Sequence[int]
) -> dict[str, Any]:
    """What a checkpoint stores about the run that wrote it; without a digest, what does not depend on the data.

    Args:
        args: of the run.
        data_digest: of its training data; None where it is not known yet.
        plan: of the run.
        world_size: its processes.
        rows: of the training data, those that are trained on.

    Raises:
        ConfigError: a file that the arguments name and that cannot be read.
    """
    weights = weights_file(args)
    return {
        "args": args.to_dict(),
        **({} if data_digest is None else {"data_digest": data_digest, "num_samples": plan.num_samples}),
        "effective_batch": plan.effective_batch,
        "world_size": world_size,
        **left_rows("rows_digest", args, rows),
        **({} if weights is None else {"class_weights_digest": _content(weights)}),
    }


def left_rows(key: str, args: RunArguments, rows: Sequence[int]) -> dict[str, str]:
    """A digest of the rows that `data.skip_list` leaves, as `key`; nothing without a list.

    The list itself may change: it names files by where they lie, in any order, also such as are not used.
    """
    if args.data.skip_list is None:
        return {}
    return {key: hashlib.sha256(np.asarray(rows, dtype="<i8").tobytes()).hexdigest()}


def _content(path: str | Path) -> str:
    try:
        return file_digest(Path(path).expanduser())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Restore the file, then start the run.") from error


def compared_facts(facts: Mapping[str, Any], former: str | None) -> dict[str, Any]:
    """`run_facts` to resume by, which those of an earlier version equal, too.

    Args:
        facts: of the run.
        former: the training data's digest as earlier versions stored it; None where it is the same.
    """
    return {**facts, **({} if former is None else {f"{FORMER}data_digest": former})}


def checkpoint_state(facts: Mapping[str, Any], step: int, engine: StepEngine) -> dict[str, Any]:
    """Content of state.json; collective, as every rank adds its part of the running loss means."""
    return {
        "step": step,
        "window_steps": engine.window_steps,
        "windows": engine.ranks.gather_objects(engine.window.tolist()),
        **facts,
    }


@dataclasses.dataclass
class Continued:
    """The checkpoint that a run resumes from.

    Attributes:
        folder: the checkpoint.
        state: its state.json.
        passed_over: newer checkpoints that are damaged, with what is wrong with each.
    """

    folder: Path
    state: dict[str, Any]
    passed_over: dict[Path, str]


def continue_from(
    folders: Sequence[Path], engine: StepEngine, average: WeightAverage | None, facts: Mapping[str, Any]
) -> Continued:
    """Restore the first checkpoint of `folders` that is complete and consistent; all ranks choose the same one.

    A damaged one is skipped with a warning: the steps since the one before are computed again, with the same result.

    Args:
        folders: the newest first, at least one.
        engine: gets weights, optimizer state and running means.
        average: gets its weights, where an average is kept.
        facts: of this run, see `run_facts`.

    Raises:
        ResumeError: none is complete, or the newest complete one is of a run with another recipe.
    """
    ranks, passed_over = engine.ranks, dict[Path, str]()
    for folder in folders:
        found = damage(folder) if ranks.main else None  # one process reads it all, the others wait
        reason = next(filter(None, ranks.gather_objects(found)), None)
        if reason is None:
            state: dict[str, Any] = {}
            failure = None
            try:
                state = restore(folder, engine, average, facts)
            except ResumeError:
                raise
            except CheckpointError as error:
                failure = str(error)
            reason = next(filter(None, ranks.gather_objects(failure)), None)
        if reason is None:
            if ranks.main:
                _tell(folder, state, passed_over)
            return Continued(folder, state, passed_over)
        passed_over[folder] = reason
    raise _none_left(folders, passed_over)


def look_ahead(folders: Sequence[Path], terms: int, facts: Mapping[str, Any]) -> Path:
    """The checkpoint that `continue_from` would restore, found without a model to restore it to.

    Args:
        folders: the newest first, at least one.
        terms: loss terms of the model.
        facts: of the run, see `run_facts`.

    Raises:
        ResumeError: as `continue_from`.
    """
    passed_over = dict[Path, str]()
    for folder in folders:
        reason = damage(folder)
        try:
            if reason is None:
                state = read_state(folder)
                check_state(state, folder, terms)
                check_resumable(state, folder, facts)
                return folder
        except ResumeError:
            raise
        except CheckpointError as error:
            reason = str(error)
        passed_over[folder] = str(reason)
    raise _none_left(folders, passed_over)


def _none_left(folders: Sequence[Path], passed_over: Mapping[Path, str]) -> ResumeError:
    listed = "".join(f"\n  {folder.name}: {reason}" for folder, reason in passed_over.items())
    return ResumeError(
        f"No checkpoint in {folders[0].parent} can be resumed from.{listed}\nRestore a copy of one of these folders, "
        f"or start anew: remove {folders[0].parent}, or choose another --output_dir."
    )


def _tell(folder: Path, state: Mapping[str, Any], passed_over: Mapping[Path, str]) -> None:
    for path, reason in passed_over.items():
        logger.warning(
            "%s was skipped: %s. Resuming from %s; the steps after %s are computed again.",
            path, reason, folder.name, state["step"],
        )  # fmt: skip
    if not has_digests(folder):
        logger.warning(
            "%s was written by an earlier version without digests: damage that keeps the size of a file would not be "
            "noticed. New checkpoints have digests.", folder
        )  # fmt: skip


def restore(
    folder: Path, engine: StepEngine, average: WeightAverage | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Restore weights, optimizer, scaler, average and running means; returns the checkpoint's state.

    Raises:
        CheckpointError: a file is missing, damaged, or holds values that this run cannot have written.
        ResumeError: the checkpoint of a run with another recipe.
    """
    state = read_state(folder)
    check_state(state, folder, len(engine.names))
    check_resumable(state, folder, facts)
    check_files(state, listed_digests(folder), folder)
    optimizer = read_optimizer(folder)
    check_optimizer(optimizer, engine.updater.whole_groups(), state, folder)
    averaged = read_average(folder) if average is not None else None
    if average is not None and averaged is not None:
        check_average(averaged, average.parameters, folder)
    read_weights(engine.plain, folder)
    check_finite({name: local(p.detach()) for name, p in engine.plain.named_parameters()}, folder / WEIGHTS)
    engine.updater.load_state(optimizer)
    if average is not None and averaged is not None:
        average.load_state_dict(averaged)
    restore_window(engine, state)
    return state


def restore_window(engine: StepEngine, state: Mapping[str, Any]) -> None:
    """Restore the running sums of every rank, or give all of them to the first rank if the number of processes has
    changed."""
    windows = torch.tensor(state["windows"], dtype=torch.float32)
    if len(windows) == engine.ranks.size:
        mine = windows[engine.ranks.rank]
    else:
        mine = windows.sum(0) if engine.ranks.rank == 0 else torch.zeros_like(windows[0])
    engine.window.copy_(mine)
    engine.window_steps = int(state["window_steps"])


def refuse_used_folder(args: RunArguments) -> None:
    """Refuse an output folder whose checkpoints or model the run would not continue but replace. Writes nothing.

    Raises:
        ConfigError: it holds checkpoints, and the run does not continue from any.
        ResumeError: it holds a model and nothing to continue from, or checkpoints or a model of another run than the
            one that is resumed.
        CheckpointError: as `find_checkpoints`.
    """
    store, resumed = CheckpointStore(args.output_dir), find_checkpoints(args.resume, args.output_dir)
    if not resumed and store.step_folders():
        raise ConfigError(
            f"{args.output_dir} holds checkpoints of an earlier run, but --resume none starts a new one. Remove the "
            "folder, choose another --output_dir, or continue with --resume auto."
        )
    if not resumed:
        if model_files(args.output_dir):
            raise ResumeError(
                f"{args.output_dir} holds the model of an earlier run and no checkpoint to continue it from: this run "
                "would start anew and replace the model. Choose another --output_dir (with --init_from "
                f"{args.output_dir} it starts from these weights), or remove the folder if nobody needs it."
            )
        return
    if same_folder(resumed[0].parent, store.folder):
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


def make_room(args: RunArguments) -> None:
    """Remove the model that a run left in this run's folder without a step checkpoint to go on from, which else would
    be refused. For callers that know the folder to be theirs alone, and that train again what is in it."""
    if find_checkpoints(args.resume, args.output_dir) or CheckpointStore(args.output_dir).step_folders():
        return
    for path in model_files(args.output_dir):
        path.unlink()


def same_folder(one: Path, other: Path) -> bool:
    """Whether two paths name the same folder, however they are written."""
    return one.resolve() == other.resolve()


def _held(store: CheckpointStore) -> str | None:
    """What a run would lose, in a word; None where there is nothing."""
    best = store.best()
    if store.step_folders() or best is not None:
        return "checkpoints"
    return "model files" if model_files(store.folder.parent) else None


def model_files(output_dir: str | Path) -> list[Path]:
    """The weights of a finished run, and the marker that says that they are whole; empty where there are none."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return []
    weights = [path for path in folder.iterdir() if FINAL.fullmatch(path.name) and path.suffix == ".safetensors"]
    return [path for path in (folder / MARKER, *sorted(weights)) if path.exists()]


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

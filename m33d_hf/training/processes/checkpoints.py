"""Atomic checkpoints: temporary folder, fsync, COMPLETE marker, rename.

Layout below `output_dir/checkpoints`: `step_00000100/{model.safetensors, optimizer.pt, state.json, COMPLETE}`, with
`ema.safetensors` where an average is kept and `config.json` where the model has one, and `best/` with the weights of
the best evaluation; in each also what belongs to the weights, so that it may be copied elsewhere. COMPLETE lists every
file with its size and a digest (m33d_hf.data.files.markers), so that a folder cut short by a crash, a full
disk or a partial copy, or damaged since, is never picked up.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from m33d_hf.data.files.markers import MARKER, damage, file_digest, flush_folder, is_complete, mark_complete
from m33d_hf.data.loader.workers import tells_of_a_lost_worker
from m33d_hf.errors import CheckpointError
from m33d_hf.training.processes.checkpoint_files import (
    AVERAGE,
    OPTIMIZER,
    STATE,
    naming,
    read_state,
    write_json,
    write_optimizer,
    write_weights,
)
from m33d_hf.training.processes.saved_state import FILES

Beside = Callable[[Path], None]

BEST = "best"

_STEP_FOLDER = re.compile(r"step_(\d{8,})")
_TEMPORARY = ".tmp-"
_REPLACED = ".old-"


class CheckpointStore:
    """The checkpoints of one run. Only the main process may call the methods that write.

    Args:
        output_dir: folder of the run; checkpoints go to its `checkpoints` folder.
        keep_last: number of resumable checkpoints kept, at least 1; `best` is kept besides.

    Attributes:
        damaged: folders found to be damaged, which count as absent until they are written again; so does a `best`
            of other evaluations.
    """

    def __init__(self, output_dir: str | Path, keep_last: int = 2) -> None:
        self.folder = Path(output_dir) / "checkpoints"
        self.keep_last = keep_last
        self.damaged: set[Path] = set()

    def steps(self) -> list[Path]:
        """Complete resumable checkpoints, oldest first; digests are not looked at."""
        return [path for path in self.step_folders() if is_complete(path) and path not in self.damaged]

    def step_folders(self) -> list[Path]:
        """All checkpoint folders, complete or not, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _STEP_FOLDER.fullmatch(path.name)]
        return sorted(found, key=step_of)

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best(self) -> Path | None:
        """The weights of the best evaluation, or None."""
        path = self.folder / BEST
        return path if is_complete(path) and path not in self.damaged else None

    def check_best(self) -> str | None:
        """What is wrong with `best`, which the next evaluation then replaces; None if nothing is. Reads it."""
        path = self.folder / BEST
        found = damage(path) if path.is_dir() else None
        if found is None and path.is_dir():
            try:
                read_state(path)
            except CheckpointError as error:
                found = str(error)
        if found is not None:
            self.damaged.add(path)
        return found

    def save(
        self,
        model: nn.Module,
        optimizer_state: dict[str, Any],
        state: dict[str, Any],
        average: dict[str, torch.Tensor] | None = None,
        beside: Beside | None = None,
    ) -> Path:
        """Write the resumable checkpoint of ``state["step"]``, then delete the ones that are no longer to be kept.

        `beside` as in `save_best`.

        Raises:
            CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        path = self.folder / f"step_{state['step']:08d}"
        known: dict[str, str] = {}
        with self._writing(path, known) as temporary:
            write_weights(model, temporary)
            write_optimizer(optimizer_state, temporary)
            if average is not None:
                values = {name: tensor.contiguous() for name, tensor in average.items()}
                naming(temporary / AVERAGE, lambda file: save_file(values, file))
            digests = {file.name: file_digest(file) for file in sorted(temporary.iterdir())}
            write_json(temporary / STATE, {**state, FILES: digests})
            if beside is not None:
                beside(temporary)
            known.update(digests)
        self.retain(state["step"])
        return path

    def save_best(self, model: nn.Module, state: dict[str, Any], beside: Beside | None = None) -> Path:
        """Write the weights (no optimizer state) as `best`, replacing the former ones at once.

        Args:
            model: unwrapped.
            state: of the run, with its metrics.
            beside: writes what belongs to the weights (a processor, the classes) into the folder that it is given.

        Raises:
            CheckpointError: as `save`.
        """
        path = self.folder / BEST
        with self._writing(path) as temporary:
            write_weights(model, temporary)
            write_json(temporary / STATE, state)
            if beside is not None:
                beside(temporary)
        return path

    def save_if_best(
        self, model: nn.Module, state: dict[str, Any], metric: str, greater: bool, beside: Beside | None = None
    ) -> Path | None:
        """`save_best` where ``state["metrics"][metric]`` is better than that of the best so far; None where it is not.

        Anything is better than NaN and infinity, with which nothing can be compared.

        Raises:
            CheckpointError: as `save`.
        """
        former = self.best()
        found = read_state(former).get("metrics") if former else None
        known = found.get(metric) if isinstance(found, dict) else None
        value = state["metrics"][metric]
        finite = isinstance(known, int | float) and math.isfinite(known)
        if not finite or (value > known if greater else value < known):
            return self.save_best(model, state, beside)
        return None

    def clean(self) -> None:
        """Remove what a killed run left behind, and restore a checkpoint that was being replaced."""
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(f"{_REPLACED}*"):
            original = self.folder / path.name.removeprefix(_REPLACED)
            if is_complete(path) and not is_complete(original):
                shutil.rmtree(original, ignore_errors=True)
                path.rename(original)
            else:
                _remove(path)
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            _remove(path)

    def retain(self, step: int) -> None:
        """Keep the `keep_last` newest whole checkpoints up to `step`, one of them, and drop what is older.

        Newer ones stay until the run reaches their step: they come from an attempt that the run resumed before.
        """
        steps = [path for path in self.steps() if step_of(path) <= step]
        for path in steps[: -self.keep_last]:
            (path / MARKER).unlink(missing_ok=True)  # first, so that a kill half way leaves nothing that looks whole
        kept = steps[-self.keep_last :]
        for path in self.step_folders():
            if kept and path not in kept and step_of(path) < step_of(kept[-1]):
                _remove(path)

    @contextmanager
    def _writing(self, path: Path, known: Mapping[str, str] | None = None) -> Iterator[Path]:
        """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

        `known` as for `mark_complete`; the block may fill it.
        """
        temporary = self.folder / (_TEMPORARY + path.name)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            mark_complete(temporary, known=known)
            _replace(temporary, path)
        # safetensors and torch.save report a failed write as errors of their own; see `naming`.
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if tells_of_a_lost_worker(error):
                raise
            latest = self.latest()
            kept = f"The previous checkpoint is intact: {latest}." if latest else "There is no earlier checkpoint."
            raise CheckpointError(
                f"Could not write the checkpoint {path}: {error}. {kept} Free some disk space or make the folder "
                "writable, then continue the run."
            ) from error
        self.damaged.discard(path)


def step_of(path: Path) -> int:
    """The step in a folder's name."""
    return int(path.name.removeprefix("step_"))


def find_checkpoints(resume: str | None, output_dir: str | Path) -> list[Path]:
    """The checkpoints to continue from, in the order in which to try them; does not check that they are complete.

    Args:
        resume: "auto" takes those of `output_dir`, if any; None or "none" starts anew; a checkpoint folder, or the
            output folder of a run.
        output_dir: folder of this run.

    Raises:
        CheckpointError: the path is not a checkpoint, holds weights alone, or is not the output folder of a run with a
            checkpoint.
    """
    if resume is None or resume == "none":
        return []
    if resume == "auto":
        return CheckpointStore(output_dir).step_folders()[::-1]
    path = Path(resume)
    if is_complete(path) and (path / OPTIMIZER).exists():
        return [path]
    found = CheckpointStore(path).step_folders()[::-1]
    if not found and is_complete(path):
        raise CheckpointError(
            f"--resume {resume} holds weights alone, as {BEST} and the end of a run do: without {OPTIMIZER} a run "
            f"cannot go on where it was. Begin a new run with these weights (--init_from {resume}), or resume a folder "
            "step_* of a run, or its output folder, which takes the newest of them."
        )
    if not found:
        reason = f" ({damage(path)})" if (path / STATE).exists() else ""
        raise CheckpointError(
            f"--resume {resume} holds no complete checkpoint{reason}: it is neither a folder with {MARKER} and "
            f"{OPTIMIZER} nor the output folder of a run with such checkpoints. A folder without the marker was not "
            "written completely; use an earlier one."
        )
    return found


def _remove(folder: Path) -> None:
    """Remove a folder while other processes may remove files from it.

    Raises:
        OSError: naming the folder; rmtree names what it failed at as seen from within.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _replace(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; a former `path` steps aside first, as a folder cannot be renamed over."""
    aside = path.parent / (_REPLACED + path.name)
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    temporary.rename(path)
    flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)

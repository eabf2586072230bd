"""Capture of a step that became NaN or infinite, and its reproduction: `--replay DIR`.

A capture holds the weights before the update, the keys of the step's samples on every rank, the seed and the values of
the loss terms. Batches are not stored: they are a function of the seed, the step and the data set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from m33d_hf.acceleration import place
from m33d_hf.data.files.markers import MARKER, damage, mark_complete
from m33d_hf.errors import CheckpointError
from m33d_hf.training.processes.checkpoint_files import read_state, read_weights, write_json, write_weights
from m33d_hf.training.processes.launch import open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import build
from m33d_hf.training.run.stepping import loss_shares, loss_weights, micro_counts, seed_step
from m33d_hf.training.tasks.base import Batch, Task, to_device

if TYPE_CHECKING:
    from m33d_hf.training.run.preparation import Run

STATE = "state.json"


@dataclasses.dataclass
class ReplayResult:
    """The result of computing a captured step again.

    Attributes:
        step: number of the update, from 0.
        losses: unweighted loss terms of the whole step, now.
        captured: the same terms when the run stopped.
        culprits: (rank, micro-batch, term) of every share that is not finite.
        bad_gradients: names of the parameters whose gradient is not finite.
    """

    step: int
    losses: dict[str, float]
    captured: dict[str, float]
    culprits: list[tuple[int, int, str]]
    bad_gradients: list[str]

    @property
    def reproduced(self) -> bool:
        """Whether the same terms are non-finite again."""
        same = all(_same(self.losses[name], value) for name, value in self.captured.items())
        return same and bool(self.culprits or self.bad_gradients)

    def describe(self) -> list[str]:
        """A readable description, as lines."""
        terms = [f"  {name}: {self.losses[name]:g} (captured {self.captured[name]:g})" for name in self.losses]
        where = [f"  not finite: {term} on rank {r}, micro-batch {m}" for r, m, term in self.culprits]
        grads = [f"  gradient not finite: {name}" for name in self.bad_gradients[:10]]
        return [
            f"step {self.step}: {'reproduced' if self.reproduced else 'NOT reproduced'}",
            *terms,
            *where,
            *grads,
        ]


def capture(run: Run, step: int) -> Path:
    """Write what `replay` needs to output_dir/nonfinite/step_NNNNNNNN; collective, returns the folder on all ranks.

    Raises:
        CheckpointError: the disk is full or not writable; the message reports the non-finite loss first.
    """
    folder = Path(run.args.output_dir) / "nonfinite" / f"step_{step:08d}"
    keys = run.ranks.gather_objects(dict(run.feed.recent_keys).get(step, []))
    seen = run.ranks.gather_objects([str(value) for value in run.engine.bad_shares.tolist()])
    state = {
        "step": step,
        "world_size": run.ranks.size,
        "keys": keys,
        "terms": run.engine.names,
        "shares": seen,  # as text: JSON has no NaN
        "grad_norm": str(float(run.engine.bad_norm)),
        "args": run.args.to_dict(),
    }

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARKER).unlink(missing_ok=True)
            write_weights(model, folder)
            write_json(folder / STATE, state)
            mark_complete(folder)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"The loss or its gradient became NaN or infinite in step {step}, but the capture for --replay could "
                f"not be written to {folder}: {error}. Checkpoints are intact; free some disk space, then "
                "continue the run to reproduce it."
            ) from error

    with run.whole() as model:
        run.ranks.on_main(write)
    return folder


def replay(folder: str | Path, task: Task) -> ReplayResult:
    """Rebuild the captured step from its keys and compute it again, in this one process for all ranks.

    Losses that compare samples across ranks (batch-wide negatives) are not reproduced exactly, because each rank is
    computed separately.

    Raises:
        CheckpointError: no capture in `folder`, or the data set no longer gives the captured samples.
    """
    folder = Path(folder)
    if (folder / MARKER).exists():  # captures of earlier versions have none
        wrong = damage(folder)
        if wrong is not None:
            raise CheckpointError(f"The capture {folder} cannot be replayed: {wrong}")
    state = read_state(folder)
    args = build(RunArguments, state["args"], "")
    args.num_processes, args.logging.trackers = None, []
    if not args.model.get("distillation_weight"):  # weights come from the capture, a teacher from where it came
        args.init_from = None
    with open_accelerator(args) as accelerator:
        from m33d_hf.training.run.preparation import build_model

        model = build_model(args, task)
        read_weights(model, folder)
        per_rank = _rebuild(args, task, model, state)
        model = accelerator.prepare(place(model, accelerator.device)).train()
        plain = accelerator.unwrap_model(model)
        on_device = [[to_device(batch, accelerator.device) for batch in batches] for batches in per_rank]
        return _compute(plain, task, args.seed, state, on_device)


def _rebuild(args: RunArguments, task: Task, model: nn.Module, state: dict[str, Any]) -> list[list[Batch]]:
    """Every rank's micro-batches of the captured step, after comparing their keys."""
    from m33d_hf.training.run.loaders import step_sampler

    dataset, _ = task.build_datasets(args, model)
    collator = task.build_collator(args, model, train=True)
    step, world = state["step"], state["world_size"]
    batches = []
    for rank in range(world):
        sampler = step_sampler(args, task, dataset, rank, world, step, step + 1)
        mine = [collator([dataset[row] for row in rows]) for rows in sampler]
        keys = [list(batch.get("meta", {}).get("keys", [])) for batch in mine]
        if keys != state["keys"][rank]:
            raise CheckpointError(
                f"The data set returns samples other than those captured in step {step} on rank {rank}: {keys} instead "
                f"of {state['keys'][rank]}. To replay, restore the data of the original run."
            )
        batches.append(mine)
    return batches


def _compute(
    model: nn.Module, task: Task, seed: int, state: dict[str, Any], per_rank: Sequence[Sequence[Batch]]
) -> ReplayResult:
    names, step = state["terms"], state["step"]
    everything = [batch for batches in per_rank for batch in batches]
    counts = micro_counts(model, names, everything)
    extra = task.prepare_step(model, everything)
    weights = torch.tensor([loss_weights(model)[name] for name in names], device=counts.device)
    total, culprits = torch.zeros(len(names), device=counts.device), []
    for rank, batches in enumerate(per_rank):
        seed_step(seed, step, rank)
        for micro, batch in enumerate(batches):
            shares = loss_shares(model(**batch, **extra), names, counts)
            (shares * weights).sum().backward()
            total += shares.detach()
            finite = shares.isfinite().tolist()
            culprits += [(rank, micro, name) for name, good in zip(names, finite, strict=True) if not good]
    seen = [sum(float(row[i]) for row in state["shares"]) for i in range(len(names))]
    return ReplayResult(
        step=step,
        losses=dict(zip(names, total.tolist(), strict=True)),
        captured=dict(zip(names, seen, strict=True)),
        culprits=culprits,
        bad_gradients=[
            name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
        ],
    )


def _same(now: float, before: float) -> bool:
    if math.isfinite(before):
        return math.isclose(now, before, rel_tol=1e-5, abs_tol=1e-8)
    return now == before or (math.isnan(now) and math.isnan(before))

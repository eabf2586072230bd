"""One optimizer step: counts of the whole step, backward over its micro-batches, gated update. The host never waits.

The gradient is that of sum_k weight_k * (sum_k over all micro-batches and ranks) / (count_k over the same), however the
batch is split: 1 x 2B, 2 x B and B + B accumulated agree up to rounding (exempt: dropout, drop path, negatives that are
drawn within a rank, and mixup and CutMix, which mix the rows of one micro-batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from m33d_hf.data.randomness import seed_of
from m33d_hf.training.processes.launch import Ranks, sum_over_ranks
from m33d_hf.training.processes.optimization import set_learning_rate
from m33d_hf.training.processes.updating import Updater
from m33d_hf.training.tasks.base import Batch, Task


class StepEngine:
    """Runs optimizer steps and keeps, on the device, what the log needs.

    A loss or gradient that is not finite *poisons* the engine: `poison` turns from 0 into NaN, every later gradient
    with it, and no update is applied from then on, on any rank. So the weights found at the next log point are those
    that produced the bad value, and looking only there is early enough.

    Args:
        updater: holds the prepared model and its optimizer.
        task: for `prepare_step`.
        ranks: the processes.
        seed: seed of the run.
    """

    def __init__(self, updater: Updater, task: Task, ranks: Ranks, seed: int) -> None:
        self.updater = updater
        self.plain = updater.plain
        self.task = task
        self.ranks = ranks
        self.seed = seed
        self.loss_weights = loss_weights(self.plain)
        self.names = list(self.loss_weights)
        device = next(self.plain.parameters()).device
        self.weights = torch.tensor(list(self.loss_weights.values()), device=device)
        self.poison = torch.zeros((), device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.window = torch.zeros(len(self.names), device=device)
        self.window_steps = 0
        self.grad_norm = torch.zeros((), device=device)
        self.step_shares = torch.zeros_like(self.window)
        self.bad_shares = torch.zeros_like(self.window)
        self.bad_norm = torch.zeros_like(self.grad_norm)

    def update(self, step: int, batches: Sequence[Batch], learning_rate: float) -> None:
        """Take update number `step` (from 0) on this rank's micro-batches, which are on the device already."""
        seed_step(self.seed, step, self.ranks.rank)
        if not self.plain.training:
            self.updater.model.train()
        counts = sum_over_ranks(micro_counts(self.plain, self.names, batches), self.ranks)
        extra = self.task.prepare_step(self.plain, batches)
        self.step_shares = torch.zeros_like(self.window)
        for number, batch in enumerate(batches):
            with self.updater.accumulating(last=number == len(batches) - 1):
                self._backward(batch, extra, counts)
        set_learning_rate(self.updater.optimizer, learning_rate)
        self._apply(step)

    def _backward(self, batch: Batch, extra: dict[str, Any], counts: torch.Tensor) -> None:
        shares = loss_shares(self.updater.model(**batch, **extra), self.names, counts)
        total = (shares * self.weights).sum()
        self.step_shares += shares.detach()
        # 0 * inf and 0 * nan are nan: a bad loss makes every gradient nan, on all ranks, in this and all later steps.
        self.poison = self.poison + 0.0 * total.detach()
        # Gradients are averaged over ranks; the shares are parts of a sum.
        self.updater.backward(total * (self.ranks.size * (1.0 + self.poison)))

    def _apply(self, step: int) -> None:
        """Clip, gate and update; with fp16 the scaler gates instead, because an overflow is not an error there."""
        self.grad_norm = self.updater.clip()
        if not self.updater.scaled:
            self.poison = self.poison + 0.0 * self.grad_norm
        newly_bad = self.poison.isnan() & (self.first_bad < 0)
        self.first_bad = torch.where(newly_bad, step, self.first_bad)
        self.bad_shares = torch.where(newly_bad, self.step_shares, self.bad_shares)
        self.bad_norm = torch.where(newly_bad, self.grad_norm, self.bad_norm)
        self.window += self.step_shares
        self.updater.step(gate=self.poison.isnan().float())
        self.window_steps += 1

    def bad_step(self) -> int | None:
        """The first step with a non-finite loss or gradient on any rank, or None. Waits for the device."""
        # With fp16 only the rank that saw the bad loss has noted it.
        found = [int(step) for step in self.ranks.gather(int(self.first_bad)) if step >= 0]
        return min(found) if found else None

    def read_window(self) -> dict[str, float]:
        """Mean of every unweighted loss term since the last call, over all ranks; waits for the device."""
        sums = sum_over_ranks(self.window.clone(), self.ranks)
        means = [value / max(self.window_steps, 1) for value in sums.tolist()]
        self.window.zero_()
        self.window_steps = 0
        return dict(zip(self.names, means, strict=True))


def loss_weights(model: nn.Module) -> dict[str, float]:
    """The model's weight of every loss term."""
    found: Any = model.loss_weights
    return {name: float(weight) for name, weight in found.items()}


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the global generators for one step, so that resuming needs no generator state (1 microsecond on CPU)."""
    value = seed_of(seed, step, rank, "step")
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(value)


def micro_counts(model: nn.Module, names: Sequence[str], batches: Sequence[Batch]) -> torch.Tensor:
    """Denominators of every loss term, summed over this rank's micro-batches: (len(names),) float64."""
    total: torch.Tensor | None = None
    with torch.no_grad():
        for batch in batches:
            counts = model.loss_counts(**batch)  # type: ignore[operator]
            stacked = torch.stack([_exact(counts[name]) for name in names])
            total = stacked if total is None else total + stacked
    if total is None:
        raise ValueError("an optimizer step needs at least one micro-batch")
    return total


def _exact(count: torch.Tensor) -> torch.Tensor:
    """Pixel counts of large batches exceed what float32 counts exactly; MPS has nothing better."""
    return count.float() if count.device.type == "mps" else count.double()


def loss_shares(outputs: Any, names: Sequence[str], counts: torch.Tensor) -> torch.Tensor:
    """This micro-batch's part of every mean loss: sum_k / max(count_k, 1), (len(names),) float32."""
    sums = torch.stack([outputs.loss_sums[name].float() for name in names])
    return sums / counts.clamp(min=1.0).float()

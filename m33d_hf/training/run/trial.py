"""A few real steps for the dry run: how long they take and how much memory they hold. Nothing is written or kept.

What runs is the training step itself: the task's batches, the model with its heads, autocast, clipping, AdamW and the
average of the weights. A small batch comes first; it says whether the whole one fits and how long it would take, and
the two together say what one more sample costs. What would not fit or take too long is reckoned from the small ones.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from m33d_hf.acceleration import place
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import plural
from m33d_hf.errors import M33DError, first_line
from m33d_hf.evaluation.flops import TASKS as COUNTED
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.training.costs.load import watched_load
from m33d_hf.training.costs.machine import memory_for_one, peak_memory, usable_cores
from m33d_hf.training.costs.table import Cost, Memory, size
from m33d_hf.training.processes.ema import WeightAverage
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.processes.optimization import build_optimizer
from m33d_hf.training.processes.updating import Updater
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.memory import count_saved
from m33d_hf.training.run.plan import RunPlan
from m33d_hf.training.run.stepping import StepEngine
from m33d_hf.training.tasks.base import Batch, Task, to_device
from m33d_hf.training.tasks.building import config_of

STEPS, WARM_UP = 3, 1
SLOWEST = 6.0  # seconds of a step that is still tried
_LONGEST = 6.0  # seconds after which no further step of a size is begun
_READ = 16  # samples that are read; batches repeat them
_JUDGED = 32  # samples of the timed evaluation
_FEWEST = 2  # samples of the first size: losses that compare samples need two
_MOST_SIZES, _GROWTH = 3, 1.5
_CAREFUL = 0.8  # share of the batch that seems to fit which is tried
_NOISE = 4 << 20  # bytes by which two peaks of one process differ by chance


@dataclass(frozen=True)
class _Timed:
    """Steps of one size: samples per micro-batch, seconds per optimizer step, bytes at the peak, number of steps."""

    rows: int
    seconds: float
    peak: int
    steps: int


def measured_cost(
    args: RunArguments,
    task: Task,
    model: nn.Module,
    train_set: SampleDataset,
    eval_set: SampleDataset | None,
    plan: RunPlan,
    world: int,
) -> Cost | str:
    """Try steps and an evaluation, and reckon the run from them; the model is used up.

    Returns:
        the cost, or a sentence on why steps cannot be tried.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "steps are not timed under a launcher: start the dry run as one process."
    args = copy.deepcopy(args)
    args.logging.trackers, args.num_processes = [], None
    with open_accelerator(args) as accelerator:
        if args.train.sharding != "none":
            return f"steps are not timed with train.sharding={args.train.sharding}, which needs its processes."
        needed, free = kept_bytes(model, args), memory_for_one(accelerator.device)
        if free is not None and needed > free:
            return (
                f"steps are not timed: weights, gradients and AdamW need {size(needed)}, and this process can have "
                f"{size(free)} here."
            )
        with watched_load(torch.get_num_threads()) as load:
            cost = _Trial(args, task, model, train_set, accelerator).cost(eval_set, plan, world)
        # A GPU computes for this process alone, as far as the processor's other work can tell.
        return cost if accelerator.device.type != "cpu" else replace(cost, warning=load.warning())


class _Trial:
    """The parts of a training step, and what was read for it."""

    def __init__(
        self, args: RunArguments, task: Task, model: nn.Module, dataset: SampleDataset, accelerator: Accelerator
    ) -> None:
        self.args, self.task, self.accelerator = args, task, accelerator
        self.config, self.model = config_of(model), model
        features = task.learns_from_features
        self.counted = 0.0 if features else count_saved(task, model, args) / args.train.batch_size
        self.kept = kept_bytes(model, args)
        self.samples, self.read_seconds = self._read(dataset, _READ)
        self.staying = dataset.bytes_once_read() * max(1, args.data.num_workers)
        self.collator = task.build_collator(args, model, True)
        place(model, accelerator.device)
        prepared, optimizer = accelerator.prepare(model, build_optimizer(model, args.optim))
        updater = Updater(accelerator, prepared, optimizer, args.optim.clip_grad_norm)
        self.engine = StepEngine(updater, task, Ranks(accelerator), args.seed)
        self.average = WeightAverage(model, args.train.ema_decay) if args.train.ema_decay else None

    def cost(self, eval_set: SampleDataset | None, plan: RunPlan, world: int) -> Cost:
        """Everything measured and multiplied."""
        asked = self.args.train.batch_size
        available = memory_for_one(self._device)
        sizes = self._sizes(available)
        memory, last = self._memory(sizes, available), sizes[-1]
        scale = asked / last.rows
        step = last.seconds * scale
        reading = self._collation(last.rows) * scale * self.args.train.accumulation
        evaluations = _evaluations(plan, eval_set)
        evaluation, said = self._evaluation(eval_set, world) if evaluations else (None, "")
        self.engine.updater.close()
        return Cost(
            step=step,
            reading=reading,
            wall=self._wall(step, reading),
            steps=plan.total_steps,
            evaluation=evaluation,
            evaluations=evaluations,
            step_flops=self._flops(plan.effective_batch * self.args.data.num_views, training=True),
            evaluation_flops=self._flops(self._judged(eval_set), training=False),
            memory=memory,
            how=self._how(sizes) + said,
        )

    def _sizes(self, available: int | None) -> list[_Timed]:
        """Steps of growing micro-batches, up to the whole one or the largest that fits and is not too slow."""
        asked = self.args.train.batch_size
        sizes = [self._steps(min(asked, _FEWEST))]
        while sizes[-1].rows < asked and len(sizes) < _MOST_SIZES:
            last = sizes[-1]
            rows = min(asked, int(last.rows * SLOWEST / max(last.seconds, 1e-6)))
            most = self._memory(sizes, available).most_rows()
            rows = rows if most is None else min(rows, int(_CAREFUL * most))
            if rows < min(_GROWTH * last.rows, asked):
                break
            sizes.append(self._steps(rows))
        return sizes

    def _how(self, sizes: list[_Timed]) -> str:
        device, asked = self._device, self.args.train.batch_size
        threads = torch.get_num_threads()
        cpu = f"cpu, {plural(threads, 'thread')}"
        where = cpu if device.type == "cpu" else torch.cuda.get_device_name(device)
        told = " and ".join(f"{plural(each.steps, 'step')} of {plural(each.rows, 'sample')}" for each in sizes[-2:])
        tried = "" if sizes[-1].rows == asked else f"; {asked}, too large or too slow to try, reckoned from them"
        eager = "; without torch.compile" if self.args.train.compile else ""
        return f"measured here ({where}): {told}, each after a first one{tried}{eager}"

    def _read(self, dataset: SampleDataset, most: int) -> tuple[list[Any], float]:
        """The first samples, and seconds per sample; the very first one, which opens files, is not timed."""
        count = min(most, len(dataset))
        samples = [dataset[(0, 0)]]
        started = time.perf_counter()
        samples += [dataset[(0, index)] for index in range(1, count)]
        return samples, (time.perf_counter() - started) / max(count - 1, 1)

    def _batch(self, rows: int) -> Batch:
        return to_device(self.collator([self.samples[row % len(self.samples)] for row in range(rows)]), self._device)

    @property
    def _device(self) -> torch.device:
        return self.accelerator.device

    def _collation(self, rows: int) -> float:
        """Seconds to read and collate the samples of a micro-batch in one process."""
        started = time.perf_counter()
        self.collator([self.samples[row % len(self.samples)] for row in range(rows)])
        return rows * self.read_seconds + time.perf_counter() - started

    def _steps(self, rows: int) -> _Timed:
        """Time optimizer steps; with accumulation two micro-batches stand for all, as gradients lie beside both."""
        batch = self._batch(rows)
        micro = min(self.args.train.accumulation, 2)
        with peak_memory(self._device) as peak:
            for step in range(WARM_UP):
                self._update(step, batch, micro)
            self._wait()
            started, done = time.perf_counter(), 0
            while done < STEPS and (done == 0 or time.perf_counter() - started < _LONGEST):
                self._update(WARM_UP + done, batch, micro)
                self._wait()
                done += 1
            seconds = (time.perf_counter() - started) / done
        return _Timed(rows, seconds * self.args.train.accumulation / micro, peak.total, done)

    def _update(self, step: int, batch: Batch, micro: int) -> None:
        # Copies, as tasks put what differs by micro-batch into the batches themselves. The rate is that of a warm-up.
        self.engine.update(step, [dict(batch) for _ in range(micro)], 1e-8)
        if self.average is not None:
            self.average.update()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _memory(self, sizes: list[_Timed], available: int | None) -> Memory:
        """A straight line through the last two peaks, no flatter than what the backward pass is counted to keep.

        Small batches may peak in the optimizer's update, where samples play no part, and peaks differ by chance.
        """
        asked, last = self.args.train.batch_size, sizes[-1]
        per_row = self.counted
        if len(sizes) > 1 and last.peak - sizes[-2].peak > _NOISE:
            per_row = max(per_row, (last.peak - sizes[-2].peak) / (last.rows - sizes[-2].rows))
        peak = last.peak + per_row * (asked - last.rows)
        what = "allocated on the device"
        if self._device.type == "cpu":
            what = "resident: Python and libraries too"
            available = available and max(available - self.staying, 0)
        return Memory(peak, self.kept, asked, per_row, available, what, self.staying)

    def _wall(self, step: float, reading: float) -> float:
        """Seconds per step as the loader's workers read beside it; on a CPU they share its cores with the step."""
        workers = self.args.data.num_workers
        if workers == 0:
            return step + reading
        wall = max(step, reading / workers)
        if self._device.type == "cpu":
            cores = usable_cores()
            threads = min(torch.get_num_threads(), cores)
            wall = max(wall, (step * threads + reading) / cores)
        return wall

    def _evaluation(self, eval_set: SampleDataset | None, world: int) -> tuple[float | None, str]:
        """Seconds per evaluation, from one batch of it; and what to say where that cannot be."""
        if eval_set is None:
            return None, ""
        rows = min(self.task.evaluation_batch(self.args), len(eval_set), _JUDGED)
        collator = self.task.build_collator(self.args, self.model, False)
        samples, read = self._read(eval_set, rows)
        self.model.eval()
        try:
            with torch.no_grad():
                started = time.perf_counter()
                self.task.without_files().evaluate(self.model, [collator(samples)], self.accelerator)
                self._wait()
                spent = time.perf_counter() - started
        except M33DError as error:
            return None, f"; an evaluation of {rows} samples alone cannot be timed ({first_line(error)})"
        finally:
            self.model.train()
        share = len(eval_set) / world / len(samples)
        return self._wall(spent * share, read * len(samples) * share), ""

    def _judged(self, eval_set: SampleDataset | None) -> int:
        """Samples that pass through the model in an evaluation; of a video every clip and every crop counts."""
        if eval_set is None:
            return 0
        per_video = self.args.evaluation.num_segments * self.args.evaluation.num_crops
        return len(eval_set) * (per_video if eval_set.multi_view else 1)

    def _flops(self, samples: int, training: bool) -> float | None:
        if self.args.task not in COUNTED:
            return None
        batch = self.args.train.batch_size
        each = flops_per_sample(self.config, self.args.task, training=training, batch_size=batch)
        if training and self.args.train.grad_checkpointing:
            each += flops_per_sample(self.config, self.args.task, training=False, batch_size=batch)
        return samples * each


def kept_bytes(model: nn.Module, args: RunArguments) -> float:
    """Bytes that a process holds from step to step: weights, and per trained one its gradient, two moments of AdamW
    and, with `train.ema_decay`, the average."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return 4.0 * numbers + (16.0 if args.train.ema_decay else 12.0) * trained


def _evaluations(plan: RunPlan, eval_set: SampleDataset | None) -> int:
    """Number of evaluations of a run from its first step to its last."""
    if eval_set is None:
        return 0
    every = plan.evaluate_every
    between = 0 if every is None else (plan.total_steps - 1) // every
    return between + int(plan.evaluate_at_end)

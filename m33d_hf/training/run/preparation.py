"""Builds the parts of a run in order: model, data, plan, optimizer, the checkpoint it resumes, loaders, report."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import nn

from m33d_hf.acceleration import place
from m33d_hf.data.files.atomic_writing import remove_leftovers
from m33d_hf.data.files.markers import MARKER
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.randomness import seeded
from m33d_hf.errors import ConfigError, first_line
from m33d_hf.modeling.fields_m33d import shown
from m33d_hf.training.processes.beside import SEEN
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import BEST, CheckpointStore, find_checkpoints
from m33d_hf.training.processes.compiling import checkpoint_activations, compile_model, eager_evaluation
from m33d_hf.training.processes.deepspeed import ZeroUpdater, load_deepspeed
from m33d_hf.training.processes.deepspeed_config import PREFIX
from m33d_hf.training.processes.ema import WeightAverage
from m33d_hf.training.processes.fsdp2 import Shards, check_shardable, says_yes
from m33d_hf.training.processes.guards import StopSignals
from m33d_hf.training.processes.launch import Ranks, prepare_ddp
from m33d_hf.training.processes.optimization import build_optimizer
from m33d_hf.training.processes.saved_state import METRICS_RECORD
from m33d_hf.training.processes.updating import Updater
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.feeding import BatchFeed, EvaluationFeed
from m33d_hf.training.run.loaders import (
    build_eval_feed,
    list_left_out,
    overlap_lines,
    run_collator,
    skip_ledger,
    step_sampler,
)
from m33d_hf.training.run.metric_names import check_absent, check_metric, eval_name, larger_is_better
from m33d_hf.training.run.plan import check_same_plan, plan_run
from m33d_hf.training.run.reporting import Reporter
from m33d_hf.training.run.resume import (
    EVAL_DIGEST,
    EVAL_ROWS,
    FORMER,
    compared_facts,
    continue_from,
    evaluation_differences,
    left_rows,
    refuse_used_folder,
    run_facts,
    same_folder,
)
from m33d_hf.training.run.seen_videos import write_seen
from m33d_hf.training.run.stepping import StepEngine
from m33d_hf.training.showing.stale import remove_shown
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.class_balance import is_balanced
from m33d_hf.training.tasks.class_numbers import write_classes

if TYPE_CHECKING:
    from m33d_hf.training.showing.showing import Showing

logger = logging.getLogger(__name__)


class Run:
    """One run and its parts.

    Attributes:
        step: optimizer steps done.
        saved: the step of the last checkpoint that this process has written; None before.
        model: the bare model, without DDP.
        engine: takes the steps.
        feed: draws the micro-batches.
        plan: numbers of the run.
        store: checkpoints.
        report: metrics and progress; a context manager that the loop enters.
        average: averaged weights, or None.
        eval_feed: this rank's evaluation data, or None.
        facts: what is stored in checkpoints and train_config.json.
        data: facts about the training data, for train_config.json.
        description: lines of the task about itself and its data, printed at the start.
        train_set: the training data.
        resumed_from: the checkpoint that this run resumed from, or None.
        publish: called with the folder of each new best checkpoint, or None.
    """

    publish: Callable[[Path], None] | None = None
    _absent = False

    def __init__(self, args: RunArguments, task: Task, accelerator: Accelerator, stop: StopSignals) -> None:
        self.args, self.task, self.accelerator, self.stop = args, task, accelerator, stop
        self.ranks = Ranks(accelerator)
        self.store = CheckpointStore(args.output_dir, args.checkpoint.keep_last)
        self.ranks.on_main(self._clean)

        if args.train.sharding.startswith(PREFIX):
            load_deepspeed(accelerator.device)  # what is missing is said before any data is rendered or read
        self.model = build_model(args, task)
        check_metric(args, task, self.model)  # before rooms are rendered, features extracted or anything is trained
        train_set, eval_set = task.build_datasets(args, self.model)
        plan = plan_run(args, len(train_set), self.ranks.size)
        self.plan = check_same_plan(self.ranks.gather_objects(plan))
        self.ranks.on_main(lambda: list_left_out(args, [train_set, eval_set]))
        self.data = task.describe_data(train_set)
        self.description = task.describe(args, self.model, train_set) + overlap_lines(args, train_set, eval_set)
        self.train_set = train_set
        self.engine = StepEngine(self._prepare(), task, self.ranks, args.seed)
        self.average = WeightAverage(self.model, args.train.ema_decay) if args.train.ema_decay else None

        self.facts = run_facts(args, task.data_digest(train_set), self.plan, self.ranks.size, train_set.indices)
        self.step = 0
        self.saved: int | None = None
        self._metrics_record: Mapping[str, Any] | None = None
        self._eval_set = eval_set
        self._other_evaluation: list[str] = []
        self.resumed_from = self._resume()
        if self.resumed_from is None or not same_folder(self.resumed_from.parent, self.store.folder):
            self.ranks.on_main(lambda: remove_shown(args.output_dir))  # of a run that was here before
        self.ranks.on_main(self._look_at_best)
        self.feed = self._build_feed(train_set)
        self.eval_feed = self._build_eval_feed(eval_set)
        self._prepared = time.perf_counter()
        record = self._metrics_record
        self.report = Reporter(
            args, accelerator, plan.total_steps, plan.steps_per_epoch, self.step, record, task.headline
        )

    @cached_property
    def showing(self) -> Showing:
        """Pictures and report.html. Who waits for the first step does not wait for the import of what draws."""
        from m33d_hf.training.showing.showing import Showing

        args, sets = self.args, (self.train_set, self._eval_set)
        return Showing(args, self.task, self.model, self.accelerator, *sets, self._prepared)

    @cached_property
    def judged_facts(self) -> dict[str, Any]:
        """What is stored in checkpoints; for the main process, as it may read a list of all files."""
        judged = self._eval_set
        if judged is None:
            return self.facts
        rows = left_rows(EVAL_ROWS, self.args, judged.indices)
        return {**self.facts, EVAL_DIGEST: self.task.eval_digest(judged), **rows}

    @cached_property
    def _compared_facts(self) -> dict[str, Any]:
        """See the function; not before they are needed, as they may read a list of all files once more."""
        return compared_facts(self.facts, self.task.former_digest(self.train_set))

    def _judged_otherwise(self, state: Mapping[str, Any]) -> list[str]:
        """Lines "key: before -> now", see `evaluation_differences`; for the main process, as `judged_facts`."""
        facts = self._compared_facts | self.judged_facts
        if self._eval_set is not None and state.get(EVAL_DIGEST) != facts[EVAL_DIGEST]:
            facts[FORMER + EVAL_DIGEST] = self._eval_set.source.digest()  # with labels, whatever the task
        return evaluation_differences(state, facts)

    def close(self) -> None:
        """End the loaders' workers and remove the hooks from the model."""
        with ExitStack() as closing:  # each, whatever the others raise; the last one first
            closing.callback(self.engine.updater.close)
            if self.eval_feed is not None:
                closing.callback(self.eval_feed.close)
            closing.callback(self.feed.close)

    def leave_beside_the_model(self) -> None:
        """Write to the output folder what later evaluations of the model must know about its training data.

        These are the class numbers of the annotations and the videos that were seen; a resumed run finds both there.
        """
        table = self.task.class_table(self.model, self.train_set)
        if table is not None:
            write_classes(self.args.output_dir, table)
        if self.resumed_from is None or not (Path(self.args.output_dir) / SEEN).is_file():
            write_seen(self.args.output_dir, self.args.task, self.train_set, self.args.init_from)

    def _prepare(self) -> Updater:
        """Compile, place, accelerate and wrap the model, by DDP, in shards or by DeepSpeed, and build its optimizer."""
        train, accelerator, model = self.args.train, self.accelerator, self.model
        if train.sharding != "none":
            check_shardable(model, self.args, self.ranks.size)
        if train.compile:
            compile_model(model, self.args, accelerator.device)
        place(model, accelerator.device)
        if train.sharding == "none":
            prepared, optimizer = prepare_ddp(accelerator, model, build_optimizer(model, self.args.optim))
            return Updater(accelerator, prepared, optimizer, self.args.optim.clip_grad_norm)
        shards = None
        if train.sharding == "fsdp2":
            shards = Shards(model, train.precision, says_yes("FSDP_RESHARD_AFTER_FORWARD", "true"))
        accelerator.prepare_model(model, evaluation_mode=True)  # autocast, and no DDP around it
        adamw = build_optimizer(model, self.args.optim)
        if shards is None:
            return ZeroUpdater(model, adamw, self.args, accelerator.device)
        optimizer = accelerator.prepare_optimizer(adamw)
        return Updater(accelerator, model, optimizer, self.args.optim.clip_grad_norm, shards)

    @contextmanager
    def whole(self, everywhere: bool = False) -> Iterator[nn.Module]:
        """The model to write or to evaluate: the model itself, or a gathered copy if it is sharded; collective.

        Args:
            everywhere: return it on every process, on its device; otherwise only on the main process, in host memory.
        """
        yield self.engine.updater.whole(everywhere)

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """The model in evaluation mode: averaged weights if an average is kept, gathered, eager, without gradients."""
        with torch.no_grad(), self.averaged(), eager_evaluation(self.args.train), self.whole(everywhere=True) as model:
            training = self.model.training
            try:
                yield model.eval()
            finally:  # a signal may end an evaluation
                self.model.train(training)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block, use the averaged weights in the model, if an average is kept."""
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield

    def best_metric(self, metrics: Mapping[str, float]) -> tuple[str, bool] | None:
        """Name and direction of the metric that chooses `checkpoints/best`; None where none is kept.

        An evaluation lacks the metric of a class that occurs in none of its labels; it keeps none, and the first one
        says so.

        Raises:
            ConfigError: evaluations of the task have no such metric.
        """
        chosen = self.args.evaluation.metric or self.task.metric
        if chosen is None or not self.args.checkpoint.save_best:
            return None
        if eval_name(chosen) not in metrics:
            check_absent(self.args, self.task, self.model, metrics)
            self._warn_of_absent(chosen)
            return None
        return self.chosen_metric()

    def _warn_of_absent(self, chosen: str) -> None:
        if not self._absent and self.ranks.main:
            logger.warning(
                "the evaluation of step %d has no %s: its class occurs in none of the evaluation labels. "
                "checkpoints/best is not kept where it is absent; choose another --evaluation.metric, or other "
                "evaluation data.",
                self.step, eval_name(chosen),
            )  # fmt: skip
        self._absent = True

    def chosen_metric(self) -> tuple[str, bool] | None:
        """Name ("eval/...") and direction of the metric that judges the run; None where the task has none."""
        stated, greater = self.args.evaluation.metric, self.args.evaluation.greater_is_better
        if stated is None and self.task.metric is None:
            return None
        own = eval_name(self.task.metric or "")
        name = own if stated is None else eval_name(stated)
        if greater is None:
            greater = self.task.greater_is_better if name == own else larger_is_better(name)
        return name, greater

    def would_evaluate_nothing(self) -> list[str]:
        """Lines "key: before -> now" where a finished and evaluated run is started again to be evaluated otherwise; the
        same on every rank."""
        done = self.step >= self.plan.total_steps and any(
            row["kind"] == "eval" and row["step"] == self.step for row in self.report.history
        )
        finished = self.ranks.main and (Path(self.args.output_dir) / MARKER).is_file()
        return self._other_evaluation if done and self.ranks.sums([float(finished)])[0] else []

    def _resume(self) -> Path | None:
        folders = find_checkpoints(self.args.resume, self.args.output_dir)
        if not folders:
            return None
        found = continue_from(folders, self.engine, self.average, self._compared_facts)
        if found.state["data_digest"] != self.facts["data_digest"]:
            self.facts = self._compared_facts  # so that this run's checkpoints are known for those of that run
        self.step = int(found.state["step"])
        if same_folder(found.folder.parent, self.store.folder):  # those of another run lie elsewhere
            self._metrics_record = found.state.get(METRICS_RECORD)
            other = self._judged_otherwise(found.state) if self.ranks.main else []
            self._other_evaluation = self.ranks.gather_objects(other)[0]
        self.store.damaged |= found.passed_over.keys()
        self.ranks.on_main(lambda: self.store.retain(self.step))  # drops what a kill kept from being dropped
        return found.folder

    def _clean(self) -> None:
        """Remove what a killed run has left behind, in a folder that is this run's to write to."""
        refuse_used_folder(self.args)
        self.store.clean()
        refuse_used_folder(self.args)  # a checkpoint that was being replaced is back
        remove_leftovers(self.args.output_dir)

    def _look_at_best(self) -> None:
        """Tell of a `best` that is damaged, or whose metrics are of other evaluations than this run's."""
        path = self.store.folder / BEST
        wrong = self.store.check_best()
        if wrong is not None:
            logger.warning(
                "%s is damaged: %s. Its weights are lost; the best evaluation from step %d on replaces it.",
                path, wrong, self.step,
            )  # fmt: skip
        if self.store.best() is None or self._eval_set is None or not self.args.checkpoint.save_best:
            return
        differences = self._judged_otherwise(read_state(path))
        if differences:
            self.store.damaged.add(path)
            logger.warning(
                "%s cannot be compared with this run's evaluations (%s): the best evaluation from step %d on replaces "
                "it.", path, "; ".join(differences), self.step,
            )  # fmt: skip

    def _build_feed(self, dataset: SampleDataset) -> BatchFeed:
        args, ranks = self.args, self.ranks
        sampler = step_sampler(args, self.task, dataset, ranks.rank, ranks.size, self.step, self.plan.total_steps)
        loader = build_loader(
            dataset,
            run_collator(args, self.task, self.model, self.ranks, train=True),
            sampler,
            num_workers=args.data.num_workers,
            prefetch_factor=args.data.prefetch_factor,
        )
        return BatchFeed(
            loader,
            args.train.accumulation,
            self.accelerator.device,
            ranks,
            self.stop,
            skip_ledger(args, dataset),
            remember=args.logging.every_steps,
        )

    def _build_eval_feed(self, dataset: SampleDataset | None) -> EvaluationFeed | None:
        if dataset is None:
            return None
        return build_eval_feed(self.args, self.task, self.model, dataset, self.ranks, self.stop)


def refuse_early(args: RunArguments, task: Task) -> None:
    """Build model and data of a run to see that it can start, before something else takes minutes.

    Raises:
        ConfigError, DataError, CheckpointError: whatever would stop the run at its start.
    """
    refuse_used_folder(args)
    probe = copy.deepcopy(args)
    probe.evaluation.floor = False  # which reads frames
    model = build_model(probe, task)
    check_metric(args, task, model)
    train_set, _ = task.build_datasets(probe, model)
    plan_run(probe, len(train_set), int(os.environ.get("WORLD_SIZE", "1")))


def build_model(args: RunArguments, task: Task) -> nn.Module:
    """The task's model with its initial weights, the same on every rank.

    Raises:
        ConfigError: classes to be balanced where there are none, an attention kernel that transformers does not know or
            cannot use here, or an error of the task.
    """
    if is_balanced(args) and not task.balances_classes:
        raise ConfigError(
            f"train.class_weights {args.train.class_weights} and train.sampling {args.train.sampling}: {task.name} has "
            "no classes of clips to balance; leave both out."
        )
    if args.train.attn_implementation is not None:
        _check_attention(args.train.attn_implementation)
    with seeded(args.seed, "model"):
        model = task.build_model(args)
    if args.train.grad_checkpointing:
        checkpoint_activations(model, args)
    return model


def _check_attention(name: str) -> None:
    """Ask transformers for the kernel with a model of one block: it alone knows which names it takes."""
    from m33d_hf.modeling.configuration_m33d import M33DConfig
    from m33d_hf.modeling.modeling_m33d import M33DModel

    sides = ("image_size", "patch_size", "hidden_size", "intermediate_size", "decoder_hidden_size")
    counts = ("num_hidden_layers", "num_attention_heads", "decoder_num_attention_heads")
    sizes: dict[str, Any] = dict.fromkeys(sides, 4) | dict.fromkeys(counts, 1)
    try:
        with seeded("attention"):
            M33DModel._from_config(M33DConfig(**sizes), attn_implementation=name)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"train.attn_implementation {shown(name)} cannot be used: {first_line(error)}") from error

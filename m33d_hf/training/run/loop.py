"""The one training loop that every task shares. Read it from the top: step, log, save, evaluate, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from m33d_hf.data.files.markers import FINAL, MARKER, mark_complete
from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.data.files.skips import count_skipped
from m33d_hf.data.remembering import forget
from m33d_hf.errors import CheckpointError, ConfigError, M33DError, NonFiniteLossError
from m33d_hf.training.processes.beside import copy_beside
from m33d_hf.training.processes.guards import (
    EvaluationStoppedError,
    StopSignals,
    exit_code,
    memory_named,
    output_lock,
)
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.processes.launcher import SAVING, STEPPING, patience
from m33d_hf.training.processes.saved_state import ENTRIES, METRICS_RECORD
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.metric_names import eval_name
from m33d_hf.training.run.preparation import Run
from m33d_hf.training.run.replay import capture
from m33d_hf.training.run.reporting import CONFIG, Clock, provenance
from m33d_hf.training.run.resume import checkpoint_state
from m33d_hf.training.run.stepping import seed_step
from m33d_hf.training.settling.lineage import KEY, lineage_at_start
from m33d_hf.training.settling.sharing import shared
from m33d_hf.training.showing.command_words import Command, started_as, words_from
from m33d_hf.training.showing.next_commands import NextCommand, after_error, after_run, to_continue, told
from m33d_hf.training.showing.report import RunStory
from m33d_hf.training.showing.showing import RUNNING
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.building import config_of


@dataclass
class TrainResult:
    """The result of a run.

    Attributes:
        step: optimizer steps done in total.
        metrics: metrics of the last evaluation ("eval/<name>"), empty if there was none.
        output_dir: folder with the model and everything else.
        history: rows of metrics.jsonl, including those of the run that it resumed.
        interrupted_by: the signal that stopped it, None when it ran to its end.
    """

    step: int
    metrics: dict[str, float]
    output_dir: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    interrupted_by: int | None = None

    @property
    def exit_code(self) -> int:
        """For scripts: 0, or 128 + signal number (143 after SIGTERM, 130 after SIGINT)."""
        return exit_code(self.interrupted_by)


def train(
    args: RunArguments,
    task: Task,
    decided: Mapping[str, str] | None = None,
    command: Command | None = None,
    publish: Callable[[Path], None] | None = None,
) -> TrainResult:
    """Train `task` with the arguments `args`, resuming from the newest checkpoint in the output folder if there is one.

    SIGTERM, SIGINT and the death of the launcher end the run early, with a checkpoint saved and `interrupted_by` set.
    May be called any number of times in one process; signal handlers, threads and random generators are restored.

    Args:
        args: of the run.
        task: what to train.
        decided: dotted key -> the checkpoint or rule that set it, for train_config.json; of several processes, the
            first one's values of these keys hold for all.
        command: that started the run, for the commands it ends with; None writes one from the arguments.
        publish: called on the main process with the folder of each new best checkpoint, and with the one that is
            there when a run goes on, which may have been sent or not; `hub.push` requires one
            (`m33d_hf.hub.best_checkpoints.BestPublisher`). It must not wait for a network: the other processes wait.

    Raises:
        ConfigError: arguments that cannot work here (precision, world size, an output folder in use).
        DataError: too many unusable files.
        CheckpointError: a checkpoint that cannot be read or written.
        ResumeError: a checkpoint of a run with another recipe.
        DeviceMemoryError: a device without enough memory.
        NonFiniteLossError: NaN or infinity, captured below output_dir/nonfinite.
    """
    if args.hub.push and publish is None:
        raise ConfigError(
            "hub.push was set, but this call of train() has nothing that publishes: start the run by a run_* script, "
            "or pass publish=, a m33d_hf.hub.best_checkpoints.BestPublisher."
        )
    with ExitStack() as stack:
        stop = StopSignals()
        accelerator = stack.enter_context(open_accelerator(args))
        args = shared(args, decided or {}, Ranks(accelerator))
        if accelerator.is_main_process:
            stack.enter_context(output_lock(args.output_dir))
        run = Run(args, task, accelerator, stop)
        forget()
        run.publish = publish if args.hub.push else None
        stack.callback(run.close)
        stack.enter_context(run.report)
        if other := run.would_evaluate_nothing():
            return _left_as_it_is(run, other)
        _announce(run, decided or {})
        run.ranks.on_main(lambda: _publish_former_best(run))
        # Not before: in a rendezvous or in preparation a signal that is only noted would be a signal swallowed.
        stack.enter_context(stop)
        stack.enter_context(patience(STEPPING))
        command = command or started_as(args.task, words_from(args))
        try:
            with memory_named(args):
                finished = _to_the_end(run)
        except M33DError as error:
            _show(run, f"ended by {type(error).__name__}: {error}", after_error(error, args, command))
            raise
        _conclude(run, finished, command)
        return TrainResult(
            step=run.step,
            metrics=_last_metrics(run),
            output_dir=Path(args.output_dir),
            history=run.report.history,
            interrupted_by=None if finished else stop.received,
        )


def _left_as_it_is(run: Run, other: Sequence[str]) -> TrainResult:
    """A finished run that was asked for figures of other data: its files, report included, go on saying what it did."""
    folder = Path(run.args.output_dir)
    listed = "".join(f"\n  {line}" for line in other)
    run.report.say([
        f"WARNING: the run in {folder} is finished: nothing is trained or evaluated, and its files are left as they "
        f"are. Its evaluation was another one than is asked for now:{listed}\nTo evaluate its model so, add "
        f"--eval_only true --init_from {folder} --output_dir {folder / 'evaluation'}."
    ])  # fmt: skip
    return TrainResult(run.step, _last_metrics(run), folder, run.report.history)


def _to_the_end(run: Run) -> bool:
    """Train, evaluate and finish, or save and stop where a signal came; returns which of the two happened."""
    try:
        finished = _steps(run)
        if finished:
            _finish(run)
    except EvaluationStoppedError:
        finished = False  # the continued run makes this evaluation
    if not finished:
        if run.saved != run.step:
            _save(run)
        run.report.say([f"stopped by signal {run.stop.received}; checkpoint saved at step {run.step}"])
    return finished


def _steps(run: Run) -> bool:
    """Step to the end of the plan or until all ranks must stop; returns which of the two happened."""
    if run.plan.evaluates(run.step) and not _last_metrics(run, at=run.step):
        _evaluate(run)  # the run that we continue was stopped between its checkpoint and its evaluation
    clock, begins = Clock(run.feed, run.plan.effective_batch, run.step), True
    while run.step < run.plan.total_steps:
        batches = run.feed.draw(run.step)
        if batches is None:
            _save(run)
            return False
        run.engine.update(run.step, batches, run.plan.learning_rate(run.step))
        run.step += 1
        if run.average is not None:
            run.average.update()
        if run.plan.logs(run.step):
            _log(run, clock)
        if begins:
            _show_first_batch(run, clock)
            begins = False
        # Saved before it is evaluated: what ends an evaluation without a signal costs no step.
        if run.plan.saves(run.step):
            _save(run)
            clock.restart(run.step)
        if run.plan.evaluates(run.step):
            _evaluate(run)
            clock.restart(run.step)
    return True


def _show_first_batch(run: Run, clock: Clock) -> None:
    """Draw it after its step and its line: whoever waits sees first that the run works. The loader's workers are there
    by then, and none is forked beside what drawing opens."""
    if not run.showing.active:
        return
    drawn = run.showing.seconds
    run.showing.first_batch()
    _show(run, RUNNING)
    run.report.leave_out(run.showing.seconds - drawn)
    clock.restart(run.step)


def _check_finite(run: Run) -> None:
    """Capture and raise where a step since the last look went wrong; all ranks raise together."""
    step = run.engine.bad_step()
    if step is None:
        return
    folder = capture(run, step)
    before = run.store.latest() or run.resumed_from
    kept = f" and the weights before it, --init_from {before}" if before is not None else ""
    raise NonFiniteLossError(
        f"The loss or its gradient became NaN or infinite in step {step}; no update has been applied since. Sample "
        f"keys, seed and weights are in {folder}: reproduce the step with --replay {folder}. Resumed, the run would "
        "come to the same step again. To avoid it, try --train.precision bf16 or no instead of fp16, a lower learning "
        f"rate, a longer warm-up or --optim.clip_grad_norm, in a run with another --output_dir{kept}."
    )


def _log(run: Run, clock: Clock) -> None:
    _check_finite(run)
    terms = run.engine.read_window()
    weights = run.engine.loss_weights
    row = {
        "loss": sum(weights[name] * value for name, value in terms.items()),
        **{f"loss/{name}": value for name, value in terms.items()},
        "learning_rate": run.plan.learning_rate(run.step - 1),
        "grad_norm": float(run.engine.grad_norm),
        **clock.speed(run.step),
    }
    run.report.add("train", run.step, row)
    clock.restart(run.step)


def _save(run: Run) -> None:
    _check_finite(run)
    average = run.average.state_dict() if run.average is not None else None
    optimizer = run.engine.updater.state()
    state = checkpoint_state(run.facts, run.step, run.engine)
    state |= {ENTRIES: len(optimizer["optimizer"]["state"]), METRICS_RECORD: run.report.record()}
    with patience(SAVING), run.whole() as model:
        run.ranks.on_main(
            lambda: run.store.save(model, optimizer, state | run.judged_facts, average, beside=_beside(run, model))
        )
    run.saved = run.step


def _evaluate(run: Run) -> None:
    """Evaluate, record, and keep the weights where they are the best so far."""
    if run.eval_feed is None:
        return
    _check_finite(run)
    started, drawn = time.perf_counter(), run.showing.seconds
    metrics = _judge(run)
    seconds = time.perf_counter() - started - (run.showing.seconds - drawn)
    run.report.add("eval", run.step, {**metrics, "seconds": seconds})
    if run.step < run.plan.total_steps:
        _show(run, RUNNING)


def _judge(run: Run) -> dict[str, float]:
    """Metrics of the model as it is; where they are the best so far the weights are kept."""
    if run.eval_feed is None:
        return {}
    seed_step(run.args.seed, -1, run.ranks.rank)
    with run.evaluating() as model:
        found = run.task.evaluate(model, run.eval_feed, run.accelerator)
        run.eval_feed.check(run.ranks)
        metrics = {eval_name(name): float(value) for name, value in found.items()}
        best = run.best_metric(metrics)
        if best is not None:
            run.ranks.on_main(lambda: _keep_best(run, model, metrics, best))
        run.showing.evaluated(model, run.step, last=run.step == run.plan.total_steps)
    return metrics


def _keep_best(run: Run, model: nn.Module, metrics: dict[str, float], best: tuple[str, bool]) -> None:
    """Keep the weights if they are the best so far, and publish them where that was asked for."""
    state = {"step": run.step, "metrics": metrics, **run.judged_facts}
    kept = run.store.save_if_best(model, state, *best, beside=_beside(run, model))
    if kept is not None and run.publish is not None:
        run.publish(kept)


def _publish_former_best(run: Run) -> None:
    """The run that we continue may have been stopped before its best checkpoint was sent; no other may follow."""
    best = run.store.best() if run.args.checkpoint.save_best else None
    if best is not None and run.publish is not None:
        run.publish(best)


def _beside(run: Run, model: nn.Module) -> Callable[[Path], None]:
    """What writes beside weights all that belongs to them: their processor, and what is known of the training data."""

    def write(folder: Path) -> None:
        run.task.save_processor(model, run.args, folder)
        copy_beside(run.args.output_dir, folder)

    return write


def _last_metrics(run: Run, at: int | None = None) -> dict[str, float]:
    """Metrics of the last evaluation, or of the one after step `at`; empty where there is none."""
    rows = [row for row in run.report.history if row["kind"] == "eval" and at in (None, row["step"])]
    return {name: value for name, value in rows[-1].items() if name.startswith("eval/")} if rows else {}


def _closing_lines(run: Run) -> list[str]:
    """What the task says of the last evaluation, such as a trivial floor beside the model."""
    found = {name.removeprefix("eval/"): value for name, value in _last_metrics(run).items()}
    return run.task.closing_lines(found)


def _announce(run: Run, decided: Mapping[str, str]) -> None:
    """Write train_config.json and the other files beside the model, and print the plan of the run."""
    found = {"plan": run.plan.to_dict(), "data": run.data, "device": str(run.accelerator.device)}
    config = {**run.facts, **found, "decided_by": dict(decided), **provenance()}

    def write() -> None:
        origin = lineage_at_start(run.args, run.resumed_from)  # reads the file that is replaced
        write_sealed_json(Path(run.args.output_dir) / CONFIG, {**config, KEY: origin.to_dict()})

    run.ranks.on_main(write)
    run.ranks.on_main(run.leave_beside_the_model)
    resumed = [f"continuing from {run.resumed_from} at step {run.step}"] if run.resumed_from else []
    run.report.say([*run.plan.describe(run.args, run.ranks.size), *run.description, *resumed])


def _show(run: Run, state: str, commands: Sequence[NextCommand] = (), more: Sequence[str] = ()) -> None:
    """Write report.html as things stand, with `more` lines at its top."""
    if not run.showing.active:
        return
    args, chosen = run.args, run.chosen_metric()
    description = [*more, *run.plan.describe(args, run.ranks.size), *run.description]
    surroundings = {**provenance(), "device": str(run.accelerator.device)}
    story = RunStory(
        args, state, run.step, run.plan.total_steps, run.report.history, description, chosen, commands=commands
    )
    story.environment = surroundings
    run.showing.report(story)


def _conclude(run: Run, finished: bool, command: Command) -> None:
    """The last page, what all pictures took, and what to type next."""
    clips = getattr(config_of(run.model), "num_frames", 1) > 1 if hasattr(run.model, "config") else False
    commands = after_run(run.args, command, run.train_set.source, clips) if finished else to_continue(run.args, command)
    compared = _closing_lines(run) if finished else []
    _show(run, "finished" if finished else f"stopped by signal {run.stop.received}", commands, compared)
    pictures = [run.showing.cost()] if run.showing.active else []
    run.report.say([*pictures, *told(commands)])


def _finish(run: Run) -> None:
    """Save the model so that from_pretrained can load it; with the averaged weights if an average is kept."""

    def save() -> None:
        folder = Path(run.args.output_dir)
        try:
            (folder / MARKER).unlink(missing_ok=True)
            run.task.save(model, run.args)
            mark_complete(folder, [path.name for path in sorted(folder.iterdir()) if FINAL.fullmatch(path.name)])
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"Could not write the final model to {run.args.output_dir}: {error}. Checkpoints are intact; free "
                "some space, then continue the run."
            ) from error

    if run.eval_feed is not None and run.task.lacks_evaluation():
        _judge(run)  # its metrics are recorded; what a run before us remembered of it went with that run
    if run.showing.lacks_predictions:
        with run.evaluating() as model:
            run.showing.evaluated(model, run.step, last=True)
    with patience(SAVING), run.averaged(), run.whole() as model:
        run.ranks.on_main(save)
    listed = count_skipped(run.args.output_dir)
    run.report.say(_closing_lines(run))
    holes = [f"WARNING: training: {words}"] if (words := run.feed.holes.words()) else []
    run.report.say([f"model and metrics are in {run.args.output_dir}", *([listed] if listed else []), *holes])

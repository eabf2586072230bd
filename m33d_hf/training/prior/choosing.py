"""`model.depth_prior_weight: auto`: a short trial run on a part of the training data, before the run itself.

The run then trains on all of them. Ours, not the paper's; what it brings is measured in docs/own_data.md.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.data.plural import plural
from m33d_hf.errors import NonFiniteLossError
from m33d_hf.training.prior.keeping_back import TooFewFramesError
from m33d_hf.training.prior.trial_task import PriorTrialTask
from m33d_hf.training.processes.guards import EvaluationStoppedError, StopSignals, exit_code, output_lock
from m33d_hf.training.processes.launch import Ranks, open_accelerator
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.preparation import Run, refuse_early
from m33d_hf.training.settling.settle import PRIOR_WEIGHT, TRIAL_LENGTH, Settled, shorter
from m33d_hf.training.settling.sharing import shared
from m33d_hf.training.tasks.base import build_task

RECORD = "depth_prior.json"
_FOLDER = "trial_without_kept_back"
_LARGEST = 0.7  # with more of the mean, a prediction would hardly depend on its picture
# A few recordings kept back tell delta1 no better than by some hundredths, and on most data that was measured half and
# half is close to the best (docs/own_data.md): it is left only where the difference is larger.
_USUAL, _TOLERANCE = 0.5, 0.02
_LINES = 4


def with_prior_weight(settled: Settled) -> Settled:
    """Settle `model.depth_prior_weight` if it is open; anything else is returned as it is.

    Raises:
        NonFiniteLossError: NaN or infinity in the trial.
        ConfigError, DataError, CheckpointError: what would stop the run at its start, before the trial begins.
        SystemExit: a signal to stop, with the shell's exit code.
    """
    if PRIOR_WEIGHT not in settled.left:
        return settled
    with contextlib.redirect_stdout(io.StringIO()):  # what was loaded is told by the run itself
        refuse_early(settled.args, build_task(settled.args.task))
    try:
        found = _try_out(settled)
    except TooFewFramesError as error:
        _say(f"{error} Predictions are the model's alone.")
        return _put(settled, 0.0, "too few training samples for a trial")
    weight = best_weight(found["delta1"])
    _say(
        f"share of the mean depth per position in predictions: {weight:.0%}. On the frames kept back, delta1 is "
        f"{found['delta1'][f'{weight:g}']:.3f} with it, {found['delta1']['0']:.3f} of the model alone, "
        f"{found['delta1']['1']:.3f} of the mean depth alone. Now the run itself, on all training frames"
    )
    if _is_main():
        write_sealed_json(Path(settled.args.output_dir) / RECORD, {"weight": weight, **found})
    return _put(settled, weight, "a trial on training frames kept back")


def best_weight(delta1: Mapping[str, float]) -> float:
    """The share next to a half, of those up to seven tenths, whose delta1 is within .02 of the largest among them.

    Args:
        delta1: by the share, as text.
    """
    allowed = {float(weight): value for weight, value in delta1.items() if float(weight) <= _LARGEST}
    most = max(allowed.values())
    good = [weight for weight, value in allowed.items() if value >= most - _TOLERANCE]
    return min(good, key=lambda weight: abs(weight - _USUAL))


def _put(settled: Settled, weight: float, where: str) -> Settled:
    args = copy.deepcopy(settled.args)
    args.model["depth_prior_weight"] = weight
    return dataclasses.replace(
        settled,
        args=args,
        origins={**settled.origins, PRIOR_WEIGHT: where},
        decided={**settled.decided, PRIOR_WEIGHT: where},
        left=settled.left - {PRIOR_WEIGHT},
    )


def _trial_arguments(args: RunArguments) -> RunArguments:
    """The run without evaluation data, half as long, in a folder of its own."""
    trial = copy.deepcopy(args)
    trial.output_dir, trial.resume = str(Path(args.output_dir) / _FOLDER), "none"
    trial.model.pop("depth_prior_weight", None)
    trial.data.eval_split = trial.data.eval_root = None
    trial.evaluation.floor, trial.evaluation.metric, trial.evaluation.depth_protocol = False, None, None
    trial.hub.push, trial.logging.pictures = False, False  # trackers are not started, but must be there
    train, optim = trial.train, trial.optim
    train.max_steps = None if train.max_steps is None else shorter(train.max_steps)
    train.epochs = None if train.epochs is None else TRIAL_LENGTH * train.epochs
    optim.warmup_steps = None if optim.warmup_steps is None else shorter(optim.warmup_steps)
    optim.warmup_epochs *= TRIAL_LENGTH
    return trial


def _try_out(settled: Settled) -> dict[str, Any]:
    """Train on a part of the training data, and judge the rest with every share."""
    trial, task, stop = _trial_arguments(settled.args), PriorTrialTask(), StopSignals()
    with contextlib.ExitStack() as stack:
        accelerator = stack.enter_context(open_accelerator(trial))
        ranks = Ranks(accelerator)
        trial = shared(trial, settled.decided, ranks)
        if accelerator.is_main_process:
            stack.enter_context(output_lock(settled.args.output_dir))
        ranks.on_main(lambda: shutil.rmtree(trial.output_dir, ignore_errors=True))  # of a killed run
        Path(trial.output_dir).mkdir(parents=True, exist_ok=True)
        # Whatever ends the trial, nothing of it stays.
        stack.callback(shutil.rmtree, trial.output_dir, ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):  # what was loaded is told by the run itself
            run = Run(trial, task, accelerator, stop)
        stack.callback(run.close)
        judged, total = len(task.division.judged), run.plan.total_steps
        whole = judged + len(task.division.trained)
        _say(
            f"kept back {judged} of {plural(whole, 'training frame')} ({task.division.said}), to choose how much the "
            f"mean depth per position shares in predictions: {plural(total, 'step')} without them first"
        )
        delta1: Mapping[str, float] = {}
        with stop, contextlib.suppress(EvaluationStoppedError):
            # By what all ranks know: a signal that only one has is told to the others within the evaluation.
            if _train(run):
                with run.evaluating() as model:
                    delta1 = task.evaluate(model, run.eval_feed or [], accelerator)
        # And one that came after that here. From now on a signal has its usual effect: there is no later one to tell.
        if ranks.sums([float(stop.requested() is not None)])[0]:
            stop.join()
            _say("interrupted in the trial; run the same command again")
            raise SystemExit(exit_code(stop.received))
    return {"delta1": delta1, "kept_back": task.division.said, "frames": judged, "of": whole, "steps": total}


def _train(run: Run) -> bool:
    """All steps, said in a few lines, or those before a signal to stop; returns which of the two, on all ranks alike.

    Raises:
        NonFiniteLossError: a loss or a gradient is NaN or infinite.
    """
    total = run.plan.total_steps
    while run.step < total:
        batches = run.feed.draw(run.step)
        if batches is None:
            return False
        run.engine.update(run.step, batches, run.plan.learning_rate(run.step))
        run.step += 1
        if run.average is not None:
            run.average.update()
        if run.step % max(1, total // _LINES) == 0:
            _say(f"trial step {run.step}/{total}")
    bad = run.engine.bad_step()
    if bad is not None:
        raise NonFiniteLossError(
            f"The loss or its gradient became NaN or infinite in step {bad} of the trial that chooses how much the "
            "mean depth per position shares in predictions. Try a lower --optim.learning_rate, or go without the trial "
            "(--model.depth_prior_weight 0): the run itself then captures such a step."
        )
    return True


def _say(line: str) -> None:
    if _is_main():
        print(line, file=sys.stderr, flush=True)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0

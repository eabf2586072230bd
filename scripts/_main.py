"""Entry point of all run_* scripts: parse, then dry-run, replay, evaluate or train; our errors end without a
traceback."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import importing

if TYPE_CHECKING:
    from m33d_hf.training.settling.settle import Settled

ERROR = 2
INTERRUPTED = 130


def main(task_name: str, argv: list[str] | None = None) -> int:
    """Run a task from the command line.

    Args:
        task_name: a name of `m33d_hf.training.recipe.task_names`.
        argv: words; None for those of the process.

    Returns:
        0; 1 after a replay that did not reproduce; 2 after an error of ours (its message is on stderr);
        128 + signal number after an interruption.
    """
    watch_launcher()  # before torch, which takes seconds to import, in which the launcher may go
    words = sys.argv[1:] if argv is None else argv
    try:
        return _run(task_name, words)
    except M33DError as error:
        rank = f"[rank {os.environ['RANK']}] " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        print(f"{rank}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        _tell_what_answers(error, task_name, words)
        return ERROR
    except (
        KeyboardInterrupt
    ):  # while torch is imported or data are looked at: a run that trains saves and says so itself
        print("interrupted; run the same command again", file=sys.stderr, flush=True)
        return INTERRUPTED


def _tell_what_answers(error: M33DError, task_name: str, words: list[str]) -> None:
    """The command that answers an error, if there is one; on the first process only."""
    if os.environ.get("RANK", "0") != "0":
        return
    from m33d_hf.training.recipe.parsing import resolve
    from m33d_hf.training.showing.command_words import started_as
    from m33d_hf.training.showing.next_commands import after_error, told

    try:
        args = resolve(words, task_name).args  # what is still open, as in the recipes for own data, plays no part
    except M33DError:
        return  # the error was about the words themselves
    for line in told(after_error(error, args, started_as(task_name, words))):
        print(line, file=sys.stderr, flush=True)


def _run(task_name: str, words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        with importing():
            from m33d_hf.training.recipe.help import help_text

            print(help_text(task_name, words))
        return 0
    with importing():
        from m33d_hf.data.remembering import remembering
        from m33d_hf.training.recipe.parsing import resolve

        resolved = resolve(words, task_name)
        from m33d_hf.training.run import loop as _loop  # noqa: F401 - with all the rest, while the collector rests
        from m33d_hf.training.settling.settle import settle, tell

    with remembering():  # the run reads the data that settling looks at
        settled = settle(resolved)
        tell(settled.lines)
        return _perform(settled, task_name, words)


def _keep_apart(settled: Settled) -> None:
    """An evaluation goes beside the training that has its output folder, unless a folder was stated (which is refused
    later): the folder of a recipe is that of its training."""
    from m33d_hf.training.run.evaluation_run import beside_training
    from m33d_hf.training.settling.settle import tell

    beside = beside_training(settled.args.output_dir)
    if beside is None or settled.origins.get("output_dir") == "command line":
        return
    tell([f"output_dir: {beside}, as {settled.args.output_dir} is the folder of a training"])
    settled.args.output_dir, settled.origins["output_dir"] = beside, "beside the training"


def _perform(settled: Settled, task_name: str, words: list[str]) -> int:
    from m33d_hf.training.run.loop import train
    from m33d_hf.training.showing.command_words import started_as
    from m33d_hf.training.showing.next_commands import after_dry_run, after_evaluation, told
    from m33d_hf.training.tasks.base import build_task

    task, command = build_task(task_name), started_as(task_name, words)
    if settled.args.eval_only:
        _keep_apart(settled)
    if settled.args.replay is not None:
        from m33d_hf.training.run.replay import replay

        result = replay(settled.args.replay, task)
        print("\n".join(result.describe()))
        return 0 if result.reproduced else 1
    if settled.args.dry_run:
        from m33d_hf.training.run.dry_run import dry_run

        print(dry_run(settled.args, task, settled.origins, settled.left))
        print("\n".join(told(after_dry_run(command), "== next")))
        return 0
    if settled.args.eval_only:
        from m33d_hf.training.run.evaluation_run import evaluate_run

        evaluate_run(settled.args, task)
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(told(after_evaluation(settled.args, command))))
        return 0
    from m33d_hf.training.prior.choosing import with_prior_weight

    if not settled.args.hub.push:
        settled = with_prior_weight(settled)
        return train(settled.args, task, settled.decided, command).exit_code
    from m33d_hf.hub.best_checkpoints import publisher_of_run

    with publisher_of_run(settled.args) as publish:  # a hub that refuses us does so before the trial
        settled = with_prior_weight(settled)
        trained = train(settled.args, task, settled.decided, command, publish)
        publish.wait_at_the_end = trained.interrupted_by is None
    return trained.exit_code

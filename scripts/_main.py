"""Entry point of all run_* scripts: parse, then dry-run, replay, evaluate or train; our errors end without a
traceback."""

from __future__ import annotations

import os
import sys

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.launcher import watch_launcher

ERROR = 2


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
        return ERROR


def _run(task_name: str, words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        from m33d_hf.training.recipe.help import help_text

        print(help_text(task_name, words))
        return 0
    from m33d_hf.training.recipe.parsing import resolve

    resolved = resolve(words, task_name)
    from m33d_hf.training.tasks.base import build_task

    task = build_task(task_name)
    if resolved.args.replay is not None:
        from m33d_hf.training.run.replay import replay

        result = replay(resolved.args.replay, task)
        print("\n".join(result.describe()))
        return 0 if result.reproduced else 1
    if resolved.args.dry_run:
        from m33d_hf.training.run.dry_run import dry_run

        print(dry_run(resolved.args, task, resolved.origins))
        return 0
    if resolved.args.eval_only:
        from m33d_hf.training.run.evaluation_run import evaluate_run

        evaluate_run(resolved.args, task)
        return 0
    from m33d_hf.training.run.loop import train

    return train(resolved.args, task).exit_code

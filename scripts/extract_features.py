"""Extract the clip features of all videos: extract_features.py --recipe orar_temporal --init_from STAGE_1_OUTPUT.

Videos of both splits. Takes the arguments of run_action_detection.py, which extracts only the features that it needs.
With torchrun or accelerate launch the processes share the videos; a run that was stopped continues.
"""

from __future__ import annotations

import sys

from m33d_hf.errors import M33DError
from m33d_hf.scripts._main import ERROR
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error whose message is on stderr."""
    watch_launcher()
    words = sys.argv[1:] if argv is None else argv
    if "-h" in words or "--help" in words:
        from m33d_hf.training.recipe.help import help_text

        print(__doc__, help_text("action_detection", words), sep="\n")
        return 0
    from m33d_hf.training.recipe.parsing import resolve

    try:
        resolved = resolve(_with_length(words), "action_detection")
        from m33d_hf.data.remembering import remembering
        from m33d_hf.training.processes.launch import open_accelerator
        from m33d_hf.training.run.preparation import build_model
        from m33d_hf.training.settling.settle import settle, tell
        from m33d_hf.training.tasks.detection.task import ActionDetectionTask

        task = ActionDetectionTask()
        with remembering():
            settled = settle(resolved)  # as the run that will use the features
            tell(settled.lines)
            args = settled.args
            args.logging.trackers = []
            with open_accelerator(args) as accelerator:
                folders = task.extract(args, build_model(args, task))
                if accelerator.is_main_process:
                    print("\n".join(f"features are in {folder}" for folder in folders))
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return ERROR
    return 0


def _with_length(words: list[str]) -> list[str]:
    """The length of a training, which every run must state, does not matter here."""
    stated = any(word.startswith(("--train.epochs", "--train.max_steps", "--recipe")) for word in words)
    return words if stated else [*words, "--train.epochs", "1"]


if __name__ == "__main__":
    sys.exit(program(main))

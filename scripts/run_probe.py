"""Probe a frozen encoder: run_probe.py --recipe rooms/actions --init_from PRETRAINED --output_dir outputs/probe

Nearest neighbours and a linear classifier on the features of clips, with the recipes and flags of
run_video_classification.py: fitted on the clips of --data.train_split, evaluated on those of --data.eval_split; the
encoder is not trained. Its architecture is that of --init_from, as for a run; without --init_from it is random. Images
have pixel labels instead of class labels:
--dense --recipe rooms/semseg (and the flags of run_semantic_segmentation.py) fits a linear classifier on patch tokens.

  --knn_k 20 --knn_temperature 0.07                    the neighbours' vote
  --linear_strengths 0.0001,0.001,0.01,0.1,1           L2 penalties to choose from
  --linear_held_out 0.2                                share of the training features that chooses
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.modeling.fields_m33d import Range
from m33d_hf.scripts._main import ERROR
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program

RANGES = {
    "knn_k": Range(low=1, high=10**9),
    "knn_temperature": Range(above=0, high=1e6),
    "linear_strengths": Range(above=0, high=1e12),
    "linear_held_out": Range(above=0, below=1),
}
TASKS = {False: "video_classification", True: "semantic_segmentation"}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns 0, or 2 after an error whose message is on stderr."""
    watch_launcher()
    words = sys.argv[1:] if argv is None else argv
    if "-h" in words or "--help" in words:
        from m33d_hf.training.recipe.help import help_text

        print(__doc__, help_text(TASKS["--dense" in words], words), sep="\n")
        return 0
    from m33d_hf.training.recipe.parsing import resolve

    try:
        own, rest = _own_options(words)
        stated = any(word.startswith(("--train.epochs", "--train.max_steps", "--recipe")) for word in rest)
        resolved = resolve(rest if stated else [*rest, "--train.epochs", "1"], TASKS[own.dense])
        from m33d_hf.data.files.atomic_writing import write_text_atomically
        from m33d_hf.data.remembering import remembering
        from m33d_hf.evaluation.probes import STRENGTHS, KnnOptions, LinearOptions
        from m33d_hf.training.probes import clips as probing
        from m33d_hf.training.probes import dense as dense_probing
        from m33d_hf.training.settling.settle import settle, tell

        knn = KnnOptions(own.knn_k, own.knn_temperature)
        with remembering():  # the probe reads the data that settling looks at
            settled = settle(resolved, trains=False)
            tell(settled.lines)
            args = settled.args
            args.logging.trackers = []
            linear = LinearOptions(own.linear_strengths or STRENGTHS, own.linear_held_out, args.seed)
            found = dense_probing.dense_probe_run(args, linear) if own.dense else probing.probe_run(args, knn, linear)
        if os.environ.get("RANK", "0") == "0":
            told = {"init_from": args.init_from, "recipe": args.recipe, "seed": args.seed, "metrics": found}
            text = json.dumps(told, indent=2)
            write_text_atomically(Path(args.output_dir) / "probe.json", text + "\n")
            print(text, flush=True)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return ERROR
    return 0


def _own_options(words: list[str]) -> tuple[Any, list[str]]:
    """What only probes have, and the words that are left."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--knn_k", type=int, default=20)
    parser.add_argument("--knn_temperature", type=float, default=0.07)
    parser.add_argument("--linear_strengths", type=_numbers)
    parser.add_argument("--linear_held_out", type=float, default=0.2)
    try:
        own, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}; see --help.") from error
    for name, allowed in RANGES.items():
        value = getattr(own, name)
        problem = None if value is None else allowed.problem(value)
        if problem is not None:
            raise ConfigError(f"--{name} {problem}.")
    return own, rest


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(program(main))

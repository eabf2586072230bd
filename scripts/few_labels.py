"""Few labels on any data that a recipe reads: `python scripts/few_labels.py --help`.

Amounts of labels x starts x seeds, and a verdict with its interval for every start against the first:

    python scripts/few_labels.py --recipe own/semseg --data.root FRAMES --data.options.num_classes 6 \\
        --train.max_steps 500 --labels 50 200 --start scratch --start m33d_plus=outputs/pre_s0,outputs/pre_s1 \\
        --start mae=method:mae --pretrain_recipe own/pretrain --pretrain_steps 2000

What is no option below is passed to every fine-tuning (and what says where the data is and how large the encoder, to
every pre-training).

Phases of long videos have two stages, clips and then whole videos, both trained on the same share of the cases:

    python scripts/few_labels.py --recipe own/phases_clips --data.root VIDEOS --train.max_steps 500 --fractions 0.2 1 \\
        --temporal_recipe own/phases --temporal_steps 300 --start scratch --start m33d=outputs/clips_s0,outputs/clips_s1
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m33d_hf.training.processes.program import continuable, program

# What a pre-training and its fine-tunings have in common, as flags.
ENCODER = {
    f"--model.{name}"
    for name in (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size", "image_size"),
        *("num_frames", "tubelet_size", "hidden_act", "layer_norm_eps", "qkv_bias", "use_cls_token"),
    )
}

if TYPE_CHECKING:
    from m33d_hf.experiments.few_labels.study import Start, Study


def read(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the words of a run that they leave."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--recipe", required=True, help="of a fine-tuning: own/semseg, scannet_semseg, nyuv2_semseg, nyuv2_depth, ...")
    add(
        "--task",
        help="semantic_segmentation (default), depth_estimation, video_classification, or action_detection (default "
        "with --temporal_recipe)",
    )
    add("--temporal_recipe", help="of the second stage of action_detection: own/phases, orar_temporal, ...")
    add("--temporal_steps", type=int, help="optimizer steps of the second stage")
    add("--temporal", action="append", default=[], help="a further setting of the second stage, as KEY=VALUE")
    add(
        "--start",
        action="append",
        default=[],
        help="a row: NAME (from scratch), NAME=FOLDER,FOLDER (a checkpoint for each seed of pre-training), or "
        "NAME=method:METHOD (pre-trained here, once per seed); the first is what the others are compared with",
    )
    add("--fractions", type=float, nargs="+", default=[], help="shares of the labels, drawn by scenes or videos: 0.2 1")
    add("--labels", type=int, nargs="+", default=[], help="numbers of labelled samples: 50 200")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2; two or more for a verdict")
    add("--draws", type=int, default=1, help="fine-tunings of one encoder, averaged; default: 1")
    add(
        "--pretrain_recipe",
        help="for starts with a method; default: own/pretrain, with --temporal_recipe own/pretrain_clips",
    )
    add("--pretrain_steps", type=int, help="optimizer steps of such a pre-training")
    add("--pretrain", action="append", default=[], help="a further setting of pre-trainings, as KEY=VALUE")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu, one thread for each process")
    add("--workers", type=int, help="number of processes; default: one per core, at most 8; on a GPU one")
    add("--output_dir", type=Path, default=Path("outputs/few-labels"), help="default: outputs/few-labels")
    add("--fresh", action="store_true", help="repeat finished rows")
    add("--report_only", action="store_true", help="only write the reports again, from results.json")
    given = sys.argv[1:] if argv is None else list(argv)
    options, words = parser.parse_known_args(given)
    options.command = shlex.join(["python", "scripts/few_labels.py", *given])
    return options, [part for word in words for part in _split(word)]


def _split(word: str) -> list[str]:
    """`--key=value` as two words, and keys as they are written in recipes: runs take both forms."""
    if not word.startswith("--"):
        return [word]
    key, equals, value = word.partition("=")
    return [f"--{key[2:].replace('-', '_')}", *([value] if equals else [])]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code (1 when a row failed, 2 when the command line is wrong)."""
    options, words = read(argv)
    return continuable(lambda: _run(options, words))


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    from m33d_hf.experiments.compute import Compute
    from m33d_hf.experiments.driver import report
    from m33d_hf.experiments.few_labels.running import run_study

    if options.report_only:
        return report(options.output_dir)
    workers = options.workers or (1 if options.device == "cuda" else None)
    compute = Compute(device=options.device)
    return run_study(study_of(options, words), options.output_dir, workers, compute, options.fresh)


def study_of(options: argparse.Namespace, words: Sequence[str]) -> Study:
    """What a command line asks for; the arguments are those that `read` gives."""
    from m33d_hf.experiments.few_labels.study import Amount, Study

    shared = [word for key, values in _settings(words) if key.startswith("--data.") for word in (key, *values)]
    staged = options.temporal_recipe is not None
    stated = {f"--{setting.partition('=')[0]}" for setting in options.pretrain}
    encoder = [word for key, values in _settings(words) if key in ENCODER - stated for word in (key, *values)]
    before = options.pretrain_recipe or ("own/pretrain_clips" if staged else "own/pretrain")
    # Clips of whole videos, annotated or not, are read by `phases`; own/pretrain_clips reads folders of frames else.
    videos = ["--data.source", "phases", *shared] if staged and options.pretrain_recipe is None else shared
    temporal = _stage(options.temporal_recipe, shared, options.temporal_steps, options.temporal) if staged else ()
    return Study(
        task=options.task or ("action_detection" if staged else "semantic_segmentation"),
        words=("--recipe", options.recipe, *words),
        pretraining_words=_stage(before, [*videos, *encoder], options.pretrain_steps, options.pretrain),
        temporal_words=temporal,
        starts=tuple(_start(text) for text in options.start),
        amounts=(
            *(Amount(share=share) for share in options.fractions),
            *(Amount(number=number) for number in options.labels),
        ),
        seeds=tuple(options.seeds),
        draws=options.draws,
        command=options.command,
    )


def _stage(recipe: str, shared: Sequence[str], steps: int | None, settings: Sequence[str]) -> tuple[str, ...]:
    """Command line of what is trained beside the fine-tunings, on the same data."""
    words = ["--recipe", recipe, *shared]
    if steps is not None:
        words += ["--train.max_steps", str(steps)]
    for setting in settings:
        key, _, value = setting.partition("=")
        words += [f"--{key}", value]
    return tuple(words)


def _settings(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Keys with the words that follow them."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
    return found


def _start(text: str) -> Start:
    from m33d_hf.experiments.few_labels.study import Start

    name, _, value = text.partition("=")
    if value.startswith("method:"):
        return Start(name, method=value.removeprefix("method:"))
    return Start(name, checkpoints=tuple(part for part in value.split(",") if part))


if __name__ == "__main__":
    sys.exit(program(main))

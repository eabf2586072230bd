"""What benchmarks/gpu.py measures, in which order, and about how long each takes on a large GPU."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import augmentation_step
import finetune_step
import gpu_parity
import inference
import pretrain_step
import torch
from step_cases import CASES

GOALS = ["S3", "S4", "S5", "S6", "S7"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One entry of the plan.

    Attributes:
        name: what is measured.
        goal: "parity", or what it is wanted for.
        seconds: about how long it takes on an H100; parity is always tried.
        compiles: whether most of that is torch.compile.
        run: measures; returns "told", a line, and its figures.
    """

    name: str
    goal: str
    seconds: float
    run: Callable[[], Row]
    compiles: bool = False


def measurements(args: argparse.Namespace) -> Iterator[Measurement]:
    """The plan, the most wanted first."""
    for name, prove in (
        ("RandAugment against the CPU's", gpu_parity.augmentation),
        ("pre-training against transformers", gpu_parity.pretraining),
        ("fine-tuning against transformers", gpu_parity.fine_tuning),
        ("forward passes", gpu_parity.forward),
        ("methods against the CPU", gpu_parity.methods),
    ):
        yield Measurement(name, "parity", 0.0, partial(_proved, prove, args))
    step = partial(_pretraining, args)
    timed = [
        step("S4", "videomae", 60),
        Measurement("fine-tuning step, bf16", "S6", 20, partial(_fine_tuning, args, "bf16")),
        Measurement("augmentation in a fine-tuning step, bf16", "S3", 20, partial(_augmentation, args)),
        step("S5", "m33d_video", 80),
        *(Measurement(f"forward pass, {t}", "S7", 12, partial(_inference, args, t)) for t in inference.TASKS),
        step("S5", "mae", 60),
        Measurement("fine-tuning step, float32", "S6", 25, partial(_fine_tuning, args, "no")),
        step("S5", "m33d_plus_video", 80),
        step("S5", "m33d_image_stage2", 70),
        step("S5", "m33d_image_stage1", 60),
    ]
    yield from (each for each in timed if each.goal in args.only)


def _proved(prove: Callable[[argparse.Namespace], Row], args: argparse.Namespace) -> Row:
    found = prove(args)
    return {"told": "proved", "errors": found}


def _pretraining(args: argparse.Namespace, goal: str, case: str, seconds: float) -> Measurement:
    mode = "eager" if args.eager else "compiled"

    def run() -> Row:
        words = ["--device", args.device, "--cases", case, "--batch", str(args.batch), "--rounds", str(args.rounds)]
        words += ["--size", args.size, "--no_memory", "--warmup", "1" if args.size == "tiny" else "5", "--peers"]
        row = pretrain_step.measure(
            pretrain_step.parse(words), CASES[case], "bf16", not args.eager, torch.device(args.device)
        )
        share, step = row["share_of_ceiling"], row["steps"]["ours"]["median_ms"]
        return {"told": f"{step:.1f} ms, {share:.1%} of the matmul ceiling", "cases": [row]}

    return Measurement(f"{case} bf16 {mode}", goal, 15 if args.eager else seconds, run, not args.eager)


def _fine_tuning(args: argparse.Namespace, precision: str) -> Row:
    words = ["--device", args.device, "--size", args.size, "--batch", str(args.clips), "--rounds", str(args.rounds)]
    row = finetune_step.measure(finetune_step.parse(words), precision)
    return {"told": finetune_step.described(row), **row}


def _augmentation(args: argparse.Namespace) -> Row:
    words = ["--device", args.device, "--size", args.size, "--batch", str(args.clips), "--rounds", str(args.rounds)]
    row = augmentation_step.measure(augmentation_step.parse([*words, "--precision", "bf16"]))
    return {"told": f"{row['share_of_augmentation']:.1%} of step and finishing together", **row}


def _inference(args: argparse.Namespace, task: str) -> Row:
    words = ["--device", args.device, "--size", args.size, "--tasks", task, "--rounds", str(args.rounds)]
    rows = list(inference.rows_of(inference.parse(words), task))
    told = [f"{r['precision']} batch {r['batch']} {r['ours']['median_ms']:.1f} ms" for r in rows]
    return {
        "told": f"ours {', '.join(told)}; peer / ours {[round(r['peer_over_ours'], 2) for r in rows]}",
        "rows": rows,
    }

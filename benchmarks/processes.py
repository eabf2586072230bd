"""Throughput of a pre-training step on several processes against one, over gloo, one thread each.

    python benchmarks/processes.py                             # ViT-S, two processes on two cores: minutes
    python benchmarks/processes.py --case m33d_video --batch 1 --rounds 12
    python benchmarks/processes.py --size tiny --rounds 2 --output_dir outputs/x   # seconds: a test of the machinery

Writes processes.json into --output_dir. Three ways take turns in every round, each some steps long: the main process
alone while the others sleep; all processes, each with a model and a batch of its own and nothing to say to each other,
which is what the machine gives (cores share memory, cache and clock); and all processes on one model, as
`accelerate launch` trains it (DDP). Wall clock, from a barrier to the last process's end. Throughput is in samples of
all processes; the share of the second way is what the reduction of gradients costs.

Before anything is timed, the gradient of one step over all processes, each with its share of a batch, is compared with
that of one process with the whole batch.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from measuring import ParityError, header
from step_cases import CASES, Batch, our_batch, our_config
from step_contenders import GRADIENT_TOLERANCE, OurStep
from torch import nn

from m33d_hf.data.loader.allocator import keep_freed_memory
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.processes.launch import ddp_options

HERE = Path(__file__).parent
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
WAYS = ("alone", "apart", "together")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), default="m33d_image_stage2")
    parser.add_argument("--size", choices=["base", "small", "tiny"], default="small")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, help="samples of one process and step; default: the case's")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="steps of one way in one round (default 2)")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    return parser.parse_args(argv)


@contextmanager
def no_launcher() -> Iterator[None]:
    """What is made in here is made as by a process that nobody launched."""
    kept = {name: os.environ.pop(name) for name in LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def build(args: argparse.Namespace) -> nn.Module:
    """The same weights everywhere."""
    torch.manual_seed(0)
    return M33DForPreTraining(our_config(CASES[args.case], args.size)).train()


def whole_batch(args: argparse.Namespace, samples: int) -> Batch:
    """The samples of all processes."""
    return our_batch(our_config(CASES[args.case], args.size), samples, torch.device("cpu"))


def share_of(batch: Batch, rank: int, processes: int) -> Batch:
    """One process's rows."""

    def part(value: Any) -> Any:
        return {k: part(v) for k, v in value.items()} if isinstance(value, dict) else value.chunk(processes)[rank]

    return {name: part(value) for name, value in batch.items()}


def check_gradient(alone: OurStep, together: OurStep, batch: Batch) -> float:
    """Largest difference of a weight's gradient in the first update, as a share of the gradient of all weights.

    The weights are equal until then, and AdamW's first moments are that gradient times one factor for all.

    Raises:
        ParityError: they differ by more than rounding does.
    """
    mine, alone.batch = alone.batch, batch
    for step in (alone, together):
        step()
    alone.batch = mine
    one, all_ = (_first_moments(step) for step in (alone, together))
    whole = torch.stack([each.norm() for each in one]).norm()
    error = max(float((mine - theirs).norm() / whole) for mine, theirs in zip(one, all_, strict=True))
    if not error <= GRADIENT_TOLERANCE:
        raise ParityError(f"the gradient of all processes differs from that of one by {error:.1e} of it")
    return error


def _first_moments(step: OurStep) -> list[torch.Tensor]:
    optimizer = step.engine.updater.optimizer
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return [optimizer.state[weight]["exp_avg"] for weight in weights]


def timed(call: Callable[[], None], steps: int, here: bool) -> float:
    """Seconds from a barrier until all processes have done `steps` calls; where not `here`, this one waits."""
    dist.barrier()
    began = time.perf_counter()
    for _ in range(steps if here else 0):
        call()
    dist.barrier()
    return time.perf_counter() - began


def work(args: argparse.Namespace) -> dict[str, Any]:
    """What every process does; the main one's result counts."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    samples = args.batch or CASES[args.case].batch
    batch = whole_batch(args, samples * args.processes)
    rank = int(os.environ["RANK"])
    own = share_of(batch, rank, args.processes)
    with no_launcher():
        alone = OurStep(build(args), own, "no", compiled=False)
    together = OurStep(build(args), own, "no", compiled=False, accelerator=accelerator)
    error = check_gradient(alone, together, batch)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(args.rounds + 1):
        found = {
            "alone": timed(alone, args.steps, here=rank == 0),
            "apart": timed(alone, args.steps, here=True),
            "together": timed(together, args.steps, here=True),
        }
        if number:  # the first warms up
            for way, spent in found.items():
                seconds[way].append(spent)
    return {"samples": samples, "gradient_error": error, "seconds": seconds}


def accelerator() -> Accelerator:
    """As a run makes it."""
    return Accelerator(cpu=True, kwargs_handlers=[ddp_options()])


def launch(words: Sequence[str], processes: int) -> dict[str, Any]:
    """The same script in that many processes; returns what the main one prints last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, *words],
            env={**os.environ, **meet, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            text=True,
        )
        for rank in range(processes)
    ]
    output, _ = ranks[0].communicate()
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}: {output}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def ratios(seconds: dict[str, list[float]], processes: int) -> dict[str, Any]:
    """Throughput against one process, of processes apart as well, and the share that communication leaves.

    Each as the ratio of the medians over rounds, and the ratio in every round.
    """
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    rounds = list(zip(*(seconds[way] for way in WAYS), strict=True))
    return {
        "throughput": processes * middle["alone"] / middle["together"],
        "throughput_apart": processes * middle["alone"] / middle["apart"],
        "share_of_apart": middle["apart"] / middle["together"],
        "throughput_by_round": [processes * alone / together for alone, _, together in rounds],
        "throughput_apart_by_round": [processes * alone / apart for alone, apart, _ in rounds],
        "share_of_apart_by_round": [apart / together for _, apart, together in rounds],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(words)
    if "RANK" in os.environ:
        found = work(args)
        if os.environ["RANK"] == "0":
            print(json.dumps(found), flush=True)
        dist.destroy_process_group()
        return 0
    measured = launch(words, args.processes)
    result = {**header("processes", torch.device("cpu")), "processes": args.processes, "case": args.case}
    result |= {"size": args.size, **measured, "ratios": ratios(measured["seconds"], args.processes)}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "processes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in ("throughput", "throughput_apart", "share_of_apart"):
        found = result["ratios"][f"{name}_by_round"]
        print(f"{name}: {result['ratios'][name]:.3f} (rounds {min(found):.3f} to {max(found):.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

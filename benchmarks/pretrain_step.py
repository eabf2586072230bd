"""Our pre-training step against transformers' VideoMAE and ViTMAE: same weights, same input, same mask, one process.

    python benchmarks/pretrain_step.py                       # CPU, ViT-B, float32: minutes
    python benchmarks/pretrain_step.py --device cuda --precision no bf16 --compiled both --batch 64
    python benchmarks/pretrain_step.py --report              # the tables of benchmarks/README.md, from the JSON files

Before a comparison of the same model is timed, loss and every gradient are proved equal; else nothing is timed. What
the figures mean, and what was found: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a GPU machine runs this from the source tree, without installing anything
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from measuring import MatmulCeiling, ParityError, header, interleaved, peak_memory, summary  # noqa: E402
from step_cases import CASES, Batch, Case, build_peer, our_batch, our_config, peer_batch, peer_config  # noqa: E402
from step_contenders import OurStep, PeerStep, check_parity, eager_loss, transplant  # noqa: E402
from step_operations import peer_operations, shared_projections  # noqa: E402
from step_report import write_report  # noqa: E402
from torch import nn  # noqa: E402
from transformers.utils import logging  # noqa: E402

from m33d_hf.data.loader.allocator import keep_freed_memory  # noqa: E402
from m33d_hf.evaluation.flops import count_pretraining  # noqa: E402
from m33d_hf.modeling.configuration_m33d import M33DConfig  # noqa: E402
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining  # noqa: E402

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where parity failed."""
    args = parse(argv)
    if args.report:
        print(write_report(ROOT / "benchmarks"))
        return 0
    logging.set_verbosity_error()
    device = torch.device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.memory_of is not None:
        print(json.dumps(memory_of(args, device)))
        return 0
    if device.type == "cpu":
        keep_freed_memory()  # as the training loop does; both sides gain
    else:
        # cuDNN's default would round the inputs of the peers' patch convolutions to TF32, which is not float32.
        torch.backends.cudnn.allow_tf32 = False
    content = {**header(args.name, device), "load_average": [os.getloadavg()[0]], "size": args.size, "cases": []}
    failed = False
    for name in args.cases:
        for precision in args.precision:
            for compiled in {"eager": [False], "compiled": [True], "both": [False, True]}[args.compiled]:
                try:
                    row = measure(args, CASES[name], precision, compiled, device)
                except ParityError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    row, failed = {"case": name, "precision": precision, "parity_error": str(error)}, True
                content["cases"].append(row)
                content["load_average"].append(os.getloadavg()[0])
                write(Path(args.output), content)
                print("\n".join(described(row)), flush=True)
    return int(failed)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; defaults that depend on the device are filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["videomae", "mae"], choices=list(CASES), help="what to compare")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="threads of the CPU (1 there, else torch's)")
    parser.add_argument("--precision", nargs="+", default=["no"], choices=["no", "bf16"], help="float32 or autocast")
    parser.add_argument("--compiled", default="eager", choices=["eager", "compiled", "both"], help="torch.compile")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="samples per step, of all cases or one each; by case on CPU, 64 on a GPU"
    )
    parser.add_argument("--rounds", type=int, help="timed rounds (5 on CPU, 30 on a GPU)")
    parser.add_argument("--warmup", type=int, help="rounds before (1 on CPU, 10 on a GPU)")
    parser.add_argument(
        "--peers", nargs="*", default=["fused", "default"], choices=["fused", "default"], help="none: only ours"
    )
    parser.add_argument("--size", default="base", choices=["base", "small", "tiny"], help="ViT-B, ViT-S, for tests")
    parser.add_argument("--tiny", dest="size", action="store_const", const="tiny", help="the same as --size tiny")
    parser.add_argument("--no_memory", action="store_true", help="leave out the peak memory (a process per side)")
    parser.add_argument("--name", default="pretrain_step", help="word for the file")
    parser.add_argument("--output", help="JSON file; benchmarks/<name>.json")
    parser.add_argument("--report", action="store_true", help="measure nothing; renew the tables in the README")
    parser.add_argument("--memory_of", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.batch is not None and len(args.batch) not in (1, len(args.cases)):
        parser.error(f"--batch takes one number or one for each of the {len(args.cases)} --cases.")
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees no GPU here.")
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: at least one.")
    on_cpu = torch.device(args.device).type == "cpu"
    args.threads = args.threads if args.threads is not None else (1 if on_cpu else None)
    args.rounds = args.rounds if args.rounds is not None else (5 if on_cpu else 30)
    args.warmup = args.warmup if args.warmup is not None else (1 if on_cpu else 10)
    args.output = args.output or str(ROOT / "benchmarks" / f"{args.name}.json")
    return args


def samples_of(args: argparse.Namespace, case: Case) -> int:
    """Samples per step."""
    if args.batch is not None:
        return int(args.batch[args.cases.index(case.name)] if len(args.batch) > 1 else args.batch[0])
    return case.batch if torch.device(args.device).type == "cpu" else 64


def measure(args: argparse.Namespace, case: Case, precision: str, compiled: bool, device: torch.device) -> Row:
    """One case in one precision: parity, interleaved times, rates, memory.

    Raises:
        ParityError: the two sides do not compute the same.
    """
    samples = samples_of(args, case)
    config = our_config(case, args.size)
    ours, peers, inputs = build(args, case, config, samples, device)
    mode = "compiled" if compiled else "eager"
    row: Row = {"case": case.name, "precision": precision, "mode": mode, "batch": samples}
    if case.same_model:
        row["parity"] = parity(case, ours, peers[0], inputs, config)
    expected = eager_loss(ours, inputs["ours"])
    contenders: dict[Any, Callable[[], None]] = {}
    for kind, peer in zip(args.peers, peers):
        given = peer_batch(case.peer or "", peer_config(case.peer or "", args.size), inputs["peer"])
        contenders[f"peer_{kind}"] = PeerStep(peer, given, precision, compiled, kind)
    contenders["ours"] = step = OurStep(ours, inputs["ours"], precision, compiled)
    row["timed_loss"] = step.check_loss(expected)
    # Reference, candidate, reference: ours stands between the peers.
    order = sorted(contenders, key=lambda name: ("peer_fused", "ours", "peer_default").index(name))
    ceiling = MatmulCeiling(config, samples, device, precision)
    calls = {name: contenders[name] for name in order} | ceiling.calls()
    seconds = interleaved(calls, args.rounds, args.warmup, device)
    row["steps"] = {name: summary(seconds[name]) for name in order}
    if case.same_model:
        row["ratio_by_round"] = {
            name: [peer / own for peer, own in zip(seconds[name], seconds["ours"], strict=True)]
            for name in order
            if name != "ours"
        }
    shares = device.type == "cpu" and precision == "no"
    row |= rates(case, config, samples, row["steps"], ceiling.rate(seconds), shares)
    if case.same_model:
        row["gflop_per_sample_customary"] = peer_operations(case.peer or "", args.size) / 1e9
    if not args.no_memory:
        del contenders, calls, step, ours, peers, ceiling
        gc.collect()
        row["peak_memory_bytes"] = measure_memory(args, case, precision)
    return row


def build(
    args: argparse.Namespace, case: Case, config: M33DConfig, samples: int, device: torch.device
) -> tuple[M33DForPreTraining, list[nn.Module], dict[str, Batch]]:
    """Our model, one peer per optimizer with the same weights, and their inputs."""
    torch.manual_seed(0)
    ours = M33DForPreTraining(config)
    inputs = {"ours": our_batch(config, samples, device)}
    peers: list[nn.Module] = []
    if case.peer is not None:
        # Without peers to time, one of the same model is there for the proof.
        peers = [build_peer(case.peer, args.size) for _ in args.peers or [None] * case.same_model]
        for peer in peers[1:]:
            peer.load_state_dict(peers[0].state_dict())
        if case.same_model:
            transplant(peers[0], ours)
        inputs["peer"] = our_batch(peer_config(case.peer, args.size), samples, device)
    return ours.to(device), [peer.to(device) for peer in peers], inputs


def parity(
    case: Case, ours: M33DForPreTraining, peer: nn.Module, inputs: Mapping[str, Batch], config: M33DConfig
) -> dict[str, float | int]:
    """Equal loss and gradients on the first two samples.

    Raises:
        ParityError: they differ.
    """
    few = {name: _first(value, 2) for name, value in inputs["ours"].items()}
    return check_parity(ours, peer, few, peer_batch(case.peer or "", config, few))


def _first(value: Any, count: int) -> Any:
    return {key: part[:count] for key, part in value.items()} if isinstance(value, dict) else value[:count]


def rates(
    case: Case,
    config: M33DConfig,
    samples: int,
    steps: Mapping[str, Mapping[str, float]],
    ceiling: float,
    shares: bool,
) -> Row:
    """Ratios of the medians (and of the fastest rounds), operations per second, share of the matmul ceiling.

    `shares`: mask tokens are projected once per position, so that fewer operations are counted.
    """
    ours = steps["ours"]
    exact = count_pretraining(config, samples).training - (shared_projections(config, samples) if shares else 0.0)
    seconds = ours["median_ms"] / 1e3
    word = "ratio" if case.same_model else "cost_against_peer"
    row: Row = {word: {}, f"{word}_of_fastest": {}}
    for name in steps:
        if name != "ours":
            pair = [steps[name]["median_ms"] / ours["median_ms"], steps[name]["min_ms"] / ours["min_ms"]]
            row[word][name], row[f"{word}_of_fastest"][name] = pair if case.same_model else [1 / x for x in pair]
    return row | {
        "gflop_per_sample": exact / 1e9,
        "flops": exact * samples / seconds,
        "matmul_ceiling_flops": ceiling,
        "share_of_ceiling": exact * samples / seconds / ceiling,
        "samples_per_second": samples / seconds,
    }


def measure_memory(args: argparse.Namespace, case: Case, precision: str) -> dict[str, int]:
    """Peak of either side in a process of its own: what three steps add to the bare process, weights included."""
    found = {}
    for side in ("peer", "ours") if case.peer else ("ours",):
        command = [sys.executable, str(Path(__file__).resolve()), "--memory_of", side, "--cases", case.name]
        command += ["--device", args.device, "--precision", precision, "--batch", str(samples_of(args, case))]
        command += ["--threads", str(args.threads)] if args.threads is not None else []
        command += ["--size", args.size]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"measuring the memory of {side} failed:\n{done.stderr}")
        found[side] = int(json.loads(done.stdout.strip().splitlines()[-1])["bytes"])
    return found


def memory_of(args: argparse.Namespace, device: torch.device) -> dict[str, int]:
    """In a process of its own: peak of three eager steps of one side, above the process without model and input."""
    case, precision = CASES[args.cases[0]], args.precision[0]
    samples = samples_of(args, case)
    if device.type == "cpu":
        keep_freed_memory()
    before = peak_memory(device)
    torch.manual_seed(0)
    if args.memory_of == "ours":
        config = our_config(case, args.size)
        inputs = our_batch(config, samples, device)
        step: Callable[[], None] = OurStep(M33DForPreTraining(config).to(device), inputs, precision, False)
    else:
        name = case.peer or ""
        config = peer_config(name, args.size)
        inputs = peer_batch(name, config, our_batch(config, samples, device))
        step = PeerStep(build_peer(name, args.size).to(device), inputs, precision, False, "fused")
    for _ in range(3):
        step()
    return {"bytes": peak_memory(device) - before}


def write(path: Path, content: Row) -> None:
    """Write the JSON, after every case: a run that is stopped keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def described(row: Row) -> list[str]:
    """A case as lines of text."""
    if "parity_error" in row:
        return [f"{row['case']}: not timed"]
    lines = [f"{row['case']}, precision {row['precision']}, {row['mode']}, batch {row['batch']}"]
    if "parity" in row:
        same = row["parity"]
        lines.append(
            f"  parity: loss {same['loss']:.7f} against {same['peer_loss']:.7f}; "
            f"gradients of {same['weights']} weights within {same['gradient_error']:.1e}"
        )
    for name, step in row["steps"].items():
        ratio = {**row.get("ratio", {}), **row.get("cost_against_peer", {})}.get(name)
        word = "peer / ours" if "ratio" in row else "ours / peer"
        lines.append(
            f"  {name:<13} {step['median_ms']:10.2f} ms  min {step['min_ms']:10.2f}  "
            f"spread {100 * step['spread']:4.1f} %" + (f"   {word} {ratio:.3f}" if ratio is not None else "")
        )
    customary = f" (peer {row['gflop_per_sample_customary']:.1f})" if "gflop_per_sample_customary" in row else ""
    lines.append(
        f"  {row['gflop_per_sample']:.1f} GFLOP a sample{customary}, "
        f"{row['flops'] / 1e9:.1f} GFLOP/s, {100 * row['share_of_ceiling']:.1f} % of the matmul ceiling "
        f"({row['matmul_ceiling_flops'] / 1e9:.1f} GFLOP/s)"
    )
    if "peak_memory_bytes" in row:
        parts = [f"{side} {size / 2**20:.0f} MiB" for side, size in row["peak_memory_bytes"].items()]
        lines.append(f"  peak memory: {', '.join(parts)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())

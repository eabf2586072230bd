"""Step time and peak memory over visible tokens, frames, batch and modalities, against the FLOP formula.

    python benchmarks/cost_curves.py                       # CPU, one thread, about 2 minutes of CPU time
    python benchmarks/cost_curves.py --device cuda         # device events, max_memory_allocated
    python benchmarks/cost_curves.py --plot_only           # pictures and text again from the JSON

Writes cost_curves.json, cost_curves.png and cost_curves_shares.png into --output_dir. Points are visited in random
order, every one once per repetition, and the median is kept; memory on the CPU is the growth of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from cost_figures import curves_picture, shares_picture
from cost_fits import describe, describe_memory, fit_line, lines_of
from cost_points import (
    Point,
    described,
    expected_peak,
    flops,
    parameters,
    points,
    saved_activations,
    shuffled,
    visit,
)

HERE = Path(__file__).resolve().parent


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="tiny models and few points: a test of the machinery")
    parser.add_argument("--plot_only", action="store_true", help="read the JSON instead of measuring")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    return parser.parse_args(argv)


def visits(wanted: list[Point], repetitions: int, seed: int, device: str) -> list[tuple[Point, dict[str, Any]]]:
    """Measure every point once per repetition; on the CPU in processes that are forked from one that ran nothing."""
    order = list(shuffled(wanted, repetitions, seed))
    if device != "cpu":
        return [(point, visit(point, device, repetition == 0)) for repetition, point in order]
    found = []
    for number, (repetition, point) in enumerate(order, start=1):
        found.append((point, _in_a_fork(point, device, repetition == 0)))
        if number % len(wanted) == 0:
            print(f"{number} of {len(order)} visits", file=sys.stderr, flush=True)
    return found


def _in_a_fork(point: Point, device: str, first: bool) -> dict[str, Any]:
    """A visit in a fork of this process, which has imported everything and computed nothing (so has no threads)."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_tell, args=(theirs, point, device, first))
    child.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError as error:
        raise RuntimeError(f"the process that measured {point} ended without a result") from error
    finally:
        child.join()


def _tell(pipe: Any, point: Point, device: str, first: bool) -> None:
    pipe.send(visit(point, device, first))
    pipe.close()


def measured_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per point: medians over the repetitions beside what the formulas say."""
    wanted = points(args.tiny)
    samples: dict[Point, list[dict[str, Any]]] = {point: [] for point in wanted}
    for point, result in visits(wanted, args.repetitions, args.seed, args.device):
        samples[point].append(result)
    rows = []
    for point, found in samples.items():
        steps = {key: [value for s in found for value in s[key]] for key in ("seconds", "system", "faults")}
        rows.append(
            {
                **described(point),
                "flops": flops(point),
                "parameters": parameters(point),
                **{key: statistics.median(values) for key, values in steps.items()},
                "all_seconds": steps["seconds"],
                "peak": statistics.median(s["peak"] for s in found),
                "saved": found[0]["saved"],
                "shares": found[0]["shares"],
                "saved_formula": saved_activations(point),
                "peak_formula": expected_peak(point),
            }
        )
    return rows


def fitted(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A line per curve and decoder."""
    return {
        name: fit_line([row["flops"] for row in line], [row["seconds"] for row in line])
        for name, line in lines_of(rows).items()
    }


def texts_of(rows: Sequence[dict[str, Any]], fits: dict[str, Any]) -> list[str]:
    """What the curves say, in words."""
    texts = [text for name, line in lines_of(rows).items() for text in describe(name, line, fits[name])]
    return [*texts, *describe_memory(rows)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, fit, draw, write."""
    from m33d_hf.experiments.compute import environment

    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    path = args.output_dir / "cost_curves.json"
    if args.plot_only:
        if not path.is_file():
            sys.exit(f"{path} is not there: measure first, without --plot_only, or name the folder with --output_dir.")
        document = json.loads(path.read_text(encoding="utf-8"))
    else:
        rows = measured_rows(args)
        device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, one thread"
        document = {
            "command": shlex.join(["python", "benchmarks/cost_curves.py", *sys.argv[1:]]),
            "environment": environment(),
            "device": device,
            "repetitions": args.repetitions,
            "rows": rows,
        }
    fits = fitted(document["rows"])
    document |= {"fits": fits, "text": texts_of(document["rows"], fits)}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unit = "CPU s" if document["device"].startswith("CPU") else "s"
    curves_picture(document["rows"], fits, args.output_dir / "cost_curves.png", unit)
    shares_picture(document["rows"], args.output_dir / "cost_curves_shares.png")
    print("\n".join(document["text"]))


if __name__ == "__main__":
    main()

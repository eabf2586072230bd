"""How long a user waits for the first sign of life: help, and the first step of a run.

    python benchmarks/start_up.py                              # seven rounds, two minutes
    python benchmarks/start_up.py --against OTHER_CHECKOUT     # the same of another checkout, taking turns
    python benchmarks/start_up.py --rounds 1 --output_dir outputs/x

Writes start_up.json into --output_dir. Each way is a new process on the wall clock, all taking turns in every round
after one that is not measured (files in the system's cache, rooms rendered). Beside it stands the CPU time of the
process until then (Linux), which says more where others use the machine. The first step is that of a tiny model on
rendered rooms, from `python scripts/run_pretrain.py` to its line in the log. `floor` is the import of
transformers.modeling_utils, which no program with a model of transformers can do without.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import header

HERE = Path(__file__).resolve().parent
FLOOR = ("-c", "import transformers.modeling_utils; print('there')")
HELP = {
    "help": ("--help",),
    "help_model": ("--help", "--model"),
    "help_source": ("--help", "--data.source", "folder"),
}
RUN = (
    "--recipe", "rooms/pretrain", "--method", "rgbd_mae", "--train.max_steps", "2", "--logging.every_steps", "1",
    "--data.eval_split", "null", "--train.batch_size", "8",
)  # fmt: skip
FIRST_STEP = "step 1/"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    return parser.parse_args(argv)


def commands(checkout: Path, output: Path) -> dict[str, tuple[str, ...]]:
    """Way -> words after `python`."""
    script = str(checkout / "scripts" / "run_pretrain.py")
    ways = {name: (script, *words) for name, words in HELP.items()}
    return {**ways, "first_step": (script, *RUN, "--output_dir", str(output))}


def seconds_until(words: Sequence[str], checkout: Path, sign: str) -> tuple[float, float | None]:
    """Wall clock from the start of a process to the first line that begins with `sign`, and its CPU time until then.

    It is then let run out.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        lines = _lines(process)
        said, seen, used = [], None, None
        for line in lines:
            said.append(line)
            if line.startswith(sign) and seen is None:
                seen, used = time.perf_counter() - started, cpu_seconds(process.pid)
    if process.returncode or seen is None:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode} and without {sign!r}: {''.join(said)}")
    return seen, used


def cpu_seconds(process: int) -> float | None:
    """CPU time of a running process so far, all its threads; None where the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return None
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    if process.stdout is not None:
        yield from process.stdout


def measured(checkouts: dict[str, Path], rounds: int) -> dict[str, dict[str, list[tuple[float, float | None]]]]:
    """Checkout -> way -> (wall, CPU) seconds of every round."""
    found: dict[str, dict[str, list[tuple[float, float | None]]]] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, checkout in checkouts.items():
                output = Path(folder) / f"{name}{number}"
                for way, words in {"floor": FLOOR, **commands(checkout, output)}.items():
                    sign = {"floor": "there", "first_step": FIRST_STEP}.get(way, "Task ")
                    spent = seconds_until(words, checkout, sign)
                    if number:
                        found[name].setdefault(way, []).append(spent)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    args = parse(sys.argv[1:] if argv is None else argv)
    checkouts = {"ours": HERE.parent}
    if args.against is not None:
        checkouts["against"] = args.against.resolve()
    seconds = measured(checkouts, args.rounds)
    found: dict[str, Any] = header("start_up", torch.device("cpu"))
    if args.against is not None:  # where it lies is nobody's concern, what it is is
        found["command"] = found["command"].replace(str(args.against), "OTHER_CHECKOUT")
        found["against_commit"] = _commit(args.against)
    found["rounds"] = args.rounds
    for name, ways in seconds.items():
        wall = {way: [round(seconds, 3) for seconds, _ in times] for way, times in ways.items()}
        used = {way: [cpu for _, cpu in times if cpu is not None] for way, times in ways.items()}
        found[f"{name}_seconds"] = {way: statistics.median(times) for way, times in wall.items()}
        found[f"{name}_cpu_seconds"] = {way: statistics.median(times) for way, times in used.items() if times}
        found[f"{name}_seconds_by_round"], found[f"{name}_cpu_seconds_by_round"] = wall, used
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "start_up.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key.endswith("_seconds")}, indent=1))
    return 0


def _commit(checkout: Path) -> str:
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

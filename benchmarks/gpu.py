"""What was not measured for want of a GPU, in five minutes on any: parity first, then the most wanted times.

    python benchmarks/gpu.py --minutes 5                                # what fits into them; writes gpu.json
    python benchmarks/gpu.py --only S4 S6                               # some of it
    python benchmarks/gpu.py --eager                                    # where there is no compiler
    python benchmarks/gpu.py --device cpu --tiny --eager --output_dir outputs/x # seconds: a test of the machinery

It runs the other benchmarks' measurements one after the other, the most wanted first: S4 and S5 pretrain_step.py (share
of the matmul ceiling), S3 augmentation_step.py, S6 finetune_step.py, S7 inference.py. Torch, transformers, accelerate
and numpy are needed, for S3 torchvision as well. Nothing is timed before every parity is proved; where one fails, or
could not be finished, the exit code is 1. What would take longer than is left is skipped, and what is still running
when the time is up is stopped; both are said in the JSON, which is written after every measurement. So --minutes is
kept, unless a single call into a library lasts longer.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()  # before the imports, which count

import argparse  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a GPU machine runs this from the source tree, without installing anything

import torch  # noqa: E402
from gpu_plan import GOALS, Measurement, measurements  # noqa: E402
from measuring import ParityError, header  # noqa: E402
from transformers.utils import logging  # noqa: E402

from m33d_hf.data.loader.allocator import keep_freed_memory  # noqa: E402

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


class OutOfTime(BaseException):
    """The minutes are over. No Exception: compilers wrap those in their own."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or, for tests, cpu")
    parser.add_argument("--minutes", type=float, default=5.0, help="from the start of the process (default 5)")
    parser.add_argument("--only", nargs="+", choices=GOALS, default=GOALS, help="measurements, beside parity")
    parser.add_argument("--batch", type=int, default=64, help="samples of a pre-training step (default 64)")
    parser.add_argument("--clips", type=int, default=16, help="clips of a fine-tuning step (default 16)")
    parser.add_argument("--rounds", type=int, default=20, help="of every measurement (default 20)")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--size", choices=("base", "small", "tiny"), default="base", help="ViT-B, ViT-S, for tests")
    parser.add_argument("--tiny", action="store_true", help="tiny models, few samples, one round")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees no GPU here.")
    if min(args.batch, args.clips, args.rounds) < 1 or args.minutes <= 0:
        parser.error("--batch, --clips and --rounds: at least one; --minutes: more than none.")
    if args.tiny:
        args.size, args.batch, args.clips, args.rounds = "tiny", 2, 2, 1
    return args


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stop what runs inside after some time.

    Raises:
        OutOfTime: it was stopped.
    """

    def stop(_number: int, _frame: object) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class Session:
    """Measures one thing after the other within the time, and keeps what came out.

    Attributes:
        rows: of what was tried or skipped so far, each with one of "result", "skipped", "parity_error" and "error".

    Args:
        ends: when the time is up, by the clock of `time.monotonic`.
    """

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.rows: list[Row] = []
        # How much slower than expected this machine is, apart for what is compiled: that hangs on its CPU.
        self._slower = {False: 1.0, True: 1.0}

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def proved(self) -> bool:
        """Whether every parity that was tried has a result."""
        return all("result" in row for row in self.rows if row["goal"] == "parity")

    def run(self, what: Measurement) -> Row:
        """Measure, or say why not."""
        row: Row = {"name": what.name, "goal": what.goal}
        self.rows.append(row)
        expected = what.seconds * self._slower[what.compiles]
        if what.goal != "parity":
            if not self.proved():
                return _with(row, skipped="a parity is not proved")
            if expected > self.left():
                return _with(row, skipped=f"takes about {expected:.0f} s, of which {max(self.left(), 0):.0f} are left")
        began = time.monotonic()
        try:
            with at_most(self.left()):
                row["result"] = what.run()
        except OutOfTime:
            row["skipped"] = f"stopped after {time.monotonic() - began:.0f} s, when the time was up"
        except ParityError as error:
            row["parity_error"] = str(error)
        except Exception as error:  # told in the file and by the exit code; the others are still worth having
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {error}"[:500]
        row["seconds"] = round(time.monotonic() - began, 1)
        if "result" in row and what.seconds:
            self._slower[what.compiles] = max(1.0, row["seconds"] / what.seconds)
        return row


def _with(row: Row, **more: Any) -> Row:
    row.update(more)
    return row


def tidy(device: torch.device) -> None:
    """Give back what the last measurement held."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def told(row: Row) -> str:
    """A row as text."""
    for word in ("skipped", "parity_error", "error"):
        if word in row:
            return f"{row['goal']:6} {row['name']}: {word.replace('_', ' ')}: {row[word]}"
    return f"{row['goal']:6} {row['name']} ({row['seconds']:.0f} s): {row['result']['told']}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; 1 where a parity failed or is not proved, or a measurement ended in an error."""
    args = parse(sys.argv[1:] if argv is None else argv)
    logging.set_verbosity_error()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()  # as training does
    else:
        torch.backends.cudnn.allow_tf32 = False  # cuDNN's default would round float32 inputs of convolutions
    session = Session((STARTED if argv is None else time.monotonic()) + 60 * args.minutes)
    content: Row = {**header("gpu", device), "size": args.size, "minutes": args.minutes, "cases": []}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for what in measurements(args):
        row = session.run(what)
        content["cases"] += row.get("result", {}).get("cases", [])  # rows of pretrain_step.py, for its --report
        content["measurements"] = session.rows
        (args.output_dir / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(told(row), flush=True)
        tidy(device)
    return int(not session.proved() or any("error" in row for row in session.rows))


if __name__ == "__main__":
    raise SystemExit(main())

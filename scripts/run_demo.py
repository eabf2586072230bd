"""Pre-train, fine-tune and report on the embedded rooms: `python scripts/run_demo.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.program import continuable, program


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code (1 when a row failed)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("images", "video"), default="images", help="frames, or clips and videos")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="output folder; default: outputs/demo or outputs/demo-video, with -BUDGET behind it unless that is full",
    )
    parser.add_argument("--budget", default="full", help="full, or smoke: a quick functional test in about a minute")
    parser.add_argument("--workers", type=int, help="number of one-thread processes; default: one per core, at most 8")
    parser.add_argument("--cache_dir", help="cache folder for rendered rooms; default: the user's cache")
    parser.add_argument("--fresh", action="store_true", help="repeat finished rows")
    parser.add_argument("--report_only", action="store_true", help="only write the reports again, from results.json")
    options = parser.parse_args(argv)

    return continuable(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from m33d_hf.experiments.driver import report, run

    plan = "demo-video" if options.part == "video" else "demo"
    # A quick look does not replace ten minutes of work.
    folder = options.output_dir or Path("outputs") / (plan if options.budget == "full" else f"{plan}-{options.budget}")
    if options.report_only:
        return report(folder)
    return run(plan, folder, options.budget, options.workers, options.fresh, options.cache_dir)


if __name__ == "__main__":
    sys.exit(program(main))

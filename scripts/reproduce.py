"""Reproduce the tables on the embedded rooms, resumable row by row: `python scripts/reproduce.py --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.program import program


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code (1 when a row failed)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="full", help="full: what the tables need; smoke: is everything connected?")
    parser.add_argument(
        "--plan",
        default="core",
        help="core: the main methods; parts: M33D+ without each of its parts; masks, initialisation: Tables 6 and 7; "
        "labels: Figure 2 and Table 2; clips; gpu: core on one large GPU; earlier: reproduction, longer, exploration",
    )
    parser.add_argument("--output_dir", type=Path, help="output folder; default: outputs/PLAN-BUDGET")
    parser.add_argument("--workers", type=int, help="number of processes; default: one per core, at most 8")
    parser.add_argument("--cache_dir", help="cache folder for rendered rooms; default: the user's cache")
    parser.add_argument("--fresh", action="store_true", help="repeat finished rows")
    parser.add_argument("--dry_run", action="store_true", help="print jobs, cost and contrasts, and stop")
    parser.add_argument("--report_only", action="store_true", help="only write the reports again, from results.json")
    parser.add_argument(
        "--update_readme",
        action="store_true",
        help="put the tables of --output_dir (default: results/rooms) into README.md and docs/evidence.md",
    )
    options = parser.parse_args(argv)

    # The shell's `kill` ends like Ctrl-C: workers are told, save, and the next call continues.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from m33d_hf.errors import M33DError
    from m33d_hf.experiments.driver import report, run
    from m33d_hf.experiments.reading import as_tables
    from m33d_hf.experiments.report.reproduction import update_documents
    from m33d_hf.experiments.report.results import load_results

    folder = options.output_dir or Path("outputs") / f"{options.plan}-{options.budget}"
    try:
        if options.update_readme:
            results = load_results(options.output_dir or Path("results/rooms"))
            changed = update_documents(Path(), as_tables(results))
            news = f"updated: {', '.join(map(str, changed))}" if changed else ""
            print(news or "README.md and docs/evidence.md are up to date")
            return 0
        if options.report_only:
            return report(folder)
        return run(
            options.plan,
            folder,
            options.budget,
            options.workers,
            options.fresh,
            options.cache_dir,
            options.dry_run,
        )
    except M33DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(program(main))

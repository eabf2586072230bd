"""Reproduce the tables on the embedded rooms, resumable row by row: `python scripts/reproduce.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.program import continuable, program


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code (1 when a row failed)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="full", help="full: what the tables need; smoke: is everything connected?")
    parser.add_argument(
        "--plan",
        default="core",
        help="core: the main methods; search: what could be better; confirm: what it chose; parts: M33D+ without each "
        "of its parts; masks, initialisation: Tables 6 and 7; labels, clips_labels: Figure 2 and Table 2; temporal; "
        "clips; rgbd; own_method, own_clips: for the recipes own/; gpu: core on one large GPU; "
        "demo, demo-video: those of make; "
        "earlier: reproduction, longer, exploration",
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
        help="put the committed results of --plan, results/PLAN/results.json, into README.md and docs/evidence.md",
    )
    options = parser.parse_args(argv)

    return continuable(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from m33d_hf.experiments.driver import report, run

    if options.update_readme:
        return _update_documents(options.plan, options.output_dir)
    folder = options.output_dir or Path("outputs") / f"{options.plan}-{options.budget}"
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


def _update_documents(plan: str, folder: Path | None) -> int:
    """Write what the documents show of a plan, from `folder` or where its results are committed."""
    from m33d_hf.experiments.reading import as_tables
    from m33d_hf.experiments.report.documents import committed_folder, update_documents
    from m33d_hf.experiments.report.results import RESULTS, load_results

    found = folder or committed_folder(Path(), plan)
    there = folder is not None or (found / RESULTS).is_file()
    changed = update_documents(Path(), plan, as_tables(load_results(found)) if there else None)
    if not there:
        print(f"there is no {found / RESULTS}: the documents say that the plan was not run in full yet")
    print(f"updated: {', '.join(map(str, changed))}" if changed else "the documents are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(program(main))

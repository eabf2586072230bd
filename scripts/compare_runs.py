"""Compare runs of one task: compare_runs.py OUTPUT OUTPUT ... [--output FOLDER].

Prints the settings that differ and the metrics side by side, and writes comparison.html (with curves and the last
pictures of predictions inside) and curves.png. Runs may be unfinished; that is said.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.program import program


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: 0, or 2 after an error of ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="OUTPUT", help="output folders of runs of one task")
    parser.add_argument("--output", type=Path, default=Path("outputs/comparison"), help="folder of page and curves")
    options = parser.parse_args(argv)
    try:
        from m33d_hf.experiments.run_comparison import compare_runs

        lines, written = compare_runs(options.runs, options.output)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    print("\n".join([*lines, *map(str, written)]))
    return 0


if __name__ == "__main__":
    sys.exit(program(main))

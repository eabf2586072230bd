"""Scripts and modules from the command line, in a process that is forked instead of started from nothing."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from helpers.ranks import ForkedRanks


def run_script(script: Path | str, *words: str | Path, log: Path, timeout: float = 300.0) -> tuple[int | None, str]:
    """`python SCRIPT.py WORDS`, or `python -m MODULE WORDS`; (exit code, what it printed)."""
    ranks = ForkedRanks(_run, script, [str(word) for word in words], log=log)
    return ranks.wait(timeout)[0], ranks.output()


def _run(script: Path | str, words: list[str]) -> None:
    sys.argv = [str(script), *words]
    if isinstance(script, str):
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")

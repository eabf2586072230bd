"""Serve the web page: python -m m33d_hf.demo [MODEL ..].

A model is the output folder of a run, a checkpoint folder, or a Hub id; without any, those below outputs/ (and
checkpoints/) are offered. Only this machine can open the page, unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m m33d_hf.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="folders and Hub ids")
    add("--outputs", type=Path, nargs="+", help="folders that are searched without MODEL (outputs and checkpoints)")
    add("--host", help="address to listen on, such as 0.0.0.0 for all; default: this machine alone")
    add("--port", type=int, help="default: the first free one from 7860")
    add("--max_upload_mb", type=float, default=64.0, help="largest file that is taken (default 64)")
    add("--keep_seconds", type=int, default=1800, help="when uploads and results are deleted (default 1800)")
    add("--device", default="auto", help="cpu, cuda, ..; auto: the GPU, if any")
    add("--precision", default="no", choices=("no", "bf16", "fp16"), help="no is float32 (default)")
    add("--trust_remote_code", action="store_true", help="run code from the models' repositories; read it first")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and serve: 0 when interrupted, 2 after an error of ours."""
    arguments = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from m33d_hf.demo.server import PageOptions, serve
    from m33d_hf.errors import M33DError

    try:
        serve(PageOptions(**arguments))
    except M33DError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(program(main))

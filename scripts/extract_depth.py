"""Estimate the depth of RGB images or videos with any depth model of transformers, ours included.

Writes 16-bit PNG or Parquet below --output with one depth_spec.json; the sources ucf101 and phases read it
(--data.options.depth). Start it with torchrun or accelerate launch to share the work; start it again to continue.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="folder or Hub id: Depth Anything, DPT, ZoeDepth, M33DForDepthEstimation, ..")
    add("--input", required=True, type=Path, help="a tree of images, video files or frame folders, or one file")
    add("--output", required=True, type=Path, help="output folder for the depth; may be inside --input")
    add(
        "--format",
        default="png",
        help=("for videos: png (a folder of 16-bit PNG per video) or parquet (a file per video)"),
    )
    add("--kind", default="auto", help="metric, inverse, relative, or auto (from the model's configuration)")
    add("--items", default="auto", help="images, videos (folders of pictures are videos too), or auto if clear")
    add("--batch_size", type=int, default=8, help="pictures per forward pass")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..; auto: the GPU of the local rank, otherwise the CPU")
    add("--short_side", type=int, help="largest short side of the stored depth; default: that of the pictures")
    add("--limit", type=int, help="process only the first N inputs")
    add("--max_bad_fraction", type=float, default=0.01, help="share of unreadable inputs above which the run stops")
    add("--trust_remote_code", action="store_true", help="run code from the model's repository; read it first")
    add("--report_seconds", type=float, default=10.0, help="seconds between progress lines")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call; return the exit code: 0, 2 after an error of ours, 130 when interrupted."""
    watch_launcher()
    arguments = vars(_parser().parse_args(argv))
    from m33d_hf.errors import M33DError
    from m33d_hf.inference.depth_extraction import DepthExtractionOptions, extract_depth

    rank = f"[rank {os.environ.get('RANK', '0')}] " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    try:
        summary = extract_depth(DepthExtractionOptions(**arguments), say=lambda line: print(line, flush=True))
    except (M33DError, OSError) as error:  # a full disk, a folder that may not be written
        print(f"{rank}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{rank}interrupted; run the same command to continue", file=sys.stderr)
        return 130
    print(f"{rank}{summary.describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(program(main))

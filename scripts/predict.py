"""Predict on pictures and videos: predict.py --model outputs/depth --input PHOTOS --output pictures.

The model's own configuration says what: depth (PNG in millimetres, NPY, coloured pictures, side-by-side videos, point
clouds), segmentation (label maps, overlays, areas per class), classes of clips, phases of long videos, or what a
pre-trained model reconstructs. Files are of the size of the input. The same command continues after an interruption;
files that cannot be read are skipped and listed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import importing, program

_SAVE = (
    "kinds of output, or all; default: those that suit task and input. Depth: depth arrays pictures videos points; "
    "segmentation: labels pictures areas videos; clips: classes videos; long videos: timelines; reconstructions: "
    "pictures videos"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="output folder of a run, a checkpoint folder of one, or a Hub id")
    add("--input", required=True, nargs="+", help="files, globs such as 'photos/*.jpg', folders: pictures and videos")
    add("--output", required=True, type=Path, help="output folder; may be inside --input")
    add("--save", nargs="+", default=(), help=_SAVE)
    add("--flip", action="store_true", help="average with the prediction for the mirrored picture (twice the time)")
    add("--tiles", action="store_true", help="cut pictures larger than the model's input into overlapping tiles")
    add("--tile_overlap", type=float, default=0.25, help="share of a tile in common with the next (default 0.25)")
    add("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="of the pictures, for points")
    camera = "file with the colour camera's intrinsics, for points; with --depth, of both cameras, to register the maps"
    add("--calibration", type=Path, help=f"{camera} as in training, or none (docs/cameras.md)")
    add("--field_of_view", type=float, default=60.0, help="degrees across the longer side, without both (default 60)")
    add("--kind", default="auto", help="of depth: metric, inverse, relative, or auto (from the configuration)")
    add("--depth", type=Path, help="folder of measured depth named as pictures or videos, for models that see it")
    add("--depth_unit", help="unit of these maps, such as millimetre, where the model does not know it")
    add("--depth_align", default="refuse", help="depth_to_rgb: resize maps that are smaller or larger than the picture")
    add("--depth_orientation", default="refuse", help="as_rgb, upright: how maps lie whose picture EXIF says to turn")
    add("--top_k", type=int, default=5, help="classes that are listed of a clip (default 5)")
    add("--clips", type=int, default=1, help="clips of a video whose probabilities are averaged (default 1)")
    add("--fps", type=float, help="constant rate of long videos, if that of the file is missing or wrong")
    add("--batch_size", type=int, default=8, help="pictures or clips per forward pass (default 8)")
    add("--workers", type=int, help="threads that read, and threads that write; default: one per core, at most 8")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ..; auto: the GPU, if any")
    add("--precision", default="no", choices=("no", "bf16", "fp16"), help="no is float32 (default)")
    add("--limit", type=int, help="only the first N inputs")
    add("--report_seconds", type=float, default=10.0, help="seconds between progress lines (default 10)")
    add("--trust_remote_code", action="store_true", help="run code from the model's repository; read it first")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and call: 0; 1 when some inputs were skipped; 2 when all were, or after an error of ours; 130 on ^C."""
    watch_launcher()
    arguments = vars(_parser().parse_args(argv))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for reading one file
    rank = f"[rank {os.environ.get('RANK', '0')}] " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    from m33d_hf.errors import M33DError

    try:
        with importing():  # takes seconds, in which ^C is as likely as later
            from m33d_hf.inference.prediction.options import PredictionOptions
            from m33d_hf.inference.prediction.running import predict

        summary = predict(PredictionOptions(**arguments), say=lambda line: print(line, flush=True))
    except (M33DError, OSError) as error:  # a full disk, a folder that may not be written
        print(f"{rank}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"{rank}interrupted; run the same command to continue", file=sys.stderr)
        return 130
    print(f"{rank}{summary.describe()}")
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(program(main))

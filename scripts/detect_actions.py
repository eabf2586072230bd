"""Find the phases of long videos with a trained detection model: timeline PNG, segments CSV and clips CSV of each.

Frames are streamed, so that the length of a video does not matter to memory. Stretches and videos that cannot be read
are reported on stderr and do not stop the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from m33d_hf.errors import M33DError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="output folder of run_action_detection.py")
    parser.add_argument(
        "--video", required=True, nargs="+", help="video files, folders of frames, or folders of either"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--device", default=None, help="cpu, cuda, ...; the accelerator where there is one")
    parser.add_argument("--batch_size", type=int, default=8, help="clips per forward pass (default 8)")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="autocast of the encoder")
    parser.add_argument("--fps", type=float, default=None, help="frames per second, where the video does not say")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: 0; 1 when some videos were left out; 2 when all were, or after an error of ours."""
    args = _parser().parse_args(argv)
    try:
        import torch

        from m33d_hf.errors import ConfigError
        from m33d_hf.inference.detection_files import detect_all, find_videos
        from m33d_hf.inference.timeline import ActionDetector

        if args.fps is not None and args.fps <= 0:
            raise ConfigError(f"--fps is {args.fps}; it is a positive number of frames per second")
        videos = find_videos(args.video)
        device = args.device or (torch.accelerator.current_accelerator() or "cpu")
        options = {"device": device, "batch_size": args.batch_size, "precision": args.precision}
        detector = ActionDetector.from_pretrained(args.model, **options)
        failed = detect_all(detector, videos, args.output, args.fps)
    except M33DError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if not failed else 1 if len(failed) < len(videos) else 2


if __name__ == "__main__":
    sys.exit(main())

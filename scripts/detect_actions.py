"""Find the phases of long videos with a trained model; write a timeline PNG, segments CSV and clips CSV for each.

--export adds subtitles (srt, vtt), json, and html: a page per video to review its phases, uncertain ones first.
Frames are streamed, so memory does not grow with the length of a video. Stretches and videos that cannot be read are
reported on stderr and do not stop the others. Under torchrun the processes share the videos.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="output folder of run_action_detection.py")
    parser.add_argument(
        "--video", required=True, nargs="+", help="video files, folders of frames, or folders of either"
    )
    parser.add_argument("--output", required=True, type=Path, help="output folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU, if any")
    parser.add_argument("--batch_size", type=int, default=8, help="clips per forward pass (default 8)")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="encoder precision")
    parser.add_argument("--fps", type=float, help="constant frame rate, if that of the video is missing or wrong")
    parser.add_argument(
        "--export", nargs="+", default=[], choices=("srt", "vtt", "json", "html"), help="further files for each video"
    )
    parser.add_argument("--truth", help="annotations (a folder or file) to show on the pages of --export html")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: 0; 1 when some videos were left out; 2 when all were, or after an error of ours."""
    watch_launcher()
    args = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for reading one file
    try:
        from m33d_hf.errors import ConfigError
        from m33d_hf.inference.detection_files import detect_all, find_videos
        from m33d_hf.inference.loading import usable_device
        from m33d_hf.inference.review.writing import Exports
        from m33d_hf.inference.sharding import launched_place, rank_share
        from m33d_hf.inference.timeline import ActionDetector
        from m33d_hf.modeling.fields_m33d import Range

        if args.fps is not None and (problem := Range(above=0, high=1e6).problem(args.fps)) is not None:
            raise ConfigError(f"--fps {problem}, in frames per second")
        place = launched_place()
        found = find_videos(args.video)
        videos = {name: found[name] for name in rank_share(sorted(found), place.rank, place.world_size)}
        device = usable_device(args.device, place.local_rank)
        exports = Exports(args.output, args.export, args.truth, sorted(found))
        options = {"device": device, "batch_size": args.batch_size, "precision": args.precision}
        detector = ActionDetector.from_pretrained(args.model, **options)
        failed = detect_all(detector, videos, args.output, args.fps, exports.write)
    except M33DError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if not failed else (1 if len(failed) < len(videos) else 2)


if __name__ == "__main__":
    sys.exit(program(main))

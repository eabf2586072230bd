"""Find the phases of long videos with a trained model; write a timeline PNG, segments CSV and clips CSV for each.

--export adds subtitles (srt, vtt), json, and html: a page per video to review its phases, uncertain ones first.
--cameras tells which videos show one case at the same time: it gets one timeline, by what all of them show.
Frames are streamed, so memory does not grow with the length of a video. Stretches and videos that cannot be read are
reported on stderr and do not stop the others. Under torchrun the processes share the videos.

--follow takes a feed that is still running (an address such as rtsp://.., or a file that is being written) and a causal
model: a line and a row of NAME_live.csv for each clip as it ends, until the feed ends, stalls or breaks, or Ctrl-C.
--follow left=ADDRESS right=ADDRESS follows the cameras of one case, by what they show together; one that is away is
done without.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.launcher import watch_launcher
from m33d_hf.training.processes.program import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m33d_hf.inference.detection.cameras import CameraVideo
    from m33d_hf.inference.detection.deep_clips import SourceVideo


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="output folder of run_action_detection.py")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--video", nargs="+", help="video files, folders of frames, or folders of either")
    given.add_argument(
        "--follow",
        nargs="+",
        help="address that FFmpeg opens, or a file that is still being written; of several cameras NAME=ADDRESS each",
    )
    parser.add_argument(
        "--cameras", help="videos of one case: folder, a suffix (_cam*), or a CSV file (case, camera, video, offset)"
    )
    parser.add_argument(
        "--depth", action="store_true", help="read depth beside the videos, for a model of RGB and depth, or of depth"
    )
    parser.add_argument(
        "--options", nargs="+", default=[], help="of the source phases for --depth, NAME=VALUE: depth_scale=1000"
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
    parser.add_argument(
        "--truth_options", nargs="+", default=[], help="of the annotations, NAME=VALUE: label_fps=1 label_start=0"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds without a frame that end --follow (10)")
    parser.add_argument(
        "--wait", type=float, default=2.0, help="seconds without a frame after which the other cameras go on (2)"
    )
    parser.add_argument(
        "--offsets", nargs="+", default=[], help="for --follow, CAMERA=SECONDS from the case's clock to its first frame"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the table and state that --follow left")
    parser.add_argument(
        "--stream_options", nargs="+", default=[], help="of FFmpeg for --follow, NAME=VALUE: rtsp_transport=tcp"
    )
    parser.add_argument("--stream_format", help="FFmpeg's format for --follow, where it cannot be told: v4l2")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line.

    Returns:
        0; 1 when some videos, their exports or annotations were left out, or a feed stalled or broke; 2 when all were,
        or after an error of ours.
    """
    watch_launcher()
    args = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for reading one file
    try:
        from m33d_hf.errors import ConfigError
        from m33d_hf.inference.case_videos import check_cameras_known
        from m33d_hf.inference.detection_files import check_output, detect_all, find_videos
        from m33d_hf.inference.loading import usable_device
        from m33d_hf.inference.review.truth_options import truth_options
        from m33d_hf.inference.review.writing import Exports
        from m33d_hf.inference.sharding import launched_place, rank_share
        from m33d_hf.inference.timeline import ActionDetector
        from m33d_hf.modeling.fields_m33d import Range

        if args.fps is not None and (problem := Range(above=0, high=1e6).problem(args.fps)) is not None:
            raise ConfigError(f"--fps {problem}, in frames per second")
        if args.follow is not None:
            return _follow(args)
        _refuse(args, "--video", ("timeout", "wait", "offsets", "resume", "stream_options", "stream_format"))
        place = launched_place()
        found = _deep(args) if args.depth else find_videos(args.video) if args.cameras is None else _cases(args)
        videos = {name: found[name] for name in rank_share(sorted(found), place.rank, place.world_size)}
        device = usable_device(args.device, place.local_rank)
        given = {name: found[name] for name in sorted(found)}
        exports = Exports(args.output, args.export, args.truth, given, args.fps, truth_options(args.truth_options))
        check_output(args.output)
        options = {"device": device, "batch_size": args.batch_size, "precision": args.precision}
        detector = ActionDetector.from_pretrained(args.model, **options)
        check_cameras_known(found, detector.model.config.temporal_cameras)
        _check_depth(args, detector.model.task_inputs)
        exports.check(detector.names)
        failed = detect_all(detector, videos, args.output, args.fps, exports.write)
    except (M33DError, OSError) as error:  # a disk that fills up later
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if not failed else (1 if len(failed) < len(videos) else 2)


def _deep(args: argparse.Namespace) -> Mapping[str, SourceVideo]:
    """The videos with depth below the folder that --video names."""
    from m33d_hf.data.plural import agree, plural
    from m33d_hf.errors import ConfigError
    from m33d_hf.inference.detection.deep_clips import find_deep_videos, source_options, without_depth

    if args.fps is not None:
        raise ConfigError("--fps is of videos without depth; with --depth pass --options fps=N")
    if len(args.video) != 1 or not Path(args.video[0]).is_dir():
        raise ConfigError("--depth takes one folder with --video, as the data of a training: videos and their depth")
    options = source_options(args.options)
    if "cameras" in options:
        raise ConfigError("--options cameras: pass it as --cameras")
    found = find_deep_videos(args.video[0], options if args.cameras is None else {**options, "cameras": args.cameras})
    lacking = without_depth(found.values())
    if lacking:
        told = f"{plural(len(lacking), 'video')} without depth {agree(len(lacking), 'is', 'are')} seen by RGB alone"
        print(f"{told}: {', '.join(lacking)}", file=sys.stderr, flush=True)
    return found


def _check_depth(args: argparse.Namespace, inputs: Sequence[str]) -> None:
    """Refuse depth that the model does not see; tell where one that does is left without."""
    from m33d_hf.errors import ConfigError

    if args.options and not args.depth:
        raise ConfigError("--options are those of --depth; pass both, or neither")
    if args.depth and "depth" not in inputs:
        raise ConfigError(f"--depth: {args.model} sees RGB alone; leave it out")
    if not args.depth and "rgb" not in inputs:
        raise ConfigError(f"{args.model} sees depth alone: pass --depth, and with --video the folder of the data")
    if not args.depth and "depth" in inputs:
        told = "the model sees RGB and depth, and looks at RGB alone here; with depth beside the videos pass --depth"
        print(told, file=sys.stderr, flush=True)


def _cases(args: argparse.Namespace) -> Mapping[str, list[CameraVideo]]:
    """The cases of the videos; those that belong to none are told."""
    from m33d_hf.inference.case_videos import find_case_videos

    cases, unused = find_case_videos(args.video, args.cameras)
    for video in unused:
        print(f"{video.path}: left out: {video.reason}", file=sys.stderr, flush=True)
    return cases


def _refuse(args: argparse.Namespace, way: str, names: tuple[str, ...]) -> None:
    """Refuse what the other way of using this script takes."""
    from m33d_hf.errors import ConfigError

    given = [name for name in names if getattr(args, name) != _parser().get_default(name)]
    if given:
        raise ConfigError(f"--{given[0]} has no use with {way}; leave it out")


def _follow(args: argparse.Namespace) -> int:
    from m33d_hf.errors import ConfigError
    from m33d_hf.inference.detection_files import check_output
    from m33d_hf.inference.loading import usable_device
    from m33d_hf.inference.sharding import launched_place
    from m33d_hf.inference.streaming.files import FollowOptions, follow_to_files
    from m33d_hf.inference.streaming.words import camera_offsets, live_sources, stream_options
    from m33d_hf.inference.timeline import ActionDetector

    if args.cameras is not None:
        raise ConfigError(
            "--cameras says which recordings show one case; name the cameras of a live one by --follow left=ADDRESS "
            "right=ADDRESS, and state with --offsets when each began"
        )
    _refuse(args, "--follow", ("depth", "options", "batch_size", "fps", "export", "truth", "truth_options"))
    place = launched_place()
    if place.world_size > 1:
        raise ConfigError("--follow has one feed, which processes cannot share; start it without torchrun")
    source = live_sources(args.follow)
    if isinstance(source, str):
        _refuse(args, "--follow of one camera", ("wait", "offsets"))
    words = stream_options(args.stream_options), args.stream_format, camera_offsets(args.offsets)
    options = FollowOptions(source, args.output, args.timeout, args.resume, *words, args.wait)
    device = usable_device(args.device, place.local_rank)
    check_output(args.output)
    detector = ActionDetector.from_pretrained(args.model, device=device, precision=args.precision)
    if set(detector.model.task_inputs) > {"rgb"}:
        told = "the model sees RGB and depth; a live feed has no depth, and it looks at RGB alone here"
        print(told, file=sys.stderr, flush=True)
    return 0 if follow_to_files(detector, options).kind in ("finished", "closed", "stopped") else 1


if __name__ == "__main__":
    sys.exit(program(main))

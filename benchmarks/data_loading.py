"""Readers and loaders: decoding alone, what leaves the loader as a share of it, and what is then left to finish.

    python benchmarks/data_loading.py                             # about 3 minutes of CPU time on one thread
    python benchmarks/data_loading.py --videos FOLDER_OR_FILE...  # real videos too: paths of RGB clips, and readers
    python benchmarks/data_loading.py --videos ... --only real    # the paths alone
    python benchmarks/data_loading.py --tiny --output_dir outputs/x # seconds: a test of the machinery

Writes data_loading.json into --output_dir, and again after every measurement ("complete" says whether it is the last).
Batches leave the loader as on their way to a device, unfinished (m33d_hf.data.loader.finishing); finishing them on this
CPU is timed by itself. One thread, process CPU time, freed memory kept, as in workers. In every round each path
decodes, then loads the same files; medians over rounds, of which there are as many as --seconds allow, at least two.
Readers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from data_files import (
    CODECS,
    PREPARED,
    TINY,
    Sizes,
    link_action_data,
    write_action_data,
    write_frames,
    write_prepared,
    write_scan,
    write_sun,
    write_video,
)
from data_packed import packed_calls, packed_row
from data_paths import (
    PATHS,
    REAL_PATHS,
    TrainingPath,
    bare_decoding,
    build,
    consume,
    describe_rows,
    finishing,
)
from data_readers import PICTURE_READERS, VIDEO_READERS, installed
from measuring import header

from m33d_hf.data.loader.allocator import keep_freed_memory

HERE = Path(__file__).resolve().parent
NUM_FRAMES, STRIDE = 16, 4
MOST = 9
LEAST = 4  # real videos that fill a batch
SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="per measurement; each takes two rounds at least")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="real videos or folders of them")
    parser.add_argument("--only", default="", help="measure the loaders whose title holds this text, and no readers")
    parser.add_argument("--packed", action="store_true", help="measure the frames of .sens and .mat files alone")
    parser.add_argument("--tiny", action="store_true", help="a handful of small files")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if args.videos and args.packed:
        parser.error("--videos: --packed measures frames of .sens and .mat alone; leave one of them out.")
    if not (chosen := _chosen(args)):
        known = "; ".join(path.title for path in (*PATHS, *REAL_PATHS))
        real = "" if args.videos else " (those of real videos need --videos)"
        parser.error(f"--only {args.only!r} names no path; they are: {known}{real}")
    if args.videos and all(path.data != "real" for path in chosen):
        parser.error(f"--only {args.only!r} names no path of real videos; leave --videos out, or pass --only real.")
    if args.videos and not real_videos(args.videos):
        parser.error(f"--videos: no file below {', '.join(map(str, args.videos))} ends in {', '.join(SUFFIXES)}.")
    return args


def _chosen(args: argparse.Namespace) -> list[TrainingPath]:
    """The paths to measure; those of real videos where these are given."""
    return [path for path in (*PATHS, *(REAL_PATHS if args.videos else ())) if args.only in path.title]


def real_videos(given: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of each file or folder that was given, under its name; of folders those that hold any."""
    found: dict[str, list[Path]] = {}
    for place in given:
        files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.suffix.lower() in SUFFIXES)
        if files:
            found[f"real: {place.name}"] = files
    return found


def medians(calls: dict[str, Callable[[], int]], limit: float, clock: Callable[[], float]) -> dict[str, float]:
    """Samples per second of each call, medians over rounds in which all take turns, after one round unmeasured.

    Rounds go on until `limit` seconds are over or there are MOST of them: at least two, or one for a limit of 0.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = clock()
    for number in range(MOST + 1):
        for name, call in calls.items():
            started = clock()
            count = call()
            if number:
                seconds[name].append((clock() - started) / count)
        if number >= (2 if limit else 1) and clock() - begun > limit:
            break
    return {name: 1.0 / max(statistics.median(found), 1e-9) for name, found in seconds.items()}


def measure_videos(folder: Path, given: Sequence[Path], sizes: Sizes, limit: float) -> list[dict[str, Any]]:
    """Clips per second of each reader on each kind of file."""
    files: dict[str, list[Path]] = {}
    missing = [f"reader {name}: {module} is not installed" for name, (module, _) in VIDEO_READERS.items()
               if not installed(module)]  # fmt: skip
    if installed("av"):
        for title, (codec, gop, suffix) in CODECS.items():
            path = folder / f"{codec}-{gop}{suffix}"
            files[title] = [write_video(path, codec, gop, sizes.video, sizes.long_video)]
    else:
        missing.append("made videos: av, which encodes them, is not installed")
    files |= real_videos(given)
    for line in missing:
        print(line, file=sys.stderr)
    rows = []
    for title, videos in files.items():
        clips = [(video, _clip(video, number)) for video in videos for number in range(3)]
        clips = [(video, frames) for video, frames in clips if frames]
        calls = {
            name: lambda read=read, clips=clips: sum(len(read(video, frames)[:1]) for video, frames in clips)
            for name, (module, read) in VIDEO_READERS.items()
            if installed(module)
        }
        if clips and calls:
            rates = medians(calls, limit, time.process_time)
            rows += [{"files": title, "reader": name, "clips_per_second": rate} for name, rate in rates.items()]
    return rows


def _clip(video: Path, number: int) -> list[int]:
    """One of three clips of a video; none where it is too short or cannot be read."""
    from m33d_hf.errors import M33DError
    from m33d_hf.modeling.video_reading_m33d import probe_video

    try:
        length = probe_video(video).num_frames
    except (M33DError, OSError) as error:
        print(f"left out: {error}", file=sys.stderr)
        return []
    stride = min(STRIDE, (length - 1) // NUM_FRAMES)
    start = (length - 1 - NUM_FRAMES * stride) * number // 2
    return [start + stride * frame for frame in range(NUM_FRAMES)] if stride > 0 else []


def measure_pictures(roots: dict[str, Path], limit: float) -> list[dict[str, Any]]:
    """RGB-D pairs (JPEG and 16-bit PNG) per second."""
    rows = []
    for title in ("frames", "small_frames"):
        pairs = [[file, roots[title] / "depth" / f"{file.stem}.png"] for file in (roots[title] / "color").iterdir()]
        calls = {
            name: lambda read=read, pairs=pairs: sum(len(read(pair)) // 2 for pair in pairs)
            for name, (module, read) in PICTURE_READERS.items()
            if installed(module)
        }
        rates = medians(calls, limit, time.process_time)
        rows += [{"files": title, "reader": name, "pairs_per_second": rate} for name, rate in rates.items()]
    return rows


def measure_path(path: TrainingPath, roots: dict[str, Path], limit: float, tiny: bool) -> dict[str, Any]:
    """Rates of one training path in turns: decoding, batches with geometry only, as the recipe says, and finishing."""
    clips = path.data in ("action", "real")
    batch, batches = (2, 1) if tiny else (4, 4) if clips else (24, 1) if path.data != "rooms" else (48, 8)
    if path.data == "rooms" and not tiny and ("clips" in path.recipe or "actions" in path.recipe):
        batch, batches = 16, 4
    loaders = {"geometry": build(path, path.geometry, roots, batch, tiny)}
    if path.geometry:
        loaders["recipe"] = build(path, "", roots, batch, tiny)
    calls = {"decoding": bare_decoding(loaders["geometry"], batches)}
    calls |= {name: consume(loader, batches) for name, loader in loaders.items()}
    calls |= {f"finishing {name}": finishing(loader, batches) for name, loader in loaders.items()}
    rates = medians(calls, limit, time.process_time)
    recipe = rates.get("recipe")
    finished, finished_recipe = rates["finishing geometry"], rates.get("finishing recipe")
    together = None if recipe is None or finished_recipe is None else 1 / (1 / recipe + 1 / finished_recipe)
    return {
        "path": path.title,
        "decoding_per_second": rates["decoding"],
        "geometry_per_second": rates["geometry"],
        "geometry_share": rates["geometry"] / rates["decoding"],
        "recipe_per_second": recipe,
        "recipe_share": None if recipe is None else recipe / rates["decoding"],
        "finishing_ms": 1e3 / finished,
        "share_with_finishing": 1 / (1 / rates["geometry"] + 1 / finished) / rates["decoding"],
        "recipe_finishing_ms": None if finished_recipe is None else 1e3 / finished_recipe,
        "recipe_share_with_finishing": None if together is None else together / rates["decoding"],
        "goal": path.goal,
    }


def measure_scaling(roots: dict[str, Path], limit: float, tiny: bool) -> list[dict[str, Any]]:
    """Wall-clock samples per second with 0, 1 and 2 workers, of two paths."""
    rows = []
    for path in (path for path in PATHS if path.title in ("RGB-D images, pre-training", "rooms images, m33d")):
        batch, batches = (2, 2) if tiny else (8, 8) if path.data != "rooms" else (48, 20)
        loaders = {str(n): build(path, "", roots, batch, tiny, workers=n) for n in (0, 1, 2)}
        rates = medians({name: consume(loader, batches) for name, loader in loaders.items()}, limit, time.perf_counter)
        rows += [{"path": path.title, "workers": int(n), "samples_per_second": rate} for n, rate in rates.items()]
    return rows


def measure_packed(folder: Path, limit: float, tiny: bool) -> list[dict[str, Any]]:
    """Frames of `.sens` and `.mat` per second, in turns with bare decoding of the same bytes."""
    calls = packed_calls(folder, tiny)
    return [packed_row(title, medians(each, limit, time.process_time)) for title, each in calls.items()]


def environment() -> dict[str, Any]:
    """Command, commit, machine and versions, those of the readers too."""
    modules = {module for module, _ in (*VIDEO_READERS.values(), *PICTURE_READERS.values()) if installed(module)}
    names = metadata.packages_distributions()
    readers = {module: metadata.version(names[module][0]) for module in sorted(modules & names.keys())}
    return {**header("data_loading", torch.device("cpu")), "readers": readers}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the loader's workers and training on a CPU do; decoding alone gains by it too
    sizes, limit = (TINY, 0.0) if args.tiny else (Sizes(), args.seconds)
    result: dict[str, Any] = {"environment": environment(), "complete": False}
    args.output_dir.mkdir(parents=True, exist_ok=True)

    def keep(name: str, rows: list[dict[str, Any]]) -> None:
        result[name] = rows
        (args.output_dir / "data_loading.json").write_text(json.dumps(result, indent=1) + "\n")
        if name != "loaders":
            print(f"== {name}", *(_line(row) for row in rows), sep="\n", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        roots = {
            "out": folder / "out",
            "frames": write_frames(folder / "frames", sizes.picture, sizes.pictures),
            "small_frames": write_frames(folder / "small", sizes.small_picture, sizes.pictures),
        }
        if args.packed:
            keep("packed", measure_packed(folder, limit, args.tiny))
            return 0
        side = min(sizes.small_picture)
        roots |= {kind: write_prepared(folder / kind, roots["frames"], side, **each) for kind, each in PREPARED.items()}
        roots |= {"scan": write_scan(folder / "scan", sizes), "sun": write_sun(folder / "sun", sizes)}
        paths = _chosen(args)
        if installed("av"):
            roots["action"] = write_action_data(folder / "action", sizes)
            readable = [file for files in real_videos(args.videos).values() for file in files if _clip(file, 0)]
            if readable:
                roots["real"] = link_action_data(folder / "real", readable, LEAST)
        paths = [path for path in paths if path.data in ("rooms", *roots)]
        if not paths:
            print("nothing is left to measure: PyAV is not installed, or no real video can be read", file=sys.stderr)
            return 2
        rows: list[dict[str, Any]] = []
        for path in paths:
            rows.append(measure_path(path, roots, limit, args.tiny))
            print(describe_rows(rows)[-1], flush=True)
            keep("loaders", rows)
        if not args.only:
            keep("packed", measure_packed(folder, limit, args.tiny))
            keep("picture_readers", measure_pictures(roots, limit))
            keep("video_readers", measure_videos(folder, args.videos, sizes, limit))
            keep("scaling", measure_scaling(roots, limit, args.tiny))
    result["complete"], result["cpu_seconds"] = True, time.process_time()
    keep("loaders", rows)
    print("== loaders; the target is 60 % with geometry only", *describe_rows(rows), sep="\n")
    return 0


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{value:10.1f}" if isinstance(value, float) else f"{value!s:26}" for value in row.values())


if __name__ == "__main__":
    raise SystemExit(main())

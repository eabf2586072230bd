"""Long-video detection from the command line: which videos, and a timeline, segments and clips of each on disk."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, unreadable
from m33d_hf.data.plural import plural
from m33d_hf.data.progress import tell
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.data.sources.phases.maps_beside import is_video, maps_in_words, without_maps
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.data.sources.videos.recorded_times import recording_of
from m33d_hf.errors import ConfigError, DataError, MissingDependencyError
from m33d_hf.inference.detection.cameras import CameraVideo
from m33d_hf.inference.detection.deep_clips import SourceVideo
from m33d_hf.inference.output_folders.earlier_outputs import earlier_outputs, outputs_in_words
from m33d_hf.inference.timeline import ActionDetector, Detection
from m33d_hf.modeling.picture_files_m33d import kinds_of
from m33d_hf.modeling.video_reading_m33d import FRAME_SUFFIXES, frame_files
from m33d_hf.modeling.video_times_m33d import FrameTimes

logger = logging.getLogger(__name__)

SEGMENT_COLUMNS = (
    "segment", "phase", "start_frame", "end_frame", "start_time", "end_time", "mean_probability", "readable", "note",
)  # fmt: skip
CLIP_COLUMNS = ("clip", "start_frame", "end_frame", "start_time", "end_time", "readable", "phase", "clipwise_phase")


class Written(NamedTuple):
    """The further files of a video, and why its page shows no annotation that was asked for; empty where it does."""

    files: list[Path]
    lacking: str = ""


def check_output(folder: Path) -> None:
    """Make a folder and write to it once: hours of detection must not end at the first file.

    Raises:
        ConfigError: it is a file, may not be written to, or is on a disk without room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise ConfigError(
            f"--output {folder} cannot be used: {error.strerror} ({error.filename or folder}). Choose another folder."
        ) from error


def find_videos(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Name for the output -> video file or folder of frames.

    A file is a video; a folder with pictures in it is one; any other folder is searched for both. Names are file names
    without suffix, preceded by folders below the one that was given; where two would be equal, with suffix. An imported
    recording is called what its folder is.

    Raises:
        ConfigError: a path without a video, or two videos of one name.
    """
    found: dict[str, Path] = {}
    for given in map(Path, paths):
        videos = videos_below(given)
        bare = [_name(given, path, suffix=False) for path in videos]
        for path, name in zip(videos, bare):
            chosen = name if bare.count(name) == 1 else _name(given, path, suffix=True)
            if chosen in found:
                raise ConfigError(
                    f"{found[chosen]} and {path} would both be written as {chosen!r}; process them with separate "
                    "--output folders."
                )
            found[chosen] = path
    return found


def videos_below(given: Path) -> list[Path]:
    """A video file or folder of frames itself; the videos of both kinds below any other folder, without maps of depth
    or labels beside them, and without what earlier predictions wrote, which is said. Links are followed as in training.

    Raises:
        ConfigError: the path does not exist, or there is none.
    """
    if not given.exists():
        raise ConfigError(f"{given} does not exist; --video takes video files, folders of frames, or folders of both.")
    if given.is_file() or frame_files(given):
        return [given]
    made = earlier_outputs(given)
    everything = [given / file for file in list_files(given).files]
    if left := {path.parent for path in everything if made(path.parent)}:
        logger.warning("%s", outputs_in_words(left))
    there = [path for path in everything if path.parent not in left]
    files, maps = without_maps(given, there)
    if depth := [path for path in maps if is_video(path)]:
        logger.warning("%s: %s left aside, the first %s", given, maps_in_words(depth), depth[0])
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    folders = {path.parent for path in files if path.suffix.lower() in FRAME_SUFFIXES}
    found = sorted([*videos, *(path for path in folders if frame_files(path))])
    if not found:
        raise ConfigError(
            f"{given} is neither a video nor a folder of frames (files: {kinds_of(there)}); see --video. Supported "
            f"file types: {', '.join((*VIDEO_SUFFIXES, *FRAME_SUFFIXES))}."
        )
    return found


def _name(given: Path, path: Path, suffix: bool) -> str:
    shown = place_below(given, path)
    shown = shown if suffix or path.is_dir() else shown.with_suffix("")
    return "_".join(shown.parts) or path.resolve().name


def place_below(given: Path, path: Path) -> Path:
    """What a video is called: its place below the folder that was given, which is its own name where it is that itself.

    Pictures of an imported recording are called what their recording is, as in training.
    """
    whole = recording_of(path) or path
    return Path(whole.name or whole.resolve().name) if given in (path, whole) else whole.relative_to(given)


def time_text(frame: int, fps: float | FrameTimes | None) -> str:
    """ "mm:ss.ss" at the start of a frame, by its own time or by an even rate; empty where neither is known."""
    if fps is None:
        return ""
    return seconds_text(float(fps.at(frame)) if isinstance(fps, FrameTimes) else frame / fps)


def seconds_text(seconds: float | None) -> str:
    """ "mm:ss.ss", minutes past 59 going on; empty where unknown.

    Hundredths, because a clip is often shorter than a second.
    """
    if seconds is None:
        return ""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"{minutes:02d}:{hundredths / 100:05.2f}"


def detection_targets(folder: Path, name: str) -> list[Path]:
    """The tables of a video: of its segments, and of its clips."""
    return [folder / f"{name}_segments.csv", folder / f"{name}_clips.csv"]


def write_detection(folder: Path, name: str, detection: Detection) -> list[Path]:
    """Write `<name>_segments.csv`, `<name>_clips.csv` and `<name>_timeline.png`; returns what was written.

    `end_frame` is the last frame that belongs; times are those of the first frame and of the end of the last one, in
    seconds from the first frame. Of several cameras, each clip names those that showed it (`cameras`). What could not
    be read, and what is missing of the recording, has rows of its own among the segments: without number and phase,
    `readable` 0, and why as `note`. The picture is left out, and said to be, where matplotlib is missing.
    """
    segment_rows = [row for _, row in sorted(_segment_rows(detection), key=lambda entry: entry[0])]
    clip_rows = []
    for number, clip in enumerate(detection.clips):
        phases = [detection.names[int(row.argmax())] for row in (clip.probabilities, clip.clipwise)]
        times = (seconds_text(clip.start_time), _end_text(detection, clip.stop))
        told = phases if clip.readable else ["", ""]
        shares = [f"{value:.6f}" for value in clip.probabilities]
        seen = [";".join(clip.cameras)] if detection.cameras else []
        clip_rows.append((number, clip.start, clip.stop - 1, *times, int(clip.readable), *told, *seen, *shares))
    written = detection_targets(folder, name)
    write_text_atomically(written[0], csv_text(SEGMENT_COLUMNS, segment_rows))
    more = ["cameras"] if detection.cameras else []
    write_text_atomically(written[1], csv_text((*CLIP_COLUMNS, *more, *detection.names), clip_rows))
    return [*written, *_picture(folder / f"{name}_timeline.png", name, detection)]


def _segment_rows(detection: Detection) -> Iterator[tuple[float, tuple[object, ...]]]:
    """(frame that it begins with, row) of every phase, of what could not be read, and of what is missing."""
    times = detection.times
    for number, (start, stop, phase, mean) in enumerate(detection.segments()):
        told = (time_text(start, times), _end_text(detection, stop))
        yield start, (number, phase, start, stop - 1, *told, f"{mean:.4f}", 1, "")
    for start, stop in detection.lost():
        reasons = [part.reason for part in detection.unreadable if part.start < stop and part.stop > start]
        told = (time_text(start, times), _end_text(detection, stop))
        yield start, ("", "", start, stop - 1, *told, "", 0, "; ".join(dict.fromkeys(reasons)))
    for lack in detection.lacks:
        begins = "" if lack.start is not None and lack.start < 0 else seconds_text(lack.start)
        yield lack.after - 0.5, ("", "", "", "", begins, seconds_text(lack.stop), "", 0, lack.reason)


def _end_text(detection: Detection, stop: int) -> str:
    """When the frame before `stop` ends: where frames are missing behind it, that is not when the next one begins."""
    missing = [lack.start for lack in detection.lacks if lack.after == stop and lack.start is not None]
    return seconds_text(missing[0]) if missing else time_text(stop, detection.times)


def _picture(path: Path, name: str, detection: Detection) -> list[Path]:
    import numpy as np

    from m33d_hf.visualization.timeline import hatched, timeline_figure

    rows = {"whole video": detection.frame_phases(), "clip by clip": detection.frame_phases(clipwise=True)}
    # As many columns as a picture can show; a row per frame of hours would be a large table.
    columns = np.linspace(0, detection.length - 1, min(detection.length, 2000)).astype(np.int64)
    try:
        timeline_figure(
            rows,
            detection.names,
            detection.fps,
            path,
            np.nan_to_num(detection.frame_probabilities()[columns]),
            name,
            times=detection.times,
            unreadable=hatched(detection.lost(), detection.times, detection.lacks),
        )
    except MissingDependencyError as error:
        print(f"no timeline picture: {error}", file=sys.stderr, flush=True)
        return []
    return [path]


def detect_all(
    detector: ActionDetector,
    videos: Mapping[str, Path | SourceVideo | Sequence[CameraVideo]],
    folder: Path,
    fps: float | None = None,
    more: Callable[[str, Detection], Written] | None = None,
) -> list[tuple[Path, str]]:
    """Detect and write one video after the other; one that cannot be read does not stop the others.

    Lines on stderr say how far each is. skipped_files.csv of the folder lists those that were left out, and the depth
    that is missing or damaged.

    Args:
        detector: finds the phases.
        videos: name -> video, one with depth, or those of the cameras of a case.
        folder: for the files.
        fps: constant frame rate, None for that of each video.
        more: (name, detection) -> further files, written beside the usual ones.

    Returns:
        (video, reason) of those that nothing could be said about, or whose further files could not be written or lack
        what was asked for.
    """
    failed: list[tuple[Path, str]] = []
    ledger = SkipLedger(folder / FILE_NAME, 1.0, len(videos))
    for number, (name, given) in enumerate(videos.items(), 1):
        path = given if isinstance(given, Path) else given.path if isinstance(given, SourceVideo) else given[0].path
        work = f"video {number} of {len(videos)}, {name}"
        try:
            if isinstance(given, Path):
                detection = detector.detect(given, fps, tell, work)
            elif isinstance(given, SourceVideo):
                detection = detector.detect_source(*given, tell, work, ledger)
            else:
                offsets = {camera.name: camera.offset for camera in given}
                paths = {camera.name: camera.path for camera in given}
                detection = detector.detect(paths, fps, tell, work, offsets)
        except DataError as error:
            failed.append((path, str(error)))
            ledger.record({"skipped": [unreadable(error, name)]})
            print(f"{path}: left out: {error}", file=sys.stderr, flush=True)
            continue
        written = write_detection(folder, name, detection)
        runs = detection.segments()
        told = [plural(detection.length, "frame"), plural(len(detection.clips), "clip"), plural(len(runs), "segment")]
        told += [f"by the cameras {', '.join(detection.cameras)}"] if detection.cameras else []
        print(f"{path}: {', '.join(told)}; {written[0]}")
        for note in detection.notes:
            print(f"{name}: {note}", file=sys.stderr, flush=True)
        for stretch in detection.unreadable:
            where = f"frames {stretch.start} to {stretch.stop - 1}"
            print(f"{path}: {where} cannot be read: {stretch.reason}", file=sys.stderr, flush=True)
        try:
            further = None if more is None else more(name, detection)
        except (ConfigError, DataError) as error:  # of one video; the next one may have a rate
            failed.append((path, str(error)))
            print(f"{path}: not exported: {error}", file=sys.stderr, flush=True)
            continue
        for file in [] if further is None else further.files:
            print(f"{path}: {file}")
        if further is not None and further.lacking:
            failed.append((path, further.lacking))
            print(f"{path}: {further.lacking}", file=sys.stderr, flush=True)
    return failed

"""What an evaluation of phase detection leaves in its folder.

Every evaluation: `videos.csv` (a line per video), `scores.json`, and the tables of
`m33d_hf.evaluation.phases.results.write_phase_tables`. The last one also: `confusion_matrix.png` and
`frames/*.csv` (a line per frame), which for hours of video take longer than the evaluation itself, and timelines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.evaluation.classification_metrics import CONFUSION_FIGURE
from m33d_hf.evaluation.detection_results import VideoResult, video_rows, write_results
from m33d_hf.evaluation.phases.counts import confusion
from m33d_hf.evaluation.phases.results import phase_videos, safe_name, video_columns, write_frames, write_phase_tables
from m33d_hf.visualization.confusion import write_confusion_figure


def write_evaluation(
    folder: Path, results: Sequence[VideoResult], names: Sequence[str], metrics: dict[str, float], absent: list[str]
) -> None:
    """Write the tables of one evaluation, replacing those of an earlier one."""
    rows = zip(video_rows(results), video_columns(results, names), strict=True)
    write_results(folder, [{**row, **more} for row, more in rows], names, metrics, absent)
    write_phase_tables(folder, results, names)


def write_last_evaluation(folder: Path, results: Sequence[VideoResult], names: Sequence[str]) -> None:
    """Write what only the last evaluation leaves; the picture is left out, and said to be, without matplotlib."""
    write_frames(folder, results, names)
    matrix = confusion(phase_videos(results, "temporal"), len(names))
    write_confusion_figure(matrix, names, folder / CONFUSION_FIGURE)


def draw_timelines(
    folder: Path, results: Sequence[VideoResult], names: Sequence[str], count: int = 4, prefix: str = "timeline"
) -> list[Path]:
    """Draw the first annotated videos: annotation, temporal model and clip classifier; earlier ones of the same prefix
    go.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    from m33d_hf.visualization.timeline import hatched, timeline_figure

    for former in folder.glob(f"{prefix}_[0-9]*_*.png"):
        former.unlink(missing_ok=True)
    annotated = [result for result in results if (result.phases != IGNORE_INDEX).any()]
    written = []
    for number, result in enumerate(annotated[:count]):
        rows = {
            "annotation": result.phases,
            "temporal model": result.frames("temporal"),
            "clip by clip": result.frames("clipwise"),
        }
        path = folder / f"{prefix}_{number}_{safe_name(result.key)}.png"
        timeline_figure(
            rows,
            names,
            result.fps,
            path,
            result.temporal,
            result.key,
            times=result.times,
            unreadable=hatched(result.unread(), result.times, result.lacks),
        )
        written.append(path)
    return written

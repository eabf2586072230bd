"""What an evaluation of phase detection leaves in its folder.

Every evaluation: `videos.csv` (a line per video), `scores.json`, and the tables of
`m33d_hf.evaluation.phases.results.write_phase_tables`. The last one also: `confusion_matrix.png` and
`frames/*.csv` (a line per frame), which for hours of video take longer than the evaluation itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m33d_hf.errors import MissingDependencyError
from m33d_hf.evaluation.classification_metrics import CONFUSION_FIGURE
from m33d_hf.evaluation.detection_results import VideoResult, video_rows, write_results
from m33d_hf.evaluation.phases.counts import confusion
from m33d_hf.evaluation.phases.results import phase_videos, video_columns, write_frames, write_phase_tables
from m33d_hf.training.tasks.detection.feature_extraction import tell


def write_evaluation(
    folder: Path, results: Sequence[VideoResult], names: Sequence[str], metrics: dict[str, float], absent: list[str]
) -> None:
    """Write the tables of one evaluation, replacing those of an earlier one."""
    rows = zip(video_rows(results), video_columns(results, names), strict=True)
    write_results(folder, [{**row, **more} for row, more in rows], names, metrics, absent)
    write_phase_tables(folder, results, names)


def write_last_evaluation(folder: Path, results: Sequence[VideoResult], names: Sequence[str]) -> None:
    """Write what only the last evaluation leaves; the picture is left out, and said to be, without matplotlib."""
    from m33d_hf.visualization.confusion import confusion_figure

    write_frames(folder, results, names)
    try:
        matrix = confusion(phase_videos(results, "temporal"), len(names))
        confusion_figure(matrix, names, folder / CONFUSION_FIGURE)
    except MissingDependencyError as error:
        tell(f"no {CONFUSION_FIGURE}: {error}")

"""The table of videos in the report: the worst first, at most so many, nothing without an evaluation."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.data.csv_text import csv_text
from m33d_hf.training.showing.videos_table import MOST_VIDEOS, videos_table

HEADER = ["video", "clips", "unreadable_clips", "frames", "annotated_frames", "missing", "frame_accuracy", "edit",
          "f1_50", "clipwise/frame_accuracy", "phase_jaccard"]  # fmt: skip


def _write(folder: Path, rows: list[list[object]]) -> None:
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "videos.csv").write_text(csv_text(HEADER, rows, 6), encoding="utf-8")


def test_rows_are_the_videos_the_worst_first(tmp_path: Path) -> None:
    nan = float("nan")
    _write(tmp_path, [
        ["a", 8, 0, 30, 30, "", 0.9, 0.8, 0.7, 0.6, 0.5],
        ["not annotated", 2, 0, 9, 0, "", nan, nan, nan, nan, nan],
        ["b", 4, 1, 13, 13, "", 0.25, 1.0, 0.5, 1 / 3, 0.125],
    ])  # fmt: skip
    table = videos_table(tmp_path)
    assert table is not None
    assert table.header == ["video", "frames", "clips", "unreadable_clips", "frame_accuracy", "phase_jaccard", "edit",
                            "f1_50", "clipwise/frame_accuracy"]  # fmt: skip
    assert [list(row) for row in table.rows] == [
        ["b", "13", "4", "1", "0.25", "0.125", "1", "0.5", "0.3333"],
        ["a", "30", "8", "0", "0.9", "0.5", "0.8", "0.7", "0.6"],
        ["not annotated", "9", "2", "0", "-", "-", "-", "-", "-"],
    ]
    assert table.note.startswith("Lowest frame accuracy first")


def test_of_many_videos_the_worst_are_shown(tmp_path: Path) -> None:
    _write(tmp_path, [[f"v{n}", 1, 0, 1, 1, "", 1 - n / 100, 1.0, 1.0, 1.0, 1.0] for n in range(MOST_VIDEOS + 5)])
    table = videos_table(tmp_path)
    assert table is not None and len(table.rows) == MOST_VIDEOS
    assert table.rows[0][0] == f"v{MOST_VIDEOS + 4}" and f"The {MOST_VIDEOS} of {MOST_VIDEOS + 5}" in table.note


def test_without_an_evaluation_there_is_none(tmp_path: Path) -> None:
    assert videos_table(tmp_path) is None

"""Tables of a detection's evaluation, read back and compared with plain counting."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.evaluation.detection_results import VideoResult
from m33d_hf.evaluation.phases.boundaries import RULES
from m33d_hf.evaluation.phases.results import (
    HEADLINES,
    headline_metrics,
    video_columns,
    write_frames,
    write_phase_tables,
)

NAMES = list(RULES["relaxed_cholec80_as_meant"].phases)


def _result(number: int, key: str, valid: bool = True, fps: float | None = 2.0) -> VideoResult:
    rng = np.random.default_rng(number)
    starts = np.arange(0, 60, 4)
    truth = np.sort(rng.integers(0, 6, len(starts)))
    temporal, clipwise = (rng.dirichlet(np.ones(7), len(starts)) for _ in range(2))
    temporal = 0.5 * temporal + 0.5 * np.eye(7)[truth]
    phases = np.repeat(truth, 4).astype(np.uint8)
    phases[:3] = 255
    return VideoResult(
        *(number, key, fps, temporal, clipwise, truth, np.full(len(starts), valid), starts, starts + 4, phases)
    )


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_hold_what_the_headlines_say(tmp_path: Path) -> None:
    results = [_result(0, "or 1/case"), _result(1, "case2"), _result(2, "unread", valid=False)]
    metrics = headline_metrics(results, NAMES)
    assert list(metrics) == [*HEADLINES, *(f"clipwise/{name}" for name in HEADLINES)]
    matrix = write_phase_tables(tmp_path, results, NAMES)
    rows = _read(tmp_path / "phase_metrics.csv")
    chosen = {
        row["metric"]: float(row["mean"])
        for row in rows
        if (row["model"], row["boundary"], row["undefined"], row["order"])
        == ("temporal", "exact", "exclude_absent", "videos_then_phases")
    }
    for name in ("precision", "recall", "jaccard", "f1"):
        assert metrics[f"phase_{name}"] == pytest.approx(chosen[name], abs=1e-6)
    rights = [float((r.frames("temporal") == r.phases)[3:].mean()) for r in results]
    assert metrics["video_accuracy"] == pytest.approx(np.mean(rights)) == pytest.approx(chosen["accuracy"], abs=1e-6)
    assert {row["boundary"] for row in rows} == {"exact", "relaxed_neighbours", *list(RULES)[:2]}
    relaxed = {row["boundary"]: float(row["mean"]) for row in rows if row["metric"] == "accuracy"}
    assert relaxed["relaxed_neighbours"] >= relaxed["exact"]
    assert matrix.sum() == 57 * 2 and matrix.trace() / 114 == pytest.approx(np.mean(rights[:2]))
    confusion = _read(tmp_path / "confusion.csv")
    assert sum(int(value) for row in confusion for name, value in row.items() if name in NAMES) == 114
    per_video = [row for row in _read(tmp_path / "video_phases.csv") if row["model"] == "temporal"]
    exact = [row for row in per_video if row["boundary"] == "exact" and row["video"] == "case2"]
    assert sum(int(row["annotated_frames"]) for row in exact) == 57
    assert all((row["recall"] == "") == (row["annotated_frames"] == "0") for row in exact)
    bins = [row for row in _read(tmp_path / "calibration.csv") if row["model"] == "clipwise"]
    assert len(bins) == 15 and sum(int(row["frames"]) for row in bins) == 114
    shown = {row["phase"]: row for row in _read(tmp_path / "phases.csv") if row["boundary"] == "exact"}
    assert shown["GallbladderRetraction"]["videos"] == "0" and shown["GallbladderRetraction"]["recall"] == ""
    for row, result in zip(video_columns(results, NAMES), results, strict=True):
        annotated = [phase for phase in range(7) if (result.phases == phase).any()]
        frames = result.frames("temporal")
        recalls = [(frames[result.phases == phase] == phase).mean() for phase in annotated]
        assert row["phase_recall"] == pytest.approx(np.mean(recalls))


def test_every_frame_has_a_line(tmp_path: Path) -> None:
    results = [_result(0, "or 1/case"), _result(1, "unread", valid=False, fps=None)]
    first, second = write_frames(tmp_path, results, NAMES)
    assert [path.name for path in (first, second)] == ["0000_or_1_case.csv", "0001_unread.csv"]
    rows = _read(first)
    frames, told = results[0].frames("temporal"), results[0].probabilities("temporal")
    assert [row["frame"] for row in rows] == [str(number) for number in range(60)]
    assert rows[0]["truth"] == "" and rows[5]["time"] == "2.500" and rows[59]["truth"] == NAMES[results[0].phases[59]]
    for number, row in enumerate(rows):
        assert row["prediction"] == NAMES[frames[number]]
        np.testing.assert_allclose([float(row[name]) for name in NAMES], told[number], atol=1e-6)
    assert _read(second)[7] == {"frame": "7", "time": "", "truth": NAMES[results[1].phases[7]], "prediction": "",
                                "clipwise": "", **dict.fromkeys(NAMES, "")}  # fmt: skip


def test_tables_of_frames_of_an_earlier_evaluation_go(tmp_path: Path) -> None:
    write_frames(tmp_path, [_result(0, "a"), _result(1, "b")], NAMES)
    (tmp_path / "frames" / "notes.csv").write_text("mine")
    write_frames(tmp_path, [_result(0, "c")], NAMES)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["0000_c.csv", "notes.csv"]

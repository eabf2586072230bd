"""The video experiment: its jobs, its rows on a handful of rooms, and a report that says what the numbers say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from m33d_hf.data.sources import build_source
from m33d_hf.errors import ConfigError
from m33d_hf.experiments import rendering
from m33d_hf.experiments.collecting import collect
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.driver import report
from m33d_hf.experiments.jobs import check_jobs
from m33d_hf.experiments.plan import load_plan
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.rendering import floors
from m33d_hf.experiments.report.demos.clips import summary, write_reports
from m33d_hf.experiments.report.results import cell
from m33d_hf.experiments.rows import actions, phases

FEW = ["--data.options", "{num_videos: 10}", "--data.eval_options", "{num_videos: 2}", "--data.num_workers", "0"]
QUIET = ["--cpu", "true", "--cpu_threads", "1", "--logging.progress", "false", "--logging.trackers", "[]"]


def test_the_jobs_hang_together(tmp_path: Path) -> None:
    plan = load_plan("demo-video", "full", tmp_path)
    jobs = {job.id: job for job in jobs_of(plan)}
    check_jobs(list(jobs.values()))
    shares = [how["fraction"] for how in plan.content["measurements"].values() if how["kind"] == "phases"]
    assert {0.05, 0.2, 1.0} <= set(shares)
    assert sum(name.startswith("phases-") for name in jobs) == len(plan.entries) * len(plan.seeds) * len(shares)
    few = jobs["phases-0.05-m33d_plus-s1"]
    assert "pretrain-m33d_plus-s1" in few.needs
    argv = few.parameters["clip_argv"]
    assert argv[argv.index("--data.label_fraction") + 1] == "0.05" and argv[argv.index("--data.subset_seed") + 1] == "1"
    # Both stages draw the same videos, and the test split is only looked at in the end.
    second = few.parameters["temporal_argv"]
    assert second[second.index("--data.label_fraction") + 1] == "0.05" and "test" in second
    assert argv[argv.index("--evaluation.at_end") + 1] == "false" and "--evaluation.at_end" not in second
    assert jobs["actions-1-scratch-s0"].needs == ("render",)
    assert "--init_from" not in jobs["actions-1-videomae-s0"].parameters["test_argv"]
    with pytest.raises(ConfigError, match="full"):
        load_plan("demo-video", "ful", tmp_path)


def test_floors_are_of_the_split_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []

    def build(name: str, split: str, **options: Any) -> Any:
        read.append((split, options.get("num_frames", options.get("num_videos"))))
        return build_source(name, split=split, **options)

    monkeypatch.setattr(rendering, "build_source", build)
    for frames, videos in (({"train": 4, "validation": 3}, None), (None, {"train": 4, "validation": 3})):
        row = floors("validation", None, frames=frames, videos=videos)
        assert row["split"] == "validation" and read == [("train", 4), ("validation", 3)]
        read.clear()


def test_rows_train_and_judge(tmp_path: Path) -> None:
    few = {"train": 10, "validation": 2, "test": 2}
    found = floors("test", None, videos=few)["floors"]
    assert 0.3 < found["clip_accuracy"]["value"] <= 1 and 0 < found["map"]["value"] <= 1
    common = [*QUIET, "--model.hidden_size", "32", "--model.num_hidden_layers", "2", "--model.intermediate_size", "64"]
    short = ["--train.max_steps", "2", "--optim.warmup_steps", "1"]
    row = phases(
        ["--recipe", "rooms/phases_finetune", *FEW, *common, *short],
        ["--recipe", "rooms/phases_temporal", *FEW, *common, "--train.epochs", "1", "--data.eval_split", "test"],
        str(tmp_path / "phases"),
        2,
    )
    assert {"map", "clipwise/map", "frame_accuracy", "edit", "f1_50"} <= set(row["metrics"])
    assert list(Path(row["folder"]).glob("evaluation/timeline_*.png"))
    clips = ["--recipe", "rooms/actions", *common, *short, "--data.num_workers", "0", "--data.options.num_clips", "20"]
    clips += ["--data.eval_options.num_clips", "10"]
    row = actions(clips, [*clips, "--data.eval_split", "test"], str(tmp_path / "actions"), 2)
    assert 0 <= row["metrics"]["top1"] <= 1 and (Path(row["folder"]) / "confusion_matrix.png").is_file()


def _results(tmp_path: Path) -> dict[str, Any]:
    """Made-up numbers: m33d_plus is 20 points better in everything, videomae as scratch; seeds differ by 2 points."""
    plan = load_plan("demo-video", "full", tmp_path)
    jobs = jobs_of(plan)
    rows: dict[str, dict[str, Any]] = {}
    for job in jobs:
        later = job.id.endswith("s1")
        value = 0.4 + 0.2 * ("m33d_plus" in job.id) + (0.02 + 0.001 * ("scratch" in job.id)) * later
        metrics = dict.fromkeys(
            [f"{part}{name}" for part in ("", "clipwise/") for name in ("map", "frame_accuracy", "edit", "f1_50")],
            value,
        )
        metrics |= {"top1": value, "map": value + 0.3}
        place = str(tmp_path / "runs")
        rows[job.id] = {"status": "done", "metrics": metrics, "seconds": 1.0, "steps": 5, "folder": place}
        if job.id.startswith("pretrain-"):
            losses = {"loss/rgb": 0.91 if "videomae" in job.id else 0.97}
            rows[job.id] |= {"stage": None, "flops": 1.0, "cpu_seconds": 1.0, "encoder_parameters": 5,
                             "diagnostics": losses}  # fmt: skip
    rows["render"] |= {"ceiling": 0.7}
    rows["floors"] |= {
        "floors": {"map": {"value": 0.8, "how": "place"}, "clip_accuracy": {"value": 0.7, "how": "place"}}
    }
    rows["actions-1-videomae-s0"] = {"status": "failed", "error": "out of luck"}
    results = collect(plan, rows)
    return {**results, "workers": 2, "wall_seconds": 61.0, "environment": {"machine": "test"}}


def test_the_report_says_what_the_numbers_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = _results(tmp_path)
    assert results["rows"][1]["id"] == "floor" and results["rows"][1]["metrics"] == results["floor"]
    assert results["floor"] == {"map": 0.8, "clip_accuracy": 0.7}
    tables = as_tables(results)
    assert cell(tables, "m33d_plus", "actions").values == pytest.approx((60.0, 62.0))
    sentences = " ".join(summary(tables))
    assert "m33d_plus over scratch*: yes, better in 4 of 4 columns (mAP % Bi-GRU, 5% labels: better by " in sentences
    assert "videomae over scratch*: not shown: no difference larger than" in sentences
    assert "videomae over scratch*: no verdict (a seed failed)" in sentences
    assert re.search(r"scratch 41\.\d to 71\.\d", sentences) and "70.0 %" in sentences
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert report(tmp_path) == 1  # one row failed
    assert "FAILED actions-1-videomae-s0: out of luck" in capsys.readouterr().out
    page, text = (tmp_path / name for name in ("video.html", "video.md"))
    assert "1 jobs did not finish" in page.read_text(encoding="utf-8")
    assert "alone, unseen: 80.0 %." in text.read_text(encoding="utf-8")
    assert "**61.0** (60.0 / 62.0)" in text.read_text(encoding="utf-8")


def test_the_report_can_be_moved(tmp_path: Path) -> None:
    """Nothing names this machine, and pictures of runs are copied, since runs stay behind."""
    results = _results(tmp_path)
    assert str(tmp_path) not in json.dumps(results)
    (tmp_path / "runs" / "evaluation").mkdir(parents=True)
    for name in ("confusion_matrix.png", "evaluation/timeline_0.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "runs" / name)
    for folder in (tmp_path, tmp_path / "elsewhere" / "deeper"):
        if folder != tmp_path:
            shutil.copytree(tmp_path / "figures", folder / "figures")
        write_reports(as_tables(results), folder)
        shown = (folder / "video.md").read_text(encoding="utf-8")
        assert "(figures/actions_confusion_matrix.png)" in shown and "(figures/phases_timeline_0.png)" in shown


def test_rows_that_ran_before_a_move_are_found_where_they_lie_now(tmp_path: Path) -> None:
    plan = load_plan("demo-video", "full", tmp_path / "new")
    entry = {"status": "done", "stage": None, "steps": 1, "seconds": 1.0, "flops": 1.0, "cpu_seconds": 1.0,
             "encoder_parameters": 5, "diagnostics": {}, "metrics": {"map": 0.5}}  # fmt: skip
    old = {"folder": "/old/runs/phases/temporal", "log": "/old/rows/a.log"}
    rows = {job.id: {**entry, **old} for job in jobs_of(plan)}
    assert {row["folder"] for row in collect(plan, rows)["rows"]} == {"runs/phases/temporal"}


def test_a_videomae_that_has_not_learnt_gets_no_verdict(tmp_path: Path) -> None:
    results = _results(tmp_path)
    for entry in results["pretraining"]:
        if (entry["method"], entry["seed"]) == ("videomae", 1):
            entry["diagnostics"] = {"loss/rgb": 0.96}
    sentences = " ".join(summary(as_tables(results)))
    refused = "no verdict (the rgb loss of videomae must be below .950 and is .910 / .960)"
    assert f"videomae over scratch*: {refused}" in sentences and f"m33d_plus over videomae*: {refused}" in sentences
    assert "m33d_plus over scratch*: yes, better in 4 of 4 columns" in sentences
    assert "(a constant reaches .992): **not met**." in sentences


def test_a_report_needs_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no results\.json"):
        report(tmp_path)

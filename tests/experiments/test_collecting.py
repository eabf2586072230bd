"""The demo's and the video experiment's results.json: what is in them, and that they are read as tables again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.experiments.collecting import collect
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.jobs import Job
from m33d_hf.experiments.plan import Plan, load_content
from m33d_hf.experiments.reading import as_tables
from m33d_hf.experiments.report.results import cell, diagnostic, failures


def _row(job: Job) -> dict[str, Any]:
    """What a worker would have left; the figures of a stage tell which it is."""
    row: dict[str, Any] = {"id": job.id, "status": "done", "started": 5.0, "wall_seconds": 2.0, "cpu_seconds": 1.5}
    if "pretrain" in job.function:
        stage = 2 if job.id.endswith("stage2") else 1
        known = {"loss": stage, "retrieval_accuracy_depth": stage, "depth_loss_hidden": stage}
        known |= {"matching_accuracy_depth": 3} if job.id.startswith("probe-") else {}
        known |= {"loss/contrastive": stage} if stage == 1 else {}
        row |= {"stage": stage, "steps": 4, "seconds": 1.0, "flops": 10.0, "encoder_parameters": 5, "curve": {}}
        row |= {"image_size": [48, 48], "batch_size": 7, "picture": job.parameters.get("picture"), "diagnostics": known}
    if job.function.endswith(":dense"):
        metric = "delta1" if "depth" in job.id else "miou"
        row |= {"metric": metric, "value": 0.25, "metrics": {metric: 0.25}, "steps": 3, "seconds": 1.0, "flops": 2.0}
    return row


def _everything(folder: Path) -> Plan:
    """The demo with what it does not run any more, but whose results are still read."""
    content = load_content("demo")
    columns = [column["of"] for column in content["columns"].values()]
    return Plan({**content, "only": None, "column_sets": {"main": columns}}, "full", folder)


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {job.id: _row(job) for job in jobs_of(_everything(tmp_path))}


def test_the_demos_pretrainings_are_one_entry_of_all_stages(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    rows["render"]["digests"] = {"frames/0/train": "a", "frames/0/test": "b"}
    rows["floors"]["floors"] = {"miou": {"value": 0.1, "how": "m"}, "delta1": {"value": 0.2, "how": "d"}}
    results = collect(_everything(tmp_path), rows)
    names = [(entry["method"], entry["seed"]) for entry in results["pretraining"]]
    methods = ("mae", "m33d_normed", "m33d", "m33d_plus")
    assert names == [(method, seed) for seed in (0, 1, 2) for method in methods]
    entry = results["pretraining"][2]
    assert [stage["id"] for stage in entry["stages"]] == ["pretrain-m33d-s0-stage1", "pretrain-m33d-s0-stage2"]
    assert (entry["steps"], entry["flops"], entry["batch_size"]) == (8, 20.0, 7)
    # Contrast after the stage that trains it, matching from the probe, the rest from the last stage alone.
    assert entry["diagnostics"] == {
        "loss": 2, "depth_loss_hidden": 2, "retrieval_accuracy_depth": 1, "matching_accuracy_depth": 3,
    }  # fmt: skip
    assert entry["picture"] == "pictures/pretrain-m33d-s0-stage2.npz" and results["pretraining"][6]["picture"] is None
    assert results["data_digests"] == {"train": "a", "test": "b"}
    floors = {task: (floor["metric"], floor["value"]) for task, floor in results["floors"].items()}
    assert floors == {"semantic_segmentation": ("miou", 0.1), "depth_estimation": ("delta1", 0.2)}
    assert [entry["id"] for entry in results["jobs"]][:3] == ["render", "floors", "probe-m33d-s0"]
    assert results["wall_seconds"] == 2.0, "all jobs ran at the same time"


def test_a_failed_stage_is_told_once_and_by_name(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    rows["pretrain-m33d-s0-stage1"] |= {"status": "failed", "error": "OSError: full"}
    row = "depth_estimation-200-m33d-s0"
    rows[row] = {"id": row, "status": "blocked", "error": "not run", "wall_seconds": 0.0}
    tables = as_tables(collect(_everything(tmp_path), rows))
    assert failures(tables) == [("pretrain-m33d-s0", "pretrain-m33d-s0-stage1: OSError: full"), (row, "not run")]
    found = cell(tables, "m33d", "depth_estimation-200")
    assert found.values == (25.0, 25.0) and found.failed == 1
    assert diagnostic(tables, "m33d", "matching_accuracy_depth") == [3.0, 3.0], "of the seeds that finished"


def test_every_column_of_the_tables_is_read(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    plan = _everything(tmp_path)
    tables = as_tables(collect(plan, rows))
    assert [column["id"] for column in tables["columns"]] == list(plan.content["columns"])
    names = ["scratch", "mae", "m33d_normed", "m33d", "m33d_plus"]
    assert [row["variant"] for row in tables["tables"][0]["rows"]] == names
    assert all(cell(tables, "mae", column["id"]).n == 3 for column in tables["columns"])


def test_rows_that_no_column_shows_are_not_left_out_in_silence(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    results = collect(_everything(tmp_path), rows)
    results["rows"][0]["labels"] = 77
    with pytest.raises(ConfigError, match="rows of depth_estimation-77, but the plan demo has no column"):
        as_tables(results)


def test_several_fine_tunings_of_an_encoder_are_rows_of_their_own_and_one_seed(tmp_path: Path) -> None:
    content = load_content("demo")
    content["measurements"]["semantic_segmentation-200"]["draws"] = 2
    plan = Plan(content, "full", tmp_path)
    rows = {job.id: _row(job) for job in jobs_of(plan)}
    rows["semantic_segmentation-200-mae-s1-f1"]["value"] = 0.75
    results = collect(plan, rows)
    drawn = [(row["seed"], row.get("draw", 0)) for row in results["rows"]
             if (row["method"], row["task"]) == ("mae", "semantic_segmentation")]  # fmt: skip
    assert drawn == [(seed, draw) for seed in (0, 1, 2) for draw in (0, 1)]
    found = cell(as_tables(results), "mae", "semantic_segmentation-200")
    assert found.values == (25.0, 50.0, 25.0), "the mean of 25 and 75"
    assert (results["command"], results["cpu_seconds"]) == ("make demo", 1.5 * len(rows))
    assert results["matching_note"] == "", "no probe was run"

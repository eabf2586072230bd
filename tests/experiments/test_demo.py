"""The demo end to end with a handful of steps: real training, real rows, a report that can be made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from m33d_hf.experiments import plan as plan_module
from m33d_hf.experiments.driver import done_fraction, run
from m33d_hf.experiments.jobs import Job
from m33d_hf.scripts.run_demo import main


@pytest.fixture(scope="module")
def small_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a demo.yaml of one seed, two pre-trainings and two kinds of rows."""
    content = plan_module.load_content("demo")
    content["seeds"] = [0]
    names = ("scratch", "mae", "m33d_plus-1", "m33d_plus", "m33d_plus-probe")
    content["pretraining"] = {name: content["pretraining"][name] for name in names}
    content["only"] = list(names)
    content["measurements"]["semantic_segmentation-200"] |= {"picture": 5, "draws": 2}
    content["budgets"]["smoke"] |= {"pretraining_steps": {"images": 6}, "depth_steps": 2, "segmentation_steps": 2}
    folder = tmp_path_factory.mktemp("plan")
    (folder / "demo.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def outputs(small_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert _run(folder, small_plan) == 0
    return folder


def _run(folder: Path, small_plan: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "FOLDER", small_plan)
        return run("demo", folder, "smoke", workers=1, cache_dir=str(folder / "cache"))


def test_results_hold_a_row_per_method_task_labels_seed(outputs: Path) -> None:
    results = json.loads((outputs / "results.json").read_text())
    found = [(row["method"], row["task"], row["labels"], row["seed"], row.get("draw", 0)) for row in results["rows"]]
    tasks = (("depth_estimation", 0), ("semantic_segmentation", 0), ("semantic_segmentation", 1))
    assert sorted(found) == sorted((m, t, 200, 0, d) for m in ("scratch", "mae", "m33d_plus") for t, d in tasks)
    assert results["command"].startswith("python scripts/") and results["cpu_seconds"] > 0
    for row in results["rows"]:
        assert row["status"] == "done" and 0 <= row["value"] <= 1
        assert row["steps"] == 2 and row["seconds"] > 0 and row["flops"] > 0
        assert row["pretraining_steps"] == (0 if row["method"] == "scratch" else 6)
    assert {entry["method"]: entry["steps"] for entry in results["pretraining"]} == {"mae": 6, "m33d_plus": 6}
    assert 0 < results["floors"]["semantic_segmentation"]["value"] < 0.3
    assert 0.2 < results["floors"]["depth_estimation"]["value"] < 0.8
    plus = results["pretraining"][1]
    keys = {"retrieval_accuracy_depth", "retrieval_accuracy_mismatched_depth", "retrieval_chance_depth",
            "matching_accuracy_depth", "depth_loss_visible", "depth_loss_hidden"}  # fmt: skip
    assert keys <= set(plus["diagnostics"])
    judged = {entry["id"] for entry in results["expectations"]}
    assert "product_matching_works" in judged and "position_shortcut" not in judged, "literal m33d was not run"


def test_report_has_all_pictures_and_can_be_made_again(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = (outputs / "report.html").read_text()
    assert html.count("data:image/png;base64") == 2 + 1 + 2 + 2 + 2, (
        "gains and one row of predictions, differences, curves, reconstructions, predictions"
    )
    assert "truth" in html
    (outputs / "pictures").rename(outputs / "elsewhere")
    assert main(["--output_dir", str(outputs), "--report_only"]) == 2
    assert "copy the run's folder pictures too" in capsys.readouterr().err
    (outputs / "elsewhere").rename(outputs / "pictures")
    shutil.rmtree(outputs / "figures")
    (outputs / "report.html").unlink()
    assert main(["--output_dir", str(outputs), "--report_only"]) == 0
    assert (outputs / "report.html").read_text() == html


def test_second_call_keeps_every_row(outputs: Path, small_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (outputs / "rows").glob("*.json")}
    seconds = json.loads((outputs / "results.json").read_text())["wall_seconds"]
    assert _run(outputs, small_plan) == 0
    assert {path: path.stat().st_mtime_ns for path in (outputs / "rows").glob("*.json")} == before
    assert "kept" in capsys.readouterr().out
    assert json.loads((outputs / "results.json").read_text())["wall_seconds"] == seconds


def test_fraction_of_a_running_job(tmp_path: Path) -> None:
    job = Job("a", "x:y", {"output_dir": str(tmp_path), "steps": 40})
    assert done_fraction(job) == 0.0
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"ste')
    assert done_fraction(job) == 0.5
    assert done_fraction(Job("b", "x:y")) == 0.0


def test_report_without_results_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output_dir", str(tmp_path), "--report_only"]) == 2
    assert "holds no results.json" in capsys.readouterr().err


def test_unknown_budget_is_an_error_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output_dir", str(tmp_path), "--budget", "ful"]) == 2
    assert "Did you mean 'full'" in capsys.readouterr().err


def test_a_quick_look_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Path] = []
    monkeypatch.setattr("m33d_hf.experiments.driver.run", lambda plan, folder, *_: called.append(folder) or 0)
    for words in ([], ["--budget", "smoke"], ["--part", "video", "--budget", "smoke"], ["--part", "video"]):
        assert main(words) == 0
    assert [str(folder) for folder in called] == [
        "outputs/demo", "outputs/demo-smoke", "outputs/demo-video-smoke", "outputs/demo-video",
    ]  # fmt: skip

"""Comparing runs: what differs, whose metric is best, and what cannot be compared."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from m33d_hf.data.files.sealed_json import write_sealed_json
from m33d_hf.scripts import compare_runs as script
from m33d_hf.training.processes.guards import LOCK_FILE
from m33d_hf.training.recipe.parsing import parse_arguments


def a_run(folder: Path, metrics: list[dict[str, float]], *words: str, task: str = "depth_estimation", done: bool = True,
          ) -> Path:  # fmt: skip
    """What a run leaves behind, with evaluations at steps 10, 20, ..."""
    folder.mkdir(parents=True)
    recipe = {"depth_estimation": "rooms/depth", "semantic_segmentation": "rooms/semseg"}[task]
    args = parse_arguments(["--recipe", recipe, "--output_dir", str(folder), *words], task).to_dict()
    config: dict[str, Any] = {"args": args, "plan": {"total_steps": 20}, "effective_batch": 4, "commit": "abc"}
    write_sealed_json(folder / "train_config.json", config)
    rows: list[dict[str, Any]] = [{"kind": "train", "step": 5, "loss": 1.0, "learning_rate": 0.1}]
    rows += [{"kind": "eval", "step": 10 * (n + 1), **{f"eval/{k}": v for k, v in row.items()}}
             for n, row in enumerate(metrics)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if done:
        (folder / "COMPLETE").write_text("{}", encoding="utf-8")
    return folder


def test_settings_and_metrics_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = a_run(tmp_path / "one", [{"delta1": 0.7, "rmse": 0.5}, {"delta1": 0.6, "rmse": 0.45}])
    two = a_run(tmp_path / "two", [{"delta1": 0.5, "rmse": 0.6}, {"delta1": 0.65, "rmse": 0.4}],
                "--optim.learning_rate", "0.5", "--seed", "3", "--data.options.num_frames", "9")  # fmt: skip
    assert script.main([str(one), str(two), "--output", str(tmp_path / "out")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["optim.learning_rate", "0.003", "0.5"] in lines and ["seed", "0", "3"] in lines
    assert ["data.options.num_frames", "(absent)", "9"] in lines
    assert not any(line[:1] in (["output_dir"], ["recipe"], ["optim.schedule"]) for line in lines)
    assert ["best", "delta1", "0.7", "(step", "10)", "0.65", "(step", "20)"] in lines
    assert ["rmse", "[m]", "0.45", "0.4"] in lines and ["step", "20", "20"] in lines
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "<strong>0.7 (step 10)</strong>" in page and "<strong>0.65" not in page
    assert "data:image/png;base64," in page and 'src="http' not in page
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000


def test_the_stated_direction_of_a_metric_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it decides what `checkpoints/best` holds; by its name alone, `delta1` is better where it is larger."""
    stated = ("--evaluation.metric", "delta1", "--evaluation.greater_is_better", "false")
    one, two = (a_run(tmp_path / name, [{"delta1": 0.7}, {"delta1": 0.6}], *stated) for name in ("one", "two"))
    assert script.main([str(one), str(two), "--output", str(tmp_path / "out")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["best", "delta1", "0.6", "(step", "20)", "0.6", "(step", "20)"] in lines


def test_unfinished_runs_and_other_data_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = a_run(tmp_path / "a" / "run", [{"delta1": 0.7}], "--data.eval_split", "test", done=False)
    two = a_run(tmp_path / "b" / "run", [], done=False)
    with (two / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert script.main([str(one), str(two), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert (
        f"WARNING: {one} stopped at step 10 of 20" in told and f"WARNING: {two} is still running (step 5 of 20)" in told
    )
    assert f"WARNING: {two} has no evaluation yet" in told and "data.eval_split differ" in told
    assert "a/run (stopped, 10 of 20)" in told and "b/run (running, 5 of 20)" in told


@pytest.mark.parametrize("case", ["task", "missing", "empty", "twice", "alone", "broken"])
def test_what_cannot_be_compared(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = a_run(tmp_path / "one", [{"delta1": 0.7}])
    (tmp_path / "empty").mkdir()
    broken = a_run(tmp_path / "broken", [])
    (broken / "train_config.json").write_text("{}", encoding="utf-8")
    folders, error = {
        "task": ([one, a_run(tmp_path / "s", [{"miou": 0.1}], task="semantic_segmentation")],
                 "runs of different tasks have no metrics in common"),
        "missing": ([one, tmp_path / "nowhere"], "does not exist; pass the output folder"),
        "empty": ([one, tmp_path / "empty"], "holds no run: it has no train_config.json"),
        "twice": ([one, tmp_path / "empty" / ".." / "one"], "is named twice"),
        "alone": ([one], "takes at least two output folders; got 1"),
        "broken": ([one, broken], "cannot be read"),
    }[case]  # fmt: skip
    assert script.main([*map(str, folders), "--output", str(tmp_path / "out")]) == 2
    assert error in capsys.readouterr().err and not (tmp_path / "out").exists()

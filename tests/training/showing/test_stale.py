"""A new start removes what an earlier run has left and would be shown as its own; what is the user's stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.rooms_runs import words
from helpers.tiny_task import TinyTask, tiny_arguments
from m33d_hf.errors import ConfigError
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import build_task

STALE = (
    "pictures/first_batch.png",
    "pictures/evaluation_step_00000099.png",
    "pictures/evaluation_step_00000000_1_case.png",
    "confusion_matrix.png",
    "evaluation/timeline_0_case.png",
    "evaluation/frames/0003_case.csv",
    "evaluation/frames/12345_case.csv",
)
MINE = ("pictures/mine.png", "evaluation/frames/notes.csv", "evaluation/timeline.png", "evaluation/scores.json")


def leave(folder: Path) -> None:
    for name in (*STALE, *MINE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"old")


def left(folder: Path) -> set[str]:
    return {name for name in (*STALE, *MINE) if (folder / name).is_file() and (folder / name).read_bytes() == b"old"}


def test_a_start_from_step_0_shows_its_own_and_a_continuation_keeps_what_the_run_has_shown(tmp_path: Path) -> None:
    leave(tmp_path)
    train(tiny_arguments(tmp_path), TinyTask())
    assert left(tmp_path) == set(MINE)
    leave(tmp_path)
    train(tiny_arguments(tmp_path), TinyTask())
    assert left(tmp_path) == {*STALE, *MINE}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    args = parse_arguments(words("rooms/depth", folder, logging__pictures="true"), "depth_estimation")
    train(args, build_task("depth_estimation"))
    return folder


def test_an_evaluation_shows_its_own(trained: Path, tmp_path: Path) -> None:
    leave(tmp_path)
    given = {"init_from": str(trained), "eval_only": "true", "logging__pictures": "true"}
    evaluate_run(
        parse_arguments(words("rooms/depth", tmp_path, **given), "depth_estimation"), build_task("depth_estimation")
    )
    assert left(tmp_path) == set(MINE)
    assert "evaluation_step_00000099" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_evaluation_goes_beside_the_training_and_never_over_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The folder of the recipe is that of its training: `outputs/run` here, where none is stated."""
    run = tmp_path / "outputs" / "run"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    given = words("rooms/depth", "OUT", init_from="outputs/run", eval_only="true", logging__pictures="true")
    place = given.index("--output_dir")
    unstated = given[:place] + given[place + 2 :]
    assert main("depth_estimation", unstated) == 0
    assert (run / "evaluation" / "eval_results.json").is_file() and (run / "evaluation" / "report.html").is_file()
    assert {path: path.read_bytes() for path in before} == before
    assert "output_dir: outputs/run/evaluation, as outputs/run is the folder of a training" in capfd.readouterr().err
    for more in ([], ["--dry_run", "true"]):
        assert main("depth_estimation", [*unstated, "--output_dir", "outputs/run", *more]) == 2
        assert "is the folder of a training" in capfd.readouterr().err
    args = parse_arguments([*unstated, "--output_dir", "outputs/run"], "depth_estimation")
    with pytest.raises(ConfigError, match=r"--output_dir outputs/run/evaluation"):
        evaluate_run(args, build_task("depth_estimation"))
    assert {path: path.read_bytes() for path in before} == before

"""Every method and stage under DDP with find_unused_parameters=False: two processes against one, on rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.launching import outcome
from helpers.ranks import run_jobs
from helpers.rooms_runs import words
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.pretraining import PretrainingTask

# Beyond the first run, what is new about each for DDP: which parameters take part.
RUNS = {
    "mae": ("rooms/pretrain", "mae"),
    "rgbd_mae": ("rooms/pretrain", "rgbd_mae"),
    "mask3d": ("rooms/pretrain", "mask3d"),
    "multimae": ("rooms/pretrain", "multimae"),
    "m33d_stage1": ("rooms/pretrain_stage1", "m33d"),
    "m33d_stage2": ("rooms/pretrain_stage2", "m33d"),
    "plus_stage1": ("rooms/pretrain_stage1", "m33d_plus"),
    "plus_stage2": ("rooms/pretrain_stage2", "m33d_plus"),
    "followup_stage2": ("rooms/pretrain_stage2", "m33d_followup"),
    "m33d_clips": ("rooms/pretrain_clips", "m33d"),
    "plus_clips": ("rooms/pretrain_clips", "m33d_plus"),
    "videomae": ("rooms/pretrain_clips", "videomae"),
}


def argv(name: str, folder: Path, batch_size: int, cache: Path) -> list[str]:
    recipe, method = RUNS[name]
    return words(
        recipe,
        folder / name,
        method=method,
        train__batch_size=str(batch_size),
        logging__every_steps="1",
        checkpoint__save_final="false",
        checkpoint__save_best="false",
        data__cache_dir=str(cache),
        init_from=str(cache / "stage_1") if name == "followup_stage2" else None,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rooms are cached, and stage 1 of the method whose stage 2 needs one."""
    folder = tmp_path_factory.mktemp("rooms")
    stage_1 = words("rooms/pretrain_stage1", folder / "stage_1", method="m33d_followup", data__cache_dir=str(folder))
    train(parse_arguments(stage_1, "pretraining"), PretrainingTask())
    return folder


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("two")
    jobs = [{"name": name, "task": "pretraining", "argv": argv(name, folder, 2, cache)} for name in RUNS]
    code, output = run_jobs(jobs, folder, timeout=400)
    assert code == 0, output
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_like_one(name: str, two_processes: Path, cache: Path, tmp_path: Path) -> None:
    alone = train(parse_arguments(argv(name, tmp_path, 4, cache), "pretraining"), PretrainingTask()).history
    together = outcome(two_processes, name)["history"]
    # Matching draws its negatives within a rank: exempt, and so is what follows from its gradient.
    exact = "loss/matching" not in alone[0]
    first, other = alone[0], together[0]
    for key in first:
        if key.startswith("loss/") and key != "loss/matching":
            assert first[key] == pytest.approx(other[key], rel=1e-4), key
    if exact:
        assert first["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert alone[1]["loss"] == pytest.approx(together[1]["loss"], rel=1e-3)
    assert [row["step"] for row in together] == [1, 2, 2]

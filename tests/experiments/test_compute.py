"""Where rows run: the CPU as ever, a GPU where a budget says so, on a machine that may have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.rooms_runs import words
from m33d_hf.errors import ConfigError
from m33d_hf.experiments import driver, plan, rows
from m33d_hf.experiments.commands import jobs_of
from m33d_hf.experiments.compute import ONE_THREAD, Compute
from m33d_hf.experiments.plan import load_plan
from m33d_hf.training.recipe.parsing import parse_arguments


def test_without_a_section_it_is_one_thread_on_the_cpu(tmp_path: Path) -> None:
    compute = load_plan("demo", "full", tmp_path).compute
    assert compute == Compute() and compute.words == ONE_THREAD and not compute.source_words
    assert compute.loader_words == ("--data.num_workers", "0")
    compute.require()
    assert "one thread each" in compute.describe(2)


def test_a_gpu_is_said_to_every_run() -> None:
    compute = Compute.of_budget({"compute": {"device": "cuda", "precision": "bf16", "workers": 4, "loader_workers": 3}})
    given = [*compute.words, *compute.loader_words, *compute.source_words, "--recipe", "rooms/pretrain"]
    args = parse_arguments(given, "pretraining")
    assert (args.cpu, args.train.precision, args.data.num_workers) == (False, "bf16", 3)
    assert args.data.options["device"] == "cuda" == compute.source_options()["device"]
    assert args.checkpoint.save_best is False and args.logging.progress is False
    assert driver.process_count(None, compute) == 4 and driver.process_count(2, compute) == 2
    assert compute.describe(4) == "4 processes that share one GPU (bf16), each with 3 loader processes"


def test_rendering_may_be_elsewhere_than_training() -> None:
    assert Compute(device="cuda", render="cpu").source_words == ()
    assert Compute(render="cuda").words == ONE_THREAD and Compute(render="cuda").source_options() == {"device": "cuda"}


def test_a_missing_gpu_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="runs on a GPU, but torch finds none"):
        driver.run_jobs([], tmp_path, None, Compute(device="cuda"))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"devices": "cuda"}, "no key 'devices'.*device"),
        ({"device": "gpu"}, r"compute\.device is 'gpu'"),
        ({"precision": "fp16"}, r"compute\.precision is 'fp16'"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_a_section_that_cannot_be(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compute.of_budget({"compute": section})


def test_a_row_with_loader_processes(tmp_path: Path) -> None:
    given = {
        "data__cache_dir": str(tmp_path / "cache"),
        "data__num_workers": "1",
        "data__max_train_samples": "12",
        "data__eval_options": "{num_frames: 6}",
    }
    argv = words("rooms/semseg", tmp_path / "run", **given)
    del argv[argv.index("--output_dir") : argv.index("--output_dir") + 2]  # the row says where
    found = rows.dense("semantic_segmentation", argv, argv, str(tmp_path / "run"), 2, "picture.npz", str(tmp_path), 2)
    assert 0 <= found["value"] <= 1 and (tmp_path / "picture.npz").is_file()


def test_every_run_of_the_gpu_budget_is_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "flops_per_sample", lambda *args, **options: 1e9)  # counting takes seconds
    jobs = jobs_of(load_plan("reproduction", "gpu", tmp_path))
    render, floors = jobs[:2]
    assert render.parameters["options"] == floors.parameters["options"] == {"image_size": 128, "device": "cuda"}
    for job in {job.id.rsplit("-s", 1)[0]: job for job in jobs[2:]}.values():  # one seed of each
        args = parse_arguments(job.parameters["argv"], job.parameters.get("task", "pretraining"))
        assert not args.cpu and args.train.precision == "bf16" and args.data.options["device"] == "cuda", job.id
        assert args.model["image_size"] == 128 and args.data.num_workers > 0, job.id

"""The benchmark for GPUs, on a CPU at its tiny size: order, budget, what it writes and when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.benchmark_modules import benchmark_module
from m33d_hf.training.recipe.parsing import parse_arguments

ON_CPU = ["--device", "cpu", "--tiny", "--eager"]
PARITIES = 5


@pytest.fixture
def gpu(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from benchmark_module("gpu", repository, monkeypatch)


def _run(gpu: ModuleType, folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = gpu.main([*ON_CPU, "--output_dir", str(folder), *words])
    return code, json.loads((folder / "gpu.json").read_text())


def test_everything_is_proved_and_then_timed(gpu: ModuleType, tmp_path: Path) -> None:
    code, found = _run(gpu, tmp_path)
    rows = found["measurements"]
    assert code == 0 and all("result" in row for row in rows)
    goals = [row["goal"] for row in rows]
    assert goals[:PARITIES] == ["parity"] * PARITIES and "parity" not in goals[PARITIES:]
    assert set(goals) == {"parity", "S3", "S4", "S5", "S6", "S7"}
    cases = {row["case"]: row for row in found["cases"]}
    assert set(cases) == {
        "videomae", "m33d_video", "m33d_plus_video", "mae", "m33d_image_stage1", "m33d_image_stage2"
    }  # fmt: skip
    for case in cases.values():
        assert case["share_of_ceiling"] == pytest.approx(case["flops"] / case["matmul_ceiling_flops"])
        assert 0 < case["timed_loss"]["loss_error"] < 0.02, "bfloat16 against float32"
    tuned = [row["result"] for row in rows if row["goal"] == "S6"]
    assert [row["trainer"] for row in tuned] == [
        {"optim": "adamw_torch_fused", "mixed_precision": "bf16"},
        {"optim": "adamw_torch_fused", "mixed_precision": "no"},
    ]
    for row in tuned:
        assert row["peer_over_ours"] == pytest.approx(
            row["steps"]["peer"]["median_ms"] / row["steps"]["ours"]["median_ms"]
        )
        assert 1e-9 < row["parity"]["gradient_error"] < 1e-4
    forward = [row for each in rows if each["goal"] == "S7" for row in each["result"]["rows"]]
    assert {(row["task"], row["precision"], row["batch"]) for row in forward} == {
        (task, precision, batch)
        for task in ("clips", "depth", "segmentation")
        for precision in ("no", "bf16")
        for batch in (1, 8)
    }


@pytest.mark.slow
def test_what_does_not_fit_is_skipped_and_said(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "measurements", lambda args: iter(_plan(gpu)))
    code, found = _run(gpu, tmp_path, "--minutes", "0.2")
    rows = {row["name"]: row for row in found["measurements"]}
    assert code == 0
    assert rows["short"]["result"] == {"told": "done"}
    assert "takes about 600 s" in rows["long"]["skipped"]
    assert "stopped after" in rows["longer than thought"]["skipped"]
    assert rows["longer than thought"]["seconds"] < 20
    assert "0 are left" in rows["too late"]["skipped"]


def _plan(gpu: ModuleType) -> list[Any]:
    def sleep() -> dict[str, Any]:
        try:
            time.sleep(30)
        except Exception:
            return {"told": "slept"}
        return {"told": "slept"}

    short = gpu.Measurement("short", "S4", 0.1, lambda: {"told": "done"})
    return [
        short,
        gpu.Measurement("long", "S5", 600, sleep),
        gpu.Measurement("longer than thought", "S5", 0.1, sleep),
        gpu.Measurement("too late", "S5", 0.1, sleep),
    ]


def test_a_slow_machine_is_expected_to_stay_slow(gpu: ModuleType) -> None:
    session = gpu.Session(time.monotonic() + 10)

    def slow() -> dict[str, Any]:
        time.sleep(0.5)
        return {"told": "done"}

    assert "result" in session.run(gpu.Measurement("ten times slower", "S4", 0.05, slow, compiles=True))
    assert "takes about 2" in session.run(gpu.Measurement("as well", "S5", 2.0, slow, compiles=True))["skipped"]
    assert "result" in session.run(gpu.Measurement("not compiled", "S5", 2.0, slow))


def test_nothing_is_timed_where_a_gradient_differs(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune = sys.modules["finetune_step"]
    build = finetune.build

    def spoiled(args: Any) -> Any:
        ours, peer, batch = build(args)
        peer.classifier.bias.register_hook(lambda gradient: 1.01 * gradient)
        return ours, peer, batch

    monkeypatch.setattr(finetune, "build", spoiled)
    code, found = _run(gpu, tmp_path, "--only", "S4")
    rows = {row["name"]: row for row in found["measurements"]}
    assert code == 1
    assert "classifier.bias" in rows["fine-tuning against transformers"]["parity_error"]
    assert "a parity is not proved" in rows["videomae bf16 eager"]["skipped"] and found["cases"] == []


def test_an_error_is_told_and_the_others_go_on(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("no compiler here")

    plan = [gpu.Measurement("broken", "S4", 0.1, broken), _plan(gpu)[0]]
    monkeypatch.setattr(gpu, "measurements", lambda args: iter(plan))
    code, found = _run(gpu, tmp_path)
    assert code == 1 and found["measurements"][0]["error"] == "RuntimeError: no compiler here"
    assert found["measurements"][1]["result"] == {"told": "done"}


def test_the_clip_case_of_m33d_plus_is_that_of_the_recipe(gpu: ModuleType, repository: Path) -> None:
    cases = sys.modules["step_cases"]
    config = cases.our_config(cases.CASES["m33d_plus_video"], "base")
    args = parse_arguments(
        ["--recipe", "ucf101_pretrain", "--method", "m33d_plus", "--data.root", "nowhere"], "pretraining"
    )
    for name in ("decoder_fusion", "contrastive_position_free", "matching_fusion", "encoder_sharing"):
        assert args.model[name] == getattr(config, name), name
    assert config.spec("depth").drop_probability == 0.5


WITHOUT = """
import sys
from importlib.machinery import PathFinder
GONE = {"datasets", "evaluate", "decord", "av", "h5py", "scipy", "matplotlib", "tensorboard"}
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in GONE else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import gpu
code = gpu.main(sys.argv[1:])
raise SystemExit(code or int(bool(GONE & set(sys.modules))))
"""


@pytest.mark.slow
def test_it_needs_no_readers_of_data(repository: Path, tmp_path: Path) -> None:
    words = [*ON_CPU, "--only", "S3", "S4", "S6", "--output_dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=repository / "benchmarks", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S6" in done.stdout and "error" not in done.stdout

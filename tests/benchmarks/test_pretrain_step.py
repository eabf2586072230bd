"""The step benchmark at its tiny size: what it writes, and that it times nothing where the two sides differ."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    path, threads = list(sys.path), torch.get_num_threads()
    yield importlib.import_module("pretrain_step")
    sys.path[:] = path
    torch.set_num_threads(threads)


def _run(benchmark: ModuleType, folder: Path, *words: str) -> tuple[int, dict]:
    output = folder / "step.json"
    code = benchmark.main(["--tiny", "--batch", "3", "--rounds", "2", "--output", str(output), "--no_memory", *words])
    return code, json.loads(output.read_text())


def test_same_models_are_proved_equal_and_timed_against_both_optimizers(benchmark: ModuleType, tmp_path: Path) -> None:
    code, content = _run(benchmark, tmp_path, "--cases", "videomae", "mae")
    assert code == 0
    assert {"command", "commit", "date", "machine", "versions"} <= set(content)
    assert [row["case"] for row in content["cases"]] == ["videomae", "mae"]
    for row in content["cases"]:
        assert row["parity"]["loss_error"] <= 1e-5
        assert 1e-9 < row["parity"]["gradient_error"] <= 1e-4
        ours = row["steps"]["ours"]
        assert ours["rounds"] == 2
        assert 0 < ours["min_ms"] <= ours["median_ms"] <= ours["max_ms"]
        for peer in ("peer_fused", "peer_default"):
            assert row["ratio"][peer] == pytest.approx(row["steps"][peer]["median_ms"] / ours["median_ms"])
        assert row["flops"] == pytest.approx(row["gflop_per_sample"] * 1e9 * 3 / (ours["median_ms"] / 1e3))
        assert row["gflop_per_sample"] < row["gflop_per_sample_customary"]
        assert 0 < row["share_of_ceiling"] == pytest.approx(row["flops"] / row["matmul_ceiling_flops"])


def test_another_model_has_a_cost_and_no_parity(benchmark: ModuleType, tmp_path: Path) -> None:
    code, content = _run(benchmark, tmp_path, "--cases", "m33d_video", "--precision", "bf16", "--peers", "fused")
    (row,) = content["cases"]
    assert code == 0
    assert "parity" not in row
    assert "ratio" not in row
    steps = row["steps"]
    assert set(steps) == {"peer_fused", "ours"}
    assert row["cost_against_peer"]["peer_fused"] == pytest.approx(
        steps["ours"]["median_ms"] / steps["peer_fused"]["median_ms"]
    )


@pytest.mark.parametrize("weight", ["decoder.heads.rgb.weight", "m33d.encoders.rgb.layers.1.mlp.fc2.weight"])
def test_other_weights_are_refused(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: str
) -> None:
    transplant = benchmark.transplant

    def spoil(peer: torch.nn.Module, ours: torch.nn.Module) -> None:
        transplant(peer, ours)
        ours.get_parameter(weight).data.mul_(1.05)

    monkeypatch.setattr(benchmark, "transplant", spoil)
    code, content = _run(benchmark, tmp_path, "--cases", "mae")
    (row,) = content["cases"]
    assert code == 1
    assert "differ" in row["parity_error"]
    assert "steps" not in row


def test_equal_losses_with_another_gradient_are_refused(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = sys.modules["step_contenders"]
    args = benchmark.parse(["--tiny", "--cases", "mae", "--batch", "2"])
    case = benchmark.CASES["mae"]
    config = benchmark.our_config(case, "tiny")
    ours, peers, inputs = benchmark.build(args, case, config, 2, torch.device("cpu"))
    ours.get_parameter("decoder.heads.rgb.bias").register_hook(lambda gradient: 1.01 * gradient)
    with pytest.raises(contenders.ParityError, match=r"gradients of decoder\.heads\.rgb\.bias"):
        benchmark.parity(case, ours, peers[0], inputs, config)


def test_memory_is_measured_in_a_process_of_its_own(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--tiny", "--cases", "mae", "--batch", "2", "--memory_of", "ours"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] >= 0


def test_matmul_shapes_are_those_of_the_formula(benchmark: ModuleType) -> None:
    measuring = sys.modules["measuring"]
    config = benchmark.our_config(benchmark.CASES["videomae"], "base")
    shapes = measuring.matmul_shapes(config, 2)
    assert shapes[2 * 160, 768, 3072] == 12
    assert shapes[2 * 1568, 384, 1152] == 4

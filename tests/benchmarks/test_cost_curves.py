"""The cost curves' formulas against what torch keeps and counts, and one tiny run of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from m33d_hf.acceleration.linear import CPULinear

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("decoder", ["joint", "fused", "cross"])
@pytest.mark.parametrize("frames", [1, 4])
def test_formulas_of_memory_and_work(decoder: str, frames: int) -> None:
    import cost_points as cost

    point = cost.Point("tokens", decoder, 0.0, frames=frames, tiny=True)
    workload = cost.Workload(point)
    assert cost.saved_bytes(workload) == pytest.approx(cost.saved_activations(point), rel=0.06)
    workload.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        workload.model(**workload.batch).loss.backward()
    assert counter.get_total_flops() == pytest.approx(cost.flops(point), rel=0.01)
    before = [weight.detach().clone() for weight in workload.model.parameters()]
    workload.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, workload.model.parameters(), strict=True))


def test_points_cover_the_curves() -> None:
    import cost_points as cost

    found = cost.points()
    assert {point.curve for point in found} == {"tokens", "frames", "batch", "modalities"}
    assert {point.x for point in found if point.curve == "batch"} == {1, 2, 4, 8, 16, 32}
    assert {point.x for point in found if point.curve == "frames"} == {2, 4, 8, 16, 32}
    assert {point.modalities for point in found if point.curve == "modalities"} == {1, 2, 3}
    orders = [point for _, point in cost.shuffled(found, 2, seed=0)]
    assert set(orders[: len(found)]) == set(orders[len(found) :]) == set(found)
    assert orders[: len(found)] != orders[len(found) :]


def test_products_count_as_products_whichever_library_does_them() -> None:
    import cost_points as cost

    for name in ("aten::addmm", "aten::bmm", "mkldnn::_linear_pointwise", "aten::linear"):
        assert cost.category(name) == "matmul"
    assert cost.category("aten::_scaled_dot_product_flash_attention_for_cpu") == "attention"
    assert (cost.category("aten::mul"), cost.category("ProfilerStep*")) == ("elementwise", "other")
    linear = torch.nn.Linear(512, 512)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        CPULinear.forward(linear, torch.randn(512, 512)).sum().backward()  # by oneDNN on CPUs with AVX-512
    leaves = ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm")
    done = [event for event in profiler.key_averages() if event.key in leaves and cost.category(event.key) == "matmul"]
    assert sum(event.count for event in done) == 2  # forward, and the gradient of the weight


def test_fit_and_words() -> None:
    import cost_fits

    flops = [1e9, 2e9, 4e9]
    fit = cost_fits.fit_line(flops, [0.01 + value / 50e9 for value in flops])
    assert fit["a"] == pytest.approx(0.01) and fit["rate"] == pytest.approx(50e9)
    assert max(abs(residual) for residual in fit["residuals"]) < 1e-9
    assert cost_fits.fit_line(flops, [0.02, 0.04, 0.09])["a"] == 0.0  # no negative overhead
    shares = {"matmul": 0.5, "attention": 0.25, "elementwise": 0.25}
    extra = {"curve": "batch", "decoder": "joint", "shares": shares, "system": 0.0, "faults": 5.0}
    rows = [{"x": i, "flops": f, "seconds": s, **extra} for i, (f, s) in enumerate(zip(flops, [0.03, 0.05, 0.3]))]
    texts = cost_fits.describe("batch/joint", rows, cost_fits.fit_line(flops, [row["seconds"] for row in rows]))
    assert any("off the line" in text and "matmul 50 %" in text for text in texts)


@pytest.mark.slow
def test_tiny_run(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/cost_curves.py", "--tiny", "--repetitions", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "cost_curves.json").read_text())
    assert all(row["seconds"] > 0 and row["flops"] > 0 for row in document["rows"])
    assert {"commit", "machine"} <= document["environment"].keys()
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("cost_curves.png", "cost_curves_shares.png"))

"""The step benchmark at its tiny size: what it writes, and that it times nothing where the two sides differ."""

from __future__ import annotations

import json
import mmap
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.benchmark_modules import benchmark_module
from helpers.flop_formulas import linear, pretraining_formula
from m33d_hf.evaluation.flops import count_pretraining
from m33d_hf.modeling.decoder_m33d import M33DDecoder
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from benchmark_module("pretrain_step", repository, monkeypatch)


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


@pytest.mark.parametrize("case", ["videomae", "mae"])
def test_the_peer_computes_what_its_formula_says(benchmark: ModuleType, case: str) -> None:
    config = benchmark.our_config(benchmark.CASES[case], "tiny")
    formula = pretraining_formula(config, customary=True).training
    if case == "mae":  # transformers predicts from the class token too, and throws that away
        formula += 3 * linear(1, config.decoder_hidden_size, config.patch_dim(config.spec("rgb")))
    assert benchmark.peer_operations(case, "tiny") == pytest.approx(formula, rel=1e-6)


@pytest.mark.parametrize("case", ["videomae", "m33d_video", "m33d_image_stage1", "m33d_image_stage2"])
def test_what_a_step_on_cpu_computes_less(benchmark: ModuleType, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = benchmark.our_config(benchmark.CASES[case], "tiny")
    model = M33DForPreTraining(config).train()
    model.set_attn_implementation("eager")  # the counter sees it; that it shares is forced
    shares = M33DDecoder._shares_mask_tokens

    def sharing(self: M33DDecoder, *args: Any) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(self.config, "_attn_implementation_internal", "sdpa")
            return shares(self, *args)

    monkeypatch.setattr(M33DDecoder, "_shares_mask_tokens", sharing)
    with FlopCounterMode(display=False) as counter:
        model(**benchmark.our_batch(config, 3, torch.device("cpu"))).loss.backward()
    expected = count_pretraining(config, 3).training - benchmark.shared_projections(config, 3)
    assert counter.get_total_flops() / 3 == pytest.approx(expected, rel=1e-6)


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


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.mark.parametrize("words", [["--rounds", "0"], pytest.param(["--device", "cuda"], marks=NO_GPU)])
def test_what_cannot_be_measured_is_refused_first(benchmark: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        benchmark.main(["--tiny", *words])
    assert refused.value.code == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_of_the_parent_is_not_counted() -> None:
    held = bytearray(2 << 30)
    held[:: mmap.PAGESIZE] = b"x" * len(range(0, len(held), mmap.PAGESIZE))
    code = "import torch; from measuring import peak_memory; print(peak_memory(torch.device('cpu')))"
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(Path(folder).parent)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < len(held)


def test_matmul_shapes_are_those_of_the_formula(benchmark: ModuleType) -> None:
    measuring = sys.modules["measuring"]
    config = benchmark.our_config(benchmark.CASES["videomae"], "base")
    shapes = measuring.matmul_shapes(config, 2)
    assert shapes[2 * 160, 768, 3072] == 12
    assert shapes[2 * 1568, 384, 1152] == 4


@pytest.fixture
def report(benchmark: ModuleType) -> ModuleType:
    return sys.modules["step_report"]


def test_batch_is_one_for_all_or_one_for_each_case(benchmark: ModuleType) -> None:
    args = benchmark.parse(["--cases", "videomae", "mae", "--batch", "4", "8"])
    assert [benchmark.samples_of(args, benchmark.CASES[name]) for name in args.cases] == [4, 8]
    with pytest.raises(SystemExit):
        benchmark.parse(["--cases", "videomae", "mae", "--batch", "4", "8", "16"])


def _results(folder: Path, name: str, default: list[float], fused: list[float], date: str) -> None:
    """A result file of `videomae` whose own steps take 1 s."""
    medians = {"peer_default": statistics.median(default), "peer_fused": statistics.median(fused)}
    case = {
        "case": "videomae",
        "precision": "no",
        "mode": "eager",
        "batch": 4,
        "steps": {"ours": {"median_ms": 1000.0, "spread": 0.01, "rounds": len(default)}},
        "ratio": medians,
        "ratio_by_round": {"peer_default": default, "peer_fused": fused},
        "gflop_per_sample": 200.0,
        "gflop_per_sample_customary": 209.2,
        "share_of_ceiling": 0.86,
    }
    machine = {"processor": "a processor", "threads": 1, "vector_instructions": "AVX2"}
    content = {"machine": machine, "versions": {"torch": "2", "transformers": "5"}, "commit": "0123456789"}
    content |= {"date": date, "size": "base", "cases": [case, {"case": "mae", "parity_error": "they differ"}]}
    (folder / f"pretrain_step{name}.json").write_text(json.dumps(content))


def test_report_takes_the_newest_run_and_judges_against_the_default_optimizer(
    report: ModuleType, tmp_path: Path
) -> None:
    _results(tmp_path, "_old", [1.2, 1.2, 1.2], [1.2, 1.2, 1.2], "2026-01-01T00:00:00+00:00")
    _results(tmp_path, "", [1.07, 1.09, 1.10], [1.05, 1.06, 1.07], "2026-01-02T00:00:00+00:00")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):  # writing again changes nothing
        text = report.write_report(tmp_path)
    assert readme.read_text() == f"before\n{report.BEGIN}\n\n{text}\n\n{report.END}\nafter\n"
    (line,) = [line for line in text.splitlines() if "`videomae`" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:6] == ["1.090 (1.070 to 1.100)", "1.060 (1.050 to 1.070)", "1.046"]
    assert cells[8] == "1.08x: met (single rounds on either side); 85 %: met"


def test_report_does_not_judge_speed_without_the_default_optimizer(report: ModuleType, tmp_path: Path) -> None:
    _results(tmp_path, "", [1.2], [1.2], "2026-01-01T00:00:00+00:00")
    (row,) = report.collect(tmp_path)
    del row["ratio"]["peer_default"]
    assert "1.08x: not judged" in report.tables([row])
    assert "1.08" not in report.tables([{**row, "mode": "compiled"}])


def test_compiled_steps_on_a_gpu_have_targets_of_their_own(report: ModuleType, tmp_path: Path) -> None:
    machine = {"gpu": "a GPU"}
    common = {"case": "videomae", "precision": "bf16", "batch": 64, "gflop_per_sample": 200.0, "share_of_ceiling": 0.5,
              "gflop_per_sample_customary": 209.2}  # fmt: skip

    def case(mode: str, ours: float, peer: float) -> dict[str, Any]:
        steps = {"ours": {"median_ms": ours, "spread": 0.0, "rounds": 2}, "peer_fused": {"median_ms": peer}}
        return {**common, "mode": mode, "steps": steps, "ratio": {"peer_fused": peer / ours}}

    cost = {**case("compiled", 90.0, 40.0), "case": "m33d_video", "cost_against_peer": {"peer_fused": 2.25}}
    del cost["ratio"]
    content = {"machine": machine, "versions": {"torch": "2", "transformers": "5"}, "commit": "0123456789",
               "date": "2026-01-01", "size": "base",
               "cases": [case("eager", 60.0, 50.0), case("compiled", 40.0, 43.0), cost]}  # fmt: skip
    (tmp_path / "pretrain_step_gpu.json").write_text(json.dumps(content))
    lines = [line for line in report.tables(report.collect(tmp_path)).splitlines() if line.startswith("| `")]
    assert ["1.1x: missed; 1.3x of the eager peer: missed (1.25)" in line for line in lines] == [False, True, False]
    assert "40 %: met" in lines[0] and "m33d_video" in lines[0] and "| none |" in lines[2]


def test_a_gpu_run_of_ours_alone_stands_beside_the_one_with_peers(report: ModuleType, tmp_path: Path) -> None:
    _results(tmp_path, "", [1.2], [1.3], "2026-01-01T00:00:00+00:00")
    content = json.loads((tmp_path / "pretrain_step.json").read_text())
    alone = {**content["cases"][0], "mode": "compiled", "precision": "bf16", "ratio": {}, "ratio_by_round": {}}
    both = {**alone, "ratio": {"peer_fused": 1.3}, "steps": {**alone["steps"], "peer_fused": {"median_ms": 1300.0}}}
    for name, case, date in (("pretrain_step_gpu", both, "2026-01-01"), ("gpu", alone, "2026-02-01")):
        facts = {"machine": {"gpu": "a GPU"}, "date": date, "cases": [case]}
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, **facts}))
    lines = [line for line in report.tables(report.collect(tmp_path)).splitlines() if "compiled" in line]
    assert len(lines) == 2
    assert sorted("1.1x: met" in line for line in lines) == [False, True]
    cost = {**alone, "case": "m33d_video", "mode": "eager", "cost_against_peer": {}}
    assert report._judged({**cost, "machine": {}}) == ["50 %: met"], "no peer, no cost"
    del cost["ratio"]
    assert report._judged({**cost, "machine": {}}) == []


def test_report_needs_results_and_marks(report: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pretrain_step"):
        report.write_report(tmp_path)
    _results(tmp_path, "", [1.2], [1.2], "2026-01-01T00:00:00+00:00")
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="lacks the lines"):
        report.write_report(tmp_path)


def test_the_readme_shows_the_results_that_are_there(report: ModuleType, repository: Path) -> None:
    text = (repository / "benchmarks" / "README.md").read_text()
    between = text.split(report.BEGIN)[1].split(report.END)[0]
    assert between.strip() == report.tables(report.collect(repository / "benchmarks"))

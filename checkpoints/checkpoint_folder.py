"""From a finished run to a folder of this folder: weights in float16, processor, results, pictures and card."""

from __future__ import annotations

import json
import shutil
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from train import FOLDER, SPENT, Run, call, sha256

from m33d_hf import M33DForDepthEstimation, M33DForSemanticSegmentation, M33DImageProcessor
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.experiments.compute import environment
from m33d_hf.training.run.reporting import read_rows, short_commit

MODELS = {"depth": M33DForDepthEstimation, "semseg": M33DForSemanticSegmentation}
RESULTS, CARD, PICTURE = "results.json", "README.md", "predictions.png"
TEST_FRAMES = 512  # the whole test split, as the rows of the comparison have it
FIRST_FRAMES = 48  # also judged apart: seconds on any machine


def store(run: Run, output: Path, store_in: Path, runs: Sequence[Mapping[str, Any]], commit: str | None) -> None:
    """Write the checkpoint of `run` and evaluate what was written.

    Args:
        run: a run with `stored`.
        output: the folder of the runs.
        store_in: the folder that gets the folder `run.stored`.
        runs: what every run of its chain took, as `train.trained` returns it.
        commit: of the checkout when the command began; storing changes the checkout.
    """
    folder = store_in / str(run.stored)
    shutil.rmtree(folder, ignore_errors=True)
    save_half(output / run.name, folder, run)
    results = {
        "command": "python checkpoints/train.py",
        "seed": 0,
        "runs": [{key: value for key, value in spent.items() if key not in ("digest", SPENT)} for spent in runs],
        "wall_seconds": round(sum(spent["wall_seconds"] for spent in runs), 1),
        "cpu_seconds": round(sum(spent["cpu_seconds"] for spent in runs), 1),
        "weights": facts(folder / "model.safetensors"),
        "test": {**judged(run, folder, output, TEST_FRAMES), "floor": floor(output / run.name)},
        "test_first_frames": judged(run, folder, output, FIRST_FRAMES),
        "environment": environment() | {"commit": str(commit)},
    }
    (last,) = (output / run.name / "pictures").glob("evaluation_step_*.png")  # what the run drew after its last step
    shutil.copyfile(last, folder / PICTURE)
    (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(run, results), encoding="utf-8")
    print(f"{run.name}: stored in {folder}", flush=True)


def judge_again(run: Run, output: Path, store_in: Path) -> float:
    """Evaluate what is stored; returns the largest relative difference from what its results say, and changes nothing.

    Args:
        run, output, store_in: as of `store`; `output` is used for temporary files alone.

    Raises:
        SystemExit: the weights are not those that the results were written with.
    """
    folder = store_in / str(run.stored)
    said = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    if facts(folder / "model.safetensors") != said["weights"]:
        raise SystemExit(f"{folder / 'model.safetensors'} is not what {RESULTS} describes; run this without --judge.")
    largest = 0.0
    for name, frames in (("test", TEST_FRAMES), ("test_first_frames", FIRST_FRAMES)):
        found, wanted = judged(run, folder, output, frames)["metrics"], said[name]["metrics"]
        if found.keys() != wanted.keys():
            raise SystemExit(f"{folder / RESULTS} names other metrics; run this without --judge.")
        largest = max([largest, *(abs(found[key] - wanted[key]) / max(abs(wanted[key]), 1e-12) for key in wanted)])
    print(f"{run.name}: metrics as in {folder / RESULTS}, but for relative differences of {largest:.1g}", flush=True)
    return largest


def save_half(trained: Path, folder: Path, run: Run) -> None:
    """Weights as float16, beside a configuration that says float32, as which they load; and the processor.

    The code that `save_pretrained` writes too is left out: this checkout is the code.
    """
    model = MODELS[run.name].from_pretrained(trained)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=halves)
    M33DImageProcessor.from_pretrained(trained).save_pretrained(folder)
    for path in folder.glob("*_m33d.py"):
        path.unlink()
    (folder / "model.safetensors").chmod(0o644)


def facts(weights: Path) -> dict[str, Any]:
    """Size, number format and digest of a file of weights."""
    with safe_open(weights, "pt") as tensors:
        shapes = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
        parameters = sum(tensors.get_tensor(name).numel() for name in shapes)
        (kind,) = {part.get_dtype() for part in shapes.values()}
    return {"bytes": weights.stat().st_size, "stored_as": kind, "parameters": parameters, "sha256": sha256(weights)}


def judged(run: Run, folder: Path, output: Path, frames: int) -> dict[str, Any]:
    """Metrics of the stored weights on the first `frames` rooms of the test split, by the script of the task."""
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        words = ["--recipe", f"checkpoints/recipes/{run.name}.yaml", "--cpu", "true", "--eval_only"]
        words += ["--init_from", str(folder), "--output_dir", temporary]
        words += ["--data.eval_options", json.dumps({"num_frames": frames})]
        words += ["--logging.pictures", "false", "--evaluation.floor", "false"]
        call(run, words)
        found = read_sealed_json(Path(temporary) / "eval_results.json")
    return {name: found[name] for name in ("source", "split", "samples", "metrics")}


def floor(trained: Path) -> dict[str, float]:
    """What the run's own last evaluation, on the same rooms, found of a model that looks at nothing."""
    rows = [row for row in read_rows(trained / "metrics.jsonl") if row["kind"] == "eval"]
    start = "eval/floor/"
    return {name.removeprefix(start): value for name, value in rows[-1].items() if name.startswith(start)}


def card(run: Run, results: Mapping[str, Any]) -> str:
    """The card of a checkpoint, from its template and its results."""
    test, weights, environment = results["test"], results["weights"], results["environment"]
    rows = [f"| {said} | {fmt(test['metrics'][name])} | {fmt(test['floor'][name])} |" for name, said in ROWS[run.name]]
    runs = [
        f"| `{one['recipe']}` | {one['cpu_seconds']:.0f} s | {one['wall_seconds']:.0f} s | "
        f"`{short_commit(one['commit'], 12)}` |"
        for one in results["runs"]
    ]
    fields = {
        "rows": "\n".join(rows),
        "runs": "\n".join(runs),
        "samples": test["samples"],
        "parameters": f"{weights['parameters']:,}",
        "megabytes": f"{weights['bytes'] / 1e6:.2f}",
        "minutes": f"{results['cpu_seconds'] / 60:.0f}",
        "machine": environment["machine"],
        "torch": environment["torch"],
        "transformers": environment["transformers"],
    }
    return string.Template((FOLDER / "cards" / f"{run.name}.md").read_text(encoding="utf-8")).substitute(fields)


def fmt(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


ROWS = {
    "depth": [
        ("delta1", "δ1 (share of pixels within a factor of 1.25), larger is better"),
        ("abs_rel", "mean absolute relative error, smaller is better"),
        ("rmse", "root mean squared error in metres, smaller is better"),
    ],
    "semseg": [
        ("miou", "mean IoU of the ten classes, larger is better"),
        ("pixel_accuracy", "pixel accuracy, larger is better"),
    ],
}
"""Metric -> its line of the card."""

"""How long does a forward pass take, against transformers' model of the same width?

    python benchmarks/inference.py                                          # ViT-B on one thread of a CPU: an hour
    python benchmarks/inference.py --size small --batch 1 --rounds 5        # minutes
    python benchmarks/inference.py --device cuda --rounds 30                # a GPU
    python benchmarks/inference.py --tiny --output_dir outputs/x            # seconds: a test of the machinery

Writes inference_SIZE_DEVICE.json into --output_dir; a run without batch 1 names its batches as well, as in
inference_small_cpu_batch8.json, so that it leaves the file of single samples as it is.

Clips: against VideoMAEForVideoClassification with the same weights, whose logits are compared first (where they differ
nothing is timed). Depth: against DPTForDepthEstimation over a ViT of the same width; segmentation: against
BeitForSemanticSegmentation, UPerNet over the feature pyramid of a ViT of the same width. These two are other heads, so
FLOPs stand beside the times. With onnxruntime, depth and clips exported by scripts/export_model.py stand against our
eager models, on CPU.

All sides take turns in one process, in `torch.inference_mode` and with the attention that transformers chooses (sdpa).
Time is the process's CPU time on a CPU (one thread), device events on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from inference_models import TASKS, TOLERANCE, answer, build_pair, inputs
from measuring import ParityError, header, interleaved, summary
from torch.utils.flop_counter import FlopCounterMode

from m33d_hf.acceleration import place

HERE = Path(__file__).resolve().parent


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("base", "small", "tiny"), default="base")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--precision", nargs="+", choices=("no", "bf16"), default=["no", "bf16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="on CPU (default 1)")
    parser.add_argument("--tiny", action="store_true", help="tiny models, one round")
    parser.add_argument("--output_dir", type=Path, default=HERE)
    args = parser.parse_args(argv)
    if args.tiny:
        args.size, args.rounds = "tiny", 1
    return args


def file_name(args: argparse.Namespace) -> str:
    """What the JSON is called. Without batch 1 it names the batches, so that two such runs do not share a file."""
    batches = "" if 1 in args.batch else "_batch" + "_".join(map(str, args.batch))
    return f"inference_{args.size}_{torch.device(args.device).type}{batches}.json"


def check_parity(ours: torch.nn.Module, peer: torch.nn.Module, batch: dict[str, Any]) -> float:
    """The largest difference of logits, as a share of the largest logit.

    Raises:
        ParityError: above TOLERANCE.
    """
    with torch.inference_mode():
        found, expected = answer(ours(**batch)), answer(peer(**batch))
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCE:
        raise ParityError(f"logits differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}; nothing is timed")
    return error


def exported(model: torch.nn.Module, task: str, folder: Path) -> Any | None:
    """A session of the model exported to ONNX; None where onnxruntime is missing or the task is not compared."""
    try:
        import onnxruntime
    except ImportError:
        return None
    if task == "segmentation":
        return None
    from m33d_hf.weights.export import ExportOptions, export_model

    model.save_pretrained(folder / "model")  # type: ignore[operator]
    export_model(str(folder / "model"), folder / "onnx", "onnx", ExportOptions(half=False))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    file = next((folder / "onnx").glob("*.onnx"))
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def gflops(model: torch.nn.Module, task: str, size: str) -> float:
    """Operations of one sample, counted on a pass of the model; before it has kernels that the counter cannot see."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs(task, size, 1, torch.device("cpu")))
    return counter.get_total_flops() / 1e9


def cell(
    args: argparse.Namespace, task: str, batch: int, precision: str, models: Any, session: Any | None
) -> dict[str, Any]:
    """One row: all sides in turn; `session` is that of the exported model, where there is one."""
    device = torch.device(args.device)
    ours, peer = models
    given = inputs(task, args.size, batch, device)
    row: dict[str, Any] = {"task": task, "batch": batch, "precision": precision}
    if task == "clips":
        row["logit_error"] = check_parity(ours, peer, given)

    def call(model: torch.nn.Module) -> Callable[[], None]:
        @torch.inference_mode()
        def run() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                model(**given)

        return run

    sides = {"ours": call(ours), "peer": call(peer)}
    if session is not None:
        values = {session.get_inputs()[0].name: given["pixel_values"].numpy()}
        sides["onnx"] = lambda: session.run(None, values)
    seconds = interleaved(sides, args.rounds, 1 if device.type == "cpu" else 5, device)
    row |= {name: summary(times) for name, times in seconds.items()}
    for name in (name for name in seconds if name != "ours"):
        ratios = [theirs / own for theirs, own in zip(seconds[name], seconds["ours"], strict=True)]
        row[f"{name}_over_ours"] = statistics.median(ratios)
        row[f"{name}_over_ours_by_round"] = sorted(ratios)
    return row


def rows_of(args: argparse.Namespace, task: str) -> Iterator[dict[str, Any]]:
    """The rows of a task, each as soon as it is measured.

    Raises:
        ParityError: see `check_parity`.
    """
    device = torch.device(args.device)
    ours, peer = build_pair(task, args.size)
    operations = {f"{n}_gflops": gflops(m, task, args.size) for n, m in (("ours", ours), ("peer", peer))}
    models = place(ours, device).eval(), peer.to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        session = exported(ours, task, Path(folder)) if device.type == "cpu" and "no" in args.precision else None
        for precision in args.precision:
            for batch in args.batch:
                found = cell(args, task, batch, precision, models, session if precision == "no" else None)
                yield found | operations


def described(row: dict[str, Any]) -> str:
    """A row as a line of text."""
    ratios = ", ".join(f"{k.split('_')[0]} / ours {row[k]:.3f}" for k in row if k.endswith("_over_ours"))
    return f"{row['task']} {row['precision']} batch {row['batch']}: ours {row['ours']['median_ms']:.1f} ms, {ratios}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; 1 where parity failed."""
    args = parse(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # cuDNN's default would round float32 inputs of convolutions
    found: dict[str, Any] = header("inference", device) | {"size": args.size, "rounds": args.rounds, "rows": []}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    file = args.output_dir / file_name(args)
    try:
        for row in (row for task in args.tasks for row in rows_of(args, task)):
            found["rows"].append(row)
            print(described(row), flush=True)
            file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except ParityError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

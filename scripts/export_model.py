"""Export a saved model for others, and verify what was written:
export_model.py --input outputs/FOLDER --output exports/FOLDER --to onnx

  --to transformers    VideoMAEForVideoClassification or VideoMAEModel of a clip model, ViTModel of an image encoder
  --to timm            the image encoder under the names of timm's VisionTransformer
  --to onnx            a task model in float32 and float16, for any batch, height and width
  --to torch_export    the same as a .pt2 file of torch.export

export.json beside the weights says what goes in and comes out, and how far the export is from the model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m33d_hf.errors import M33DError
from m33d_hf.training.processes.program import program

FORMATS = ("transformers", "timm", "onnx", "torch_export")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="folder of a saved model, or Hub repository id")
    parser.add_argument("--output", required=True, type=Path, help="folder to write; it must not hold anything")
    parser.add_argument("--to", required=True, choices=FORMATS, help="see above")
    parser.add_argument("--opset", type=int, default=20, help="of ONNX (18 to 23)")
    parser.add_argument(
        "--inputs",
        nargs="+",
        choices=("rgb", "depth"),
        help="what the graph of a model of RGB and depth is given; default: all of its task_inputs",
    )
    parser.add_argument("--no_fp16", action="store_true", help="no float16 file beside the float32 one of ONNX")
    return parser


def _lines(report: dict[str, Any]) -> list[str]:
    """What a user should read of the report."""
    name = report.get("file") or report["class"]
    both = "float32" in report
    found = [_difference(report["differences"], f"{name} in float64" if both else name, report["tolerance"])]
    if both:
        found.append(_difference(report["float32"]["differences"], f"{name} in float32"))
    if "float16" in report:
        found.append(_difference(report["float16"]["differences"], report["float16"]["file"]))
        found.append(_difference(report["float16"]["activations"], "with float16 activations too, as on a GPU"))
    if report.get("key_biases_dropped"):
        found.append(f"key biases dropped, which change nothing but rounding: {report['key_biases_dropped']}")
    if report.get("left_out"):
        found.append(f"left out: {', '.join(report['left_out'])}")
    processors = report.get("preprocessing", {})
    if processors:
        found.append(f"processors: {', '.join(processors['written']) or 'none'}")
        found += [f"  {note}" for note in processors["notes"]]
        found += [
            f"  {each['processor']}, picture of {each['picture'][0]} x {each['picture'][1]}: largest difference "
            f"{each['largest']:.1e}, {each['share']:.1%} of the values differ"
            for each in processors.get("differences", [])
        ]
    return found


def _difference(differences: list[dict[str, Any]], name: str, tolerance: float | None = None) -> str:
    worst = max(differences, key=lambda each: each["relative"])
    limit = f", allowed {tolerance:.0e}" if tolerance is not None else ""
    return (
        f"{name}: largest difference {worst['largest']:.2e}, {worst['relative']:.1e} of the largest value{limit} "
        f"(random inputs: {len(differences)})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(argv)
    from m33d_hf.weights.export import ExportOptions, export_model

    try:
        options = ExportOptions(given.opset, not given.no_fp16, given.inputs)
        report = export_model(given.input, given.output, given.to, options)
    except (M33DError, OSError) as error:  # a folder that may not be written, a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(_lines(report)))
    print(f"written to {given.output}. The weights keep the licence of their origin (see WEIGHTS.md).")
    return 0


if __name__ == "__main__":
    sys.exit(program(main))

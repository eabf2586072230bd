"""Export to ONNX, in float32 and float16, verified in onnxruntime."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m33d_hf.errors import ExportError, MissingDependencyError, first_line
from m33d_hf.weights.export.agreement import Difference, demand, difference, plain
from m33d_hf.weights.export.export_report import versions
from m33d_hf.weights.export.graphs import (
    Inputs,
    build_program,
    compare,
    described,
    input_names,
    output_name,
    random_inputs,
    tried_shapes,
)
from m33d_hf.weights.export.source import Source

FULL, HALF = "model.onnx", "model_fp16.onnx"
OPSET = 20
OPSETS = range(18, 24)
# Protocol buffers hold at most 2 GiB: larger models keep their weights in a file beside the graph.
_MOST_BYTES = 1 << 31
_LARGEST_HALF = float(torch.finfo(torch.float16).max)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(source: Source, folder: Path, tolerance: float, opset: int, half: bool) -> dict[str, Any]:
    """Write model.onnx (and model_fp16.onnx with `half`), verify both; returns the report.

    The float16 file has float32 input and output. Its differences are measured but not limited; weights and activations
    must fit into float16.

    Raises:
        ExportError: not one of the task models, or a file does not agree.
        MissingDependencyError: a package is not installed.
    """
    output = output_name(source)
    _need_packages()
    import onnx

    bytes_needed = sum(weight.numel() * weight.element_size() for weight in source.model.state_dict().values())
    apart = bytes_needed > 0.9 * _MOST_BYTES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # of the exporter's own code
        program = torch.onnx.export(
            build_program(source),
            dynamo=True,
            input_names=list(input_names(source).values()),
            output_names=[output],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None  # the exporter of torch.export returns one
    full = program.model_proto
    _name_sides(full, described(source))
    _forget_places(full)
    onnx.save(full, str(folder / FULL), save_as_external_data=apart, location=f"{FULL}.data")
    onnx.checker.check_model(str(folder / FULL))
    differences = compare(source, _session(folder / FULL, output))
    demand(differences, tolerance, f"{folder.parent / FULL} in onnxruntime")
    report = {
        "file": FULL,
        **described(source),
        "opset": opset,
        "differences": plain(differences),
        "tolerance": tolerance,
        "versions": versions("torch", "transformers", *PACKAGES),
    }
    if half:
        report["float16"] = write_half(source, full, folder, apart)
    return report


def _need_packages() -> None:
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise MissingDependencyError(
            f"--to onnx requires {', '.join(PACKAGES)}: pip install 'm33d-hf[export]' ({first_line(error)})."
        ) from error
    assert onnx and onnxruntime and onnxscript


def _name_sides(model: Any, told: dict[str, Any]) -> None:
    """Name dynamic dimensions batch, height and width, as in the report, instead of with the exporter's symbols."""
    sides = zip([*model.graph.input, model.graph.output[0]], [*told["inputs"], told["output"]], strict=True)
    for value, part in sides:
        for dimension, name in zip(value.type.tensor_type.shape.dim, part["shape"], strict=True):
            if dimension.dim_param:
                dimension.dim_param = name
    del model.graph.value_info[:]  # with the old symbols; runtimes infer them again


def _forget_places(model: Any) -> None:
    """Remove the source locations (files and lines of this machine) from all nodes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for each in (model, model.graph, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del each.metadata_props[:]


def _session(file: Path, output: str) -> Callable[[Inputs], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        given = {name: each.numpy() for name, each in inputs.items()}
        return torch.from_numpy(session.run([output], given)[0])

    return run


def write_half(source: Source, full: Any, folder: Path, apart: bool) -> dict[str, Any]:
    """Write the float16 file of a float32 graph; returns its part of the report.

    Raises:
        ExportError: weights or activations do not fit into float16.
    """
    large = [name for name, each in source.model.state_dict().items() if float(each.abs().max()) > _LARGEST_HALF]
    if large:
        raise ExportError(
            f"{source.name}: {large[0]} holds values that are too large for float16 (at most {_LARGEST_HALF:g}). "
            "Export "
            "without it: --no_fp16."
        )
    activations = _half_activations(source)
    import onnx
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # weights below the smallest float16 become that; it is measured
        half = onnx_ir.from_proto(convert_float_to_float16(full, keep_io_types=True, max_finite_val=_LARGEST_HALF))
    half.graph.sort()  # the converter appends the casts of input and output at the end
    proto = onnx_ir.to_proto(half)
    onnx.save(proto, str(folder / HALF), save_as_external_data=apart, location=f"{HALF}.data")
    onnx.checker.check_model(str(folder / HALF))
    differences = compare(source, _session(folder / HALF, output_name(source)))
    return {"file": HALF, "differences": plain(differences), "activations": plain([activations])}


@torch.no_grad()
def _half_activations(source: Source) -> Difference:
    """The model in float16 throughout, as a GPU computes it: onnxruntime on CPU rounds little but the weights.

    Raises:
        ExportError: numbers overflow.
    """
    shape = tried_shapes(source)[0]
    inputs = random_inputs(source, shape, 0)
    expected = source.model(**inputs)[output_name(source)]
    rounded = copy.deepcopy(source.model).half()
    try:
        halves = {name: each.half() for name, each in inputs.items()}
        return difference(shape, expected, rounded(**halves)[output_name(source)])
    except ExportError as error:
        raise ExportError(f"{source.name} in float16: {error} Export without it: --no_fp16.") from error

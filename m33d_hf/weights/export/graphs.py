"""A task model as a graph for any batch, height and width: torch.export, and a description of inputs and output.

Depth that was not measured is NaN in the input of a graph, as in samples; a mask of its own would say nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from m33d_hf.errors import ExportError
from m33d_hf.weights.export.agreement import Difference, demand, difference, plain, random_depth, random_pixels
from m33d_hf.weights.export.export_report import versions
from m33d_hf.weights.export.source import CLASSIFIER, DETECTOR, TASK_MODELS, Source

PROGRAM = "model.pt2"
Inputs = dict[str, Tensor]
OUTPUTS = {name: head.output for name, head in TASK_MODELS.items() if head.output is not None}
BATCHES = (1, 3)


class TaskGraph(nn.Module):
    """The exported module: from the given inputs to the one output of the task, by its name."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.model = source.model
        self.output = output_name(source)

    def forward(self, pixel_values: Tensor | None = None, depth_values: Tensor | None = None) -> dict[str, Tensor]:
        """(B, [T,] 3, H, W) RGB, (B, [T,] 1, H, W) depth or both to {output: tensor}."""
        both = {"pixel_values": pixel_values, "depth_values": depth_values}
        given = {name: each for name, each in both.items() if each is not None}
        return {self.output: self.model(**given)[self.output]}


def input_names(source: Source) -> dict[str, str]:
    """Given input ("rgb", "depth") -> its name in a graph."""
    return {name: source.config.spec(name).input_name for name in source.given}


def output_name(source: Source) -> str:
    """The output that a graph of this model has.

    Raises:
        ExportError: it is none of the models from pixels to one output.
    """
    if source.kind in OUTPUTS:
        return OUTPUTS[source.kind].name
    names = ", ".join(OUTPUTS)
    if source.kind == DETECTOR:
        advice = f"load it with {CLASSIFIER} and save that to export its clip classifier"
    else:
        advice = (
            "pre-training draws random masks and sorts by them, which a graph cannot express here; --to transformers "
            "and --to timm export its RGB encoder"
        )
    raise ExportError(f"{source.name} holds {source.kind}; graphs can only be exported of {names}: {advice}.")


def fewest_tokens(source: Source) -> int:
    """Minimum number of tokens along each side: torch.export specialises on sides of one."""
    return TASK_MODELS[source.kind].fewest_tokens


def input_shape(source: Source, batch: int, rows: int, columns: int) -> list[int]:
    """Shape of the first input for a picture of this many tokens; others have one channel instead."""
    config = source.config
    height, width = config.patch_height_width
    frames = [config.num_frames] if not TASK_MODELS[source.kind].images_only and config.num_frames > 1 else []
    return [batch, *frames, config.spec(source.given[0]).channels, rows * height, columns * width]


def random_inputs(source: Source, shape: Sequence[int], seed: int) -> Inputs:
    """The inputs of a graph by their names in it.

    Args:
        source: the model.
        shape: of the first one.
        seed: of the numbers.
    """
    found: Inputs = {}
    for name, argument in input_names(source).items():
        own = [*shape[:-3], source.config.spec(name).channels, *shape[-2:]]
        found[argument] = random_depth(own, seed) if name == "depth" else random_pixels(own, seed)
    return found


def tried_shapes(source: Source) -> list[list[int]]:
    """Input shapes at which a written graph is compared: three sizes, two batches."""
    (_, rows, columns), least = source.config.grid, fewest_tokens(source)
    rows, columns = max(rows, least), max(columns, least)
    sizes = [(rows, columns), (max(rows // 2, least), columns + 1), (rows + 2, max(columns // 2, least))]
    return [input_shape(source, batch, *size) for size in sizes for batch in BATCHES]


@torch.no_grad()
def build_program(source: Source) -> ExportedProgram:
    """torch.export of a task model with dynamic batch, height and width (multiples of the patch).

    Raises:
        ExportError: not one of the task models.
    """
    graph, least = TaskGraph(source).eval(), fewest_tokens(source)
    (_, rows, columns) = source.config.grid
    shape = input_shape(source, 2, max(rows, least), max(columns, least) + 1)
    inputs = random_inputs(source, shape, 0)
    height, width = source.config.patch_height_width
    last = len(shape) - 1
    dynamic = {
        0: Dim("batch", min=1),
        last - 1: height * Dim("rows", min=least),
        last: width * Dim("columns", min=least),
    }
    shapes = dict.fromkeys(inputs, dynamic)
    program = torch.export.export(graph, (), inputs, dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of files on this machine
    return program


def write_program(source: Source, folder: Path, tolerance: float) -> dict[str, Any]:
    """Write model.pt2 and verify what was written; returns the report.

    Raises:
        ExportError: not one of the task models, or the reloaded program does not agree.
    """
    output = output_name(source)
    torch.export.save(build_program(source), folder / PROGRAM)
    module = torch.export.load(folder / PROGRAM).module()

    def run(inputs: Inputs) -> Tensor:
        result: Tensor = module(**inputs)[output]
        return result

    differences = compare(source, run)
    demand(differences, tolerance, f"{folder.parent / PROGRAM}")
    return {
        "file": PROGRAM,
        **described(source),
        "differences": plain(differences),
        "tolerance": tolerance,
        "versions": versions("torch", "transformers"),
    }


@torch.no_grad()
def compare(source: Source, run: Callable[[Inputs], Tensor]) -> list[Difference]:
    """Our model against `run` (inputs by name -> output) on random pictures and depth with holes."""
    found = []
    for seed, shape in enumerate(tried_shapes(source)):
        inputs = random_inputs(source, shape, seed)
        expected = source.model(**inputs)[output_name(source)]
        found.append(difference(shape, expected, run(inputs)))
    return found


def described(source: Source) -> dict[str, Any]:
    """Inputs and output of a graph for its report."""
    config = source.config
    told: dict[str, Any] = {
        "task": source.kind,
        "inputs": [_input(source, name, argument) for name, argument in input_names(source).items()],
        "output": {"name": output_name(source), "type": "float32", **_meaning(source)},
    }
    if TASK_MODELS[source.kind].classes:
        told["classes"] = {str(number): name for number, name in (config.id2label or {}).items()}
    return told


def _input(source: Source, name: str, argument: str) -> dict[str, Any]:
    config, spec = source.config, source.config.spec(name)
    height, width = config.patch_height_width
    least = fewest_tokens(source)
    shape: list[Any] = input_shape(source, 1, 1, 1)
    shape[0], shape[-3:] = "batch", [spec.channels, "height", "width"]
    meaning: dict[str, Any] = {
        "meaning": "RGB, (value / 255 - mean) / std",
        "mean": list(spec.channel_mean or ()) or None,
        "std": list(spec.channel_std or ()) or None,
    }
    if name == "depth":
        missing = "all NaN where there is no depth" if "rgb" in source.given else "zeros to the model"
        meaning = {
            "meaning": f"standardised depth as the processor gives it, NaN in holes, {missing}",
            "standardization": config.depth_standardization,
            "scope": config.depth_standardization_scope,
        }
    return {
        "name": argument,
        "shape": shape,
        "type": "float32",
        **meaning,
        "height": {"multiple_of": height, "at_least": least * height, "trained": config.image_height_width[0]},
        "width": {"multiple_of": width, "at_least": least * width, "trained": config.image_height_width[1]},
    }


def _meaning(source: Source) -> dict[str, Any]:
    output = OUTPUTS[source.kind]
    told: dict[str, Any] = {"shape": list(output.axes), "unit": output.unit}
    return told | ({"range": [getattr(source.config, name) for name in output.limits]} if output.limits else {})

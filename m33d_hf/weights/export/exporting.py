"""Exports a saved folder to a folder that other libraries read, for `scripts/export_model.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m33d_hf.data.staged_folder import refuse_existing, staged
from m33d_hf.errors import ConfigError, ExportError
from m33d_hf.weights.export.export_report import write_report
from m33d_hf.weights.export.graphs import output_name, write_program
from m33d_hf.weights.export.obstacles import refuse_obstacles
from m33d_hf.weights.export.onnx_files import OPSET, OPSETS, write_onnx
from m33d_hf.weights.export.source import Source, load_source
from m33d_hf.weights.export.stock import write_transformers
from m33d_hf.weights.export.timm_names import write_timm

# Largest difference that a written file may have from our model, as a share of the largest value.
TOLERANCES = {"transformers": 1e-5, "timm": 1e-5, "onnx": 1e-4, "torch_export": 1e-5}
FORMATS = tuple(TOLERANCES)
GRAPHS = ("onnx", "torch_export")


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: of ONNX.
        half: whether ONNX gets a float16 file beside the float32 one.
        inputs: what a graph is given, of the model's `task_inputs`; None: all of them.
    """

    opset: int = OPSET
    half: bool = True
    inputs: Sequence[str] | None = None


def export_model(source: str, output: Path, form: str, options: ExportOptions | None = None) -> dict[str, Any]:
    """Write a model for another library and verify it against ours on random input.

    Args:
        source: folder (or Hub id) of a saved model of ours.
        output: folder to write; it appears only when everything in it agrees with the model.
        form: one of FORMATS.
        options: of graphs.

    Returns:
        The content of export.json in the folder.

    Raises:
        ConfigError: an unknown format or opset, inputs that the model or the format does not have, or an output that
            exists.
        CheckpointError: no complete model of ours; ExportError: it cannot be exported, or the export does not agree.
        MissingDependencyError: a package of the extra "export" is not installed.
    """
    options = options or ExportOptions()
    if form not in FORMATS:
        raise ConfigError(f"the format is {form!r}; it must be one of {', '.join(FORMATS)}.")
    if options.opset not in OPSETS:
        raise ConfigError(f"opset is {options.opset}; it must be from {OPSETS.start} to {OPSETS.stop - 1}.")
    refuse_existing(output)
    model = load_source(source)
    _refuse_early(model, form)
    model = _choose_inputs(model, form, options.inputs)
    tolerance = TOLERANCES[form]
    writers: dict[str, Callable[[Path], dict[str, Any]]] = {
        "transformers": lambda folder: write_transformers(model, folder, tolerance),
        "timm": lambda folder: write_timm(model, folder, tolerance),
        "onnx": lambda folder: write_onnx(model, folder, tolerance, options.opset, options.half),
        "torch_export": lambda folder: write_program(model, folder, tolerance),
    }
    with staged(output) as folder:
        report = {"format": form, "of": model.kind, **writers[form](folder)}
        write_report(folder, report)
    return report


def _choose_inputs(model: Source, form: str, chosen: Sequence[str] | None) -> Source:
    """The model with what its graph is given.

    Raises:
        ConfigError: inputs for a format that has no choice, that the model does not have, or that its fusion cannot do
            with.
    """
    if chosen is None:
        return model
    if form not in GRAPHS:
        raise ConfigError(f"inputs are chosen for {' and '.join(GRAPHS)}; {form} takes RGB alone: leave them out.")
    given = tuple(name for name in model.given if name in chosen)
    if not given or sorted(given) != sorted(chosen):
        raise ConfigError(
            f"inputs are {list(chosen)}; they must be among those of the model, {list(model.given)}, each once."
        )
    if given == ("depth",) != model.given and model.config.task_fusion == "cross_attention":
        raise ConfigError(
            "inputs are [depth], but with task_fusion 'cross_attention' RGB asks the questions; add rgb, or leave them "
            "out."
        )
    return replace(model, given=given)


def _refuse_early(model: Source, form: str) -> None:
    """Refuse what cannot be exported before any folder is created."""
    if form in GRAPHS:
        output_name(model)
    else:
        if "rgb" not in model.given:
            raise ExportError(
                f"{model.name} sees depth alone (task_inputs), but stock classes see RGB; --to onnx and --to "
                "torch_export support it."
            )
        clip = model.config.is_clip_model
        refuse_obstacles(model, "timm" if form == "timm" else "VideoMAE" if clip else "ViT")

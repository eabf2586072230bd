"""Weights of other projects into our models: MAE, VideoMAE, MultiMAE, MAE-ST, DINO, DINOv2 and plain ViTs.

Names are imported when they are first used: the options of a run need `init_options` alone, and `--help` no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m33d_hf.weights.apply import architecture_of, config_for, convert_state_dict, head_fields, trained_positions
    from m33d_hf.weights.files import ForeignCheckpoint, from_state_dict, load_foreign
    from m33d_hf.weights.folder import convert_checkpoint
    from m33d_hf.weights.init_options import ConversionOptions
    from m33d_hf.weights.report import ConversionReport

_HOMES = {
    "ConversionOptions": "init_options",
    "ConversionReport": "report",
    "ForeignCheckpoint": "files",
    "architecture_of": "apply",
    "config_for": "apply",
    "convert_checkpoint": "folder",
    "convert_state_dict": "apply",
    "from_state_dict": "files",
    "head_fields": "apply",
    "load_foreign": "files",
    "trained_positions": "apply",
}

__all__ = [
    "ConversionOptions",
    "ConversionReport",
    "ForeignCheckpoint",
    "architecture_of",
    "config_for",
    "convert_checkpoint",
    "convert_state_dict",
    "from_state_dict",
    "head_fields",
    "load_foreign",
    "trained_positions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

"""Weights of other projects into our models: MAE, VideoMAE, MultiMAE, MAE-ST, DINO, DINOv2 and plain ViTs."""

from __future__ import annotations

from m33d_hf.weights.apply import architecture_of, config_for, convert_state_dict, head_fields, trained_positions
from m33d_hf.weights.files import ForeignCheckpoint, from_state_dict, load_foreign
from m33d_hf.weights.folder import convert_checkpoint
from m33d_hf.weights.init_options import ConversionOptions
from m33d_hf.weights.report import ConversionReport

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

"""Weights of other projects into our models: MAE, VideoMAE and MultiMAE, original and transformers layouts."""

from __future__ import annotations

from .apply import config_for, convert_state_dict, trained_positions
from .files import ForeignCheckpoint, from_state_dict, load_foreign
from .folder import convert_checkpoint
from .plan import ConversionOptions
from .report import ConversionReport

__all__ = [
    "ConversionOptions",
    "ConversionReport",
    "ForeignCheckpoint",
    "config_for",
    "convert_checkpoint",
    "convert_state_dict",
    "from_state_dict",
    "load_foreign",
    "trained_positions",
]

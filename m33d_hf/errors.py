"""The exception tree, importable without the rest of the model code."""

from m33d_hf.modeling.errors_m33d import (
    CheckpointError,
    ConfigError,
    ConversionError,
    CorruptFileError,
    DataError,
    DepthUnitError,
    ExportError,
    LabelError,
    M33DError,
    MissingDependencyError,
    NonFiniteLossError,
    ResumeError,
    WorkerLostError,
    WorkerStartError,
    decoding,
    nearest_name_hint,
)

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "CorruptFileError",
    "DataError",
    "DepthUnitError",
    "ExportError",
    "LabelError",
    "M33DError",
    "MissingDependencyError",
    "NonFiniteLossError",
    "ResumeError",
    "WorkerLostError",
    "WorkerStartError",
    "decoding",
    "nearest_name_hint",
]

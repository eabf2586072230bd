"""Exports our models: stock transformers classes, timm's names, ONNX and torch.export, each verified after writing."""

from __future__ import annotations

from m33d_hf.weights.export.exporting import FORMATS, ExportOptions, export_model

__all__ = ["FORMATS", "ExportOptions", "export_model"]

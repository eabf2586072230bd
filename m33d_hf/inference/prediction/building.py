"""The task of a prediction, by the model's own configuration."""

from __future__ import annotations

from m33d_hf.inference.depth_models import load_depth_predictor
from m33d_hf.inference.loading import task_of_model
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.options import PredictionOptions


def build_prediction_task(options: PredictionOptions, local_rank: int = 0) -> PredictionTask:
    """Load the model of `options` and what is made of its predictions.

    Raises:
        CheckpointError: no usable model. ConfigError: options that its task does not have, or no such device.
    """
    task_of_model(options.model, options.trust_remote_code)
    predictor = load_depth_predictor(options.model, options.kind, options.device, local_rank, options.trust_remote_code)
    return DepthTask(options, predictor)

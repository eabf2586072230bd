"""The task of a prediction, by the model's own configuration."""

from __future__ import annotations

from collections.abc import Callable

from m33d_hf.inference.depth_models import load_depth_predictor
from m33d_hf.inference.loading import task_of_model
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.segmentation import SegmentationTask

_TASKS: dict[str, Callable[[PredictionOptions, int], PredictionTask]] = {
    "segmentation": SegmentationTask,
    "clips": ClipTask,
    "phases": PhaseTask,
    "reconstruction": ReconstructionTask,
}


def build_prediction_task(options: PredictionOptions, local_rank: int = 0) -> PredictionTask:
    """Load the model of `options` and what is made of its predictions.

    Raises:
        CheckpointError: no usable model. ConfigError: options that its task does not have, or no such device.
    """
    task = task_of_model(options.model, options.trust_remote_code)
    if task != "depth":
        return _TASKS[task](options, local_rank)
    predictor = load_depth_predictor(options.model, options.kind, options.device, local_rank, options.trust_remote_code)
    return DepthTask(options, predictor)

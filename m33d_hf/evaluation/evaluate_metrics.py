"""The accumulators as `evaluate.Metric`, for users of the evaluate library.

They need no network and compute through the same accumulators as training. evaluate writes every prediction
to Arrow on the way, so prefer the accumulators for whole data sets of dense maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from m33d_hf.errors import MissingDependencyError
from m33d_hf.evaluation.detection_metrics import frame_scores, mean_average_precision
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics


def _modules() -> tuple[Any, Any]:
    try:
        import datasets
        import evaluate
    except ImportError as error:
        message = "these metrics require evaluate and datasets: pip install evaluate datasets"
        raise MissingDependencyError(message) from error
    return datasets, evaluate


def _tensor(maps: Any, dtype: type) -> torch.Tensor:
    return torch.from_numpy(np.asarray(maps, dtype=dtype))


def _info(datasets: Any, evaluate: Any, description: str, value: str) -> Any:
    feature = datasets.Sequence(datasets.Sequence(datasets.Value(value)))
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description="predictions and references: maps (H, W), all of one size within a batch",
        features=datasets.Features({"predictions": feature, "references": feature}),
    )


def mean_iou_metric(num_classes: int, ignore_index: int = 255, **options: Any) -> Any:
    """Return an `evaluate.Metric` over label maps (H, W) whose results are those of `ConfusionMatrix`.

    Args:
        num_classes, ignore_index: as for `ConfusionMatrix`.
        **options: handed to `evaluate.Metric` (`num_process`, `process_id`, `keep_in_memory`, ...).

    Raises:
        MissingDependencyError: evaluate or datasets is not installed.
    """
    datasets, evaluate = _modules()

    class MeanIoU(evaluate.Metric):  # type: ignore[name-defined]
        def _info(self) -> Any:
            return _info(datasets, evaluate, "Mean intersection over union.", "int64")

        def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
            matrix = ConfusionMatrix(num_classes, ignore_index)
            for prediction, reference in zip(predictions, references):
                matrix.update(_tensor(prediction, np.int64), _tensor(reference, np.int64))
            return matrix.compute()

    return MeanIoU(**options)


def depth_error_metric(average: str = "pixels", **options: Any) -> Any:
    """Return an `evaluate.Metric` over depth maps (H, W) in metres whose results are those of `DepthMetrics`.

    Args:
        average: "pixels" or "images".
        **options: handed to `evaluate.Metric`, save `min_depth` and `max_depth`, which bound the ground
            truth.

    Raises:
        MissingDependencyError: evaluate or datasets is not installed.
    """
    datasets, evaluate = _modules()
    bounds = {key: options.pop(key) for key in ("min_depth", "max_depth") if key in options}

    class DepthError(evaluate.Metric):  # type: ignore[name-defined]
        def _info(self) -> Any:
            return _info(datasets, evaluate, "Depth estimation errors.", "float32")

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            metrics = DepthMetrics(average=average, **bounds)  # type: ignore[arg-type]
            for prediction, reference in zip(predictions, references):
                metrics.update(_tensor(prediction, np.float32)[None], _tensor(reference, np.float32)[None])
            return metrics.compute()

    return DepthError(**options)


def mean_average_precision_metric(**options: Any) -> Any:
    """Return an `evaluate.Metric` over (L,) scores and a class id per clip or frame, as `detection_metrics`.

    Its results are `mean_average_precision` and `per_class_average_precision` (a list, NaN for absent classes).

    Args:
        **options: handed to `evaluate.Metric`.

    Raises:
        MissingDependencyError: evaluate or datasets is not installed.
    """
    datasets, evaluate = _modules()
    features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}

    class MeanAveragePrecision(evaluate.Metric):  # type: ignore[name-defined]
        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description="Macro mean of the average precision of each class.",
                citation="",
                inputs_description="predictions: (L,) scores of a frame; references: its class id, 255 = none",
                features=datasets.Features(features),
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
            mean, per_class = mean_average_precision(np.asarray(predictions), np.asarray(references))
            return {"mean_average_precision": mean, "per_class_average_precision": per_class}

    return MeanAveragePrecision(**options)


def segmental_metric(**options: Any) -> Any:
    """Return an `evaluate.Metric` over (T,) class ids per video: frame accuracy, edit score and F1 of segments.

    Its results are those of `detection_metrics.frame_scores`.

    Args:
        **options: handed to `evaluate.Metric`.

    Raises:
        MissingDependencyError: evaluate or datasets is not installed.
    """
    datasets, evaluate = _modules()
    feature = datasets.Sequence(datasets.Value("int64"))

    class Segmental(evaluate.Metric):  # type: ignore[name-defined]
        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description="Frame accuracy, segmental edit score and segmental F1.",
                citation="",
                inputs_description="predictions and references: (T,) class ids of a video, 255 = not annotated",
                features=datasets.Features({"predictions": feature, "references": feature}),
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            videos = [(np.asarray(p, np.int64), np.asarray(r, np.int64)) for p, r in zip(predictions, references)]
            return frame_scores(videos)

    return Segmental(**options)

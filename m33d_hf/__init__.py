"""M33D: multi-modal masked 3D pre-training of vision transformers on RGB-D images and clips.

Public names are imported when they are first used, so `import m33d_hf` costs milliseconds. It also registers M33D with
transformers' auto classes (see `m33d_hf.registration`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from m33d_hf.registration import install as _install

if TYPE_CHECKING:
    from m33d_hf.data.sample import RGBDSample, VideoHandle
    from m33d_hf.errors import M33DError
    from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics
    from m33d_hf.modeling.backbone_m33d import M33DBackbone
    from m33d_hf.modeling.configuration_m33d import M33DConfig, ModalitySpec
    from m33d_hf.modeling.depth_m33d import DepthSpec
    from m33d_hf.modeling.image_processing_m33d import M33DImageProcessor, M33DImageProcessorPil
    from m33d_hf.modeling.modeling_m33d import M33DModel
    from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
    from m33d_hf.modeling.rgbd_pipelines_m33d import RGBDImageSegmentationPipeline, RGBDVideoClassificationPipeline
    from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
    from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
    from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection, M33DForVideoClassification

__version__ = "0.1.0"

_HOMES = {
    "ConfusionMatrix": "evaluation.metrics",
    "DepthMetrics": "evaluation.metrics",
    "DepthSpec": "modeling.depth_m33d",
    "M33DBackbone": "modeling.backbone_m33d",
    "M33DConfig": "modeling.configuration_m33d",
    "M33DError": "errors",
    "M33DForDepthEstimation": "modeling.tasks_m33d",
    "M33DForPreTraining": "modeling.pretraining_m33d",
    "M33DForSemanticSegmentation": "modeling.tasks_m33d",
    "M33DForVideoActionDetection": "modeling.video_tasks_m33d",
    "M33DForVideoClassification": "modeling.video_tasks_m33d",
    "M33DImageProcessor": "modeling.image_processing_m33d",
    "M33DImageProcessorPil": "modeling.image_processing_m33d",
    "M33DModel": "modeling.modeling_m33d",
    "M33DVideoProcessor": "modeling.video_processing_m33d",
    "ModalitySpec": "modeling.configuration_m33d",
    "RGBDImageSegmentationPipeline": "modeling.rgbd_pipelines_m33d",
    "RGBDSample": "data.sample",
    "RGBDVideoClassificationPipeline": "modeling.rgbd_pipelines_m33d",
    "VideoHandle": "data.sample",
}

__all__ = [
    "ConfusionMatrix",
    "DepthMetrics",
    "DepthSpec",
    "M33DBackbone",
    "M33DConfig",
    "M33DError",
    "M33DForDepthEstimation",
    "M33DForPreTraining",
    "M33DForSemanticSegmentation",
    "M33DForVideoActionDetection",
    "M33DForVideoClassification",
    "M33DImageProcessor",
    "M33DImageProcessorPil",
    "M33DModel",
    "M33DVideoProcessor",
    "ModalitySpec",
    "RGBDImageSegmentationPipeline",
    "RGBDSample",
    "RGBDVideoClassificationPipeline",
    "VideoHandle",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_install()

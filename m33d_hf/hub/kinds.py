"""What each kind of model is called on the Hub, and how it is loaded there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of model, by what it was trained for.

    Attributes:
        words: for sentences.
        pipeline: tag of the Hub and name of the pipeline; None where there is none that fits.
        auto: Auto class that loads it.
        task: of `m33d_hf.training`, which evaluates it.
        script: that evaluates it.
        main: metrics in the order in which they are shown; the others follow.
    """

    words: str
    pipeline: str | None
    auto: str
    task: str
    script: str
    main: tuple[str, ...] = ()


# Keys are those of `m33d_hf.inference.loading.AUTO_CLASSES`.
KINDS = {
    "depth": Kind(
        "monocular depth estimation from RGB", "depth-estimation", "AutoModelForDepthEstimation",
        "depth_estimation", "run_depth_estimation.py", ("delta1", "abs_rel", "rmse"),
    ),
    "segmentation": Kind(
        "semantic segmentation", "image-segmentation", "AutoModelForSemanticSegmentation",
        "semantic_segmentation", "run_semantic_segmentation.py", ("miou", "pixel_accuracy"),
    ),
    "clips": Kind(
        "classification of short video clips", "video-classification", "AutoModelForVideoClassification",
        "video_classification", "run_video_classification.py", ("top1", "top5"),
    ),
    "phases": Kind(
        "detection of actions and phases in long videos", None, "AutoModel", "action_detection",
        "run_action_detection.py", ("map",),
    ),
    "reconstruction": Kind(
        "masked pre-training on RGB and depth; as it is, an encoder that gives features", "image-feature-extraction",
        "AutoModel", "pretraining", "run_pretrain.py",
    ),
}  # fmt: skip

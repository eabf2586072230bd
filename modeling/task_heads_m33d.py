# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The one table of task heads: what every other part of the package knows of a head, and its configuration fields.

A new head is an entry of `HEADS`, its model class in a file of this folder, and, where it has fields of its own, these
in `HeadFields` with their ranges in `HEAD_RANGES`. From the table follow: which Auto class loads the model and which
files travel with it, which weights of a fine-tuned model other models leave out, how they are called in reports, what
a run adopts from a checkpoint of the same task, how operations are counted, and what an exported graph returns.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .fields_m33d import Range

if TYPE_CHECKING:
    # Not for the type checker alone: these lines take the files along with every saved model (see auto_m33d).
    from .tasks_m33d import M33DForDepthEstimation  # noqa: F401
    from .video_tasks_m33d import M33DForVideoClassification  # noqa: F401

PAIR = r"\.(?:weight|bias)"
"""Ends a pattern of names whose weight and bias are both meant."""


@dataclass(frozen=True)
class GraphOutput:
    """What an exported graph of a task model returns.

    Attributes:
        name: of the field of the model's output.
        axes: their names.
        unit: of the values.
        limits: configuration fields with the least and the largest value; None where there is no limit.
    """

    name: str
    axes: tuple[str, ...]
    unit: str
    limits: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskHead:
    """A task head.

    Attributes:
        task: its name in recipes.
        model: "module.Class" in this folder; the class is also a public name of the package.
        auto_class: Auto class of transformers that loads it; None where transformers has none.
        parts: first name of its weights -> what reports call that part.
        class_parts: those of `parts`, or layers in them, whose rows are classes: of equal shape they are worthless for
            other classes.
        class_readers: those of `parts` that read the classes, likewise worthless for others -> the one of `class_parts`
            that tells.
        weights: regular expressions for the whole names of its weights, so that mistyped ones are still reported.
        fields: configuration fields that shape these weights.
        images_only: whether it works on single images, from encoders of clips too.
        classes: whether its outputs are classes, with the names of `id2label`.
        output: of an exported graph; None where the model reads whole videos, or features of them.
        fewest_tokens: minimum along each side of an exported graph's input.
    """

    task: str
    model: str
    auto_class: str | None
    parts: Mapping[str, str]
    class_parts: tuple[str, ...] = ()
    class_readers: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[str, ...]
    fields: tuple[str, ...] = ()
    images_only: bool = True
    classes: bool = False
    output: GraphOutput | None
    fewest_tokens: int = 2

    @property
    def module(self) -> str:
        """Name of the file in this folder, without ending."""
        return self.model.split(".")[0]

    @property
    def class_name(self) -> str:
        """Name of the model's class, which saved configurations state as their architecture."""
        return self.model.split(".")[1]

    def load_class(self) -> Any:
        """The model's class, whose file is imported only here: the table itself is read before torch is."""
        return getattr(importlib.import_module(f".{self.module}", __package__), self.class_name)


HEADS: tuple[TaskHead, ...] = (
    TaskHead(
        task="video_classification",
        model="video_tasks_m33d.M33DForVideoClassification",
        auto_class="AutoModelForVideoClassification",
        parts={"fc_norm": "the norm of pooled features", "classifier": "the classifier"},
        class_parts=("classifier",),
        weights=(rf"^(?:fc_norm|classifier){PAIR}$",),
        images_only=False,
        classes=True,
        output=GraphOutput("logits", ("batch", "classes"), "logits"),
    ),
    TaskHead(
        task="action_detection",
        model="video_tasks_m33d.M33DForVideoActionDetection",
        auto_class=None,
        parts={
            "gru": "the recurrent network",
            "tcn": "the temporal convolutions",
            "refinement_stages": "the refinement stages",
            "temporal_transformer": "the temporal transformer",
            "temporal_classifier": "the temporal classifier",
        },
        class_parts=("temporal_classifier",),
        class_readers={"refinement_stages": "temporal_classifier"},
        weights=(
            r"^gru\.(?:weight|bias)_[ih]h_l\d+(?:_reverse)?$",
            rf"^(?:tcn|refinement_stages\.\d+)\.(?:input|layers\.\d+\.(?:dilated|pointwise)){PAIR}$",
            rf"^refinement_stages\.\d+\.classifier{PAIR}$",
            rf"^temporal_transformer\.(?:input|layernorm|layers\.\d+\.(?:layernorm_before|layernorm_after)){PAIR}$",
            rf"^temporal_transformer\.layers\.\d+\.(?:attention\.(?:qkv|proj)|mlp\.fc[12]){PAIR}$",
            r"^temporal_transformer\.layers\.\d+\.attention\.(?:relative_positions|outside_token)$",
            rf"^temporal_classifier{PAIR}$",
        ),
        fields=(
            *("temporal_model", "temporal_hidden_size", "temporal_num_layers", "temporal_causal"),
            *("temporal_tcn_stages", "temporal_tcn_layers"),
            *("temporal_attention_window", "temporal_num_attention_heads", "temporal_cameras"),
        ),
        images_only=False,
        classes=True,
        output=None,
    ),
    TaskHead(
        task="semantic_segmentation",
        model="tasks_m33d.M33DForSemanticSegmentation",
        auto_class="AutoModelForSemanticSegmentation",
        parts={"segmentation_head": "the segmentation head"},
        class_parts=("segmentation_head.classifier",),
        weights=(rf"^segmentation_head\.(?:projection|classifier|blocks\.\d+\.(?:depthwise|norm|fc1|fc2)){PAIR}$",),
        fields=("segmentation_head_width", "segmentation_head_depth", "segmentation_head_upscale"),
        classes=True,
        output=GraphOutput("logits", ("batch", "classes", "height", "width"), "logits"),
    ),
    TaskHead(
        task="depth_estimation",
        model="tasks_m33d.M33DForDepthEstimation",
        auto_class="AutoModelForDepthEstimation",
        parts={"depth_head": "the depth head", "depth_prior": "the mean depth per position"},
        weights=(
            rf"^depth_head\.(?:stems\.\d+\.\d+|reduce|refine|predict){PAIR}$",
            r"^depth_head\.laterals\.\d+\.weight$",
            rf"^depth_head\.fusions\.\d+\.(?:(?:skip_)?unit\.conv[12]|projection){PAIR}$",
            r"^depth_prior\.metres$",
        ),
        fields=("depth_head_width", "depth_head_layers", "depth_head_stem_channels"),
        output=GraphOutput("predicted_depth", ("batch", "height", "width"), "metre", ("min_depth", "max_depth")),
        fewest_tokens=3,  # DPT halves its map
    ),
)
"""All heads of the package, in the order in which tasks are listed."""


@dataclass(repr=False, kw_only=True)
class HeadFields:
    """The fields of `M33DConfig` that task heads alone read.

    Args:
        task_inputs: what a task model sees: "rgb" (the paper; None means it), "depth", or both. Of both, depth may be
            missing in part or altogether; depth estimation sees RGB alone.
        task_fusion: how tokens of separate encoders become one per position (`M33DTaskFusion`): "sum",
            "concatenation" or "cross_attention"; None is "sum". In a shared encoder both are one sequence and nothing
            is left to fuse.
        depth_dropout: probability, per training sample, that a model of both inputs sees no depth; collators draw it.
        head_norm: a layer norm before a dense head (MultiMAE has none).
        classifier_dropout: dropout before the clip classifier (Table 10 "drop out").
        classifier_init_scale: factor of the fresh classifier's weights (VideoMAE).
        temporal_model: what reads the clips of a video: the paper's Bi-GRU, a multi-stage temporal convolutional
            network (MS-TCN, causal as TeCNO) or a transformer whose attention reaches a fixed number of clips.
        temporal_hidden_size: its width, of a GRU per direction (unsaid in the paper; MS-TCN: 64).
        temporal_num_layers: layers of a GRU or a transformer.
        temporal_dropout: dropout within a temporal convolutional network or a transformer, between the layers of a GRU,
            and before the classifier of GRU and transformer.
        temporal_causal: no clip sees a later one, for online use.
        temporal_tcn_stages, temporal_tcn_layers: stages of a temporal convolutional network, of which all but the first
            refine the probabilities of the stage before, and dilated layers of a stage.
        temporal_tcn_smoothing, temporal_tcn_smoothing_limit: weight of the smoothing loss of MS-TCN in each stage, and
            the difference of log-probabilities beyond which it grows no more; weight 0 goes without (TeCNO).
        temporal_attention_window: clips that a clip of the transformer attends to in either direction, itself included.
        temporal_num_attention_heads: heads of the transformer, which must divide `temporal_hidden_size`.
        temporal_cameras: names of the cameras whose features stand side by side at every clip, in this order; None
            reads one sequence of features, of several cameras their mean.
        temporal_camera_dropout: probability in training that a camera of `temporal_cameras` is left out of a whole
            video, so that the model learns to do without it.
        temporal_frame_stride, temporal_clip_stride: source frames from one frame of a clip to the next, and from one
            clip to the next (None: a clip's span, no overlap), remembered from feature extraction for inference.
        semantic_loss_ignore_index: class id that is not trained on.
        segmentation_head_width, segmentation_head_depth, segmentation_head_upscale: ConvNeXt head channels,
            blocks, and sub-positions per token side.
        depth_head_width: channels of the DPT fusion.
        depth_head_layers: the four encoder layers it reads (0-based), None spaces them evenly.
        depth_head_stem_channels: channels of its four levels; None takes them from the encoder's width.
        depth_mean, depth_std: metres; the depth head predicts (depth - mean) / std (defaults: NYUv2).
        min_depth, max_depth: metres; clamp of predictions in eval mode and of both sides of "silog".
        depth_loss: "berhu", "l1" (both on standardised values) or "silog" (on clamped metres).
        depth_prior_weight: share of the mean depth per position of the training frames in predictions, not in the loss;
            0 goes without. The run scripts take auto, too: a trial on training frames kept back chooses it.
    """

    task_inputs: list[Literal["rgb", "depth"]] | None = None
    task_fusion: Literal["sum", "concatenation", "cross_attention"] | None = None
    depth_dropout: float | int = 0.5
    head_norm: bool = False
    classifier_dropout: float | int = 0.0
    classifier_init_scale: float | int = 1e-3
    temporal_model: Literal["gru", "tcn", "transformer"] = "gru"
    temporal_hidden_size: int = 256
    temporal_num_layers: int = 1
    temporal_dropout: float | int = 0.2
    temporal_causal: bool = False
    temporal_tcn_stages: int = 4
    temporal_tcn_layers: int = 10
    temporal_tcn_smoothing: float | int = 0.15
    temporal_tcn_smoothing_limit: float | int = 4.0
    temporal_attention_window: int = 64
    temporal_num_attention_heads: int = 4
    temporal_cameras: list[str] | None = None
    temporal_camera_dropout: float | int = 0.2
    temporal_frame_stride: int = 1
    temporal_clip_stride: int | None = None
    semantic_loss_ignore_index: int = 255
    segmentation_head_width: int = 384
    segmentation_head_depth: int = 4
    segmentation_head_upscale: int = 4
    depth_head_width: int = 256
    depth_head_layers: list[int] | None = None
    depth_head_stem_channels: list[int] | None = None
    depth_mean: float = 2.0708
    depth_std: float = 0.7776
    min_depth: float = 1e-3
    max_depth: float = 10.0
    depth_loss: Literal["berhu", "l1", "silog"] = "berhu"
    depth_prior_weight: float | int = 0.0


_WIDTH = Range(low=1, high=65_536)
_BLOCKS = Range(low=1, high=1024)
_DROP = Range(low=0, below=1)

HEAD_RANGES: Mapping[str, Range] = {
    "depth_dropout": _DROP,
    "classifier_dropout": _DROP,
    "classifier_init_scale": Range(low=0, high=1e6),
    "temporal_hidden_size": _WIDTH,
    "temporal_num_layers": _BLOCKS,
    "temporal_dropout": _DROP,
    "temporal_tcn_stages": Range(low=1, high=100),
    "temporal_tcn_layers": Range(low=1, high=20),
    "temporal_tcn_smoothing": Range(low=0, high=1e6),
    "temporal_tcn_smoothing_limit": Range(above=0, high=1e6),
    "temporal_attention_window": Range(low=1, high=65_536),
    "temporal_num_attention_heads": _BLOCKS,
    "temporal_camera_dropout": _DROP,
    "temporal_frame_stride": Range(low=1, high=1_000_000),
    "temporal_clip_stride": Range(low=1, high=1_000_000),
    "semantic_loss_ignore_index": Range(low=-(2**31), high=2**31 - 1),
    "segmentation_head_width": _WIDTH,
    "segmentation_head_depth": _BLOCKS,
    "segmentation_head_upscale": Range(low=1, high=64),
    "depth_head_width": _WIDTH,
    "depth_head_layers": Range(low=0, high=1023, length=4),
    "depth_head_stem_channels": Range(low=1, high=65_536, length=4),
    "depth_mean": Range(low=-1e6, high=1e6),
    "depth_std": Range(above=0, high=1e6),
    "min_depth": Range(low=0, high=1e6),
    "max_depth": Range(above=0, high=1e6),
    "depth_prior_weight": Range(low=0, high=1),
}
"""Ranges of the fields that hold numbers."""

__all__ = ["HEADS", "HEAD_RANGES", "PAIR", "GraphOutput", "HeadFields", "TaskHead"]

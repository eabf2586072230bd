"""Any depth estimation model of transformers, ours included, as a function from pictures to depth maps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.inference.loading import load_image_processor, load_model, model_digest, ready, usable_device
from m33d_hf.modeling.depth_m33d import DEPTH_KINDS

# Architectures whose output is metres whatever they were trained on; Depth Pro after its own post-processing.
_METRIC_TYPES = ("m33d", "zoedepth", "depth_pro")
# Depth Anything's own word, and ours: its "relative" head predicts disparity up to a scale and a shift.
_STATED_TYPES = {"metric": "metric", "relative": "inverse"}
_HOW_TO_STATE = (
    "Pass what it predicts: --kind metric (metres), --kind inverse (disparity-like, larger is nearer: MiDaS and its "
    "DPT models, Depth Anything) or --kind relative (larger is farther, no unit)."
)


@dataclass
class DepthPredictor:
    """A model with its image processor.

    Attributes:
        name: what was loaded: folder or Hub id.
        model_type: of its configuration.
        kind: what it predicts: `metric` (metres), `inverse` or `relative`.
        digest: SHA-256 of weights and image processor; two copies of a model have the same.
        device: where it runs.
    """

    name: str
    model_type: str
    kind: str
    digest: str
    device: torch.device
    model: nn.Module
    processor: Any

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], size: tuple[int, int] | None = None) -> np.ndarray:
        """Predict depth.

        Args:
            images: (H, W, 3) uint8 RGB, all of one size.
            size: (height, width) of the result; None keeps the pictures' own.

        Returns:
            (n, h, w) float32, as the model predicts it.
        """
        source = (int(images[0].shape[0]), int(images[0].shape[1]))
        target = size or source
        inputs = self.processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
        outputs = self.model(**inputs.to(self.device))
        depths = self.post_processed(outputs, [source] * len(images), [target] * len(images))
        return np.stack([depth.reshape(target).float().cpu().numpy() for depth in depths])

    def post_processed(
        self, outputs: Any, sources: Sequence[tuple[int, int]], targets: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Depth at the sizes `targets` of what the model made of pictures of the sizes `sources`, one map each."""
        post_process = getattr(self.processor, "post_process_depth_estimation", None)
        if post_process is None:
            predicted = outputs.predicted_depth
            predicted = predicted.reshape(len(targets), 1, 1, *predicted.shape[-2:]).float()
            pairs = zip(predicted, targets, strict=True)
            return [F.interpolate(each, size=size, mode="bilinear", align_corners=False)[0, 0] for each, size in pairs]
        sizes: dict[str, Any] = {"target_sizes": list(targets)}
        if "source_sizes" in inspect.signature(post_process).parameters:  # ZoeDepth takes its padding off by them
            sizes["source_sizes"] = list(sources)
        return [result["predicted_depth"] for result in post_process(outputs, **sizes)]


def load_depth_predictor(
    name: str, kind: str = "auto", device: str = "auto", local_rank: int = 0, trust_remote_code: bool = False
) -> DepthPredictor:
    """Load a local folder or a model of the Hub.

    Args:
        name: folder or Hub id with weights, configuration and image processor.
        kind: `metric`, `inverse`, `relative`, or `auto`: what the configuration says.
        device: of torch, or `auto`: the CUDA device of this local rank where there is one.
        local_rank: number of this process on its machine.
        trust_remote_code: run the code that a repository brings along. Otherwise such a model is refused; transformers
            would ask on the terminal and hang without one.

    Raises:
        ConfigError: `auto` with a configuration that does not say, a contradiction to one that does, or an unknown
            word; a device that is not there.
        CheckpointError: nothing to load, no depth estimation model, weights that lack a part of it, or code that may
            not be run.
    """
    if kind != "auto" and kind not in DEPTH_KINDS:
        known = ("auto", *DEPTH_KINDS)
        raise ConfigError(f"--kind {kind!r} must be one of {', '.join(known)}.{nearest_name_hint(kind, known)}")
    chosen = usable_device(device, local_rank)
    model = load_model(name, "depth", trust_remote_code)
    kind = settle_kind(model.config, kind, name)
    processor = load_image_processor(name, trust_remote_code)
    digest = model_digest(model, processor)
    return DepthPredictor(name, model.config.model_type, kind, digest, chosen, ready(model, chosen), processor)


def settle_kind(config: Any, kind: str, name: str) -> str:
    """What a model predicts: as its configuration says, or else as stated.

    Raises:
        ConfigError: neither says it, or one says metric and the other does not.
    """
    known: str | None = "metric" if config.model_type in _METRIC_TYPES else None
    if known is None:
        known = _STATED_TYPES.get(getattr(config, "depth_estimation_type", None) or "")
    if kind == "auto":
        if known is None:
            raise ConfigError(
                f"{name}: the configuration of a {config.model_type!r} model does not say whether it predicts metric "
                f"or inverse depth, and a wrong guess would exchange near and far. {_HOW_TO_STATE}"
            )
        return known
    if known is not None and (known == "metric") != (kind == "metric"):
        raise ConfigError(
            f"{name} was given --kind {kind}, but its configuration ({config.model_type}) says {known}. Leave --kind "
            "out, or correct the configuration."
        )
    return kind

"""Any depth estimation model of transformers, ours included, as a function from pictures to depth maps."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from m33d_hf.errors import CheckpointError, ConfigError, nearest_name_hint
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
        depths = self._post_processed(outputs, source, target, len(images))
        return np.stack([depth.reshape(target).float().cpu().numpy() for depth in depths])

    def _post_processed(
        self, outputs: Any, source: tuple[int, int], target: tuple[int, int], count: int
    ) -> list[torch.Tensor]:
        post_process = getattr(self.processor, "post_process_depth_estimation", None)
        if post_process is None:
            predicted = outputs.predicted_depth
            predicted = predicted.reshape(count, 1, *predicted.shape[-2:]).float()
            return list(F.interpolate(predicted, size=target, mode="bilinear", align_corners=False))
        sizes: dict[str, Any] = {"target_sizes": [target] * count}
        if "source_sizes" in inspect.signature(post_process).parameters:  # ZoeDepth takes its padding off by them
            sizes["source_sizes"] = [source] * count
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
    place = _device(device, local_rank)
    model = _load_model(name, trust_remote_code)
    kind = settle_kind(model.config, kind, name)
    processor = _load_processor(name, trust_remote_code)
    digest = _digest(model, processor)
    return DepthPredictor(name, model.config.model_type, kind, digest, place, model.to(place).eval(), processor)


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


def _device(word: str, local_rank: int) -> torch.device:
    if word == "auto":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return torch.device("cuda", local_rank % count) if count else torch.device("cpu")
    try:
        device = torch.device(word)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"--device {word!r} cannot be used ({str(error).splitlines()[0]}).") from error
    return device


def _load_model(name: str, trusted: bool) -> Any:
    from transformers import AutoModelForDepthEstimation

    try:
        # Weights saved in half precision come back as float32: the processors' pictures are that, and so is depth.
        model, report = AutoModelForDepthEstimation.from_pretrained(
            name, output_loading_info=True, dtype=torch.float32, trust_remote_code=trusted
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        _refuse_foreign_code(name, error)
        raise CheckpointError(
            f"--model {name!r} cannot be loaded as a depth estimation model: {str(error).splitlines()[0]} Pass a "
            "folder or Hub id of such a model with config.json and weights."
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        listed = ", ".join(missing[:3])
        raise CheckpointError(
            f"--model {name!r} has no weights for {len(missing)} parameters of {type(model).__name__} ({listed}, ..), "
            "so its depth would be noise. Use a checkpoint that was trained to estimate depth."
        )
    return model


def _refuse_foreign_code(name: str, error: Exception) -> None:
    """Say it in our words where transformers refuses to run the code of a repository."""
    if "trust_remote_code" in str(error):
        raise CheckpointError(
            f"--model {name!r} requires Python code from its repository, which runs with your permissions. Read the "
            "code, then pass --trust_remote_code."
        ) from error


def _load_processor(name: str, trusted: bool) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(name, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError, ImportError) as error:
        _refuse_foreign_code(name, error)
        raise CheckpointError(
            f"--model {name!r}: its image processor cannot be loaded ({str(error).splitlines()[0]}). Add the model's "
            "preprocessor_config.json, which defines how pictures are resized and normalised, to the folder."
        ) from error


def _digest(model: nn.Module, processor: Any) -> str:
    state = hashlib.sha256(processor.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()

"""Depth and segmentation models as functions from looked-at pictures to maps at the pictures' own size."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from m33d_hf.errors import CheckpointError
from m33d_hf.inference.depth_models import DepthPredictor
from m33d_hf.inference.prediction.measured_depth import task_inputs_of
from m33d_hf.inference.prediction.views import Fusion, Looked, View, ViewOptions, look, shape_of, stacked
from m33d_hf.modeling.class_names_m33d import NO_CLASS


class DenseModel(ABC):
    """A model with its processor, on its device, in eval mode.

    Args:
        model: of transformers.
        processor: its image processor.
        device: where it runs.
        views: how pictures are looked at.
        batch_size: views that go through the model together.
        precision: "no" (float32), "bf16" or "fp16".
    """

    def __init__(
        self, model: Any, processor: Any, device: torch.device, views: ViewOptions, batch_size: int, precision: str
    ) -> None:
        self.model, self.processor, self.device = model, processor, device
        self.views, self.batch_size = views, batch_size
        self._kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._unseen = () if "rgb" in task_inputs_of(model) else ("pixel_values",)

    def prepare(self, pixels: np.ndarray, depth: Mapping[str, Any] | None = None) -> Looked:
        """Look at a picture, (H, W, 3) uint8, with its depth (see `look`); may be called from several threads."""
        positional = bool(getattr(self.model.config, "depth_prior_weight", 0))
        return look(pixels, self.processor, self.views, positional, depth)

    def predict(self, pictures: Sequence[Looked]) -> list[np.ndarray]:
        """One map per picture, at its size."""
        results: list[np.ndarray | None] = [None] * len(pictures)
        fusions: dict[int, Fusion] = {}
        for chunk in self._chunks(pictures):
            outputs = self._forward(stacked([view for _, view in chunk]))
            if all(pictures[number].is_plain for number, _ in chunk):
                maps = self._maps(outputs, [view.size for _, view in chunk])
                for (number, _), found in zip(chunk, maps, strict=True):
                    results[number] = found
                continue
            for row, (number, view) in enumerate(chunk):
                values, known = self._scores(self._row(outputs, row), view.size)
                fusions.setdefault(number, Fusion(pictures[number].size)).add(view, values, known)
        for number, fusion in fusions.items():
            results[number] = self._fused(*fusion.mean())
        return [found for found in results if found is not None]

    def _chunks(self, pictures: Sequence[Looked]) -> list[list[tuple[int, View]]]:
        """(number of its picture, view): as many as go through the model together, of one shape."""
        groups: dict[tuple[Any, ...], list[tuple[int, View]]] = defaultdict(list)
        for number, picture in enumerate(pictures):
            for view in picture.views:
                groups[picture.is_plain, shape_of(view)].append((number, view))
        size = self.batch_size
        return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]

    @torch.inference_mode()
    def _forward(self, inputs: dict[str, Tensor]) -> Any:
        placed = {name: values.to(self.device) for name, values in inputs.items() if name not in self._unseen}
        with torch.autocast(self.device.type, dtype=self._kind, enabled=self._kind is not None):
            return self.model(**placed)

    @staticmethod
    def _row(outputs: Any, row: int) -> Any:
        """One sample of what the model returned for several."""
        picked = {name: value[row : row + 1] for name, value in outputs.items() if isinstance(value, Tensor)}
        return SimpleNamespace(**picked)

    @abstractmethod
    def _maps(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Final maps of pictures that are seen whole and once, by the processor's own post-processing."""

    @abstractmethod
    def _scores(self, output: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """((L, h, w) what is averaged, (h, w) bool where it is known) of one view."""

    @abstractmethod
    def _fused(self, mean: Tensor, known: Tensor) -> np.ndarray:
        """The final map of what was averaged."""


class DenseDepth(DenseModel):
    """(H, W) float32 depth, in metres where the model is metric; 0 where the model does not see the picture."""

    def __init__(self, predictor: DepthPredictor, views: ViewOptions, batch_size: int, precision: str) -> None:
        super().__init__(predictor.model, predictor.processor, predictor.device, views, batch_size, precision)
        self.predictor = predictor

    @torch.inference_mode()
    def _maps(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        depths = self.predictor.post_processed(outputs, sizes, sizes)
        return [depth.reshape(size).float().cpu().numpy() for depth, size in zip(depths, sizes, strict=True)]

    @torch.inference_mode()
    def _scores(self, output: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        (depth,) = self.predictor.post_processed(output, [size], [size])
        depth = depth.reshape(size).float()
        unseen = 0.0 if self.predictor.kind == "metric" else torch.nan
        return depth[None], depth.isfinite() & (depth != unseen)

    def _fused(self, mean: Tensor, known: Tensor) -> np.ndarray:
        return np.asarray(mean[0].where(known, 0.0).numpy())


class DenseClasses(DenseModel):
    """(H, W) class ids, 255 where the model does not see the picture; uint16 where there are more than 255 classes."""

    def __init__(
        self, model: Any, processor: Any, device: torch.device, views: ViewOptions, batch_size: int, precision: str
    ) -> None:
        super().__init__(model, processor, device, views, batch_size, precision)
        if not hasattr(processor, "post_process_semantic_segmentation"):
            raise CheckpointError(
                f"{type(processor).__name__}, the model's processor, has no post_process_semantic_segmentation, which "
                "brings its logits to the pictures' size."
            )
        names = model.config.id2label
        self.names = [str(names[number]) for number in range(len(names))]
        self._type = np.uint8 if len(self.names) <= NO_CLASS else np.uint16

    @torch.inference_mode()
    def _maps(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        # One by one: at the pictures' size, the scores of all classes are large.
        found = []
        for row, size in enumerate(sizes):
            (labels,) = self.processor.post_process_semantic_segmentation(self._row(outputs, row), target_sizes=[size])
            found.append(labels.cpu().numpy().astype(self._type))
        return found

    @torch.inference_mode()
    def _scores(self, output: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        post_process = self.processor.post_process_semantic_segmentation
        if "return_segmentation_scores" not in inspect.signature(post_process).parameters:
            logits = F.interpolate(output.logits.float(), size=size, mode="bilinear", align_corners=False)[0]
            return logits.softmax(0), torch.ones(size, dtype=torch.bool)
        (found,) = post_process(output, target_sizes=[size], return_segmentation_scores=True)  # knows crops, padding
        logits, known = found["segmentation_scores"].float(), found["segmentation"] != NO_CLASS
        return logits.softmax(0), known

    def _fused(self, mean: Tensor, known: Tensor) -> np.ndarray:
        return np.asarray(mean.argmax(0).where(known, NO_CLASS).numpy().astype(self._type))

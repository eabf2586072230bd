# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""From model outputs to results: label maps and depth at image size, classes, phases of a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor
from transformers.image_processing_utils import BatchFeature

from .class_names_m33d import NO_CLASS
from .errors_m33d import ConfigError, DataError
from .frame_votes_m33d import frame_probabilities
from .placement_fields_m33d import placement_of
from .preprocessing_m33d import place


class ImagePostProcessing:
    """Post-processing of dense models' outputs, added to transformers' image processors."""

    min_depth: float | None
    max_depth: float | None

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Turn logits into label maps, placed where the model saw the image.

        Args:
            outputs: of `M33DForSemanticSegmentation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the size of the logits.
            return_segmentation_scores: return dicts of `segmentation` and `segmentation_scores` (L, H, W) instead.

        Returns:
            One (H, W) int64 map per image; 255 (scores NaN) outside a centre crop.

        Raises:
            DataError: not one size per image. ConfigError: a geometry that cannot be undone.
        """
        results: list[Any] = []
        for logits, size in zip(outputs.logits, _sizes(target_sizes, len(outputs.logits))):
            seen = None
            if size is not None:
                logits, seen = self._put_back(logits, size)
            labels = logits.argmax(dim=0)
            if seen is not None:
                labels, logits = labels.where(seen, NO_CLASS), logits.where(seen, math.nan)
            if return_segmentation_scores:
                results.append(BatchFeature({"segmentation": labels, "segmentation_scores": logits}))
            else:
                results.append(labels)
        return results

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """Place predicted depth where the model saw the image, clamped to [min_depth, max_depth] where these are set.

        Args:
            outputs: of `M33DForDepthEstimation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the model's size.

        Returns:
            One {"predicted_depth": (H, W) metres} per image; 0, which means "not measured" in depth files, outside a
            centre crop (NaN would turn the picture of transformers' depth pipeline black).

        Raises:
            DataError: not one size per image. ConfigError: a geometry that cannot be undone.
        """
        results = []
        for depth, size in zip(outputs.predicted_depth, _sizes(target_sizes, len(outputs.predicted_depth))):
            seen = None
            if size is not None:
                found, seen = self._put_back(depth[None], size)
                depth = found[0]
            if self.min_depth is not None or self.max_depth is not None:
                depth = depth.clamp(self.min_depth, self.max_depth)
            results.append({"predicted_depth": depth if seen is None else depth.where(seen, 0.0)})
        return results

    def _put_back(self, values: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """(L, h, w) predictions at image size, and the mask (H, W) of pixels that they cover; None if all.

        Raises:
            ConfigError: this processor crops or pads in a way that cannot be undone.
        """
        placement = placement_of(size, vars(self))
        if placement is None:
            if getattr(self, "do_center_crop", False) or getattr(self, "do_pad", False):
                raise ConfigError(
                    "predictions can be resized to the image size only after a centre crop with crop_size not larger "
                    "than "
                    "size, or after padding with pad_size equal to size's max_height and max_width; leave target_sizes "
                    "out, or change the processor's size, crop_size or pad_size."
                )
            placement = place(size, values.shape[-2:], "resize")
        seen = placement.looked_at().to(values.device)
        return placement.put_back(values), None if bool(seen.all()) else seen


class ClipPostProcessing:
    """Post-processing of clip models' outputs, for the video processor."""

    def post_process_video_classification(self, outputs: Any, top_k: int | None = None) -> list[dict[str, Tensor]]:
        """Turn logits into classes with probabilities, the most likely first.

        Args:
            outputs: of `M33DForVideoClassification`.
            top_k: how many classes; None for all.

        Returns:
            One {"labels": (k,) int64 class ids, "scores": (k,) float32 probabilities} per clip.

        Raises:
            ConfigError: top_k below 1. DataError: logits that are not (B, L).
        """
        logits = outputs.logits
        if logits.ndim != 2:
            raise DataError(f"logits of clips must be (B, L), got shape {tuple(logits.shape)}")
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k is {top_k}; it must be at least 1")
        count = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
        scores, labels = logits.float().softmax(dim=-1).topk(count)
        return [{"labels": row, "scores": shares} for row, shares in zip(labels, scores)]

    def post_process_action_detection(
        self,
        outputs: Any,
        clip_spans: Sequence[Sequence[Sequence[int]]] | None = None,
        lengths: Sequence[int] | None = None,
        attention_mask: Tensor | None = None,
        fps: float | Sequence[float] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Turn the logits of a video's clips into its phases, one after the other.

        A frame has the mean probabilities of the readable clips that cover it, as in the package's own detection. One
        covered only by unreadable clips belongs to no phase; one covered by no clip follows its nearest neighbour. A
        video of which no clip could be read has no phases.

        Args:
            outputs: of `M33DForVideoActionDetection`.
            clip_spans: per video (S, 2) frames [start, stop) of each clip; without the padding clips of a batch. With
                None, the unit is clips: the first one is [0, 1).
            lengths: frames of each video; None for the end of its last clip.
            attention_mask: (B, S) as passed to the model; None if every clip could be read.
            fps: frames per second, of all videos or of each.

        Returns:
            Per video a list of {"label": class id, "score": mean probability of that class, "start": first frame,
            "end": one past the last frame}, with `fps` also "start_time" and "end_time" in seconds.

        Raises:
            DataError: not one entry per video, spans that do not fit the clips, or logits that are not (B, S, L).
        """
        logits = outputs.logits
        if logits.ndim != 3:
            raise DataError(f"logits of detection must be (B, S, L), got shape {tuple(logits.shape)}")
        videos = len(logits)
        rates = [fps] * videos if fps is None or isinstance(fps, int | float) else list(fps)
        for name, given in (("clip_spans", clip_spans), ("lengths", lengths), ("fps", rates), ("mask", attention_mask)):
            if given is not None and len(given) != videos:
                raise DataError(f"{len(given)} {name} for {videos} videos; pass one for each.")
        found = []
        for number, rows in enumerate(logits.float().softmax(dim=-1).cpu().double().numpy()):
            valid = np.ones(len(rows), bool) if attention_mask is None else attention_mask[number].bool().cpu().numpy()
            spans = _spans(None if clip_spans is None else clip_spans[number], len(rows), number)
            length = int(spans[:, 1].max()) if lengths is None else int(lengths[number])
            shares = frame_probabilities(rows[: len(spans)], spans[:, 0], spans[:, 1], valid[: len(spans)], length)
            found.append(_phases(shares, spans, valid, rates[number]))
        return found


def _spans(spans: Any, clips: int, video: int) -> np.ndarray:
    """(S, 2) int64 frames [start, stop) of the clips of one video."""
    if spans is None:
        return np.stack([np.arange(clips), np.arange(clips) + 1], axis=1)
    table = np.asarray(spans.cpu() if isinstance(spans, Tensor) else spans)
    if table.ndim != 2 or table.shape[1] != 2 or not 0 < len(table) <= clips or (table[:, 0] >= table[:, 1]).any():
        raise DataError(
            f"clip_spans of video {video} must hold (start, stop) frames of at most {clips} clips, got {table.shape}"
        )
    return table.astype(np.int64)


def _phases(shares: np.ndarray, spans: np.ndarray, valid: np.ndarray, fps: float | None) -> list[dict[str, Any]]:
    """Runs of one class in the (length, L) probabilities of the frames of a video."""
    if not valid[: len(spans)].any():
        return []  # a frame that no clip covers has no neighbour to follow
    readable, covered = np.zeros(len(shares), bool), np.zeros(len(shares), bool)
    for (start, stop), good in zip(spans, valid):
        covered[start:stop] = True
        readable[start:stop] |= bool(good)
    labels = np.nan_to_num(shares).argmax(axis=1)
    labels[covered & ~readable] = -1
    borders = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    phases = []
    for start, stop in pairwise(borders):
        label = int(labels[start])
        if label < 0:
            continue
        phase = {"label": label, "score": float(shares[start:stop, label].mean()), "start": start, "end": stop}
        times = {} if fps is None else {"start_time": start / fps, "end_time": stop / fps}
        phases.append(phase | times)
    return phases


def _sizes(target_sizes: Sequence[tuple[int, int]] | Tensor | None, number: int) -> list[tuple[int, int] | None]:
    if target_sizes is None:
        return [None] * number
    if len(target_sizes) != number:
        raise DataError(f"{len(target_sizes)} target_sizes for {number} predictions; pass one for each.")
    return [(int(height), int(width)) for height, width in target_sizes]

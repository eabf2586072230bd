# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""From what models say to what users asked about: label maps and depth at image size, classes, phases of a video."""

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
    """What image processors add to transformers' backends for the outputs of dense models."""

    min_depth: float | None
    max_depth: float | None

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Turn logits into label maps, laid where the model looked.

        Args:
            outputs: of `M33DForSemanticSegmentation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the size of the logits.
            return_segmentation_scores: return dicts of `segmentation` and `segmentation_scores` (L, H, W) instead.

        Returns:
            One (H, W) int64 map per image; 255 (scores NaN) where a centre crop cut the image off.

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
        """Bring predicted depth back to where the model looked, clamped to [min_depth, max_depth] where these are set.

        Args:
            outputs: of `M33DForDepthEstimation`.
            target_sizes: (H, W) per image, as it was given to this processor; None keeps the model's size.

        Returns:
            One {"predicted_depth": (H, W) metres} per image; 0, as depth files write "nothing measured", where a centre
            crop cut the image off (NaN would turn the picture of transformers' depth pipeline black).

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
        """(L, h, w) predictions at image size, and which pixels (H, W) they are about; None for all of them.

        Raises:
            ConfigError: this processor crops or pads in a way that cannot be undone.
        """
        placement = placement_of(size, vars(self))
        if placement is None:
            if getattr(self, "do_center_crop", False) or getattr(self, "do_pad", False):
                raise ConfigError(
                    "predictions can be brought back to image size after a centre crop whose crop_size is not larger "
                    "than size, or after padding whose pad_size is size's max_height and max_width; leave target_sizes "
                    "out, or change the processor's size, crop_size or pad_size."
                )
            placement = place(size, values.shape[-2:], "resize")
        seen = placement.looked_at().to(values.device)
        return placement.put_back(values), None if bool(seen.all()) else seen


class ClipPostProcessing:
    """What the video processor offers for the outputs of clip models."""

    def post_process_video_classification(self, outputs: Any, top_k: int | None = None) -> list[dict[str, Tensor]]:
        """Turn logits into classes with probabilities, the likeliest first.

        Args:
            outputs: of `M33DForVideoClassification`.
            top_k: how many classes; None for all.

        Returns:
            One {"labels": (k,) int64 class ids, "scores": (k,) float32 probabilities} per clip.

        Raises:
            ConfigError: less than one class asked for. DataError: logits that are not (B, L).
        """
        logits = outputs.logits
        if logits.ndim != 2:
            raise DataError(f"logits of clips are (B, L), got shape {tuple(logits.shape)}")
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k is {top_k}; it is at least 1")
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

        A frame has the mean probabilities of the readable clips that cover it, as in the package's own detection; one
        that only unreadable clips cover belongs to no phase, and one that none covers follows its nearest neighbour.

        Args:
            outputs: of `M33DForVideoActionDetection`.
            clip_spans: per video (S, 2) frames [start, stop) of each clip; without the padding clips of a batch. None
                counts in clips: the first one is [0, 1).
            lengths: frames of each video; None for the end of its last clip.
            attention_mask: (B, S) as the model took it; None where every clip could be read.
            fps: frames a second, of all videos or of each.

        Returns:
            Per video a list of {"label": class id, "score": mean probability of that class, "start": first frame,
            "end": one past the last frame}, with `fps` also "start_time" and "end_time" in seconds.

        Raises:
            DataError: not one entry per video, spans that do not fit the clips, or logits that are not (B, S, L).
        """
        logits = outputs.logits
        if logits.ndim != 3:
            raise DataError(f"logits of detection are (B, S, L), got shape {tuple(logits.shape)}")
        videos = len(logits)
        rates = [fps] * videos if fps is None or isinstance(fps, int | float) else list(fps)
        for name, given in (("clip_spans", clip_spans), ("lengths", lengths), ("fps", rates), ("mask", attention_mask)):
            if given is not None and len(given) != videos:
                raise DataError(f"{len(given)} {name} for {videos} videos; give one for each.")
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
            f"clip_spans of video {video} are (start, stop) frames of its {clips} clips at most, got {table.shape}"
        )
    return table.astype(np.int64)


def _phases(shares: np.ndarray, spans: np.ndarray, valid: np.ndarray, fps: float | None) -> list[dict[str, Any]]:
    """Runs of one class in the (length, L) probabilities of the frames of a video."""
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
        raise DataError(f"{len(target_sizes)} target_sizes for {number} predictions; give one for each.")
    return [(int(height), int(width)) for height, width in target_sizes]

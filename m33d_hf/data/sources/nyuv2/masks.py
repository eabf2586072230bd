"""Depth with a mask file of its valid pixels, as in MultiMAE's folder `mask_valid`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from m33d_hf.data.files.files import load_map
from m33d_hf.data.sources.frames.reading import DecodedFrame, Frame, FrameReader
from m33d_hf.errors import DataError


@dataclass(frozen=True)
class MaskedFrameReader(FrameReader):
    """A `FrameReader` that marks depth as invalid where its mask is 0.

    Attributes:
        masks: depth file -> mask file, relative to the root; of the depth's size, above 0 where it is valid.
    """

    masks: Mapping[str, str] = field(default_factory=dict)

    def _aligned(self, frame: Frame, found: DecodedFrame) -> dict[str, torch.Tensor | None]:
        maps = super()._aligned(frame, found)
        depth = maps["depth"]
        if frame.depth is None or depth is None or found.damage is not None:
            return maps
        path = self.root / self.masks[frame.depth]
        valid = load_map(path).values > 0
        if valid.shape != depth.shape[-2:]:
            sizes = f"{valid.shape[0]}x{valid.shape[1]}, but its depth is {depth.shape[-2]}x{depth.shape[-1]}"
            raise DataError(f"{path}: the mask is {sizes} (height x width); they must have the same size")
        return {**maps, "depth": torch.where(torch.from_numpy(valid)[None], depth, torch.nan)}

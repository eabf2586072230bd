"""Decoded samples that a reading process keeps in memory, so that small data sets are decoded once, not every epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import torch

from m33d_hf.data.sample import RGBDSample

GIGABYTE = 10**9


class KeptSamples:
    """The first samples that fit into a budget, by what was asked for (row, frames, maps, aligned or not); later ones
    are not kept.

    Every epoch asks for all samples in another order, so that making room for the newest would throw away what is
    needed soonest. Every process that reads fills its own; a copy that is sent to another process starts empty.

    Args:
        budget: bytes of pixels.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        self._samples: dict[Hashable, RGBDSample] = {}

    def once_full(self, samples: int) -> int:
        """Bytes held after so many different samples were put, each as large as the mean of those that are kept."""
        return min(self.budget, round(self.held / max(1, len(self._samples)) * samples))

    def __getstate__(self) -> dict[str, Any]:
        return {"budget": self.budget, "held": 0, "_samples": {}}

    def get(self, asked: Hashable) -> RGBDSample | None:
        """A copy of the sample, which may be changed; None if it is not kept."""
        found = self._samples.get(asked)
        return None if found is None else _copied(found)

    def put(self, asked: Hashable, sample: RGBDSample) -> None:
        """Keep a copy of a sample as it was read, if there is room."""
        needed = sum(map_.nbytes for map_ in _maps(sample))
        if self.held + needed <= self.budget:
            self._samples[asked] = _copied(sample)
            self.held += needed


def _maps(sample: RGBDSample) -> list[torch.Tensor]:
    maps = (sample.rgb, sample.depth, sample.segmentation, *sample.meta.get("modalities", {}).values())
    return [map_ for map_ in maps if isinstance(map_, torch.Tensor)]


def _copied(sample: RGBDSample) -> RGBDSample:
    maps = {name: _own(getattr(sample, name)) for name in ("rgb", "depth", "segmentation")}
    meta = dict(sample.meta)
    if "modalities" in meta:
        meta["modalities"] = {name: _own(map_) for name, map_ in meta["modalities"].items()}
    return dataclasses.replace(sample, meta=meta, **maps)


def _own(value: Any) -> Any:
    """A copy with the same strides: kernels round by them."""
    return value.clone(memory_format=torch.preserve_format) if isinstance(value, torch.Tensor) else value

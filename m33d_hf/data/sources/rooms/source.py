"""The source `rooms`: procedural RGB-D rooms, frames or clips, rendered once and then read from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.source import Source
from m33d_hf.data.sources.rooms.cache import MappedArrays, default_cache_dir, prepare, verify
from m33d_hf.data.sources.rooms.constants import CLASS_NAMES, DEPTHS, MOTION_NAMES, SPLITS, UNITS
from m33d_hf.data.sources.rooms.generate import RoomsSpec
from m33d_hf.data.sources.rooms.options import check_choice, check_device, check_int, check_size
from m33d_hf.data.sources.rooms.sensor import sensor_metres
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.depth_m33d import DepthSpec

DEFAULT_COUNT = {
    "frames": {"train": 4096, "validation": 512, "test": 512},
    "clips": {"train": 512, "validation": 128, "test": 128},
}
CLIP_FPS = 8.0


class RoomsSource(MappedArrays, Source):
    """Rooms with ten geometric classes whose colours tell nothing about them, with exact or measured depth.

    Args:
        split: "train", "validation" or "test"; splits are drawn from different seeds.
        unit: "frames" (images with `segmentation`) or "clips" (`label` = motion class, `segmentation` too).
        num_frames, num_clips: number of frames with unit="frames", of clips with unit="clips". None takes
            4096 (512 outside train) frames or 512 (128) clips. The first items do not depend on the number.
        image_size: pixels, an int or [height, width].
        clip_length: frames per clip, at least 2; ignored for frames.
        seed: any int.
        depth: "sensor" (Kinect-like noise, disparity steps and holes) or "clean" (exact everywhere).
        cache_dir: folder for the rendered arrays; None is $M33D_CACHE/rooms or ~/.cache/m33d_hf/rooms.
        device: where to render, "cpu" or "cuda"; reading never needs it.

    Rendering happens in the constructor, unless the cache has the same data already.

    Raises:
        ConfigError: an invalid option.
        DataError: the cache cannot be written.
    """

    name = "rooms"
    group_word = "rooms"

    def __init__(
        self,
        split: str = "train",
        *,
        unit: str = "frames",
        num_frames: int | None = None,
        num_clips: int | None = None,
        image_size: int | Sequence[int] = 48,
        clip_length: int = 8,
        seed: int = 0,
        depth: str = "sensor",
        cache_dir: str | Path | None = None,
        device: str = "cpu",
    ) -> None:
        check_choice("split", split, SPLITS)
        check_choice("unit", unit, UNITS)
        check_choice("depth", depth, DEPTHS)
        height, width = check_size(image_size)
        self.depth = depth
        self.depth_spec = DepthSpec(unit="metre", kind="metric")
        self.class_names: list[str] | None = list(CLASS_NAMES)
        self.action_names: list[str] | None = list(MOTION_NAMES) if unit == "clips" else None
        self.spec = RoomsSpec(
            split=split,
            seed=check_int("seed", seed),
            unit=unit,
            count=_count(split, unit, num_frames, num_clips),
            clip_length=1 if unit == "frames" else check_int("clip_length", clip_length, 2),
            height=height,
            width=width,
            device=check_device(device),
        )
        self.folder = prepare(self.spec, Path(cache_dir).expanduser() if cache_dir else default_cache_dir())
        self._digest = verify(self.folder, self.spec)

    def __len__(self) -> int:
        return self.spec.count

    def __getitem__(self, index: int) -> RoomsHandle:
        """Handle number `index`; nothing is read yet.

        Raises:
            IndexError: `index` is not in [0, len).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"rooms has {len(self)} {self.spec.unit}, so there is no number {index}")
        return RoomsHandle(self, int(index))

    def labels(self) -> list[int] | None:
        """Motion class of every clip; None for frames."""
        return [int(label) for label in self.arrays()["action"]] if self.spec.unit == "clips" else None

    def groups(self) -> list[str]:
        """Key of every item: each is a separate video, which low-label protocols draw."""
        return [self[index].key for index in range(len(self))]

    def digest(self) -> str:
        """sha256 over the rendered arrays and the choice of depth."""
        return hashlib.sha256(f"{self._digest} {self.depth}".encode()).hexdigest()


@dataclass(frozen=True)
class RoomsHandle:
    """One frame (length 1) or clip of the rooms."""

    source: RoomsSource
    index: int

    @property
    def key(self) -> str:
        """For example "rooms/train/0/frames/17": split, seed, unit and number."""
        spec = self.source.spec
        return f"rooms/{spec.split}/{spec.seed}/{spec.unit}/{self.index}"

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.source.spec.clip_length

    @property
    def fps(self) -> float | None:
        """Nominal rate of clips, None for frames."""
        return None if self.source.spec.unit == "frames" else CLIP_FPS

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Frames `indices` as one sample: rgb, depth in metres with NaN for holes, segmentation, motion label.

        Raises:
            IndexError: an index is not in [0, length).
            CorruptFileError: the cache is damaged.
        """
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, with the named maps only; None for all."""
        chosen = [int(index) for index in indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= self.length:
            raise IndexError(f"{self.key} has {self.length} frames, cannot read {chosen}")
        arrays, spec = self.source.arrays(), self.source.spec

        def read(name: str) -> torch.Tensor | None:
            if maps is not None and name not in maps:
                return None
            if name == "depth":
                return torch.from_numpy(self._depth(arrays, chosen)[:, None])
            return torch.from_numpy(arrays[name][self.index][chosen])

        return RGBDSample(
            key=self.key,
            rgb=read("rgb"),
            depth=read("depth"),
            segmentation=read("segmentation"),
            label=int(arrays["action"][self.index]) if spec.unit == "clips" else None,
            meta={"source": "rooms", "split": spec.split, "index": self.index, "frames": chosen},
        )

    def _depth(self, arrays: dict[str, np.ndarray], chosen: list[int]) -> np.ndarray:
        if self.source.depth == "clean":
            return arrays["clean"][self.index][chosen]
        return sensor_metres(arrays["sensor"][self.index][chosen])


def _count(split: str, unit: str, num_frames: int | None, num_clips: int | None) -> int:
    """Number of items; the other unit's number must not be given, or it would silently mean nothing."""
    given, wrong = (num_frames, num_clips) if unit == "frames" else (num_clips, num_frames)
    if wrong is not None:
        other = "num_clips" if unit == "frames" else "num_frames"
        fix = "clips" if unit == "frames" else "frames"
        raise ConfigError(f"rooms: {other} is given but unit is {unit!r}; use num_{unit}, or set unit to {fix!r}")
    return DEFAULT_COUNT[unit][split] if given is None else check_int(f"num_{unit}", given, 1)

"""Reads frames of scenezoo's data sets into samples: depth along the axis, holes, labels, one size for all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m33d_hf.data.depth.calibration import Calibration, Camera
from m33d_hf.data.depth.registration import register_depth
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.frames.reading import Frame, FrameReader
from m33d_hf.data.sources.scenes.rays import axis_cosines
from m33d_hf.data.sources.scenes.scene_library import Library
from m33d_hf.data.sources.scenes.tables import INSTANCES, REGISTER, SEMANTIC
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, decoding
from m33d_hf.modeling.depth_spec_m33d import DepthSpec

METRES = DepthSpec(unit="metre", invalid_values=(0.0,))
FISHEYE, PANORAMA, RAYS = "FISHEYE624", "EQUIRECTANGULAR", "ray_distance"
MODALITY = "instances"


@dataclass(frozen=True)
class SceneReader:
    """How frames of a data set become samples.

    Attributes:
        opened: the data set.
        depth_spec: of metres, with the bounds that are asked for.
        align: `register`, `rgb_to_depth`, `depth_to_rgb` or `refuse`.
        label_item: `semantic_maps`, `instance_maps` or None.
        rules: of semantic labels.
    """

    opened: Library
    depth_spec: DepthSpec
    align: str
    label_item: str | None
    rules: LabelRules | None

    def items(self, maps: Collection[str] | None) -> tuple[str, ...]:
        """What the library is asked for, by the maps that are needed (None for all)."""
        wanted = {"rgb", "depth", "segmentation", MODALITY} if maps is None else set(maps)
        if self.align != "refuse":  # the map that sets the size stays
            wanted.add("depth" if self.align == "rgb_to_depth" else "rgb")
        items: list[str] = [name for name in ("rgb", "depth") if name in wanted] or ["rgb", "depth"]
        if (self.label_item == SEMANTIC and "segmentation" in wanted) or (
            self.label_item == INSTANCES and MODALITY in wanted
        ):
            items.append(str(self.label_item))
        if "depth" in items and self.opened.set.known_as == "ase":
            items += ["depth_intrinsics", "frame_mask"]
        elif "depth" in items and self.align == REGISTER:
            items += ["rgb_intrinsics", "depth_intrinsics"]
        return tuple(items)

    def read(
        self, scene: str, room: str | None, numbers: Sequence[int], maps: Collection[str] | None
    ) -> list[dict[str, Any]]:
        """Maps of frames: rgb (3, H, W), depth (1, H, W), labels (H, W), instances (1, H, W), those that there are.

        All are read in one call, since the library looks through the whole scene in each.

        Raises:
            CorruptFileError: the library cannot read the frames. DataError: maps whose sizes do not fit.
        """
        unique = sorted(set(numbers))
        named = ",".join(map(str, unique))
        where = Path(f"{self.opened.root}#{'/'.join(part for part in (scene, room, named) if part)}")
        with decoding(where, "cannot be read by scenezoo"):
            batch = self.opened.frames(scene, room, unique, self.items(maps))
        if len(batch) != len(unique):
            raise CorruptFileError(
                where, f"scenezoo gives {plural(len(batch), 'frame')} for it; expected {len(unique)}"
            )
        places = {number: place for place, number in enumerate(unique)}
        return [self._maps(where, batch, places[number]) for number in numbers]

    def _maps(self, where: Path, batch: Any, at: int) -> dict[str, Any]:
        rgb = None if batch.rgb is None else torch.from_numpy(np.ascontiguousarray(batch.rgb[at])).permute(2, 0, 1)
        depth = None if batch.depth is None else torch.from_numpy(self._depth(where, batch, at))[None]
        labels, others = None, {}
        if batch.semantic_maps is not None and self.rules is not None:
            labels = torch.from_numpy(self.rules.apply(np.asarray(batch.semantic_maps[at]), where))
        if batch.instance_maps is not None:
            others[MODALITY] = torch.from_numpy(np.asarray(batch.instance_maps[at]).astype(np.float32))[None]
        align = "depth_to_rgb" if self.align == REGISTER else self.align
        # The names of a frame's maps stand for files, in messages alone.
        names = {"rgb": "rgb", "depth": "depth", "labels": "labels"}
        frame = Frame(where.name, **names, others=tuple((name, name) for name in others))
        reader = FrameReader(where, self.depth_spec, None, align)
        return reader.aligned(frame, rgb, depth, labels, others)

    def _depth(self, where: Path, batch: Any, at: int) -> np.ndarray:
        """(h, w) float32 metres along the optical axis, NaN for none."""
        metres = np.array(batch.depth[at], np.float32)
        if batch.camera_model == PANORAMA:
            raise DataError(f"{where}: is a panorama, whose depth lies along rays into all directions")
        if batch.depth_mode == RAYS:
            metres = self._along_the_axis(where, batch, at, metres)
        decoded = self.depth_spec.decode(metres)
        if self.align != REGISTER:
            return decoded
        cameras = [
            self._camera(where, matrix[at], size)
            for matrix, size in ((batch.rgb_intrinsics, batch.rgb.shape[1:3]), (batch.depth_intrinsics, decoded.shape))
        ]
        return register_depth(decoded, Calibration(cameras[0], cameras[1]))

    def _camera(self, where: Path, matrix: np.ndarray, size: tuple[int, int]) -> Camera:
        fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        try:
            return Camera(int(size[1]), int(size[0]), fx, fy, cx, cy)
        except ConfigError as error:
            raise CorruptFileError(where, f"has intrinsics that cannot be: {error}") from error

    def _along_the_axis(self, where: Path, batch: Any, at: int, metres: np.ndarray) -> np.ndarray:
        if batch.camera_model != FISHEYE or batch.distortion is None or batch.depth_intrinsics is None:
            raise DataError(f"{where}: its depth lies along rays of a {batch.camera_model} camera; known is {FISHEYE}")
        intrinsics, distortion = batch.depth_intrinsics[at], batch.distortion[at]
        cosines = _cosines(metres.shape, tuple(intrinsics.ravel().tolist()), tuple(distortion.tolist()))
        if batch.frame_mask is not None:
            cosines = np.where(batch.frame_mask[at], cosines, np.nan)
        return (metres * cosines).astype(np.float32)


@lru_cache(maxsize=4)
def _cosines(size: tuple[int, int], intrinsics: tuple[float, ...], distortion: tuple[float, ...]) -> np.ndarray:
    """`axis_cosines`, which is the same for all frames of a camera."""
    return axis_cosines(size, np.array(intrinsics).reshape(3, 3), np.array(distortion))


@dataclass(frozen=True)
class SceneHandle:
    """A `VideoHandle` over frames of one scene or room; one frame is an image.

    Attributes:
        key: scene, room where there are any, and number of the frame or of the first.
        scene, room: as the library calls them.
        numbers: of the frames, as the library counts them.
    """

    key: str
    scene: str
    room: str | None
    numbers: tuple[int, ...]
    reader: SceneReader = field(repr=False)
    fps: float | None = None

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.numbers)

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames; see `SceneReader.read` for what it raises."""
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, without asking for maps that are not named; None for all.

        Raises:
            DataError: frames of several sizes. IndexError: a frame outside the item.
        """
        for index in indices:
            if not 0 <= index < self.length:
                raise IndexError(f"{self.key}: frame {index} of an item of {self.length}")
        chosen = [self.numbers[index] for index in indices]
        frames = self.reader.read(self.scene, self.room, chosen, maps)
        stacked: dict[str, Any] = {}
        for name in ("rgb", "depth", "labels", MODALITY):
            parts = [maps_[name] for maps_ in frames if maps_.get(name) is not None]
            if len({tuple(part.shape) for part in parts}) > 1:
                raise DataError(f"{self.key}: the {name} of its frames differ in size")
            stacked[name] = torch.stack(parts) if parts else None
        meta: dict[str, Any] = {"frames": chosen, "scene": self.scene, "root": self.reader.opened.root}
        if stacked[MODALITY] is not None:
            meta["modalities"] = {MODALITY: stacked[MODALITY]}
        places = ",".join(str(int(index)) for index in indices)
        key = self.key if self.length == 1 else f"{self.key}[{places}]"
        return RGBDSample(key, stacked["rgb"], stacked["depth"], stacked["labels"], meta=meta)

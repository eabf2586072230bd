"""Depth: 16-bit PNG, NPY, coloured pictures, side-by-side videos and point clouds."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.depth.maps import SPEC_FILE, decode_depth, read_spec_file
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.depth.stores import FolderStore, frame_name
from m33d_hf.data.depth.writing import (
    DepthVideoWriter,
    depth_is_written,
    lost_pixels,
    write_depth_image,
    written_spec,
)
from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically
from m33d_hf.errors import ConfigError
from m33d_hf.inference.depth_models import DepthPredictor
from m33d_hf.inference.output_folders.claiming import claim_output
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.dense import DenseDepth
from m33d_hf.inference.prediction.files.pictures import save_png
from m33d_hf.inference.prediction.files.point_clouds import Lens, points_of, write_ply
from m33d_hf.inference.prediction.files.video_files import write_video_file
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import refuse_unusable_depth
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.prediction.views import Looked
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video
from m33d_hf.visualization.predictions import Scale, bar, enlarged, value_scale, with_bar

_SAMPLED = 16  # frames of a video that its colours are chosen from


class DepthTask(PredictionTask):
    """Files of a depth model's predictions."""

    task = "depth"
    reads_options = frozenset({"flip", "tiles", "tile_overlap", "kind", "intrinsics", "calibration", "field_of_view"})
    known: Mapping[str, str] = {
        "depth": "PNG of 16 bits, in millimetres (0: unknown), which depth_spec.json beside them says",
        "arrays": "NPY, float32, in metres",
        "pictures": "PNG, coloured, with the bar of its values",
        "videos": "MP4, the video and its coloured depth side by side",
        "points": "PLY, coloured points in metres",
    }
    usual_pictures = ("depth", "arrays", "pictures")
    usual_videos = ("depth", "videos")

    def __init__(self, options: PredictionOptions, predictor: DepthPredictor) -> None:
        super().__init__(options)
        refuse_unusable_depth(options, predictor.model, reads_maps=True)
        self.predictor = predictor
        if predictor.kind != "metric":
            self.known = {**self.known, **_WITHOUT_UNIT}
        self.model = DenseDepth(predictor, options.views, options.batch_size, options.precision)
        self.unit = "m" if predictor.kind == "metric" else predictor.kind
        self.lens = Lens.of(options.intrinsics, options.calibration, options.field_of_view)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.wants_points = "points" in (*self.of_pictures, *self.of_videos)
        if self.wants_points and predictor.kind != "metric":
            if options.save != ["all"]:
                raise ConfigError(f"--save points needs metres, but {predictor.name} predicts {predictor.kind} depth.")
            self.of_pictures = tuple(kind for kind in self.of_pictures if kind != "points")
            self.of_videos = tuple(kind for kind in self.of_videos if kind != "points")
            self.wants_points = False

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        return {"model_digest": self.predictor.digest, "kind": self.predictor.kind}

    def describe(self) -> str:
        """See the base class."""
        return (
            f"{self.predictor.kind} depth by {self.predictor.name} ({self.predictor.model_type}) on "
            f"{self.predictor.device}"
        )

    def begin(self, items: Sequence[Item]) -> None:
        """State the unit beside the depth, so that it can be read back as depth of the pictures."""
        folder = self.output / "depth"
        has_videos = any(item.is_video for item in items)
        if (has_videos or "depth" in self.of_pictures) and read_spec_file(folder) is None:
            provenance = {"model": self.predictor.name, "upright": True}  # as pictures are read
            content = {**written_spec(self.predictor.kind).to_dict(), "provenance": provenance}
            write_text_atomically(folder / SPEC_FILE, json.dumps(content, indent=1) + "\n")
        if self.wants_points:  # they may be added to depth that is there, but not by two cameras
            points = self.output / "points"
            points.mkdir(exist_ok=True)
            claim_output(points, self.options.model, self.lens.rules())
            self.notes.append(self.lens.describe())

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        if not item.is_video:
            return all(self._file(kind, item).is_file() for kind in self.of_pictures)
        if not depth_is_written(self.output / "depth", item.name, "png"):
            return False
        if "arrays" in self.of_videos and self.arrays_there(item) < self.stored(item).length:
            return False
        return all(path.is_file() for path in self._last_files(item))

    def _last_files(self, item: Item) -> Iterator[Path]:
        """The files of a video that are written last, of every kind that is made of its depth in one go."""
        for kind in self.of_videos:
            if kind == "videos":
                yield self.path(kind, item, ".mp4")
            elif kind in ("pictures", "points"):
                yield self._frame(kind, item, self.stored(item).length - 1)

    def arrays_there(self, item: Item) -> int:
        """How many frames of a video have their array, up to the first that has none."""
        folder = self.output / "arrays" / item.name
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return next(number for number in count() if self._frame("arrays", item, number).name not in names)

    def stored(self, item: Item) -> FolderStore:
        """The depth of a video that is written."""
        return FolderStore(self.output / "depth" / item.name, 0)

    def _file(self, kind: str, item: Item) -> Path:
        return self.path(kind, item, _SUFFIXES[kind])

    def _frame(self, kind: str, item: Item, number: int) -> Path:
        name = Path(frame_name(number)).stem
        return self.output / kind / item.name / f"{name}{_SUFFIXES[kind]}"

    def look(self, pixels: np.ndarray) -> Looked:
        """See the base class."""
        return self.model.prepare(pixels)

    def compute(self, prepared: Sequence[Looked]) -> list[np.ndarray]:
        """See the base class."""
        return self.model.predict(prepared)

    def write(self, item: Item, prepared: Looked, result: np.ndarray) -> None:
        """See the base class."""
        if "depth" in self.of_pictures:
            record = write_depth_image(self.output / "depth", item.name, self.predictor.kind, result)
            self._count(record["counts"])
        for kind in self.of_pictures:
            if kind not in ("depth", "videos"):
                self._write(self._file(kind, item), kind, prepared.pixels, result)

    def _write(self, path: Path, kind: str, pixels: np.ndarray, depth: np.ndarray, scale: Scale | None = None) -> None:
        if kind == "arrays":
            write_atomically(path, lambda temporary: np.save(temporary, depth.astype(np.float32)))
        elif kind == "pictures":
            scale = scale or value_scale([depth], self.unit)
            save_png(path, with_bar(scale.color(depth), scale))
        else:
            write_ply(path, points_of(depth, pixels, self.lens.camera_of(*depth.shape)))

    def _count(self, counts: dict[str, int]) -> None:
        with self._lock:
            self.counts.update(counts)

    def frames(self, item: Item) -> _DepthFrames:
        """See the base class."""
        return _DepthFrames(self, item)

    def render(self, item: Item, info: VideoInfo, step: Callable[[], None]) -> None:
        """The side-by-side video, and pictures and points of every frame where they are asked for."""
        store, spec = self.stored(item), written_spec(self.predictor.kind)

        def depth_of(number: int) -> np.ndarray:
            return decode_depth(np.asarray(store.stored([number])[0]), spec, store.quantization)

        scale = value_scale([depth_of(number) for number in evenly_spaced(range(store.length), _SAMPLED)], self.unit)

        def sides() -> Iterator[np.ndarray]:
            for number, pixels in iterate_video(item.path, info=info):
                depth = depth_of(number)
                for kind in self.of_videos:
                    if kind in ("pictures", "points"):
                        self._write(self._frame(kind, item, number), kind, pixels, depth, scale)
                left, right = enlarged(pixels), enlarged(scale.color(depth))
                yield np.concatenate([left, right, bar(scale, left.shape[0])], axis=1)
                step()

        if "videos" in self.of_videos:
            write_video_file(self.path("videos", item, ".mp4"), sides(), info.fps)
        elif {"pictures", "points"} & set(self.of_videos):
            for _ in sides():
                pass

    def closing(self) -> list[str]:
        """Notes, and pixels that 16 bits cannot hold."""
        return [*super().closing(), *lost_pixels(self.counts)]


_WITHOUT_UNIT = {
    "depth": "PNG of 16 bits, each with its scale, see depth_spec.json; the model knows no unit",
    "arrays": "NPY, float32, as the model predicts it",
}
_SUFFIXES = {"depth": ".png", "arrays": ".npy", "pictures": ".png", "points": ".ply"}


class _DepthFrames:
    """Depth of a video's frames: the sidecar that `extract_depth` writes, and arrays where they are asked for."""

    def __init__(self, task: DepthTask, item: Item) -> None:
        self.task, self.item = task, item
        root = task.output / "depth"
        done = depth_is_written(root, item.name, "png")
        self.writer = None if done else DepthVideoWriter(root, item.name, task.predictor.kind)
        self.waiting: list[np.ndarray] = []
        self.stored = task.stored(item).length if self.writer is None else self.writer.next_frame
        # Arrays may be asked for later than depth; 16 bits are not what they are made of.
        self.next_frame = min(self.stored, task.arrays_there(item)) if "arrays" in task.of_videos else self.stored

    def append(self, prepared: Looked, result: np.ndarray) -> None:
        """See `FrameSink`."""
        if "arrays" in self.task.of_videos:
            path = self.task._frame("arrays", self.item, self.next_frame)
            self.task._write(path, "arrays", result, result)
        self.next_frame += 1
        if self.next_frame <= self.stored:
            return
        self.waiting.append(result)
        if len(self.waiting) >= self.task.options.batch_size:
            self._flush()

    def _flush(self) -> None:
        if self.waiting and self.writer is not None:
            self.writer.append(np.stack(self.waiting))
            self.waiting.clear()

    def finish(self) -> None:
        """See `FrameSink`."""
        self._flush()
        if self.writer is not None:
            self.task._count(self.writer.finish()["counts"])

    def discard(self) -> None:
        """See `FrameSink`."""
        if self.writer is not None:
            self.writer.discard()

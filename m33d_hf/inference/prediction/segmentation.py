"""Segmentation: label maps with a palette, overlays, areas per class, and videos of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m33d_hf.data.depth.stores import frame_name
from m33d_hf.data.files.atomic_writing import write_atomically
from m33d_hf.data.files.files import read_map
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.pairing import natural_key
from m33d_hf.errors import ConfigError
from m33d_hf.inference.loading import load_image_processor, load_model, model_digest, ready, usable_device
from m33d_hf.inference.prediction.base import PredictionTask
from m33d_hf.inference.prediction.dense import DenseClasses
from m33d_hf.inference.prediction.files.pictures import COMPRESSION, save_png
from m33d_hf.inference.prediction.files.tables import gather, write_rows
from m33d_hf.inference.prediction.files.video_files import write_video_file
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import (
    depth_folder,
    depth_rules,
    notes_of_unused_depth,
    refuse_depth_of_frames,
    refuse_unusable_depth,
    task_inputs_of,
)
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.prediction.views import Looked
from m33d_hf.modeling.class_names_m33d import NO_CLASS
from m33d_hf.modeling.picture_files_m33d import read_picture
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video
from m33d_hf.visualization.predictions import overlay, palette, with_legend

AREA_COLUMNS = ("input", "frame", "class_id", "class", "pixels", "share")
_PARTIAL = ".partial-"


class SegmentationTask(PredictionTask):
    """Files of a segmentation model's predictions."""

    task = "segmentation"
    reads_options = frozenset({"flip", "tiles", "tile_overlap", "calibration"})
    known: Mapping[str, str] = {
        "labels": "PNG of class numbers, with a palette (255: not seen by the model); ../classes.csv names them",
        "pictures": "PNG, the picture with the classes' colours over it, and their names",
        "areas": "CSV, pixels and share of every class in every picture; ../areas.csv has them all",
        "videos": "MP4, the video with the classes' colours over it",
    }
    usual_pictures = ("labels", "pictures", "areas")
    usual_videos = ("labels", "areas", "videos")

    def __init__(self, options: PredictionOptions, local_rank: int = 0) -> None:
        super().__init__(options)
        device = usable_device(options.device, local_rank)
        loaded = ready(load_model(options.model, "segmentation", options.trust_remote_code), device)
        refuse_unusable_depth(options, loaded, reads_maps=True)
        self.notes += notes_of_unused_depth(options, loaded, reads_maps=True)
        processor = load_image_processor(options.model, options.trust_remote_code)
        self.digest = model_digest(loaded, processor)
        self.model = DenseClasses(loaded, processor, device, options.views, options.batch_size, options.precision)
        self.names = self.model.names
        self.depth = depth_folder(options, processor, needed="rgb" not in task_inputs_of(loaded))

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        return {"model_digest": self.digest, **depth_rules(self.options)}

    def prepare(self, item: Item) -> Looked:
        """Read a picture, and its depth where there is one; from several threads.

        Raises:
            DataError: the picture cannot be read, or its depth cannot; or it has none and the model sees nothing else.
        """
        if self.depth is None:
            return super().prepare(item)
        pixels, orientation = read_picture(item.path)
        self.turned += orientation != 1
        given = self.depth.of_picture(item, pixels.shape[:2], orientation)
        return self.model.prepare(np.ascontiguousarray(pixels), given)

    def closing(self) -> list[str]:
        """How many pictures had depth, beside what every task says."""
        return [*super().closing(), *([] if self.depth is None else [self.depth.closing("picture")])]

    def describe(self) -> str:
        """See the base class."""
        kind = self.model.model.config.model_type
        return f"{plural(len(self.names), 'class')} by {self.options.model} ({kind}) on {self.model.device}"

    def begin(self, items: Sequence[Item]) -> None:
        """Write down what the numbers stand for."""
        colors = np.array(palette(len(self.names))).reshape(-1, 3)
        rows = [
            (number, name, *(colors[number] if number < len(colors) else ("", "", "")))
            for number, name in enumerate(self.names)
        ]
        write_rows(self.output / "classes.csv", ("class_id", "class", "red", "green", "blue"), rows)

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        if not item.is_video:
            return all(self.path(kind, item, _SUFFIXES[kind]).is_file() for kind in self.of_pictures)
        if self.depth is not None:
            return False  # what there may be was made by an earlier version, of RGB alone; see `frames`
        kinds = [kind for kind in self.of_videos if kind in ("areas", "videos")]
        # Written after the labels, which gather in a folder of another name until they are complete.
        there = all(self.path(kind, item, _SUFFIXES[kind]).is_file() for kind in kinds)
        labels = self.output / "labels" / item.name
        if not there or not labels.is_dir():
            return False
        if "pictures" not in self.of_videos:
            return True
        last = max((path.name for path in labels.glob("*.png") if path.name[0] != "."), default="", key=natural_key)
        return (self.output / "pictures" / item.name / last).is_file()  # they are drawn in order, in one go

    def look(self, pixels: np.ndarray) -> Looked:
        """See the base class."""
        return self.model.prepare(pixels)

    def compute(self, prepared: Sequence[Looked]) -> list[np.ndarray]:
        """See the base class."""
        return self.model.predict(prepared)

    def write(self, item: Item, prepared: Looked, result: np.ndarray) -> None:
        """See the base class."""
        if "labels" in self.of_pictures:
            self.save_labels(self.path("labels", item, ".png"), result)
        if "pictures" in self.of_pictures:
            save_png(self.path("pictures", item, ".png"), self.drawn(prepared.pixels, result, self.order(result)))
        if "areas" in self.of_pictures:
            write_rows(self.path("areas", item, ".csv"), AREA_COLUMNS, self._areas(item, "", result))

    def save_labels(self, path: Path, labels: np.ndarray) -> None:
        """A label map as PNG, atomically: with a palette, or of 16 bits where there are more than 255 classes."""
        image = Image.fromarray(labels)
        if labels.dtype == np.uint8:
            image.putpalette(palette(len(self.names)))
        write_atomically(path, lambda temporary: image.save(temporary, compress_level=COMPRESSION))

    def drawn(self, pixels: np.ndarray, labels: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """A picture under its classes, with the names of those in `order`."""
        count = len(self.names)
        colored = overlay(pixels, labels, count)
        return with_legend(colored, [self.names[number] for number in order], list(order), count)

    def order(self, labels: np.ndarray) -> list[int]:
        """Classes of a map, the largest first."""
        counts = np.bincount(labels.reshape(-1), minlength=len(self.names))[: len(self.names)]
        return [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]

    def _areas(self, item: Item, frame: object, labels: np.ndarray) -> Iterator[tuple[object, ...]]:
        counts = np.bincount(labels.reshape(-1), minlength=NO_CLASS + 1)
        for number in np.flatnonzero(counts):
            known = number < len(self.names)
            name = self.names[number] if known else "no prediction"
            yield item.name, frame, number, name, counts[number], f"{counts[number] / labels.size:.6f}"

    def frames(self, item: Item) -> _LabelFrames:
        """See the base class.

        Raises:
            DataError: depth is given, which is not read for frames of videos.
        """
        refuse_depth_of_frames(self.options, item)
        return _LabelFrames(self, item)

    def render(self, item: Item, info: VideoInfo, step: Callable[[], None]) -> None:
        """The areas of every frame, and the video under its classes."""
        folder = self.output / "labels" / item.name

        def maps() -> Iterator[np.ndarray]:
            return (read_map(folder / frame_name(number)) for number in range(info.num_frames))

        if "areas" in self.of_videos:
            rows = (row for number, labels in enumerate(maps()) for row in self._areas(item, number, labels))
            write_rows(self.path("areas", item, ".csv"), AREA_COLUMNS, rows)
        pictures = "pictures" in self.of_videos
        if not pictures and "videos" not in self.of_videos:
            return
        counts = np.zeros(len(self.names), np.int64)
        for labels in maps():
            counts += np.bincount(labels.reshape(-1), minlength=len(self.names))[: len(self.names)]
        order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]

        def drawn() -> Iterable[np.ndarray]:
            for (number, pixels), labels in zip(iterate_video(item.path, info=info), maps(), strict=True):
                shown = self.drawn(pixels, labels, order)
                if pictures:
                    save_png(self.output / "pictures" / item.name / frame_name(number), shown)
                yield shown
                step()

        if "videos" in self.of_videos:
            write_video_file(self.path("videos", item, ".mp4"), drawn(), info.fps)
        else:
            for _ in drawn():
                pass

    def finish(self, items: Sequence[Item]) -> None:
        """All areas in one table."""
        if any("areas" in self.kinds_of(item) for item in items):
            gather(self.output / "areas.csv", self.output / "areas", AREA_COLUMNS)


_SUFFIXES = {"labels": ".png", "pictures": ".png", "areas": ".csv", "videos": ".mp4"}


class _LabelFrames:
    """Label maps of a video's frames; they gather in a hidden folder until all are there."""

    def __init__(self, task: SegmentationTask, item: Item) -> None:
        self.task = task
        self.target = task.output / "labels" / item.name
        self.partial = self.target.with_name(f"{_PARTIAL}{self.target.name}")
        if self.target.is_file():
            raise ConfigError(f"{self.target} is in the way of the labels of {item.path}; choose another --output.")
        self.next_frame = 0
        folder = self.target if self.target.is_dir() else self.partial
        while (folder / frame_name(self.next_frame)).is_file():
            self.next_frame += 1

    def append(self, prepared: Looked, result: np.ndarray) -> None:
        """See `FrameSink`."""
        self.task.save_labels(self.partial / frame_name(self.next_frame), result)
        self.next_frame += 1

    def finish(self) -> None:
        """See `FrameSink`."""
        if not self.target.is_dir():
            os.replace(self.partial, self.target)

    def discard(self) -> None:
        """See `FrameSink`."""
        if self.partial.is_dir():
            shutil.rmtree(self.partial)

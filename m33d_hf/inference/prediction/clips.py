"""Classes of clips: a table of the likeliest ones, and the video with them below it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.plural import plural
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.inference.loading import load_model, load_video_processor, model_digest, ready, usable_device
from m33d_hf.inference.prediction.base import FrameSink, PredictionTask
from m33d_hf.inference.prediction.depth_beside import UNREGISTERED, registering
from m33d_hf.inference.prediction.files.tables import gather, write_rows
from m33d_hf.inference.prediction.files.video_files import write_video_file
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import (
    depth_folder,
    depth_rules,
    notes_of_unused_depth,
    refuse_unusable_depth,
    task_inputs_of,
)
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.clip_input_m33d import M33DVideoMetadata
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video, probe_video, read_video
from m33d_hf.visualization.predictions import with_caption

CLASS_COLUMNS = ("input", "rank", "class_id", "class", "probability")
_CAPTIONED = 3  # classes below a frame
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Classes:
    """The likeliest classes of a video: their numbers and probabilities, in falling order."""

    numbers: list[int]
    shares: list[float]


class ClipTask(PredictionTask):
    """Files of a clip classifier's predictions."""

    task = "clips"
    reads_options = frozenset({"top_k", "clips", "calibration"})
    reads_clips = True
    known: Mapping[str, str] = {
        "classes": "CSV, the likeliest classes of every video; ../classes.csv has them all",
        "videos": "MP4, the video with its likeliest classes below it",
    }
    usual_pictures = usual_videos = ("classes", "videos")

    def __init__(self, options: PredictionOptions, local_rank: int = 0) -> None:
        super().__init__(options)
        if registering(options.calibration) is not None:
            raise ConfigError(
                f"--calibration {options.calibration} registers maps of pictures, and this model sees clips: store "
                f"their depth registered and pass --calibration {UNREGISTERED}, or use a model of phases "
                "(scripts/detect_actions.py --options calibration=FILE)."
            )
        self.device = usable_device(options.device, local_rank)
        self.model = ready(load_model(options.model, "clips", options.trust_remote_code), self.device)
        refuse_unusable_depth(options, self.model, reads_maps=True)
        self.notes += notes_of_unused_depth(options, self.model, reads_maps=True)
        self.processor = load_video_processor(options.model, options.trust_remote_code)
        self.sees_rgb = "rgb" in task_inputs_of(self.model)
        self.depth = depth_folder(options, self.processor, needed=not self.sees_rgb, registers=False)
        self.digest = model_digest(self.model, self.processor)
        names = self.model.config.id2label
        self.names = [str(names[number]) for number in range(len(names))]
        self._kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
        if options.clips > 1 and not isinstance(self.processor, M33DVideoProcessor):
            raise ConfigError(
                f"--clips {options.clips}: {type(self.processor).__name__} spreads one clip over the whole video; "
                "leave --clips out."
            )

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        asked = {"top_k": self.options.top_k, "clips": self.options.clips}
        return {"model_digest": self.digest, **asked, **depth_rules(self.options)}

    def describe(self) -> str:
        """See the base class."""
        kind = self.model.config.model_type
        return f"{plural(len(self.names), 'class')} of clips by {self.options.model} ({kind}) on {self.device}"

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        return all(self.path(kind, item, _SUFFIXES[kind]).is_file() for kind in self.of_videos)

    def look(self, pixels: np.ndarray) -> Any:
        """Clips are read whole; see `prepare`."""
        raise TypeError(f"{type(self).__name__} sees clips, not pictures")

    def prepare(self, item: Item) -> Inputs:
        """The clips of a video, (clips, T, ...) by name.

        Raises:
            DataError: it cannot be read, or its depth cannot; or it has none and the model sees nothing else.
        """
        if self.depth is not None:
            maps = self.depth.of_video(item)
            if maps is not None:
                return self._with_depth(VideoFile(item.name, item.path, maps))
        path = str(item.path)
        if self.options.clips == 1:  # what transformers' pipeline gives to the model
            sampling = {"num_frames": self.model.config.num_frames, "do_sample_frames": True}
            return {"pixel_values": _pixels(self.processor(path, return_tensors="pt", **sampling))}
        info = probe_video(path)
        clips = [read_video(path, numbers, info=info) for numbers in self._numbers(info)]
        return {"pixel_values": _pixels(self.processor(clips, do_sample_frames=False, return_tensors="pt"))}

    def _numbers(self, info: VideoInfo) -> list[list[int]]:
        """Frames of the clips of a video."""
        facts = M33DVideoMetadata(info.num_frames, info.fps, info.width, info.height, None, info.backend)
        facts.frame_times = info.times
        if self.options.clips == 1:
            return [self.processor.sample_frames(facts, num_frames=self.model.config.num_frames).tolist()]
        return spread(self.processor.sample_frames(facts), info.num_frames, self.options.clips)

    def _with_depth(self, video: VideoFile) -> Inputs:
        clips = [video.read(numbers) for numbers in self._numbers(video.info)]
        if not self.sees_rgb and all(clip.depth is None for clip in clips):
            raise DataError(f"{video.file}: no frame of its clips has depth, and the model sees nothing else")
        if self.depth is not None:
            self.depth.count_clips(clips)
        rgb, depth = [clip.rgb for clip in clips], [_with_holes(clip) for clip in clips]
        made = self.processor(rgb, depth=depth, do_sample_frames=False, return_tensors="pt")
        unseen = () if self.sees_rgb else ("pixel_values",)
        return {name: torch.as_tensor(values) for name, values in made.items() if name not in unseen}

    @torch.inference_mode()
    def compute(self, prepared: Sequence[Inputs]) -> list[Classes]:
        """Mean probabilities over the clips of each video."""
        shares = []
        for names, videos in groupby(prepared, key=sorted):  # those with depth, and those without
            together = list(videos)
            stacked = [torch.cat([video[name] for video in together]).split(self.options.batch_size) for name in names]
            for chunks in zip(*stacked, strict=True):
                inputs = {name: chunk.to(self.device) for name, chunk in zip(names, chunks, strict=True)}
                with torch.autocast(self.device.type, dtype=self._kind, enabled=self._kind is not None):
                    logits = self.model(**inputs).logits
                shares.append(logits.float().softmax(-1).cpu())
        found = []
        for rows in torch.cat(shares).split([len(next(iter(each.values()))) for each in prepared]):
            top = rows.mean(0).topk(min(self.options.top_k, rows.shape[-1]))
            found.append(Classes(top.indices.tolist(), top.values.tolist()))
        return found

    def write(self, item: Item, prepared: Inputs, result: Classes) -> None:
        """See the base class."""
        if "classes" in self.of_videos:
            rows = [
                (item.name, rank, number, self.names[number], f"{share:.6f}")
                for rank, (number, share) in enumerate(zip(result.numbers, result.shares, strict=True), start=1)
            ]
            write_rows(self.path("classes", item, ".csv"), CLASS_COLUMNS, rows)
        if "videos" in self.of_videos:
            info = probe_video(item.path)
            listed = list(zip(result.numbers, result.shares, strict=True))[:_CAPTIONED]
            lines: list[tuple[str, float | None]] = [
                (f"{self.names[number]}  {share:.0%}", share) for number, share in listed
            ]

            def frames() -> Iterator[np.ndarray]:
                for _, pixels in iterate_video(item.path, info=info):
                    yield with_caption(pixels, lines)

            write_video_file(self.path("videos", item, ".mp4"), frames(), info.fps)

    def frames(self, item: Item) -> FrameSink:
        """Clips are predicted whole."""
        raise TypeError(f"{type(self).__name__} sees clips, not frames")

    def finish(self, items: Sequence[Item]) -> None:
        """All classes in one table."""
        if "classes" in self.of_videos:
            gather(self.output / "classes.csv", self.output / "classes", CLASS_COLUMNS)

    def closing(self) -> list[str]:
        """How many videos had depth, beside what every task says."""
        return [*super().closing(), *([] if self.depth is None else [self.depth.closing("video")])]


_SUFFIXES = {"classes": ".csv", "videos": ".mp4"}


def _pixels(inputs: Any) -> Tensor:
    """The clips of what a video processor returned, whatever it calls them."""
    found = inputs["pixel_values"] if "pixel_values" in inputs else inputs["pixel_values_videos"]
    return torch.as_tensor(found)


def _with_holes(clip: RGBDSample) -> Tensor:
    """(T, 1, H, W) depth of a clip, all holes where every frame lacks it."""
    shape = (clip.num_frames, 1, clip.height, clip.width)
    return torch.full(shape, math.nan) if clip.depth is None else clip.depth


def spread(middle: np.ndarray, length: int, count: int) -> list[list[int]]:
    """Frame numbers of `count` clips, evenly from the beginning of a video to its end.

    Args:
        middle: ascending frames of the clip in the middle.
        length: frames of the video.
        count: at least 2.
    """
    offsets = middle - middle[0]
    spare = max(length - 1 - int(offsets[-1]), 0)
    return [np.clip(offsets + round(at), 0, length - 1).tolist() for at in np.linspace(0, spare, count)]

"""Classes of clips: a table of the likeliest ones, and the video with them below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.errors import ConfigError
from m33d_hf.inference.loading import load_model, load_video_processor, model_digest, usable_device
from m33d_hf.inference.prediction.base import FrameSink, PredictionTask
from m33d_hf.inference.prediction.files.tables import gather, write_rows
from m33d_hf.inference.prediction.files.video_files import write_video_file
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.clip_input_m33d import M33DVideoMetadata
from m33d_hf.modeling.video_processing_m33d import M33DVideoProcessor
from m33d_hf.modeling.video_reading_m33d import iterate_video, probe_video, read_video
from m33d_hf.visualization.predictions import with_caption

CLASS_COLUMNS = ("input", "rank", "class_id", "class", "probability")
_CAPTIONED = 3  # classes below a frame


@dataclass(frozen=True)
class Classes:
    """The likeliest classes of a video: their numbers and probabilities, in falling order."""

    numbers: list[int]
    shares: list[float]


class ClipTask(PredictionTask):
    """Files of a clip classifier's predictions."""

    task = "clips"
    reads_clips = True
    known: Mapping[str, str] = {
        "classes": "CSV, the likeliest classes of every video; ../classes.csv has them all",
        "videos": "MP4, the video with its likeliest classes below it",
    }
    usual_pictures = usual_videos = ("classes", "videos")

    def __init__(self, options: PredictionOptions, local_rank: int = 0) -> None:
        super().__init__(options)
        self.device = usable_device(options.device, local_rank)
        self.model = load_model(options.model, "clips", options.trust_remote_code).to(self.device).eval()
        self.processor = load_video_processor(options.model, options.trust_remote_code)
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
        return {"model_digest": self.digest, "top_k": self.options.top_k, "clips": self.options.clips}

    def describe(self) -> str:
        """See the base class."""
        kind = self.model.config.model_type
        return f"{len(self.names)} classes of clips by {self.options.model} ({kind}) on {self.device}"

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        return all(self.path(kind, item, _SUFFIXES[kind]).is_file() for kind in self.of_videos)

    def look(self, pixels: np.ndarray) -> Any:
        """Clips are read whole; see `prepare`."""
        raise TypeError(f"{type(self).__name__} sees clips, not pictures")

    def prepare(self, item: Item) -> Tensor:
        """(clips, T, 3, H, W) of a video."""
        wanted = self.options.clips
        path = str(item.path)
        if wanted == 1:  # what transformers' pipeline gives to the model
            sampling = {"num_frames": self.model.config.num_frames, "do_sample_frames": True}
            return _pixels(self.processor(path, return_tensors="pt", **sampling))
        info = probe_video(path)
        facts = M33DVideoMetadata(info.num_frames, info.fps, info.width, info.height, None, info.backend)
        facts.frame_times = info.times
        middle = self.processor.sample_frames(facts)
        clips = [read_video(path, numbers, info=info) for numbers in spread(middle, info.num_frames, wanted)]
        return _pixels(self.processor(clips, do_sample_frames=False, return_tensors="pt"))

    @torch.inference_mode()
    def compute(self, prepared: Sequence[Tensor]) -> list[Classes]:
        """Mean probabilities over the clips of each video."""
        clips = torch.cat(list(prepared))
        shares = []
        for chunk in clips.split(self.options.batch_size):
            with torch.autocast(self.device.type, dtype=self._kind, enabled=self._kind is not None):
                logits = self.model(pixel_values=chunk.to(self.device)).logits
            shares.append(logits.float().softmax(-1).cpu())
        found = []
        for rows in torch.cat(shares).split([len(each) for each in prepared]):
            top = rows.mean(0).topk(min(self.options.top_k, rows.shape[-1]))
            found.append(Classes(top.indices.tolist(), top.values.tolist()))
        return found

    def write(self, item: Item, prepared: Tensor, result: Classes) -> None:
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
            gather(self.output / "classes.csv", (self.path("classes", item, ".csv") for item in items), CLASS_COLUMNS)


_SUFFIXES = {"classes": ".csv", "videos": ".mp4"}


def _pixels(inputs: Any) -> Tensor:
    """The clips of what a video processor returned, whatever it calls them."""
    found = inputs["pixel_values"] if "pixel_values" in inputs else inputs["pixel_values_videos"]
    return torch.as_tensor(found)


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

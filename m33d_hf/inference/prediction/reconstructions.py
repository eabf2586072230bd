"""What a pre-trained model reconstructs of pictures, or clips, whose patches are masked as in its training."""

from __future__ import annotations

import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m33d_hf.data.depth.stores import frame_name
from m33d_hf.errors import ConfigError
from m33d_hf.inference.loading import (
    load_image_processor,
    load_model,
    load_video_processor,
    model_digest,
    ready,
    usable_device,
)
from m33d_hf.inference.prediction.base import FrameSink, PredictionTask
from m33d_hf.inference.prediction.files.pictures import save_png
from m33d_hf.inference.prediction.files.video_files import write_video_file
from m33d_hf.inference.prediction.inputs import Item
from m33d_hf.inference.prediction.measured_depth import depth_folder, depth_rules, refuse_depth_of_frames
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep, motion_scores
from m33d_hf.modeling.picture_files_m33d import read_picture
from m33d_hf.modeling.video_reading_m33d import VideoInfo
from m33d_hf.visualization.canvas import save_figure
from m33d_hf.visualization.clips import clip_reconstruction_figure
from m33d_hf.visualization.predictions import reconstruction_row
from m33d_hf.visualization.reconstruction import CAPTION, ReconstructionViews, output_views

_PARTIAL = ".partial-"
Sample = dict[str, ReconstructionViews]


@dataclass(frozen=True)
class Masked:
    """Model inputs of one sample, each with a leading 1, which tokens it shows, and whether its depth is measured."""

    inputs: dict[str, Tensor]
    keep: dict[str, Tensor]
    measured: bool = True


class ReconstructionTask(PredictionTask):
    """Pictures of a pre-trained model's reconstructions."""

    task = "reconstruction"
    known: Mapping[str, str] = {
        "pictures": "PNG, of every modality: input, visible patches, reconstruction, at the model's size",
        "videos": "MP4 of these, frame by frame",
    }
    usual_pictures = ("pictures",)
    usual_videos = ("videos",)
    reads_options = frozenset({"calibration"})

    def __init__(self, options: PredictionOptions, local_rank: int = 0) -> None:
        super().__init__(options)
        self.device = usable_device(options.device, local_rank)
        self.model = ready(load_model(options.model, "reconstruction", options.trust_remote_code), self.device)
        self.config = self.model.config
        self.reads_clips = self.config.num_frames > 1  # type: ignore[misc]
        load = load_video_processor if self.reads_clips else load_image_processor
        self.processor = load(options.model, options.trust_remote_code)
        if self.reads_clips:
            self.of_pictures = self.of_videos = ("pictures",)
        self.digest = model_digest(self.model, self.processor)
        self._kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
        self._drawing = threading.Lock()  # matplotlib has settings of the whole process
        self.has_depth = any(spec.name == "depth" for spec in self.config.specs)
        self._check_depth()
        self.depth = depth_folder(options, self.processor, needed=True)

    def _check_depth(self) -> None:
        """Refuse what the model cannot do with, or without, depth.

        Raises:
            ConfigError: as said.
        """
        given = self.options.depth
        if not self.config.target_specs:
            raise ConfigError(f"{self.options.model} was pre-trained without reconstruction: there is nothing to draw.")
        others = [spec.name for spec in self.config.specs if spec.name not in ("rgb", "depth", "norm_rgb")]
        if others:
            raise ConfigError(f"{self.options.model} also takes {', '.join(others)}; draw it with visualize.py.")
        if given is not None and not self.has_depth:
            raise ConfigError(f"--depth {given}: {self.options.model} was pre-trained without depth; leave it out.")
        if given is not None and self.reads_clips:
            raise ConfigError("--depth is read beside pictures; clips with depth are drawn by visualize.py.")
        if given is None and self.has_depth and self.config.joint_encoding:
            raise ConfigError(
                f"{self.options.model} encodes RGB and depth together, so that depth cannot be left out: pass --depth "
                "FOLDER, with a map named as every picture."
            )
        if self.has_depth and given is None:
            self.notes.append("no --depth: depth is what the model makes of the visible RGB patches alone.")

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        return {"model_digest": self.digest, **depth_rules(self.options)}

    def describe(self) -> str:
        """See the base class."""
        names = " and ".join(spec.name for spec in self.config.specs if spec.is_target)
        return f"reconstructions of {names} by {self.options.model} (m33d) on {self.device}"

    def is_done(self, item: Item) -> bool:
        """See the base class."""
        if not item.is_video or self.reads_clips:
            return self.path("pictures", item, ".png").is_file()
        if self.depth is not None:
            return False  # what there may be was made by an earlier version, of RGB alone; see `frames`
        ends = {"videos": self.path("videos", item, ".mp4"), "pictures": self._marker(item)}
        return all(ends[kind].is_file() for kind in self.of_videos)

    def frame_folder(self, item: Item) -> Path:
        """Where the pictures of a video's frames gather; they are kept where they are asked for."""
        if "pictures" in self.of_videos:
            return self.output / "pictures" / item.name
        video = self.path("videos", item, ".mp4")
        return video.with_name(f"{_PARTIAL}{video.stem}")

    def _marker(self, item: Item) -> Path:
        """Written once every frame of a video has its picture."""
        return self.frame_folder(item) / ".complete"

    def prepare(self, item: Item) -> Masked:
        """See the base class."""
        if item.is_video:
            return self.masked(self.inputs(videos=str(item.path)), item.name)
        pixels, orientation = read_picture(item.path)
        self.turned += orientation != 1
        given = None if self.depth is None else self.depth.of_picture(item, pixels.shape[:2], orientation)
        depth = None if given is None else given["depth"]
        return self.masked(self.inputs(np.ascontiguousarray(pixels), depth), item.name)

    def look(self, pixels: np.ndarray) -> Masked:
        """See the base class."""
        return self.masked(self.inputs(pixels), "")

    def inputs(
        self, pixels: np.ndarray | None = None, depth: np.ndarray | None = None, videos: str | None = None
    ) -> dict[str, Tensor]:
        """What the model takes of a picture, (H, W, 3) uint8, with its depth as stored (H, W), or of a video file, with
        the depth of all its frames (T, H, W)."""
        if videos is not None:
            along = {} if depth is None else {"depth": [depth]}
            return dict(self.processor(videos, **along, return_tensors="pt"))
        options: dict[str, Any] = {} if self.options.depth_unit is None else {"depth_unit": self.options.depth_unit}
        maps = {} if depth is None else {"depth": [depth], **options}
        layout = {"return_tensors": "pt", "input_data_format": "channels_last"}
        return dict(self.processor(images=[pixels], **maps, **layout))

    def masked(self, inputs: dict[str, Tensor], name: str, masking: M33DConfig | None = None) -> Masked:
        """Draw what is visible; a picture shows the same in every call.

        Args:
            inputs: see `inputs`.
            name: what the draw depends on.
            masking: a configuration with other masks; None takes the model's own.
        """
        config = masking or self.config
        measured = "depth_values" in inputs
        pixels = inputs["pixel_values"]
        clip = pixels if pixels.dim() == 5 else pixels[:, None]
        if self.has_depth and not measured:
            shape = (*pixels.shape[:-3], 1, *pixels.shape[-2:])
            inputs |= {"depth_values": torch.zeros(shape), "depth_mask": torch.zeros(shape, dtype=torch.bool)}
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        grid = config.grid_for(clip.shape[1], clip.shape[-2], clip.shape[-1])
        moving = any(spec.masking == "motion" for spec in config.input_specs)
        motion = motion_scores(clip, config) if moving else None
        return Masked(inputs, draw_keep(config, 1, grid, generator, motion=motion), measured)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[Masked]) -> list[Sample]:
        """Views of every modality of each sample."""
        inputs = {name: torch.cat([each.inputs[name] for each in prepared]) for name in prepared[0].inputs}
        keep = {name: torch.cat([each.keep[name] for each in prepared]) for name in prepared[0].keep}
        extra: dict[str, Any] = {}
        blind = [self.has_depth and not each.measured for each in prepared]
        if any(blind) and self.config.spec("depth").is_input:
            extra["hide"] = {"depth": torch.tensor(blind, device=self.device)}
        placed = {name: values.to(self.device) for name, values in inputs.items()}
        with torch.autocast(self.device.type, dtype=self._kind, enabled=self._kind is not None):
            shown = {name: values.to(self.device) for name, values in keep.items()}
            output = self.model(**placed, **extra, keep=shown, output_reconstruction=True)
        samples: list[Sample] = [{} for _ in prepared]
        for name, views in output_views(output, inputs, self.config).items():
            for sample, view, unmeasured in zip(samples, views, blind, strict=True):
                sample[name] = view
                if name == "depth" and unmeasured:  # what is visible of nothing is nothing
                    view.reconstruction[np.isfinite(view.visible)] = np.nan
        return samples

    def write(self, item: Item, prepared: Masked, result: Sample) -> None:
        """See the base class."""
        path = self.path("pictures", item, ".png")
        if not self.reads_clips:
            save_png(path, self.drawn(prepared, result))
            return
        with self._drawing:
            save_figure(clip_reconstruction_figure(result, self.config, item.name), path)

    def drawn(self, prepared: Masked, result: Sample) -> np.ndarray:
        """The picture of one sample, (H, W, 3) uint8."""
        pixels = prepared.inputs["pixel_values"]
        return reconstruction_row(result, self.config, pixels.reshape(-1, *pixels.shape[-3:])[0].numpy())

    def frames(self, item: Item) -> FrameSink:
        """See the base class.

        Raises:
            DataError: depth is given, which is not read for frames of videos.
        """
        refuse_depth_of_frames(self.options, item)
        return _RowFrames(self, item)

    def render(self, item: Item, info: VideoInfo, step: Callable[[], None]) -> None:
        """The video of what each frame became."""
        folder = self.frame_folder(item)

        def rows() -> Iterator[np.ndarray]:
            for number in range(info.num_frames):
                yield read_picture(folder / frame_name(number))[0]
                step()

        if "videos" in self.of_videos:
            write_video_file(self.path("videos", item, ".mp4"), rows(), info.fps)
        if "pictures" not in self.of_videos:
            shutil.rmtree(folder)
        else:
            self._marker(item).touch()

    def closing(self) -> list[str]:
        """Notes, and where brightness comes from."""
        normalised = any(spec.target_norm != "none" for spec in self.config.target_specs)
        return [*super().closing(), *([CAPTION.split(". ", 1)[1]] if normalised else [])]


class _RowFrames:
    """Pictures of a video's frames; the video is made of them once all are there."""

    def __init__(self, task: ReconstructionTask, item: Item) -> None:
        self.task, self.folder = task, task.frame_folder(item)
        self.next_frame = 0
        while (self.folder / frame_name(self.next_frame)).is_file():
            self.next_frame += 1

    def append(self, prepared: Masked, result: Sample) -> None:
        """See `FrameSink`."""
        save_png(self.folder / frame_name(self.next_frame), self.task.drawn(prepared, result))
        self.next_frame += 1

    def finish(self) -> None:
        """See `FrameSink`."""

    def discard(self) -> None:
        """See `FrameSink`."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

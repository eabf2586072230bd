"""Sources of made-up labelled clips, registered by tests under a name of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.source import Source
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo

NAMES = ("cut", "knot", "rest")


@dataclass
class Clip:
    """A video whose brightness tells its class, with noise that differs from frame to frame."""

    key: str
    label: int | None
    length: int = 12
    height: int = 24
    width: int = 40
    fps: float | None = 25.0

    def read(self, indices: Sequence[int]) -> RGBDSample:
        frames = []
        for index in indices:
            noise = torch.randint(40, (3, self.height, self.width), generator=generator_of(self.key, int(index)))
            frames.append(noise + 60 * (self.label or 0))
        return RGBDSample(self.key, rgb=torch.stack(frames).to(torch.uint8), label=self.label)


class ClipSource(Source):
    """`per_class` videos of every class; `lengths` cycles over the videos; `skip` leaves classes without a video."""

    name = "clips_in_memory"
    class_names = None
    depth_spec = None

    def __init__(
        self,
        split: str = "train",
        names: Sequence[str] = NAMES,
        per_class: int = 4,
        lengths: Sequence[int] = (12,),
        skip: Sequence[int] = (),
    ) -> None:
        self.action_names: list[str] | None = list(names)
        chosen = [label for _ in range(per_class) for label in range(len(names)) if label not in skip]
        self.clips = [
            Clip(f"{split}/{number}", label, lengths[number % len(lengths)]) for number, label in enumerate(chosen)
        ]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index]

    def labels(self) -> list[int] | None:
        return [int(clip.label or 0) for clip in self.clips]

    def groups(self) -> list[str]:
        return [clip.key for clip in self.clips]

    def digest(self) -> str:
        return f"{len(self.clips)}"


class PhasesInMemory(PhaseSource):
    """Two videos of three phases, the last third of each not annotated."""

    name = "phases_in_memory"

    def __init__(
        self,
        split: str = "train",
        phase_names: ClassTable | None = None,
        unit: str = "clips",
        clip_span: int = 64,
        clip_stride: int | None = None,
        drop_unlabelled: bool = False,
    ) -> None:
        phases = np.repeat([0, 1, 2, 255, 255], [8, 12, 8, 8, 8]).astype(np.uint8)
        videos = [PhaseVideo(Clip(f"{split}/{number}", None, len(phases)), phases) for number in range(2)]
        names = list(NAMES if phase_names is None else phase_names.names)
        self.given_names = phase_names
        super().__init__(
            videos,
            names,
            unit=unit,
            clip_span=clip_span,
            clip_stride=clip_stride,
            drop_unlabelled=drop_unlabelled,
        )

"""Long videos that exist only as numbers: every frame is a colour of its phase under noise of its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.phase_runs import TINY
from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo
from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoClassification
from m33d_hf.training.recipe.arguments import RunArguments

SIDE = TINY["image_size"]
NAMES = ["rest", "cut", "sew"]
MODEL: dict[str, Any] = {**TINY, "classifier_init_scale": 50.0}


@dataclass(frozen=True)
class MemoryVideo:
    """A `VideoHandle`; frames in `bad` cannot be read, and reading any frame >= `killer` ends the process.

    It ends at once, or with `signal` by way of that signal.
    """

    key: str
    phases: tuple[int, ...]
    bad: frozenset[int] = frozenset()
    killer: int | None = None
    signal: int | None = None
    fps: float | None = 10.0

    @property
    def length(self) -> int:
        return len(self.phases)

    def frame(self, index: int) -> torch.Tensor:
        noise = torch.randint(0, 40, (3, SIDE, SIDE), generator=generator_of(self.key, index), dtype=torch.uint8)
        noise[self.phases[index] % 3] += 120
        return noise

    def read(self, indices: Sequence[int]) -> RGBDSample:
        if self.killer is not None and max(indices) >= self.killer:
            if self.signal is None:
                os._exit(9)
            os.kill(os.getpid(), self.signal)
        for index in indices:
            if index in self.bad:
                raise CorruptFileError(f"/videos/{self.key}.avi", f"frame {index} is damaged")
        return RGBDSample(self.key, rgb=torch.stack([self.frame(int(index)) for index in indices]))


class MemorySource(PhaseSource):
    """`videos` per split: a dict split -> list of phases, each a text like "0001122" (9 = not annotated)."""

    name = "memory"

    def __init__(
        self,
        split: str = "train",
        videos: dict[str, list[str]] | None = None,
        names: list[str] | None = None,
        bad: dict[str, list[int]] | None = None,
        killer: int | None = None,
        signal: int | None = None,
        unit: str = "clips",
        clip_span: int = 4,
        clip_stride: int | None = None,
        drop_unlabelled: bool = False,
    ) -> None:
        texts = (videos or DEFAULT)[split]
        handles = [
            MemoryVideo(
                f"{split}/v{i}",
                tuple(int(letter) for letter in text),
                frozenset((bad or {}).get(f"{split}/v{i}", ())),
                killer if i == len(texts) - 1 else None,
                signal,
            )
            for i, text in enumerate(texts)
        ]
        labelled = [
            PhaseVideo(handle, np.array([255 if p == 9 else p for p in handle.phases], np.uint8)) for handle in handles
        ]
        super().__init__(
            labelled, names or NAMES, unit=unit, clip_span=clip_span, clip_stride=clip_stride,
            drop_unlabelled=drop_unlabelled,
        )  # fmt: skip


DEFAULT = {
    "train": ["0" * 12 + "1" * 9 + "2" * 12, "1" * 8 + "2" * 14 + "0" * 5, "2" * 6 + "9" * 8 + "0" * 9 + "1" * 8],
    "validation": ["0" * 10 + "2" * 9 + "1" * 11, "1" * 9 + "0" * 4],
}


def first_stage(folder: Path, names: Sequence[str] = NAMES, **changes: Any) -> str:
    """The output folder of a first stage that never saw any training."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    M33DForVideoClassification(M33DConfig(**{**MODEL, **labels, **changes})).save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class DeepVideo(MemoryVideo):
    """Depth in metres beside every frame, a third of it holes; frame 3 has none at all.

    With `spoiled` the depth of these frames cannot be read; with `bare` there is none, and it is not said.
    """

    spoiled: frozenset[int] = frozenset()
    bare: bool = False

    def depth(self, index: int) -> torch.Tensor:
        metres = torch.rand(1, SIDE, SIDE, generator=generator_of(self.key, index, "depth")) + 1
        metres[:, :, :5] = torch.nan
        return torch.full_like(metres, torch.nan) if index == 3 else metres

    def read(self, indices: Sequence[int]) -> RGBDSample:
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        sample = super().read(indices)
        if self.bare or (maps is not None and "depth" not in maps):
            return sample
        for index in indices:
            if index in self.spoiled:
                raise CorruptFileError(f"/depth/{self.key}.png", f"the depth of frame {index} is damaged")
        sample.depth = torch.stack([self.depth(int(index)) for index in indices])
        return sample


class DeepSource(PhaseSource):
    """The videos of `MemorySource` with depth, but for those named in `bare`; `spoiled`: key -> frames."""

    name = "deep"

    def __init__(
        self,
        split: str = "train",
        bare: Sequence[str] = (),
        spoiled: dict[str, list[int]] | None = None,
        unit: str = "clips",
        clip_span: int = 4,
        clip_stride: int | None = None,
        drop_unlabelled: bool = False,
    ) -> None:
        keys = {f"{split}/v{number}": text for number, text in enumerate(DEFAULT[split])}
        damaged = {key: frozenset((spoiled or {}).get(key, ())) for key in keys}
        handles = [
            DeepVideo(key, tuple(map(int, text)), spoiled=damaged[key], bare=key in bare) for key, text in keys.items()
        ]
        videos = [PhaseVideo(each, np.array([255 if p == 9 else p for p in each.phases], np.uint8)) for each in handles]
        super().__init__(
            videos, NAMES, unit=unit, clip_span=clip_span, clip_stride=clip_stride, drop_unlabelled=drop_unlabelled,
            depth_spec=DepthSpec(unit="metre", kind="metric"),
        )  # fmt: skip


def deep_stage(folder: Path, **changes: Any) -> str:
    """A first stage whose fusion is not fresh."""
    name = first_stage(folder, **changes)
    model = M33DForVideoClassification.from_pretrained(name)
    if model.task_fusion is not None:
        with torch.no_grad():
            for weight in model.task_fusion.parameters():
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        model.save_pretrained(name)
    return name


def arguments(folder: Path, init_from: str, **options: Any) -> RunArguments:
    """A short run of the second stage on CPU; `options` go to the source."""
    args = RunArguments(task="action_detection", output_dir=str(folder), init_from=init_from, cpu=True)
    args.model = {"temporal_hidden_size": 8}
    args.data.source, args.data.frame_stride, args.data.num_workers = "memory", 2, 0
    args.data.options = options
    args.transforms.eval_crop = "resize"
    args.features.batch_size = 3
    args.optim.learning_rate, args.optim.scale_lr = 1e-2, False
    args.train.max_steps, args.train.batch_size = 3, 1
    args.logging.every_steps, args.logging.trackers, args.logging.progress = 1, [], False
    args.logging.pictures = False
    return args


def register() -> None:
    """Let `build_source` know the videos as "memory" in this process."""
    from m33d_hf.data.sources import SOURCES

    SOURCES["memory"] = (__name__, "MemorySource")


def train_in_memory(folder: str, init_from: str, options: dict[str, Any]) -> int:
    """A run in a process of its own; its exit code."""
    from m33d_hf.training.run.loop import train
    from m33d_hf.training.tasks.detection.task import ActionDetectionTask

    register()
    return train(arguments(Path(folder), init_from, **options), ActionDetectionTask()).exit_code


def judge_in_memory(folder: str, trained: str, sets: list[list[str]]) -> int:
    """An evaluation of "deep" with every input set, in a process of its own."""
    from m33d_hf.data.sources import SOURCES
    from m33d_hf.training.run.evaluation_run import evaluate_run
    from m33d_hf.training.tasks.detection.task import ActionDetectionTask

    SOURCES["deep"] = (__name__, "DeepSource")
    args = arguments(Path(folder), trained)
    args.model, args.eval_only, args.data.source, args.evaluation.inputs = {}, True, "deep", sets
    evaluate_run(args, ActionDetectionTask())
    return 0

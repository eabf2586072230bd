"""A task small enough for the loop's tests: holes in the targets make every loss count depend on the data."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.randomness import generator_of
from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.source import Source
from m33d_hf.errors import CorruptFileError
from m33d_hf.training.processes.checkpoint_files import write_weights
from m33d_hf.training.processes.launch import maximum_over_ranks
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Batch, Collator, Task, to_device

SIDE = 6


@dataclass
class TinyHandle:
    """One made-up image; unreadable when `bad`, with infinite depth when `explosive`."""

    key: str
    seed: int
    bad: bool = False
    explosive: bool = False
    delay: float = 0.0
    length: int = 1
    fps: float | None = None

    def read(self, indices: Any) -> RGBDSample:
        if self.delay:
            time.sleep(self.delay)
        if self.bad:
            raise CorruptFileError(f"/nowhere/{self.key}", "truncated")
        generator = generator_of(self.seed, "tiny")
        rgb = torch.randint(256, (1, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        depth = rgb.float().mean(1, keepdim=True) / 255.0 + 0.5
        holes = torch.rand(depth.shape, generator=generator) < 0.9 * torch.rand((), generator=generator)
        depth[holes] = torch.nan
        if self.explosive:
            depth[:] = torch.inf
        return RGBDSample(self.key, rgb=rgb, depth=depth)


class TinySource(Source):
    """`size` made-up images, some of which may be unreadable, explosive or slow."""

    name = "tiny"
    depth_spec = None

    def __init__(
        self, size: int = 24, bad: Iterable[int] = (), explosive: Iterable[int] = (), delay: float = 0.0
    ) -> None:
        self.size, self.bad, self.explosive, self.delay = size, set(bad), set(explosive), delay

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TinyHandle:
        return TinyHandle(f"tiny/{index}", index, index in self.bad, index in self.explosive, self.delay)

    def digest(self) -> str:
        return f"tiny-{self.size}"


def valid_pixels(indices: Iterable[int]) -> int:
    """Pixels with a target in the given images."""
    return sum(int((~TinySource()[index].read([0]).depth.isnan()).sum()) for index in indices)


def random_flip(sample: RGBDSample) -> RGBDSample:
    """An augmentation that depends on the draw, so that epochs differ."""
    generator = sample.meta["draw"].generator(sample.key, "flip")
    if torch.rand((), generator=generator) < 0.5:
        sample.rgb, sample.depth = sample.rgb.flip(-1), sample.depth.flip(-1)
    return sample


def collate(samples: list[RGBDSample]) -> Batch:
    """pixel_values (B, 3, H, W) in [0, 1], labels (B, 1, H, W) with NaN holes, and meta."""
    kept = [s for s in samples if not s.meta.get("dropped")]
    batch: Batch = {}
    if kept:
        batch["pixel_values"] = torch.cat([s.rgb for s in kept]).float() / 255.0
        batch["labels"] = torch.cat([s.depth for s in kept])
    batch["meta"] = {
        "keys": [s.key for s in kept],
        "indices": [s.meta["index"] for s in samples],
        "skipped": [file for s in samples for file in s.meta["skipped"]],
    }
    return batch


@dataclass
class TinyOutput:
    loss_sums: dict[str, torch.Tensor]
    loss_counts: dict[str, torch.Tensor]
    prediction: torch.Tensor


class TinyLayer(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(torch.relu(self.fc(self.norm(x))))


class TinyModel(nn.Module):
    """Per-pixel regression with the parameter names of the real models and two loss terms with other counts."""

    def __init__(self, width: int = 8, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"rgb": nn.Linear(3, width)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        layers = nn.ModuleList(TinyLayer(width, dropout) for _ in range(depth))
        self.encoders = nn.ModuleDict({"rgb": nn.ModuleDict({"layers": layers})})
        self.head = nn.Linear(width, 1)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {"near": 1.0, "far": 0.25}

    def loss_counts(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        valid = ~labels.isnan()
        return {"near": valid.sum(), "far": (valid & (labels > 1.0)).sum()}

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | None = None
    ) -> TinyOutput:
        x = self.embeddings["rgb"](pixel_values.permute(0, 2, 3, 1)) + self.cls_token[:, :, None]
        for layer in self.encoders["rgb"]["layers"]:
            x = layer(x)
        prediction = self.head(x).permute(0, 3, 1, 2).float()
        valid = ~labels.isnan()
        error = torch.where(valid, prediction - labels.nan_to_num(posinf=torch.inf), 0.0)
        if scale is not None:
            error = error / scale
        far = valid & (labels > 1.0)
        sums = {"near": error.square().sum(), "far": torch.where(far, error, 0.0).abs().sum()}
        return TinyOutput(sums, self.loss_counts(pixel_values, labels), prediction)


class TinyTask(Task):
    """Uses args.model for TinyModel's arguments and args.data.options for TinySource's."""

    name = "tiny"
    metric = "rmse"
    greater_is_better = False

    def build_model(self, args: RunArguments) -> nn.Module:
        return TinyModel(**args.model)

    def build_datasets(self, args: RunArguments, model: nn.Module) -> tuple[SampleDataset, SampleDataset | None]:
        train = SampleDataset(TinySource(**args.data.options), random_flip, train=True, seed=args.seed)
        held_out = SampleDataset(TinySource(7, **args.data.eval_options), None, train=False, seed=args.seed)
        return train, held_out if args.data.eval_split else None

    def build_collator(self, args: RunArguments, model: nn.Module, train: bool) -> Collator:
        return collate

    def prepare_step(self, model: nn.Module, batches: Any) -> dict[str, Any]:
        largest = max(batch["labels"].nan_to_num(0.0, posinf=0.0).max() for batch in batches)
        return {"scale": maximum_over_ranks(largest)}

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        # The global generator is used on purpose: an evaluation must not disturb the training after it.
        torch.rand(3)
        totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        for batch in loader:
            moved = to_device(batch, accelerator.device)
            if not moved:
                continue
            valid = ~moved["labels"].isnan()
            error = (model(**moved).prediction - moved["labels"])[valid].double()
            totals += torch.stack([error.square().sum(), valid.sum().double()])
        squares, count = accelerator.reduce(totals).tolist()
        return {"rmse": (squares / count) ** 0.5, "count": count}

    def save(self, model: nn.Module, args: RunArguments) -> None:
        write_weights(model, Path(args.output_dir))


class StoppingTask(TinyTask):
    """Stops its own run by SIGTERM, or by an exception as a kill would, in the given update (counted from 1)."""

    def __init__(self, update: int, how: str = "signal") -> None:
        self.countdown, self.how = update, how

    def prepare_step(self, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
        self.countdown -= 1
        if self.countdown == 0:
            if self.how == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise KeyboardInterrupt
        return super().prepare_step(model, batches)


class StoppingInEvaluation(TinyTask):
    """Stops its own run by SIGTERM in the given batch (counted from 1, of all evaluations) of one rank's evaluation."""

    def __init__(self, batch: int, rank: int = 0) -> None:
        self.countdown, self.active = batch, int(os.environ.get("RANK", "0")) == rank

    def evaluate(self, model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
        return super().evaluate(model, self._read(loader), accelerator)

    def _read(self, loader: Iterable[Batch]) -> Iterable[Batch]:
        for batch in loader:
            self.countdown -= 1
            if self.active and self.countdown == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def tiny_arguments(output_dir: str | Path, **changes: Any) -> RunArguments:
    """Arguments of a run of 12 steps on 24 samples, quiet, on CPU; `changes` are dotted keys with __ for the dot."""
    args = RunArguments(task="tiny", output_dir=str(output_dir), cpu=True, seed=3)
    args.train.max_steps, args.train.batch_size = 12, 4
    args.data.num_workers, args.data.options = 0, {}
    args.optim.learning_rate, args.optim.scale_lr, args.optim.warmup_steps = 0.02, False, 3
    args.logging.trackers, args.logging.progress, args.logging.every_steps = [], False, 4
    args.logging.pictures = False
    for key, value in changes.items():
        *path, name = key.split("__")
        target: Any = args
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, name):
            raise AttributeError(f"no argument {key}")
        setattr(target, name, value)
    return args

"""The sizing rule: what is `auto` in a recipe, decided by the data and the class of the machine. Ours, not the paper's.

The same data on the same class of machine always give the same model: as large as that class trains in minutes, with
heads in proportion to the encoder. Steps are passes over the data, cut to a budget of time by what the machine does
in one; of a CPU that is measured, in coarse grades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m33d_hf.evaluation.flops import TASKS as COUNTED
from m33d_hf.evaluation.flops import flops_per_sample
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe.task_names import PRETRAINING
from m33d_hf.training.settling.data_facts import DataFacts
from m33d_hf.training.settling.machine import Machine

_MANY_CORES = 8


@dataclass(frozen=True)
class Class:
    """Sizes that suit a class of machine.

    Attributes:
        side: short side of the pictures.
        patch: side of a patch.
        width, layers, heads: of the encoder.
        batch: samples of a step, all processes together.
        seconds: that a run of a few hundred samples may take.
        evaluations: of a run; each costs seconds, with its pictures, which of a minute are many.
    """

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    batch: int
    seconds: float
    evaluations: int


_CLASSES = {
    "cpu": Class(side=96, patch=8, width=128, layers=4, heads=4, batch=16, seconds=65.0, evaluations=2),
    "cpus": Class(side=128, patch=8, width=192, layers=8, heads=6, batch=32, seconds=300.0, evaluations=4),
    "gpu": Class(side=224, patch=16, width=384, layers=12, heads=6, batch=64, seconds=600.0, evaluations=4),
}
_CLIP_SIDE = {"cpu": 64, "cpus": 96, "gpu": 128}
# Passes over a few hundred samples; over fewer there are more, over many fewer.
_PASSES = {PRETRAINING: 40.0, "depth_estimation": 40.0, "semantic_segmentation": 40.0, "video_classification": 40.0}
_FULL_PASSES = 1000  # samples
_FEWEST_STEPS, _MOST_STEPS = 150, 50_000
_CHECKPOINTS, _LINES = 2, 40
_PIXELS = 640 * 480
_KEPT_SHARE = 0.15  # of the time to read a picture, where it is decoded already
_PIXEL_BYTES = 8  # of a decoded sample: RGB, depth as float32, a label
_LONGEST = 2.0  # the long side of pictures, in short sides


def class_of(machine: Machine) -> str:
    """The class of a machine."""
    return machine.kind if machine.kind == "gpu" or machine.cores < _MANY_CORES else "cpus"


def encoder_sizes(machine: Machine, data: DataFacts, known: Mapping[str, Any], clip: bool) -> dict[str, Any]:
    """Encoder, decoder and heads where nothing else says them.

    Args:
        machine: see `find_machine`.
        data: sizes of the pictures.
        known: fields of the model that are settled; the others follow them.
        clip: whether frames come as clips.
    """
    kind = class_of(machine)
    chosen = _CLASSES[kind]
    patch = known.get("patch_size", chosen.patch)
    rows, columns = (patch, patch) if isinstance(patch, int) else patch
    width = int(known.get("hidden_size", chosen.width))
    side = _CLIP_SIDE[kind] if clip else chosen.side
    aspect = min(max(data.width / data.height, 1 / _LONGEST), _LONGEST)
    height, across = (side, side * aspect) if aspect >= 1 else (side / aspect, side)
    decoder = max(32, width // 2 // 32 * 32)
    return {
        "image_size": [max(1, round(height / rows)) * rows, max(1, round(across / columns)) * columns],
        "patch_size": patch,
        "hidden_size": width,
        "num_hidden_layers": chosen.layers,
        "num_attention_heads": _heads(width),
        "intermediate_size": 4 * width,
        "num_frames": 8 if clip else 1,
        "tubelet_size": 2 if clip else 1,
        "decoder_hidden_size": decoder,
        "decoder_num_hidden_layers": 2 if width < 384 else 4,
        "decoder_num_attention_heads": max(1, decoder // 32),
        "decoder_intermediate_size": 4 * decoder,
        "depth_head_width": _between(width // 4, 32, 256),
        "segmentation_head_width": _between(width // 2 // 16 * 16, 32, 384),
        "segmentation_head_depth": 2 if width < 384 else 4,
        "segmentation_head_upscale": 2 if rows < 16 else 4,
    }


def temporal_sizes(width: int, heads: int = 1) -> dict[str, int]:
    """The temporal model of phases on features of an encoder of this width; a width that `heads` divide."""
    return {"temporal_hidden_size": max(heads, _between(width // 2, 32, 256) // heads * heads)}


def _heads(width: int) -> int:
    """Heads of 32 channels in small encoders, of 64 in those of published sizes."""
    size = 64 if width >= 384 else 32
    return max(1, width // size) if width % size == 0 else 1


def _between(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def by_machine(machine: Machine) -> dict[str, Any]:
    """What no data decide, by dotted key."""
    return {"train.precision": "bf16" if machine.kind == "gpu" else "no", "data.num_workers": machine.workers}


def schedule(
    task: str, machine: Machine, data: DataFacts, config: M33DConfig, stated: Mapping[str, Any]
) -> dict[str, Any]:
    """Batch, steps and cadences; `stated` holds those that are settled, by dotted key."""
    chosen = _CLASSES[class_of(machine)]
    largest = max(1, data.samples // 2)
    batch = int(stated.get("train.batch_size") or max(1, min(chosen.batch // machine.processes, largest)))
    accumulation = int(stated.get("train.accumulation") or 1)
    effective = batch * accumulation * machine.processes
    epochs = stated.get("train.epochs")
    per_epoch = max(1, data.samples // effective)  # as the run's plan has it
    stated_steps = stated.get("train.max_steps") if epochs is None else max(1, round(epochs * per_epoch))
    steps = stated_steps or _steps(Work(task, machine, data, config, effective), chosen.seconds)
    return {
        "train.batch_size": batch,
        "train.max_steps": steps,
        "optim.warmup_steps": max(1, steps // 10),
        "evaluation.every_steps": max(1, -(-steps // chosen.evaluations)),
        "evaluation.batch_size": 4 * batch if task != PRETRAINING else 32,
        "checkpoint.every_steps": max(1, -(-steps // _CHECKPOINTS)),
        "logging.every_steps": max(1, steps // _LINES),
        "data.keep_decoded_gb": _gigabytes(data, machine, config),
        **by_machine(machine),
    }


@dataclass(frozen=True)
class Work:
    """What a run has to do in a step.

    Attributes:
        task, machine, data, config: of the run.
        effective: samples of a step, all processes together.
    """

    task: str
    machine: Machine
    data: DataFacts
    config: M33DConfig
    effective: int

    def seconds(self, steps: int) -> float:
        """Time of a run, roughly; a task whose operations are not counted only reads."""
        decoded_once = self._kept * self.data.samples * self._pictures
        return self.machine.seconds(0.0, decoded_once) + steps * self.step_seconds

    @property
    def step_seconds(self) -> float:
        """Time of a step after the first pass over the data."""
        operations = 0.0
        if self.task in COUNTED:
            operations = flops_per_sample(self.config, self.task, batch_size=min(self.effective, 8))
        share = 1.0 - self._kept * (1.0 - _KEPT_SHARE)
        return self.machine.seconds(self.effective * operations, share * self.effective * self._pictures)

    @property
    def _pictures(self) -> float:
        """Of 640 x 480, in a sample."""
        return self.config.num_frames * self.data.height * self.data.width / _PIXELS

    @property
    def _kept(self) -> float:
        """Share of the samples that stay in memory."""
        wanted = _wanted_gigabytes(self.data, self.machine, self.config)
        return min(self.machine.gigabytes_for_samples / wanted, 1.0) if wanted else 0.0


def _steps(work: Work, seconds: float) -> int:
    samples = work.data.samples
    few = min(samples, _FULL_PASSES)
    wanted = _PASSES.get(work.task, 20.0) * (few + (samples - few) ** 0.75) / work.effective
    affordable = seconds * max(1.0, (samples / _FULL_PASSES) ** 0.5) / work.step_seconds
    steps = min(max(min(wanted, affordable), _FEWEST_STEPS * work.machine.speed), _MOST_STEPS)
    digits = 10 if steps < 1000 else 50
    return max(digits, round(steps / digits) * digits)


def _gigabytes(data: DataFacts, machine: Machine, config: M33DConfig) -> float:
    """For all pictures, or as many as there is room for; see `_wanted_gigabytes`."""
    return math.floor(10 * min(_wanted_gigabytes(data, machine, config), machine.gigabytes_for_samples)) / 10


def _wanted_gigabytes(data: DataFacts, machine: Machine, config: M33DConfig) -> float:
    """Memory of all decoded pictures, once per worker, rounded up; clips start at another frame each time."""
    if config.is_clip_model:
        return 0.0
    bytes_ = data.samples * data.height * data.width * _PIXEL_BYTES * machine.workers
    return math.ceil(10 * bytes_ / 1e9) / 10

"""The sizing rule: what is `auto` in a recipe, decided by the data and the class of the machine. Ours, not the paper's.

The same data on the same class of machine always give the same values: nothing is timed. The model is as large as the
class of machine trains in minutes; steps are passes over the data, cut to a budget of computation; heads are in
proportion to the encoder.
"""

from __future__ import annotations

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
    """

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    batch: int
    seconds: float


_CLASSES = {
    "cpu": Class(side=96, patch=8, width=128, layers=4, heads=4, batch=16, seconds=90.0),
    "cpus": Class(side=128, patch=8, width=192, layers=8, heads=6, batch=32, seconds=300.0),
    "gpu": Class(side=224, patch=16, width=384, layers=12, heads=6, batch=64, seconds=600.0),
}
_CLIP_SIDE = {"cpu": 64, "cpus": 96, "gpu": 128}
# Passes over a few hundred samples; over fewer there are more, over many fewer.
_PASSES = {PRETRAINING: 40.0, "depth_estimation": 40.0, "semantic_segmentation": 40.0, "video_classification": 40.0}
_FULL_PASSES = 1000  # samples
_FEWEST_STEPS, _MOST_STEPS = 150, 50_000
_EVALUATIONS, _CHECKPOINTS, _LINES = 4, 2, 40
_PIXELS = 640 * 480
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


def temporal_sizes(width: int) -> dict[str, int]:
    """The recurrent network of phases on features of an encoder of this width."""
    return {"temporal_hidden_size": _between(width // 2, 32, 256)}


def _heads(width: int) -> int:
    """Heads of 32 channels in small encoders, of 64 in those of published sizes."""
    size = 64 if width >= 384 else 32
    return max(1, width // size) if width % size == 0 else 1


def _between(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def schedule(
    task: str, machine: Machine, data: DataFacts, config: M33DConfig, stated: Mapping[str, Any]
) -> dict[str, Any]:
    """Batch, steps and cadences; `stated` holds those that are settled, by dotted key."""
    chosen = _CLASSES[class_of(machine)]
    largest = max(1, data.samples // 2)
    batch = int(stated.get("train.batch_size") or max(1, min(chosen.batch // machine.processes, largest)))
    accumulation = int(stated.get("train.accumulation") or 1)
    effective = batch * accumulation * machine.processes
    steps = stated.get("train.max_steps") or _steps(task, machine, data, config, effective, chosen.seconds)
    return {
        "train.batch_size": batch,
        "train.max_steps": steps,
        "train.precision": "bf16" if machine.kind == "gpu" else "no",
        "optim.warmup_steps": max(1, steps // 10),
        "evaluation.every_steps": max(1, -(-steps // _EVALUATIONS)),
        "evaluation.batch_size": 4 * batch if task != PRETRAINING else 32,
        "checkpoint.every_steps": max(1, -(-steps // _CHECKPOINTS)),
        "logging.every_steps": max(1, steps // _LINES),
        "data.num_workers": machine.workers,
    }


def _steps(task: str, machine: Machine, data: DataFacts, config: M33DConfig, effective: int, seconds: float) -> int:
    few = min(data.samples, _FULL_PASSES)
    wanted = _PASSES.get(task, 20.0) * (few + (data.samples - few) ** 0.75) / effective
    budget = seconds * max(1.0, (data.samples / _FULL_PASSES) ** 0.5)
    affordable = budget / step_seconds(task, machine, data, config, effective)
    steps = min(max(min(wanted, affordable), _FEWEST_STEPS), _MOST_STEPS)
    digits = 10 if steps < 1000 else 50
    return max(digits, round(steps / digits) * digits)


def step_seconds(task: str, machine: Machine, data: DataFacts, config: M33DConfig, effective: int) -> float:
    """Time of one step, roughly; of a task that is not counted, that of reading."""
    operations = flops_per_sample(config, task, batch_size=min(effective, 8)) if task in COUNTED else 0.0
    pictures = config.num_frames * data.height * data.width / _PIXELS
    return machine.seconds(effective * operations, effective * pictures)

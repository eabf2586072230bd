"""Operations in floating point per sample, counted by torch on the meta device: matrix products, 2 per multiply-add.

Nothing is computed, so a ViT-B is counted in a second. Attention is counted as written out ("eager"): torch's counter
does not see the fused kernels of the CPU, and counts those of a GPU with what they compute twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.task_heads_m33d import HEADS
from m33d_hf.modeling.video_tasks_m33d import M33DForVideoActionDetection

MODELS: dict[str, Callable[[M33DConfig], nn.Module]] = {
    "pretraining": M33DForPreTraining,
    **{head.task: head.load_class() for head in HEADS},
}
TASKS = tuple(MODELS)


@dataclass(frozen=True)
class FlopCount:
    """Operations per sample: of a forward pass, and of a forward and a backward pass."""

    forward: float
    training: float


def count_pretraining(config: M33DConfig, batch_size: int = 1) -> FlopCount:
    """Count one sample of pre-training.

    Args:
        config: the model; its `grid` and mask ratios decide the tokens.
        batch_size: matters for pairs that are made within a batch alone.

    Raises:
        ConfigError: masks that leave no token.
    """
    return _counted(config.to_json_string(use_diff=False), "pretraining", batch_size)


def count_task(config: M33DConfig, task: str, inputs: Sequence[str] | None = None) -> FlopCount:
    """Count one sample of a fine-tuning task, whose model sees all tokens of its inputs.

    A sample of "action_detection" is one clip, encoder included: a forward pass extracts its features, once, and only
    the temporal model over many clips has gradients.

    Args:
        config: the model.
        task: its task.
        inputs: which of its `task_inputs` it is given; None: all of them.

    Raises:
        ConfigError: an unknown task, or inputs that the model does not have.
    """
    if task not in TASKS:
        raise ConfigError(f"cannot count the FLOPs of task {task!r}.{nearest_name_hint(task, TASKS)}")
    given = config.task_input_names if inputs is None else tuple(inputs)
    if not given or not set(given) <= set(config.task_input_names):
        known = list(config.task_input_names)
        raise ConfigError(f"cannot count the FLOPs of inputs {list(given)}: the model has {known}.")
    return _counted(config.to_json_string(use_diff=False), task, 1, given)


def flops_per_sample(
    config: M33DConfig,
    task: str = "pretraining",
    *,
    training: bool = True,
    batch_size: int = 1,
) -> float:
    """Operations per sample: forward and backward when `training`, else forward alone.

    Raises:
        ConfigError: an unknown task, or masks that leave no token.
    """
    count = count_pretraining(config, batch_size) if task == "pretraining" else count_task(config, task)
    return count.training if training else count.forward


@lru_cache(maxsize=256)
def _counted(written: str, task: str, batch_size: int, inputs: tuple[str, ...] = ()) -> FlopCount:
    config = M33DConfig.from_dict(json.loads(written))
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = MODELS[task](config).to("meta").train()  # some buffers are made on the CPU
    if isinstance(model, M33DForPreTraining):
        count = _count(lambda: _pretraining_loss(model, batch_size))
        return FlopCount(count.forward / batch_size, count.training / batch_size)
    specs = [config.spec(name) for name in inputs]
    given = {spec.input_name: _pixels(config, spec.channels, 1) for spec in specs}
    if not isinstance(model, M33DForVideoActionDetection):
        return _count(lambda: model(**given)[0].sum())
    model.freeze_encoder()
    with torch.no_grad():
        features = _count(lambda: model.encode_clips(given.get("pixel_values"), given.get("depth_values"))).forward
    # What more clips add: before the first there is no state that asks for a gradient.
    step = model.clips_at_once
    few, more = (_count(partial(_temporal_output, model, clips * step)) for clips in (2, 3))
    return FlopCount(features + (more.forward - few.forward) / step, features + (more.training - few.training) / step)


def _temporal_output(model: M33DForVideoActionDetection, clips: int) -> Tensor:
    features = torch.empty(1, clips, model.config.temporal_input_size, device="meta")
    return model(features=features).logits.sum()


def _pixels(config: M33DConfig, channels: int, batch_size: int) -> Tensor:
    frames = () if config.num_frames == 1 else (config.num_frames,)
    return torch.empty(batch_size, *frames, channels, *config.image_height_width, device="meta")


def _pretraining_loss(model: M33DForPreTraining, batch_size: int) -> Tensor:
    config = model.config
    motion = torch.zeros(batch_size, config.num_tokens)
    keep = draw_keep(config, batch_size, generator=torch.Generator(), device="meta", motion=motion)
    batch: dict[str, Any] = {spec.input_name: _pixels(config, spec.channels, batch_size) for spec in config.specs}
    if config.distillation_weight > 0:
        seen = keep if config.distillation_tokens == "visible" else None
        batch["teacher_features"] = model.embed_globally(seen, **batch)
    loss: Tensor = model(**batch, keep=keep).loss
    return loss


def _count(run: Callable[[], Tensor]) -> FlopCount:
    """Count what `run` does, and the backward pass of what it returns where that has one."""
    formulas = {torch.ops.aten.convolution_backward: _convolution_gradients}
    with FlopCounterMode(display=False, depth=0, custom_mapping=formulas) as counter:
        output = run()
        forward = counter.get_total_flops()
        if output.requires_grad:
            output.backward()
    return FlopCount(float(forward), float(counter.get_total_flops()))


def _convolution_gradients(
    into_output: torch.Size, inputs: torch.Size, weight: torch.Size, *options: Any, **_: Any
) -> int:
    """Each gradient costs as much as the convolution; torch's formula multiplies one by the number of groups."""
    transposed, wanted = options[4], options[7]
    return sum(wanted[:2]) * conv_flop_count(list(inputs), list(weight), list(into_output), transposed=transposed)

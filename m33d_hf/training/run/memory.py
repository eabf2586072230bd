"""How much memory a training step takes on one process: weights and saved activations, counted.

A model runs forward once on tensors without content, so that heads, decoders and what masks leave visible count as they
are. What gradient checkpointing saves of that is estimated from the sizes of the blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep, visible_count
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.building import config_of

_CLIPS = 8  # a recurrent head is counted on so many and on twice as many clips: it grows by each alike


def estimate_memory(model: nn.Module, args: RunArguments, clips: int = 1) -> tuple[float, float]:
    """Bytes for (weights, gradients and optimizer state; saved activations) of one process.

    What a backward pass needs for a moment, the memory of kernels and that of the device's context come on top.

    Args:
        model: what would be trained.
        args: the run.
        clips: of the longest video, for action detection, which learns from features of clips.
    """
    numbers = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = 4.0 * numbers + 12.0 * trained + (4.0 * numbers if args.train.ema_decay else 0.0)
    config = config_of(model)
    if args.task == "action_detection":  # features in, no encoder
        few, more = (count_saved(model, args, number) for number in (_CLIPS, 2 * _CLIPS))
        return weights, few + (more - few) * (clips - _CLIPS) / _CLIPS
    activations = float(count_saved(model, args))
    if args.train.grad_checkpointing:
        activations -= _estimated(config, args, False) - _estimated(config, args, True)
        activations = max(activations, _estimated(config, args, True))
    return weights, activations


def count_saved(model: nn.Module, args: RunArguments, clips: int = 1) -> int:
    """Bytes that the backward pass of a step keeps, weights left out; nothing is computed.

    Args:
        model, args, clips: see `estimate_memory`.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    real = list(model.parameters())
    # Held, as storages are told apart by where they lie; what is saved may be either.
    held = [*real, *(fake.from_tensor(parameter) for parameter in real)]
    weights = {parameter.untyped_storage()._cdata for parameter in held}
    saved: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept.append(tensor)
            saved[storage._cdata] = storage.nbytes()
        return tensor

    rows = args.train.batch_size * args.data.num_views
    # Real, as what they hold decides sizes; of few numbers.
    masks = {"keep": _keep(config_of(model), rows)} if args.task == "pretraining" else {}
    trained = model.training
    model.train()
    mixed = args.train.precision != "no"
    with fake, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        batch = _batch(config_of(model), args, clips) | masks
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            model(**batch)
    model.train(trained)
    return sum(saved.values())


def _batch(config: M33DConfig, args: RunArguments, clips: int) -> dict[str, Any]:
    """Inputs of the shapes of a step's."""
    rows = args.train.batch_size * args.data.num_views
    height, width = config.image_height_width
    if args.task == "pretraining":
        return _pretraining_batch(config, rows)
    if args.task == "action_detection":
        labels = torch.zeros(rows, clips, dtype=torch.int64)
        return {"features": torch.zeros(rows, clips, config.hidden_size), "labels": labels}
    if args.task == "video_classification":
        classes = int(config.num_labels or 0)
        frames = (config.num_frames,) if config.num_frames > 1 else ()
        return {"pixel_values": torch.zeros(rows, *frames, 3, height, width), "labels": torch.zeros(rows, classes)}
    kind = torch.int64 if args.task == "semantic_segmentation" else torch.float32
    labels = torch.zeros(rows, height, width, dtype=kind)
    return {"pixel_values": torch.zeros(rows, 3, height, width), "labels": labels}


def _keep(config: M33DConfig, rows: int) -> dict[str, Tensor]:
    return draw_keep(config, rows, motion=torch.zeros(rows, config.num_tokens))


def _pretraining_batch(config: M33DConfig, rows: int) -> dict[str, Any]:
    frames = (config.num_frames,) if config.num_frames > 1 else ()
    batch: dict[str, Any] = {}
    for spec in config.specs:
        shape = (rows, *frames, spec.channels, *config.image_height_width)
        batch[spec.input_name] = torch.zeros(shape)
        if spec.mask_name is not None:
            batch[spec.mask_name] = torch.ones(shape, dtype=torch.bool)
    if config.distillation_weight > 0:
        batch["teacher_features"] = {spec.name: torch.zeros(rows, config.hidden_size) for spec in config.input_specs}
    return batch


def _estimated(config: M33DConfig, args: RunArguments, checkpointing: bool) -> float:
    """Bytes of the activations of all blocks.

    A block keeps about 6 token widths of its input, norms, queries, keys, values and attention output, twice its MLP
    width, and, with eager attention, two score matrices.
    """
    bytes_per_value = 4.0 if args.train.precision == "no" else 2.6  # norms and softmax stay in float32
    values = 0.0
    for depth, width, inner, heads, tokens in _stacks(config, args.task):
        block = tokens * (8.0 * width + 2.0 * inner)
        if args.train.attn_implementation == "eager":
            block += 2.0 * heads * tokens * tokens
        values += depth * tokens * width + block if checkpointing else depth * block
    return args.train.batch_size * args.data.num_views * values * bytes_per_value


def _stacks(config: M33DConfig, task: str) -> list[tuple[int, int, int, int, int]]:
    """(blocks, width, MLP width, heads, tokens) of every sequence that passes through a stack of blocks."""
    cls = int(bool(config.use_cls_token))
    encoder = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads)
    if task != "pretraining":
        return [(*encoder, config.num_tokens + cls)]
    if config.token_budget is not None:
        decoders = len(config.target_specs) * (1 + config.decoder_num_hidden_layers)
        sizes = (config.decoder_hidden_size, config.decoder_intermediate_size, config.decoder_num_attention_heads)
        return [(*encoder, config.budget_for(config.grid) + 1), (decoders, *sizes, config.num_tokens)]
    visible = {spec.name: visible_count(spec, config.grid) + cls for spec in config.input_specs}
    stacks = [(*encoder, tokens) for tokens in visible.values()]
    if config.contrastive_weight > 0 and config.contrastive_position_free and config.target_specs:
        stacks *= 2
    if config.target_specs:
        masked = sum(config.num_tokens + cls - visible.get(spec.name, cls) for spec in config.target_specs)
        fused = config.decoder_fusion == "fused"
        tokens = config.num_tokens + cls if fused else sum(visible.values()) + masked
        decoder = (
            config.decoder_num_hidden_layers,
            config.decoder_hidden_size,
            config.decoder_intermediate_size,
            config.decoder_num_attention_heads,
        )
        stacks.append((*decoder, tokens))
    return stacks

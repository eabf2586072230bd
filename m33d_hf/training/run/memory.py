"""Estimates the memory of a training step on one process: weights and saved activations.

A model runs forward once on tensors without content, so that heads, decoders and the visible tokens are counted
exactly. The savings of gradient checkpointing are estimated from the sizes of the blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import visible_count
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.building import config_of

# A temporal model is counted on so many clips, or blocks of clips, and on twice as many: it grows by each alike.
_CLIPS = 8

# (blocks, width, MLP width, heads, tokens) of a sequence that passes through a stack of blocks
Stack = tuple[int, int, int, int, int]


def estimate_memory(task: Task, model: nn.Module, args: RunArguments, clips: int = 1) -> tuple[float, float]:
    """Bytes for (weights, gradients and optimizer state; saved activations) of one process.

    Temporary memory of the backward pass and of kernels, and the device's context, come on top.

    Args:
        task: says what a batch holds.
        model: what would be trained.
        args: the run.
        clips: number of clips of the longest video, for a task that learns from features of clips.
    """
    numbers = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = 4.0 * numbers + 12.0 * trained + (4.0 * numbers if args.train.ema_decay else 0.0)
    config = config_of(model)
    if task.learns_from_features:
        counted = _CLIPS * int(getattr(model, "clips_at_once", 1))
        few, more = (count_saved(task, model, args, number) for number in (counted, 2 * counted))
        return weights, few + (more - few) * (clips - counted) / counted
    activations = float(count_saved(task, model, args))
    if args.train.grad_checkpointing:
        stacks = _hidden_stacks(config) if task.hides_tokens else [_encoder(config)]
        recomputed = _estimated(stacks, args, True)
        activations = max(activations - (_estimated(stacks, args, False) - recomputed), recomputed)
    return weights, activations


def count_saved(task: Task, model: nn.Module, args: RunArguments, clips: int = 1) -> int:
    """Bytes that the backward pass of a step keeps, weights left out; nothing is computed.

    Args:
        task, model, args, clips: see `estimate_memory`.
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
    example = task.example_batch(config_of(model), rows, clips)
    trained = model.training
    model.train()
    mixed = args.train.precision != "no"
    saving = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with fake, saving, torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        model(**_on_cpu(example))
    model.train(trained)
    return sum(saved.values())


def _on_cpu(value: Any) -> Any:
    """A batch whose tensors without content are on the CPU; under a fake mode they take no memory."""
    if isinstance(value, dict):
        return {name: _on_cpu(entry) for name, entry in value.items()}
    if isinstance(value, Tensor) and value.is_meta:
        return torch.empty_like(value, device="cpu")
    return value


def _estimated(stacks: list[Stack], args: RunArguments, checkpointing: bool) -> float:
    """Bytes of the activations of all blocks.

    A block keeps about 6 token widths of its input, norms, queries, keys, values and attention output, twice its MLP
    width, and, with eager attention, two score matrices.
    """
    bytes_per_value = 4.0 if args.train.precision == "no" else 2.6  # norms and softmax stay in float32
    values = 0.0
    for depth, width, inner, heads, tokens in stacks:
        block = tokens * (8.0 * width + 2.0 * inner)
        if args.train.attn_implementation == "eager":
            block += 2.0 * heads * tokens * tokens
        values += depth * tokens * width + block if checkpointing else depth * block
    return args.train.batch_size * args.data.num_views * values * bytes_per_value


def _encoder(config: M33DConfig) -> Stack:
    """All tokens of one modality."""
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads)
    return (*sizes, config.num_tokens + int(bool(config.use_cls_token)) + config.num_register_tokens)


def _hidden_stacks(config: M33DConfig) -> list[Stack]:
    """Every sequence that passes through a stack of blocks where masks hide tokens from the encoders."""
    cls, encoder = int(bool(config.use_cls_token)), _encoder(config)[:-1]
    if config.token_budget is not None:
        decoders = len(config.target_specs) * (1 + config.decoder_num_hidden_layers)
        sizes = (config.decoder_hidden_size, config.decoder_intermediate_size, config.decoder_num_attention_heads)
        seen = config.budget_for(config.grid) + 1 + config.num_register_tokens
        return [(*encoder, seen), (decoders, *sizes, config.num_tokens)]
    visible = {spec.name: visible_count(spec, config.grid) + cls for spec in config.input_specs}
    stacks = [(*encoder, tokens + config.num_register_tokens) for tokens in visible.values()]
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

"""Floating-point operations per sample by formula: the second way to what `m33d_hf.evaluation.flops` counts.

Matrix products only, 2 per multiply-add. A training step costs three forward passes' worth, as every product has two
gradients; only the patch projection, whose input is data, has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.heads_m33d import evenly_spaced_layers, scaled_stem_channels
from m33d_hf.modeling.masking_m33d import JOINT, visible_count
from m33d_hf.modeling.task_heads_m33d import HEADS


@dataclass
class FlopCount:
    """Forward operations per sample by part.

    `parts` maps a part ("encoder", "decoder", ...) to its operations; `first` counts those of them whose input needs no
    gradient, `frozen` the gradient operations that a part without gradients does not have.
    """

    parts: dict[str, float] = field(default_factory=dict)
    first: float = 0.0
    frozen: float = 0.0

    def add(self, part: str, operations: float, first: bool = False) -> None:
        """Add forward operations to a part."""
        self.parts[part] = self.parts.get(part, 0.0) + operations
        self.first += operations if first else 0.0

    @property
    def forward(self) -> float:
        """Operations of a forward pass."""
        return sum(self.parts.values())

    @property
    def training(self) -> float:
        """Operations of a forward and a backward pass."""
        return 3.0 * self.forward - self.first - self.frozen

    def freeze(self) -> None:
        """All parts so far have no backward pass."""
        self.first, self.frozen = 0.0, 2.0 * self.forward


def linear(rows: float, inputs: int, outputs: int) -> float:
    """Operations of a linear layer on `rows` vectors."""
    return 2.0 * rows * inputs * outputs


def block(width: int, inner: int, context: int, queries: int | None = None) -> float:
    """Operations of one transformer block.

    Args:
        width, inner: of the block and of its MLP.
        context: tokens that give keys and values.
        queries: tokens that are updated; None = all of the context.
    """
    updated = context if queries is None else queries
    project = linear(updated, width, width) + linear(context, width, 2 * width) + linear(updated, width, width)
    attend = 4.0 * updated * context * width
    return project + attend + linear(updated, width, inner) + linear(updated, inner, width)


def pretraining_formula(config: M33DConfig, batch_size: int = 1, customary: bool = False) -> FlopCount:
    """One sample of pre-training.

    Args:
        config: the model; its `grid` and mask ratios decide the tokens.
        batch_size: matters for `contrastive_negatives: batch` alone.
        customary: count as MAE and VideoMAE are written: all patches projected, masked tokens not singled out in the
            last decoder layer (nor, in MAE, in the prediction head). For comparison with published figures.
    """
    count = FlopCount()
    passes = _encoder_passes(config)
    for lengths in passes:
        _add_encoder(count, config, lengths, customary)
    if config.target_specs:
        _add_decoder(count, config, customary)
    _add_pair_losses(count, config, batch_size)
    if config.distillation_weight > 0:
        _add_teacher(count, config)
    return count


def _visible(config: M33DConfig) -> dict[str, int]:
    if config.token_budget is not None:
        return {JOINT: config.budget_for(config.grid)}
    return {spec.name: visible_count(spec, config.grid) for spec in config.input_specs}


def _encoder_passes(config: M33DConfig) -> list[dict[str, int]]:
    """Tokens by modality (without class token) of every encoder pass of a step."""
    visible = _visible(config)
    contrasts = config.contrastive_weight > 0
    own_pass = contrasts and (config.contrastive_position_free or config.contrastive_tokens == "full_forward")
    main = bool(config.target_specs) or config.matching_weight > 0 or config.distillation_weight > 0 or not own_pass
    everything = {name: config.num_tokens for name in visible}
    passes = [visible] if main else []
    if own_pass:
        passes.append(everything if config.contrastive_tokens == "full_forward" else visible)
    return passes


def _add_encoder(
    count: FlopCount, config: M33DConfig, lengths: dict[str, int], customary: bool = False, together: bool = False
) -> None:
    """Add patch projection and encoder blocks for one pass over the given tokens, `together` in one sequence."""
    cls = int(bool(config.use_cls_token))
    projections = lengths
    if JOINT in lengths:  # which modality a token is of varies, so each modality projects as many as the budget
        projections = {spec.name: lengths[JOINT] for spec in config.input_specs}
    for name, visible in projections.items():
        projected = config.num_tokens if customary else visible
        patch = linear(projected, config.patch_dim(config.spec(name)), config.hidden_size)
        count.add("patch projection", patch, first=True)
    sequences = [tokens + cls for tokens in lengths.values()]
    if config.joint_encoding or together:
        sequences = [sum(sequences)]
    unplaced = int(config.global_token) + config.num_register_tokens
    for tokens in sequences:
        one = block(config.hidden_size, config.intermediate_size, tokens + unplaced)
        count.add("encoder", config.num_hidden_layers * one)


def _add_decoder(count: FlopCount, config: M33DConfig, customary: bool) -> None:
    width, inner, depth = (
        config.decoder_hidden_size,
        config.decoder_intermediate_size,
        config.decoder_num_hidden_layers,
    )
    cls = int(bool(config.use_cls_token))
    visible = _visible(config)
    if config.decoder_kind == "per_target":
        _add_target_decoders(count, config, visible[JOINT] + int(config.global_token))
        return
    masked = {spec.name: config.num_tokens - visible.get(spec.name, 0) for spec in config.target_specs}
    noisy = {spec.name: visible[spec.name] + cls for spec in config.denoised_specs}
    for spec in config.denoised_specs:
        count.add("prediction heads", linear(visible[spec.name], width, config.patch_dim(spec)))
    for tokens in visible.values():
        count.add("decoder", linear(tokens + cls, config.hidden_size, width))
    for name, tokens in masked.items():
        predicted = config.num_tokens if customary and not config.is_clip_model else tokens
        count.add("prediction heads", linear(predicted, width, config.patch_dim(config.spec(name))))
    if config.decoder_fusion == "fused":
        count.add("decoder", depth * block(width, inner, config.num_tokens + cls))
        return
    # (visible, masked, visible that are read because their noise is predicted)
    if config.decoder_fusion == "separate":
        names = dict.fromkeys([*masked, *noisy])
        sequences = [(visible.get(n, -cls) + cls, masked.get(n, 0), noisy.get(n, 0)) for n in names]
    else:
        sequences = [(sum(tokens + cls for tokens in visible.values()), sum(masked.values()), sum(noisy.values()))]
    for context, queries, noise in sequences:
        if config.decoder_attention == "cross":
            count.add("decoder", depth * block(width, inner, context, queries + noise))
            continue
        whole = context + queries
        last = block(width, inner, whole, None if customary else queries + noise)
        count.add("decoder", (depth - 1) * block(width, inner, whole) + last)


def _add_target_decoders(count: FlopCount, config: M33DConfig, context: int) -> None:
    """Add MultiMAE's decoders: each projects the context, reads it once, then attends within its own positions."""
    width, inner, tokens = config.decoder_hidden_size, config.decoder_intermediate_size, config.num_tokens
    for spec in config.target_specs:
        count.add("decoder", linear(context, config.hidden_size, width))
        count.add("decoder", block(width, inner, context, tokens))
        count.add("decoder", config.decoder_num_hidden_layers * block(width, inner, tokens))
        count.add("prediction heads", linear(tokens, width, config.patch_dim(spec)))


def _add_teacher(count: FlopCount, config: M33DConfig) -> None:
    """Add the forward pass of a distillation's teacher, which has no gradients."""
    visible = _visible(config)
    tokens = visible if config.distillation_tokens == "visible" else dict.fromkeys(visible, config.num_tokens)
    teacher = FlopCount()
    _add_encoder(teacher, config, tokens)
    count.add("teacher", teacher.forward)
    count.frozen += 2.0 * teacher.forward


def _add_pair_losses(count: FlopCount, config: M33DConfig, batch_size: int) -> None:
    visible = _visible(config)
    if config.contrastive_tokens == "full_forward":
        visible = {name: config.num_tokens for name in visible}
    for spec in config.paired_specs:
        if config.contrastive_weight > 0:
            dim = config.contrastive_projection_dim
            if dim:
                count.add("pair losses", linear(visible["rgb"] + visible[spec.name], config.hidden_size, dim))
            others = batch_size if config.contrastive_negatives == "batch" else 1
            columns = visible[spec.name] * others
            count.add("pair losses", linear(visible["rgb"], dim or config.hidden_size, columns))
        if config.matching_weight > 0:
            pairs = 1 + config.num_matching_negatives
            width = config.hidden_size * (2 if config.matching_fusion == "concat" else 1)
            count.add("pair losses", linear(pairs, width, 2))


def task_formula(config: M33DConfig, task: str, inputs: Sequence[str] = ("rgb",)) -> FlopCount:
    """One sample of a fine-tuning task, which sees all tokens of its inputs.

    A sample of "action_detection" is one clip, encoder included: a forward pass extracts its features, once, and only
    "temporal" has gradients, of the weights alone in its first layer.
    """
    count = FlopCount()
    shared = config.encoder_sharing == "shared"
    _add_encoder(count, config, dict.fromkeys(inputs, config.num_tokens), together=shared)
    if len(config.task_inputs or ["rgb"]) > 1 and not (shared or config.joint_encoding):
        count.add("fusion", _fusion(config, inputs))
    frames, height, width = config.grid
    labels = config.num_labels
    if task in ("video_classification", "action_detection"):
        count.add("head", linear(1, config.hidden_size, labels))
        if task == "action_detection":
            count.freeze()
            count.add("temporal", _recurrent(config, labels))
            directions = 1 if config.temporal_causal else 2
            count.first = directions * linear(1, config.hidden_size, 3 * config.temporal_hidden_size)
    elif task == "semantic_segmentation":
        count.add("head", frames * _segmentation_head(config, height, width, labels))
    elif task == "depth_estimation":
        layers = config.depth_head_layers or evenly_spaced_layers(config.num_hidden_layers)
        skipped = config.num_hidden_layers - 1 - max(layers)
        count.parts["encoder"] *= 1 - skipped / config.num_hidden_layers
        count.add("head", frames * _depth_head(config, height, width))
    else:
        count.add("head", layers_of_head(config, task))
    return count


def _fusion(config: M33DConfig, inputs: Sequence[str]) -> float:
    """Operations of the fusion of RGB and depth; a sum has no matrix product."""
    tokens, width, both = config.num_tokens, config.hidden_size, len(inputs) > 1
    if config.task_fusion == "concatenation":
        return linear(tokens, len(inputs) * width, width)
    if config.task_fusion == "cross_attention" and both:
        return 2 * linear(tokens, width, width) + linear(tokens, width, 2 * width) + 4.0 * tokens * tokens * width
    return 0.0


def layers_of_head(config: M33DConfig, task: str) -> float:
    """Operations of the linear layers and convolutions of a head, from the shapes that pass through each of them.

    For heads without a formula of their own above: those that multiply in another way (attention) need one.
    """
    (head,) = (head for head in HEADS if head.task == task)
    total = 0.0

    def add(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        # Every output value of a layer, or of a transposed convolution every input value, meets one row of weights.
        rows = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += 2.0 * rows.numel() * weight.numel() / weight.shape[0]

    with torch.device("meta"):
        model = head.load_class()(config).to("meta")  # some buffers are made on the CPU
    for part in head.parts:
        module = getattr(model, part)
        for layer in module.modules() if module is not None else ():  # a part that this configuration leaves out
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(add)
    model(pixel_values=torch.empty(1, 3, *config.image_height_width, device="meta"))
    return total


def _recurrent(config: M33DConfig, labels: int) -> float:
    """Operations of a GRU and its classifier per clip: three gates of input and state in each direction."""
    directions, width = (1 if config.temporal_causal else 2), config.temporal_hidden_size
    total = linear(1, directions * width, labels)
    for layer in range(config.temporal_num_layers):
        inputs = config.hidden_size if layer == 0 else directions * width
        total += directions * linear(1, inputs + width, 3 * width)
    return total


def _convolution(pixels: float, inputs: int, outputs: int, kernel: int) -> float:
    """Operations of a kernel x kernel convolution with `pixels` output pixels."""
    return 2.0 * pixels * inputs * outputs * kernel * kernel


def _segmentation_head(config: M33DConfig, height: int, width: int, labels: int) -> float:
    channels, up = config.segmentation_head_width, config.segmentation_head_upscale
    pixels = height * up * width * up
    refine = _convolution(pixels, 1, channels, 7) + 2 * linear(pixels, channels, 4 * channels)
    projection = linear(height * width, config.hidden_size, channels * up * up)
    return projection + config.segmentation_head_depth * refine + linear(pixels, channels, labels)


def _depth_head(config: M33DConfig, height: int, width: int) -> float:
    stems = config.depth_head_stem_channels or scaled_stem_channels(config.hidden_size)
    fine, middle, _, coarse = stems
    tokens, size = height * width, config.depth_head_width
    half = ((height + 1) // 2) * ((width + 1) // 2)
    maps = (16 * tokens, 4 * tokens, tokens, half)
    total = sum(linear(tokens, config.hidden_size, channels) for channels in stems)
    total += linear(tokens, fine, 16 * fine) + linear(tokens, middle, 4 * middle)
    total += _convolution(half, coarse, coarse, 3)
    total += sum(_convolution(pixels, channels, size, 3) for pixels, channels in zip(maps, stems, strict=True))
    rows, columns = config.image_height_width
    fused = (rows // 2) * (columns // 2)
    outputs: Sequence[int] = (fused, *maps[:3])
    for level in range(4):
        units = 2 if level < 3 else 1  # the coarsest has nothing to add
        total += units * 2 * _convolution(maps[level], size, size, 3) + linear(outputs[level], size, size)
    reduced = max(1, size // 2)
    total += _convolution(fused, size, reduced, 3)
    total += _convolution(rows * columns, reduced, max(1, size // 8), 3)
    return total + linear(rows * columns, max(1, size // 8), 1)

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""M33DModel: the encoders of visible tokens, and the habits that every M33D model shares."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .arguments_m33d import refuse_unknown_arguments
from .batch_checks_m33d import check_alike, check_keep, collect_masks, without_holes
from .configuration_m33d import M33DConfig, ModalitySpec
from .decoder_m33d import M33DDecoder
from .depth_prior_m33d import M33DDepthPrior
from .encoder_choice_m33d import with_encoders
from .encoder_m33d import M33DEmbeddings, M33DEncoder, M33DPositions, as_clip
from .errors_m33d import ConfigError
from .initialisation_m33d import Leaf, initialise_as_asked, initialise_patch_kernel
from .leftovers_m33d import PRETRAINING_PARTS
from .masking_m33d import JOINT
from .multimae_decoder_m33d import M33DTargetDecoder
from .outputs_m33d import M33DModelOutput
from .patches_m33d import Grid
from .positions_m33d import M33DLearnedPositions, encoder_positions
from .pushing_m33d import PushesInOneCommit
from .states_m33d import M33DAttentions, M33DHiddenStates, M33DStateTaps, states_are_wanted
from .task_fusion_m33d import M33DTaskFusion

Tensors = dict[str, torch.Tensor]

# Under this name `encode` gives the output of the global token.
GLOBAL = "global"


class M33DPreTrainedModel(PushesInOneCommit, PreTrainedModel):  # type: ignore[misc]
    """Weight initialisation and the habits shared by every M33D model."""

    config: M33DConfig
    config_class = M33DConfig
    base_model_prefix = "m33d"
    main_input_name = "pixel_values"
    input_modalities = ["image", "video"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    # Losses are means over the batch: a Trainer divides them by its accumulation steps, and passes no count.
    accepts_loss_kwargs = False
    _no_split_modules = ["M33DEmbeddings", "M33DLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Not the blocks: several encoders give one tensor per layer, and those of decoders are nobody's hidden states.
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": OutputRecorder(M33DHiddenStates),
        "attentions": OutputRecorder(M33DAttentions),
    }

    def __init__(self, config: M33DConfig, *args: Any, **kwargs: Any) -> None:
        # from_pretrained may have overridden fields after the configuration was built.
        config.check()
        super().__init__(config, *args, **kwargs)

    def _initialize_weights(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Visit every module that is not whole, also one whose own tensors are all loaded or that has none.

        For code from outside the library such modules are passed over, as if they could only write to tensors that
        are loaded. `_init_weights` minds loaded tensors one by one and may fill children (a dictionary's parameters).
        """
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier for linear layers and flattened patch kernels, as MAE; position tables are made anew.

        Leaf modules may ask otherwise through an attribute `m33d_init`: "trunc_normal" (std `initializer_range`),
        "default" (torch's own) and others, see `initialise_as_asked`.
        """
        wanted = getattr(module, "m33d_init", None)
        if wanted is not None:
            initialise_as_asked(cast(Leaf, module), wanted, self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, M33DPositions):
            init.copy_(module.table, module.build())
        elif isinstance(module, M33DDepthPrior):
            module.reset()
        elif isinstance(module, M33DLearnedPositions):
            init.trunc_normal_(module.spatial, std=0.02)
            if module.temporal is not None:
                init.trunc_normal_(module.temporal, std=0.02)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            initialise_patch_kernel(module)  # the convolutions of heads ask for their own, above
        elif isinstance(module, M33DEmbeddings):
            if module.cls_token is not None:
                init.normal_(module.cls_token, std=0.02)
        elif isinstance(module, M33DEncoder):
            if module.register_tokens is not None:
                init.normal_(module.register_tokens, std=0.02)
        elif isinstance(module, M33DDecoder):
            init.normal_(module.mask_token, std=0.02)
            for embedding in module.modality_embeddings.values():
                init.normal_(embedding, std=0.02)
        elif isinstance(module, M33DTargetDecoder):
            init.zeros_(module.mask_token)
            for embedding in module.task_embeddings.values():
                init.trunc_normal_(embedding, std=0.02)
        elif isinstance(module, M33DTaskFusion):
            if module.scale is not None:
                init.zeros_(module.scale)
        elif isinstance(module, M33DModel):
            if module.global_token is not None:
                init.trunc_normal_(module.global_token, std=0.02)
        else:
            super()._init_weights(module)


class M33DModel(M33DPreTrainedModel):
    """The encoders. Given RGB alone it is a plain vision transformer; it masks only what `keep` says.

    Loading a pre-training checkpoint takes the encoders; decoder and pre-training heads are left out by name.

    Args:
        config: the configuration.
        modalities: names of the input modalities to build; all when None. Task models build "rgb" alone.
        final_norm: whether encoders end in a layer norm; heads that read raw blocks have none. None goes by
            `config.encoder_norm`. With neither of the two the configuration's `encoder_modalities` and
            `encoder_final_norm` decide, so that a task model's folder gives the encoder that it holds.

    Raises:
        ConfigError: a global token for encoders that modalities pass separately.
    """

    _keys_to_ignore_on_load_unexpected = list(PRETRAINING_PARTS)  # noqa: RUF012

    def __init__(
        self, config: M33DConfig, modalities: list[str] | None = None, final_norm: bool | None = None
    ) -> None:
        if modalities is None and final_norm is None:
            modalities, final_norm = config.encoder_modalities, config.encoder_final_norm
        final_norm = config.encoder_norm if final_norm is None else final_norm
        specs = config.input_specs if modalities is None else tuple(config.spec(name) for name in modalities)
        config = with_encoders(config, [spec.name for spec in specs], final_norm)
        super().__init__(config)
        self.input_specs: tuple[ModalitySpec, ...] = specs
        self.embeddings = nn.ModuleDict({spec.name: M33DEmbeddings(config, spec) for spec in specs})
        self.encoders = nn.ModuleDict({config.encoder_name(spec): M33DEncoder(config, final_norm) for spec in specs})
        self.positions = encoder_positions(config)
        self.taps = M33DStateTaps()
        if config.global_token and len(specs) > 1 and not config.joint_encoding:
            raise ConfigError("global_token requires a joint sequence; set joint_encoding to True.")
        self.global_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.global_token else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first modality's patch projection."""
        return cast(M33DEmbeddings, self.embeddings[self.input_specs[0].name]).projection

    def collect_inputs(self, given: dict[str, Any], kwargs: dict[str, Any]) -> Tensors:
        """Pick the modality inputs out of the forward arguments as name -> (B, T, C, H, W), 0 where a mask says so.

        Raises:
            ConfigError: no input at all, or an argument nobody knows.
            DataError: an input of the wrong shape, or inputs and masks of different samples, frames or size.
        """
        known = [n for spec in self.config.specs for n in (spec.input_name, spec.mask_name) if n]
        refuse_unknown_arguments({k: v for k, v in kwargs.items() if k not in known}, [*known, "keep"])
        values = {**given, **kwargs}
        inputs = {
            spec.name: as_clip(values[spec.input_name], spec, self.config)
            for spec in self.input_specs
            if values.get(spec.input_name) is not None
        }
        if not inputs:
            names = [spec.input_name for spec in self.input_specs]
            raise ConfigError(f"forward got none of the inputs {names}; pass at least one.")
        masks = collect_masks(self.config, values)
        check_alike(inputs, masks)
        return without_holes(inputs, masks)

    def check_visible(self, keep: Tensors | None, inputs: Tensors) -> None:
        """Refuse a `keep` that does not fit the inputs: see `check_keep`."""
        if keep is not None:
            known = [spec.name for spec in self.config.input_specs]
            check_keep(keep, inputs, known, math.prod(self.grid_of(next(iter(inputs.values())))))

    def grid_of(self, pixels_BTCHW: torch.Tensor) -> Grid:
        """Token grid (t, h, w) of an input."""
        return self.config.grid_for(pixels_BTCHW.shape[1], *pixels_BTCHW.shape[-2:])

    def encode(
        self,
        inputs: Tensors,
        keep: Tensors | None = None,
        use_positions: bool = True,
        recorded: bool = False,
        seen: Tensors | None = None,
    ) -> Tensors:
        """Encode the visible tokens of every input: name -> (B, cls + V, D).

        Modalities pass separately (unless `joint_encoding`), because contrastive and matching terms need features
        that have not seen the other modality; passes through one shared encoder are batched when their lengths agree.
        With a token budget (`keep` holds "joint") the visible tokens of all modalities come back under "joint". A
        global token comes back under "global", (B, 1, D).

        A `recorded` pass is the one whose hidden states and attention weights are read off (see `M33DStateTaps`).

        With `seen`, name -> (B, cls + N) bool of some modalities, those of a shared encoder are one sequence, in which
        no token attends to one that is not seen (task models, see `task_base_m33d`).
        """
        if keep is not None and JOINT in keep:
            tokens = {JOINT: self._embed_jointly(inputs, keep[JOINT], use_positions)}
        else:
            tokens = {}
            for name, pixels in inputs.items():
                positions = self.positions(self.grid_of(pixels)) if use_positions else None
                tokens[name] = self.embeddings[name](pixels, None if keep is None else keep[name], positions)
        encoders = [self._encoder(name) for name in inputs]
        if JOINT in tokens or self.config.joint_encoding or self.global_token is not None:
            return self._encode_jointly(tokens, encoders[0], recorded, seen)
        if seen is not None and encoders[0] is encoders[-1]:
            return self._encode_jointly(tokens, encoders[0], recorded, seen)
        if recorded:
            return dict(zip(tokens, self._in_step(encoders, list(tokens.values()))))
        if len(tokens) == 1 or self.config.encoder_sharing == "separate":
            return {name: encoder(sequence) for encoder, (name, sequence) in zip(encoders, tokens.items())}
        encoder = self.encoders["shared"]
        lengths = [sequence.shape[1] for sequence in tokens.values()]
        if all(length == lengths[0] for length in lengths):  # no set: while a graph is traced they have no hash
            return dict(zip(tokens, encoder(torch.cat(list(tokens.values()))).chunk(len(tokens))))
        return {name: encoder(sequence) for name, sequence in tokens.items()}

    def _in_step(
        self, encoders: list[M33DEncoder], sequences: list[torch.Tensor], seen_BN: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        *_, last = self.taps.run(encoders, sequences, seen_BN)
        return [encoder.normed(states) for encoder, states in zip(encoders, last)]

    def _embed_jointly(self, inputs: Tensors, joint_BV: torch.Tensor, use_positions: bool) -> torch.Tensor:
        """(B, V, D) visible tokens of all modalities, in the order of their joint index (see `draw_budget`).

        How many of the V belong to a modality varies by sample, so each modality embeds V patches, its own and (in the
        place of others) any, and each token is taken from the modality that it belongs to: shapes stay static.
        """
        absent = [spec.name for spec in self.input_specs if spec.name not in inputs]
        if absent:
            raise ConfigError(f"'keep' indexes all input modalities jointly, but the input of {absent} is missing.")
        t, h, w = self.grid_of(next(iter(inputs.values())))
        total = t * h * w
        owner = (joint_BV // total)[..., None]
        positions = self.positions((t, h, w)) if use_positions else None
        tokens: torch.Tensor | None = None
        for number, spec in enumerate(self.input_specs):
            own = self.embeddings[spec.name](inputs[spec.name], joint_BV % total, positions)
            tokens = own if tokens is None else torch.where(owner == number, own, tokens)
        return cast(torch.Tensor, tokens)

    def _encode_jointly(
        self, tokens: Tensors, encoder: M33DEncoder, recorded: bool, seen: Tensors | None = None
    ) -> Tensors:
        """One sequence through one encoder, the global token (where there is one) at its end."""
        if self.global_token is not None:
            first = next(iter(tokens.values()))
            tokens = {**tokens, GLOBAL: self.global_token.to(first.dtype).expand(first.shape[0], -1, -1)}
        lengths = [sequence.shape[1] for sequence in tokens.values()]
        joined = torch.cat(list(tokens.values()), dim=1)
        seen_BN = None
        if seen:
            ones = joined.new_ones(joined.shape[:2], dtype=torch.bool).split(lengths, dim=1)
            seen_BN = torch.cat([seen.get(name, each) for name, each in zip(tokens, ones)], dim=1)
        states = self._in_step([encoder], [joined], seen_BN)[0] if recorded else encoder(joined, seen_BN)
        return dict(zip(tokens, states.split(lengths, dim=1)))

    def _encoder(self, name: str) -> M33DEncoder:
        return cast(M33DEncoder, self.encoders[self.config.encoder_name(self.config.spec(name))])

    def without_cls(self, states_BND: torch.Tensor) -> torch.Tensor:
        """Drop the class token where there is one."""
        return states_BND[:, int(bool(self.config.use_cls_token)) :]

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        depth_values: torch.Tensor | None = None,
        depth_mask: torch.Tensor | None = None,
        keep: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> M33DModelOutput:
        """Encode one or several modalities.

        Args:
            pixel_values: (B, 3, H, W) or (B, T, 3, H, W) normalised RGB.
            depth_values: (B, 1, H, W) or (B, T, 1, H, W) standardised depth.
            depth_mask: bool of that shape, valid pixels of the depth; where it is False the encoder reads 0, whatever
                stands there. Without it every pixel must hold a number.
            keep: name -> (B, V) int64 visible tokens; all tokens when None.
            kwargs: inputs of further modalities under their `input_name`.

        Raises:
            ConfigError: no input at all, an argument nobody knows, or `keep` of modalities that are not there.
            DataError: inputs, masks or `keep` of different samples, frames or size.
        """
        inputs = self.collect_inputs(
            {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}, kwargs
        )
        self.check_visible(keep, inputs)
        states = self.encode(inputs, keep, recorded=states_are_wanted(self.config, kwargs))
        pooled = self.without_cls(states["rgb" if "rgb" in states else next(iter(states))])
        return M33DModelOutput(
            last_hidden_state=torch.cat(list(states.values()), dim=1), pooler_output=pooled.mean(dim=1)
        )

    def forward_intermediates(
        self, pixel_values: torch.Tensor, layers: list[int], recorded: bool = False, with_cls: bool = False
    ) -> tuple[list[torch.Tensor], Grid]:
        """Raw outputs of RGB encoder blocks for dense heads.

        Args:
            pixel_values: (B, 3, H, W) or (B, T, 3, H, W).
            layers: block indices, 0-based; -1 is what the first block reads.
            recorded: see `encode`; then also the blocks run that no head reads.
            with_cls: leave the class token in front, where the model has one.

        Returns:
            One (B, N, D) per layer, and the token grid.
        """
        pixels = as_clip(pixel_values, self.config.spec("rgb"), self.config)
        grid = self.grid_of(pixels)
        tokens = self.embeddings["rgb"](pixels, None, self.positions(grid))
        count = tokens.shape[1]
        if self.global_token is not None:
            tokens = torch.cat([tokens, self.global_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
        encoder = self._encoder("rgb")
        if recorded:
            blocks = dict(enumerate(states for (states,) in self.taps.run([encoder], [tokens])))
            outputs = [{-1: tokens, **blocks}[layer] for layer in layers]
        else:
            outputs = encoder.intermediates(tokens, layers)
        patches = [output[:, :count] for output in outputs]
        return patches if with_cls else [self.without_cls(output) for output in patches], grid

    def extract_features(
        self, pixel_values: torch.Tensor | None = None, keep: Tensors | None = None, **inputs: Any
    ) -> Tensors:
        """The patch tokens of the given modalities: name -> (B, N, D), without class and global tokens.

        Args:
            pixel_values: as in `forward`.
            keep: name -> (B, V) visible tokens; never masked when None. With a token budget ("joint") the tokens of
                all modalities come back under "joint".
            inputs: further inputs, as in `forward`.

        Raises:
            ConfigError, DataError: as `forward`.
        """
        # Through the call of the module, so that its hooks (of a device map, of sharded weights) take part.
        states = self(pixel_values=pixel_values, keep=keep, **inputs, return_dict=True).last_hidden_state
        if keep is not None and JOINT in keep:
            return {JOINT: states[:, : keep[JOINT].shape[1]]}
        found = {}
        for name, pixels in self.collect_inputs({"pixel_values": pixel_values}, inputs).items():
            length = math.prod(self.grid_of(pixels)) if keep is None else keep[name].shape[1]
            length += int(bool(self.config.use_cls_token))
            found[name], states = self.without_cls(states[:, :length]), states[:, length:]
        return found

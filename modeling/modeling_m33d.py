"""M33DModel: the encoders of visible tokens, and the habits that every M33D model shares."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_m33d import M33DConfig, ModalitySpec
from .decoder_m33d import M33DDecoder
from .encoder_m33d import M33DEmbeddings, M33DEncoder, M33DPositions, as_clip
from .errors_m33d import ConfigError, nearest_name_hint
from .layers_m33d import M33DAttention, M33DLayer
from .leftovers_m33d import PRETRAINING_PARTS
from .masking_m33d import JOINT
from .multimae_decoder_m33d import M33DTargetDecoder
from .outputs_m33d import M33DModelOutput
from .patches_m33d import Grid
from .positions_m33d import M33DLearnedPositions, encoder_positions

Tensors = dict[str, torch.Tensor]

# Under this name `encode` gives the output of the global token.
GLOBAL = "global"


class M33DPreTrainedModel(PreTrainedModel):
    """Weight initialisation and the habits shared by every M33D model."""

    config: M33DConfig
    config_class = M33DConfig
    base_model_prefix = "m33d"
    main_input_name = "pixel_values"
    input_modalities = ["image", "video"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["M33DEmbeddings", "M33DLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # "encoders": the decoder is made of the same blocks, and its states are nobody's hidden states.
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": OutputRecorder(M33DLayer, index=0, layer_name="encoders"),
        "attentions": OutputRecorder(M33DAttention, index=1, layer_name="encoders"),
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
        "default" (torch's own) or "apart" (Xavier for each of the square matrices that are stacked in it).
        """
        wanted = getattr(module, "m33d_init", None)
        if wanted is not None:
            _initialise_as_asked(cast(_Leaf, module), wanted, self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, M33DPositions):
            init.copy_(module.table, module.build())
        elif isinstance(module, M33DLearnedPositions):
            init.trunc_normal_(module.spatial, std=0.02)
            if module.temporal is not None:
                init.trunc_normal_(module.temporal, std=0.02)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            _initialise_patch_kernel(module)  # the convolutions of heads ask for their own, above
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
        elif isinstance(module, M33DModel):
            if module.global_token is not None:
                init.trunc_normal_(module.global_token, std=0.02)
        else:
            super()._init_weights(module)


class _Leaf(Protocol):
    weight: torch.Tensor
    bias: torch.Tensor | None


def _initialise_as_asked(module: _Leaf, wanted: str, std: float) -> None:
    if wanted == "default":
        init.kaiming_uniform_(module.weight, a=5**0.5)
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.bias, -bound, bound)
        return
    if wanted == "apart":
        bound = (3.0 / module.weight.shape[1]) ** 0.5
        init.uniform_(module.weight, -bound, bound)
    else:
        init.trunc_normal_(module.weight, std=std)
    if module.bias is not None:
        init.zeros_(module.bias)


def _initialise_patch_kernel(convolution: nn.Conv2d | nn.Conv3d) -> None:
    """Xavier over the flattened kernel (D, C * t * p * p); the bias keeps torch's own range, as MAE's does."""
    fan_out, fan_in = convolution.weight.flatten(1).shape
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    init.uniform_(convolution.weight, -bound, bound)
    if convolution.bias is not None:
        init.uniform_(convolution.bias, -(fan_in**-0.5), fan_in**-0.5)


def refuse_unknown_arguments(kwargs: dict[str, Any], known: list[str]) -> None:
    """Raise for forward arguments that would vanish in ``**kwargs``.

    Raises:
        ConfigError: naming the argument and the nearest known one.
    """
    library = set(TransformersKwargs.__annotations__)
    library |= {"output_attentions", "output_hidden_states", "return_dict", "num_items_in_batch", "use_cache"}
    for name in kwargs:
        if name not in library:
            raise ConfigError(f"forward has no argument {name!r}.{nearest_name_hint(name, [*known, *library])}")


class M33DModel(M33DPreTrainedModel):
    """The encoders. Given RGB alone it is a plain vision transformer; it masks only what `keep` says.

    Loading a pre-training checkpoint takes the encoders; decoder and pre-training heads are left out by name.

    Args:
        config: the configuration.
        modalities: names of the input modalities to build; all when None. Task models build "rgb" alone.
        final_norm: whether encoders end in a layer norm; heads that read raw blocks have none. None goes by
            `config.encoder_norm`.

    Raises:
        ConfigError: a global token for encoders that modalities pass separately.
    """

    _keys_to_ignore_on_load_unexpected = list(PRETRAINING_PARTS)  # noqa: RUF012

    def __init__(
        self, config: M33DConfig, modalities: list[str] | None = None, final_norm: bool | None = None
    ) -> None:
        super().__init__(config)
        final_norm = config.encoder_norm if final_norm is None else final_norm
        specs = config.input_specs if modalities is None else tuple(config.spec(name) for name in modalities)
        self.input_specs: tuple[ModalitySpec, ...] = specs
        self.embeddings = nn.ModuleDict({spec.name: M33DEmbeddings(config, spec) for spec in specs})
        self.encoders = nn.ModuleDict({config.encoder_name(spec): M33DEncoder(config, final_norm) for spec in specs})
        self.positions = encoder_positions(config)
        if config.global_token and len(specs) > 1 and not config.joint_encoding:
            raise ConfigError("global_token belongs to one joint sequence; set joint_encoding to True.")
        self.global_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.global_token else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first modality's patch projection."""
        return cast(M33DEmbeddings, self.embeddings[self.input_specs[0].name]).projection

    def collect_inputs(self, given: dict[str, Any], kwargs: dict[str, Any]) -> Tensors:
        """Pick the modality inputs out of the forward arguments as name -> (B, T, C, H, W).

        Raises:
            ConfigError: no input at all, or an argument nobody knows.
            DataError: an input of the wrong shape.
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
            raise ConfigError(f"forward got none of the inputs {names}; give at least one.")
        return inputs

    def grid_of(self, pixels_BTCHW: torch.Tensor) -> Grid:
        """Token grid (t, h, w) of an input."""
        return self.config.grid_for(pixels_BTCHW.shape[1], *pixels_BTCHW.shape[-2:])

    def encode(self, inputs: Tensors, keep: Tensors | None = None, use_positions: bool = True) -> Tensors:
        """Encode the visible tokens of every input: name -> (B, cls + V, D).

        Modalities pass separately (unless `joint_encoding`), because contrastive and matching terms need features
        that have not seen the other modality; passes through one shared encoder are batched when their lengths agree.
        With a token budget (`keep` holds "joint") the visible tokens of all modalities come back under "joint". A
        global token comes back under "global", (B, 1, D).
        """
        if keep is not None and JOINT in keep:
            visible = self._embed_jointly(inputs, keep[JOINT], use_positions)
            return self._encode_jointly({JOINT: visible}, self._encoder(next(iter(inputs))))
        tokens = {}
        for name, pixels in inputs.items():
            positions = self.positions(self.grid_of(pixels)) if use_positions else None
            tokens[name] = self.embeddings[name](pixels, None if keep is None else keep[name], positions)
        if self.config.joint_encoding or self.global_token is not None:
            return self._encode_jointly(tokens, self._encoder(next(iter(tokens))))
        if len(tokens) == 1 or self.config.encoder_sharing == "separate":
            return {name: self._encoder(name)(sequence) for name, sequence in tokens.items()}
        encoder = self.encoders["shared"]
        lengths = [sequence.shape[1] for sequence in tokens.values()]
        if len(set(lengths)) == 1:
            return dict(zip(tokens, encoder(torch.cat(list(tokens.values()))).chunk(len(tokens))))
        return {name: encoder(sequence) for name, sequence in tokens.items()}

    def _embed_jointly(self, inputs: Tensors, joint_BV: torch.Tensor, use_positions: bool) -> torch.Tensor:
        """(B, V, D) visible tokens of all modalities, in the order of their joint index (see `draw_budget`).

        How many of the V belong to a modality varies by sample, so each modality embeds V patches, its own and (in the
        place of others) any, and each token is taken from the modality that it belongs to: shapes stay static.
        """
        absent = [spec.name for spec in self.input_specs if spec.name not in inputs]
        if absent:
            raise ConfigError(f"'keep' is a joint index over all input modalities, but {absent} was not given.")
        t, h, w = self.grid_of(next(iter(inputs.values())))
        total = t * h * w
        owner = (joint_BV // total)[..., None]
        positions = self.positions((t, h, w)) if use_positions else None
        tokens: torch.Tensor | None = None
        for number, spec in enumerate(self.input_specs):
            own = self.embeddings[spec.name](inputs[spec.name], joint_BV % total, positions)
            tokens = own if tokens is None else torch.where(owner == number, own, tokens)
        return cast(torch.Tensor, tokens)

    def _encode_jointly(self, tokens: Tensors, encoder: M33DEncoder) -> Tensors:
        """One sequence through one encoder, the global token (where there is one) at its end."""
        if self.global_token is not None:
            first = next(iter(tokens.values()))
            tokens = {**tokens, GLOBAL: self.global_token.to(first.dtype).expand(first.shape[0], -1, -1)}
        lengths = [sequence.shape[1] for sequence in tokens.values()]
        parts = encoder(torch.cat(list(tokens.values()), dim=1)).split(lengths, dim=1)
        return dict(zip(tokens, parts))

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
            depth_values: (B, 1, H, W) or (B, T, 1, H, W) standardised depth, 0 where invalid.
            depth_mask: valid pixels of the depth; the encoder does not need it.
            keep: name -> (B, V) int64 visible tokens; all tokens when None.
            kwargs: inputs of further modalities under their `input_name`.

        With a global token, `last_hidden_state` ends in it, and `modality_states` leaves it out.
        """
        inputs = self.collect_inputs(
            {"pixel_values": pixel_values, "depth_values": depth_values, "depth_mask": depth_mask}, kwargs
        )
        states = self.encode(inputs, keep)
        return M33DModelOutput(
            last_hidden_state=torch.cat(list(states.values()), dim=1),
            modality_states={n: self.without_cls(tokens) for n, tokens in states.items() if n != GLOBAL},
        )

    def forward_intermediates(self, pixel_values: torch.Tensor, layers: list[int]) -> tuple[list[torch.Tensor], Grid]:
        """Raw outputs of RGB encoder blocks for dense heads.

        Args:
            pixel_values: (B, 3, H, W) or (B, T, 3, H, W).
            layers: block indices, 0-based.

        Returns:
            One (B, N, D) per layer without class token, and the token grid.
        """
        pixels = as_clip(pixel_values, self.config.spec("rgb"), self.config)
        grid = self.grid_of(pixels)
        tokens = self.embeddings["rgb"](pixels, None, self.positions(grid))
        count = tokens.shape[1]
        if self.global_token is not None:
            tokens = torch.cat([tokens, self.global_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
        outputs = self._encoder("rgb").intermediates(tokens, layers)
        return [self.without_cls(output[:, :count]) for output in outputs], grid

    def extract_features(self, pixel_values: torch.Tensor | None = None, **inputs: Any) -> Tensors:
        """Encode every token of the given modalities, never masked: name -> (B, N, D)."""
        return self(pixel_values=pixel_values, **inputs).modality_states

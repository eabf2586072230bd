# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of every M33D model: what the modalities are, how they are masked, encoded, decoded and tied."""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .auto_m33d import TravelsWithItsCode
from .backbone_fields_m33d import BACKBONE_FIELDS, BackboneFields
from .class_names_m33d import ClassNames
from .configuration_checks_m33d import (
    CONFIG_RANGES,
    NO_PREDICTIONS,
    check_amounts,
    check_library_fields,
    check_modalities,
    check_positions,
    check_ranges,
    check_task_inputs,
    check_types,
    refuse_unknown_fields,
    refusing_as_ours,
)
from .errors_m33d import ConfigError, nearest_name_hint
from .modalities_m33d import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ModalitySpec,
    depth_modality,
    later_fields,
    rgb_modality,
    specs_of,
)
from .pretraining_checks_m33d import check_budget, check_decoder, check_follow_up, check_pair_losses
from .pretraining_fields_m33d import PretrainingFields
from .task_heads_m33d import HeadFields
from .temporal_checks_m33d import check_temporal_model

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "M33DConfig", "ModalitySpec", "depth_modality", "rgb_modality"]


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


@refusing_as_ours
@strict
class M33DConfig(TravelsWithItsCode, HeadFields, PretrainingFields, BackboneFields, PreTrainedConfig):
    r"""Configuration of M33D models. `M33DConfig()` is the paper's image model in stage 2, taken literally.

    From the paper to a field ("spec" is an entry of `modalities`; docs/method.md has each of them with its reason):

    | the paper | field | literal default |
    |---|---|---|
    | Eq. 1, unsquared norm against "MSE" | spec.loss | "mse" (MAE); "l2" is the printed norm |
    | "normalize the output patches as well" | spec.normalize_prediction | False (MAE code) |
    | Eq. 2, L1 for images, MSE for video | spec.loss of depth | "l1"; video recipes "mse" |
    | statistics of the target | spec.target_norm, spec.target_space | "pooled", "input"; video "per_channel", "unit" |
    | norm bars of Eq. 2 | spec.target_norm of depth | "none" (MultiMAE); the paper may mean a normalised target |
    | 1/omega, 1/lambda | loss_reduction | "batch" (pooled over the batch, MAE) |
    | masks, Table 11 | spec.masking, spec.mask_ratio | "random", 0.8 |
    | one mask for both modalities? | share_mask | None: shared for clips with equal masking |
    | masks in stage 1 (unsaid) | spec.mask_ratio, spec.weight | 0, 0 in the method files: every token is encoded |
    | tokens of Eq. 3 | contrastive_tokens | "visible" |
    | negatives of Eq. 3 | contrastive_negatives | "sample" |
    | norm bars of s_ij | contrastive_normalize | True (cosine) |
    | direction of Eq. 3 | contrastive_symmetric | False (RGB to depth) |
    | tau | contrastive_temperature, contrastive_learnable_temperature | 0.07, False |
    | projection head | contrastive_projection_dim | 0 (none) |
    | positions in the contrasted features | contrastive_position_free | False (added before the encoder) |
    | gamma, eta of Eq. 5 | contrastive_weight, matching_weight | 0, 0 (stage 2 of Eq. 7 has neither) |
    | alpha, beta of Eq. 5 and 7 | spec.weight | 0.1, 1.0 (Table 12) |
    | y of Eq. 4, as printed 1 for every pair | - | one-hot: own pairs matched, mismatched pairs not |
    | negatives of Eq. 4 | matching_negatives, num_matching_negatives | "roll", 1 |
    | features of Eq. 4 | matching_pool, matching_fusion | "mean", "concat" |
    | modality-specific or shared encoder | encoder_sharing | "separate" |
    | may modalities attend to each other in the encoder | joint_encoding | False |
    | shared decoder | decoder_fusion, decoder_attention, decoder_modality_embedding | "joint", "full", True |
    | class token | use_cls_token | None: images yes (MAE), clips no (VideoMAE), none beside a global token |
    | MultiMAE, the method compared with | token_budget, global_token, encoder_norm, decoder_kind | off |
    | sine-cosine positions | position_embedding_type | None: "sincos_2d" for images, "sincos_1d" for clips |
    | other resolutions | position_embedding_resize | "interpolate" |
    | depth scale | depth_standardization, depth_standardization_scope | "trimmed" (10 to 90 %), "clip" |
    | final norm before a dense head | head_norm | False (MultiMAE) |

    Not in the paper: the authors' follow-up (arXiv 2408.02245, known to us only from a summary), off by default:
    spec.denoising_weight and spec.denoising_std; distillation_weight and distillation_tokens.

    Args:
        image_size: height and width in pixels (one int for square).
        patch_size: height and width of a patch in pixels.
        num_frames: frames per sample; 1 is an image.
        tubelet_size: frames per tubelet; must divide `num_frames`.
        modalities: list of `ModalitySpec` entries, in order; None means RGB and depth as the paper has them.
        hidden_size: width D of the encoders (768: ViT-B).
        num_hidden_layers, num_attention_heads: blocks of an encoder; heads of a block, which must divide `hidden_size`.
        intermediate_size: hidden width of an encoder block's MLP.
        hidden_act, layer_norm_eps: activation of the MLPs, and what layer norms add to the variance.
        qkv_bias: whether queries, keys and values have biases.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout of tokens and of attention weights.
        initializer_range: standard deviation of the random initialisation.
        use_cls_token: None: images yes (MAE), clips no (VideoMAE), none beside a global token.
        encoder_sharing: an encoder per modality, or one that all pass through.
        joint_encoding: one encoder over the tokens of all modalities together (MultiMAE).
        position_embedding_type: "sincos_2d" and "sincos_1d" are fixed tables; "learned" keeps tables of places and of
            moments among the weights of the encoders (DINOv2, MAE-ST), and decoders stay with a fixed one.
        position_embedding_resize: how other sizes come by positions: "interpolate" is bicubic, "antialias" also
            smooths where it shrinks (DINOv2 with registers), "rebuild" computes a fixed table anew.
        position_grid: (t, h, w) grid on which the position table is defined; other grids interpolate it.
            None takes the grid of this configuration.
        drop_path_rate: stochastic depth, rising linearly over the encoder layers.
        encoder_norm: whether encoders end in a layer norm (MultiMAE's has none); task models go by their head.
        encoder_modalities, encoder_final_norm: which encoders a model holds where the other fields do not say so:
            written by task models (RGB alone, the norm by their head), read by M33DModel.
        global_token: one learned token of no modality and no position at the end of the encoder's sequence (MultiMAE).
        num_register_tokens: learned tokens that every encoder adds to its sequences and leaves out of its output
            (DINOv2 with registers); in `hidden_states` they stand last.
        token_budget: visible tokens of all input modalities together, divided anew for every sample by a Dirichlet
            draw (MultiMAE): a number from 1, or a share of all tokens below 1. None masks each modality by its ratio;
            with a budget the ratios of the modalities mean nothing.
        token_budget_alpha: concentration of that draw; 1 is uniform over all divisions, more is more even.
        depth_standardization: how depth becomes the model's input: shifted and scaled by mean and deviation of its
            values without the outer 10 % on either side ("trimmed"), of all values ("full"), or not at all ("none").
        depth_standardization_scope: whether these are of the whole "clip" or of each "frame".

    Fields of pre-training (decoder, losses, motion): see `PretrainingFields`. Fields of task heads: see `HeadFields`.
    What M33DBackbone gives (`out_features`, `out_indices`, `reshape_hidden_states`): see `BackboneFields`.

    Raises:
        ConfigError: any value that cannot work, with the field and the fix.
    """

    model_type = "m33d"
    keys_to_ignore_at_inference = list(NO_PREDICTIONS)  # noqa: RUF012

    image_size: int | list[int] | tuple[int, ...] = 224
    patch_size: int | list[int] | tuple[int, ...] = 16
    num_frames: int = 1
    tubelet_size: int = 1
    modalities: list[dict] | None = None

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    use_cls_token: bool | None = None
    position_embedding_type: Literal["sincos_2d", "sincos_1d", "learned"] | None = None
    position_embedding_resize: Literal["interpolate", "antialias", "rebuild"] = "interpolate"
    position_grid: list[int] | tuple[int, ...] | None = None
    encoder_sharing: Literal["separate", "shared"] = "separate"
    joint_encoding: bool = False
    encoder_norm: bool = True
    encoder_modalities: list[str] | None = None
    encoder_final_norm: bool | None = None
    global_token: bool = False
    num_register_tokens: int = 0
    token_budget: int | float | None = None
    token_budget_alpha: float | int = 1.0

    depth_standardization: Literal["trimmed", "full", "none"] = "trimmed"
    depth_standardization_scope: Literal["clip", "frame"] = "clip"

    def __post_init__(self, **kwargs: Any) -> None:
        backbone = {name: kwargs.pop(name) for name in BACKBONE_FIELDS if name in kwargs}
        known = [*BACKBONE_FIELDS, *(f.name for f in fields(type(self)))]
        refuse_unknown_fields(kwargs, known, self.transformers_version)
        self._check_fields()
        self.set_backbone_fields(**backbone)
        check_library_fields(self, kwargs)
        entries = self.modalities if self.modalities is not None else [rgb_modality(), depth_modality()]
        self._later_fields = later_fields(entries, self.transformers_version)
        self.modalities = [self._whole_entry(entry) for entry in entries]
        if self.use_cls_token is None:
            self.use_cls_token = self.num_frames == 1 and not self.global_token
        if self.position_embedding_type is None:
            self.position_embedding_type = self.fixed_positions
        self.check()
        if self.position_grid is None:
            self.position_grid = list(self.grid)
        super().__post_init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, ClassNames(value) if key == "id2label" and isinstance(value, dict) else value)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain data."""
        plain = super().to_dict()
        plain.pop("_later_fields", None)
        return plain if plain.get("id2label") is None else {**plain, "id2label": dict(plain["id2label"])}

    def _whole_entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        known = self._without_later_fields(entry)
        return {**ModalitySpec.from_dict(known).to_dict(), **{k: entry[k] for k in entry.keys() - known.keys()}}

    def _without_later_fields(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key not in self._later_fields}

    @property
    def specs(self) -> tuple[ModalitySpec, ...]:
        """All modalities, in order.

        Raises:
            ConfigError: `modalities` was changed to something else than entries.
        """
        entries = self.modalities or []
        if (stranger := next((entry for entry in entries if not isinstance(entry, dict)), None)) is not None:
            raise ConfigError(
                f"modalities holds {stranger!r}, but its entries are mappings, as rgb_modality() gives. To build the "
                "encoders of some modalities alone, pass their names beside the configuration: "
                "M33DModel.from_pretrained(FOLDER, config=M33DConfig.from_pretrained(FOLDER), "
                f"modalities=[{stranger!r}])."
            )
        if self._later_fields:
            entries = [self._without_later_fields(entry) for entry in entries]
        try:
            return specs_of(tuple(tuple(entry.items()) for entry in entries))
        except TypeError:  # an entry that somebody edited holds a list, which no cache can look up
            return tuple(ModalitySpec.from_dict(entry) for entry in entries)

    @property
    def input_specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities that are encoded."""
        return tuple(spec for spec in self.specs if spec.is_input)

    @property
    def target_specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities that are reconstructed."""
        return tuple(spec for spec in self.specs if spec.is_target)

    @property
    def denoised_specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities whose input gets noise, which is predicted."""
        return tuple(spec for spec in self.specs if spec.is_denoised)

    @property
    def paired_specs(self) -> tuple[ModalitySpec, ...]:
        """The input modalities that pairwise losses tie to RGB."""
        return tuple(spec for spec in self.input_specs if spec.name != "rgb")

    def spec(self, name: str) -> ModalitySpec:
        """Return the modality called `name`.

        Raises:
            ConfigError: there is none.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        names = [spec.name for spec in self.specs]
        raise ConfigError(f"no modality {name!r} among {names}.{nearest_name_hint(name, names)}")

    @property
    def image_height_width(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return _pair(self.image_size)

    @property
    def patch_height_width(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Token grid (t, h, w) at the configured frames and size."""
        return self.grid_for(self.num_frames, *self.image_height_width)

    def grid_for(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Token grid of an input of `frames` x `height` x `width` pixels.

        Raises:
            ConfigError: the frames are no multiple of the tubelet, or a side no multiple of the patch.
        """
        patch_h, patch_w = self.patch_height_width
        if frames % self.tubelet_size or frames < self.tubelet_size:
            raise ConfigError(
                f"{frames} frames are not a multiple of tubelet_size {self.tubelet_size}; "
                f"set num_frames to a multiple of {self.tubelet_size} or change tubelet_size."
            )
        if height < patch_h or width < patch_w:
            raise ConfigError(
                f"an image of {height} x {width} pixels is smaller than one patch of {patch_h} x {patch_w}; "
                "use larger images or a smaller patch_size."
            )
        if height % patch_h or width % patch_w:
            raise ConfigError(
                f"an image of {height} x {width} pixels cannot be divided into patches of {patch_h} x {patch_w}; "
                f"resize to a multiple, for example {height // patch_h * patch_h} x {width // patch_w * patch_w}."
            )
        return frames // self.tubelet_size, height // patch_h, width // patch_w

    @property
    def num_tokens(self) -> int:
        """Tokens N of one modality at the configured size, without class token."""
        t, h, w = self.grid
        return t * h * w

    @property
    def fixed_positions(self) -> Literal["sincos_2d", "sincos_1d"]:
        """The fixed table that goes with the frames by default, and that decoders have beside learned positions."""
        return "sincos_2d" if self.num_frames == 1 else "sincos_1d"

    @property
    def is_clip_model(self) -> bool:
        """Whether patch embeddings are 3-D convolutions on disk."""
        return self.num_frames > 1 or self.tubelet_size > 1

    def patch_dim(self, spec: ModalitySpec) -> int:
        """Values P of one patch (tubelet) of a modality."""
        patch_h, patch_w = self.patch_height_width
        return self.tubelet_size * patch_h * patch_w * spec.channels

    def encoder_name(self, spec: ModalitySpec) -> str:
        """Name of the encoder that a modality passes through."""
        return "shared" if self.encoder_sharing == "shared" or self.joint_encoding else spec.name

    @property
    def task_input_names(self) -> tuple[str, ...]:
        """What task models see (`task_inputs`, resolved): RGB before depth, whatever their order there."""
        named = self.task_inputs or ["rgb"]
        return tuple(name for name in ("rgb", "depth") if name in named)

    @property
    def temporal_input_size(self) -> int:
        """Values per clip that the temporal model reads: features, of `temporal_cameras` each with a flag."""
        if self.temporal_cameras is None:
            return self.hidden_size
        return len(self.temporal_cameras) * (self.hidden_size + 1)

    @property
    def task_tokens_are_fused(self) -> bool:
        """Whether task models see two inputs in separate encoders."""
        names = {self.encoder_name(self.spec(name)) for name in self.task_input_names}
        return len(names) > 1

    @property
    def masks_are_shared(self) -> bool:
        """Whether all input modalities show the same positions (`share_mask`, resolved)."""
        inputs = self.input_specs
        if len(inputs) < 2 or self.token_budget is not None:
            return False
        if self.share_mask is not None:
            return self.share_mask
        same = len({(spec.masking, spec.mask_ratio) for spec in inputs}) == 1
        # Whatever the losses: an ablation without the contrastive term must not change the masks as well.
        return same and self.num_frames > 1 and inputs[0].mask_ratio > 0

    def check(self) -> None:
        """Check fields against each other; models call it again because `from_pretrained` may override fields.

        Raises:
            ConfigError: with the field, its value and the fix.
        """
        self._check_fields()
        check_modalities(self)
        self._check_sizes()
        check_decoder(self)
        check_budget(self)
        check_pair_losses(self)
        check_follow_up(self)
        check_task_inputs(self)
        check_temporal_model(self)

    def _check_fields(self) -> None:
        check_types(self, field_types())
        check_ranges(vars(self), CONFIG_RANGES)

    def _check_sizes(self) -> None:
        check_amounts(self)
        for width, heads in (
            ("hidden_size", "num_attention_heads"),
            ("decoder_hidden_size", "decoder_num_attention_heads"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ConfigError(
                    f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}."
                )
            if getattr(self, width) % 4:
                raise ConfigError(f"{width} {getattr(self, width)} must be a multiple of 4 for sine-cosine positions.")
        check_positions(self)
        if self.min_depth >= self.max_depth:
            raise ConfigError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}.")
        # Of a model that was saved so, the loss may be done with: it predicts as ever.
        if self.depth_loss == "silog" and self.min_depth == 0 and self.transformers_version is None:
            raise ConfigError(
                f"depth_loss 'silog' takes the logarithm of depth from min_depth on, but min_depth is "
                f"{self.min_depth}; set min_depth above 0 (default {HeadFields.min_depth}), or another depth_loss."
            )

    def budget_for(self, grid: tuple[int, int, int]) -> int:
        """Visible tokens of all input modalities together on a grid, from `token_budget`.

        Raises:
            ConfigError: there is no budget, or it leaves nothing visible or nothing masked.
        """
        total = len(self.input_specs) * grid[0] * grid[1] * grid[2]
        budget = self.token_budget
        if budget is None:
            raise ConfigError("this model has no token_budget; its modalities are masked by their own ratios.")
        count = int(budget * total) if budget < 1 else int(budget)
        if not 1 <= count < total or (budget >= 1 and count != budget):
            raise ConfigError(
                f"token_budget {budget} keeps {count} of {total} tokens; set it to a share between 0 and 1, or "
                f"an integer from 1 to {total - 1}."
            )
        return count


FIELD_CLASSES: tuple[type, ...] = (M33DConfig, PretrainingFields, HeadFields)
"""The classes that declare and describe the fields."""


@functools.cache
def field_types() -> dict[str, Any]:
    """Field -> type of what M33DConfig itself has; those of the library's base class are the library's to check."""
    return {name: hint for cls in FIELD_CLASSES for name, hint in inspect.get_annotations(cls, eval_str=True).items()}

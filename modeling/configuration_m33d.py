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
    check_encoders,
    check_follow_up,
    check_library_fields,
    check_positions,
    check_ranges,
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

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "M33DConfig", "ModalitySpec", "depth_modality", "rgb_modality"]


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


@refusing_as_ours
@strict
class M33DConfig(TravelsWithItsCode, BackboneFields, PreTrainedConfig):
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
        decoder_kind: "shared" is the paper's one decoder; "per_target" gives every target a decoder of its own that
            reads the visible tokens by cross-attention, then has `decoder_num_hidden_layers` blocks of self-attention
            over its own positions (MultiMAE); it goes with a token budget.
        decoder_hidden_size, decoder_num_hidden_layers, decoder_num_attention_heads, decoder_intermediate_size: of the
            decoder as of the encoders.
        decoder_fusion: "joint" decodes the tokens of all modalities in one sequence, "fused" their sum, "separate"
            each by itself.
        decoder_attention: "full" among all tokens, or "cross" from masked to visible ones.
        decoder_modality_embedding: whether a learned embedding tells the decoder the modality of a token.
        loss_reduction: reconstruction averaged over all masked patches of the "batch" (MAE), or per "sample" first.
        share_mask: hide the same positions in all modalities; None: for clips whose modalities are masked alike.
        contrastive_weight: gamma of Eq. 5, weight of the contrastive term; 0 removes it.
        contrastive_temperature, contrastive_learnable_temperature: tau of Eq. 3, and whether it is trained.
        contrastive_projection_dim: width of a projection head before the comparison; 0 is none.
        contrastive_symmetric: also compare from depth to RGB.
        contrastive_normalize: compare by cosine; False takes the plain product.
        contrastive_negatives: negatives of Eq. 3: other tokens of the same "sample", or of the whole "batch".
        contrastive_min_valid: tokens with at most this share of valid pixels are neither positives nor negatives.
        contrastive_tokens: "visible" contrasts the tokens that the masked pass kept; "full_forward" encodes all
            tokens of both modalities in an extra pass.
        contrastive_position_free: contrast features of a pass without position embeddings; with reconstruction in
            the same step this costs one more encoder pass over the same visible tokens.
        matching_weight: eta of Eq. 5, weight of the matching term; 0 removes it.
        matching_fusion, matching_pool: how the two features of Eq. 4 are combined, and made of tokens.
        matching_negatives: mismatched pairs of Eq. 4: depth of the next sample ("roll") or of a random other one
            ("shuffle").
        num_matching_negatives: mismatched pairs per sample.
        distillation_weight: weight of a smooth L1 loss between the max-pooled features of what the encoders see and
            those of the frozen model that the training started from (the follow-up's stage-1 model). The teacher is no
            part of this model: its features are a forward argument.
        distillation_tokens: "all" shows the teacher whole clean inputs, as stage 1 did (ours: the summary says no
            more than "global"); "visible" shows it the student's tokens, without the student's noise.
        motion_score: "pixel_diff" (mean absolute difference of neighbouring frames).
        motion_select: "sample" draws tokens with probability proportional to score ** motion_gamma; "topk" takes
            the largest.
        motion_target: "visible" shows moving tokens to the encoder, "masked" hides them.
        motion_gamma: exponent of the score; 0 draws tokens evenly.
        motion_floor: added to every score as a share of the mean score, so that still tokens can be drawn too.
        depth_standardization: how depth becomes the model's input: shifted and scaled by mean and deviation of its
            values without the outer 10 % on either side ("trimmed"), of all values ("full"), or not at all ("none").
        depth_standardization_scope: whether these are of the whole "clip" or of each "frame".
        head_norm: a layer norm before a dense head (MultiMAE has none).
        semantic_loss_ignore_index: class id that is not trained on.
        depth_mean, depth_std: metres; the depth head predicts (depth - mean) / std (defaults: NYUv2).
        min_depth, max_depth: metres; clamp of predictions in eval mode and of both sides of "silog".
        depth_loss: "berhu", "l1" (both on standardised values) or "silog" (on clamped metres).
        depth_prior_weight: share of the mean depth per position in predictions, see `M33DDepthPrior`; not in the loss.
        segmentation_head_width, segmentation_head_depth, segmentation_head_upscale: ConvNeXt head channels,
            blocks, and sub-positions per token side.
        depth_head_width, depth_head_stem_channels: channels of the DPT fusion and of its four levels (None: by width).
        depth_head_layers: the four encoder layers it reads (0-based), None spaces them evenly.
        classifier_dropout, classifier_init_scale: dropout before the clip classifier, factor of its fresh weights.
        temporal_hidden_size: width, per direction, of the Bi-GRU over the clips of a video (unsaid in the paper).
        temporal_num_layers, temporal_dropout: layers of that network, and the dropout before its classifier.
        temporal_causal: one direction only, for online use.
        temporal_frame_stride, temporal_clip_stride: source frames from one frame of a clip to the next, and from one
            clip to the next (None: a clip's span, no overlap), remembered from feature extraction for inference.

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

    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    decoder_fusion: Literal["joint", "fused", "separate"] = "joint"
    decoder_attention: Literal["full", "cross"] = "full"
    decoder_modality_embedding: bool = True
    decoder_kind: Literal["shared", "per_target"] = "shared"
    loss_reduction: Literal["batch", "sample"] = "batch"

    share_mask: bool | None = None
    contrastive_weight: float | int = 0.0
    contrastive_temperature: float = 0.07
    contrastive_learnable_temperature: bool = False
    contrastive_projection_dim: int = 0
    contrastive_symmetric: bool = False
    contrastive_normalize: bool = True
    contrastive_negatives: Literal["sample", "batch"] = "sample"
    contrastive_tokens: Literal["visible", "full_forward"] = "visible"
    contrastive_position_free: bool = False
    contrastive_min_valid: float = 0.5
    matching_weight: float | int = 0.0
    matching_fusion: Literal["concat", "sum", "product"] = "concat"
    matching_pool: Literal["mean", "cls"] = "mean"
    matching_negatives: Literal["roll", "shuffle"] = "roll"
    num_matching_negatives: int = 1
    distillation_weight: float | int = 0.0
    distillation_tokens: Literal["all", "visible"] = "all"
    motion_score: Literal["pixel_diff"] = "pixel_diff"
    motion_select: Literal["sample", "topk"] = "sample"
    motion_target: Literal["visible", "masked"] = "visible"
    motion_gamma: float | int = 1.0
    motion_floor: float = 1e-3

    depth_standardization: Literal["trimmed", "full", "none"] = "trimmed"
    depth_standardization_scope: Literal["clip", "frame"] = "clip"

    head_norm: bool = False
    classifier_dropout: float | int = 0.0
    classifier_init_scale: float | int = 1e-3
    temporal_hidden_size: int = 256
    temporal_num_layers: int = 1
    temporal_dropout: float | int = 0.2
    temporal_causal: bool = False
    temporal_frame_stride: int = 1
    temporal_clip_stride: int | None = None
    semantic_loss_ignore_index: int = 255
    segmentation_head_width: int = 384
    segmentation_head_depth: int = 4
    segmentation_head_upscale: int = 4
    depth_head_width: int = 256
    depth_head_layers: list[int] | None = None
    depth_head_stem_channels: list[int] | None = None
    depth_mean: float = 2.0708
    depth_std: float = 0.7776
    min_depth: float = 1e-3
    max_depth: float = 10.0
    depth_loss: Literal["berhu", "l1", "silog"] = "berhu"
    depth_prior_weight: float | int = 0.0

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
        """All modalities, in order."""
        entries = self.modalities or []
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
        self._check_modalities()
        self._check_sizes()
        self._check_decoder()
        self._check_budget()
        self._check_pair_losses()
        check_follow_up(self)

    def _check_fields(self) -> None:
        check_types(self, field_types())
        check_ranges(vars(self), CONFIG_RANGES)

    def _check_modalities(self) -> None:
        names = [spec.name for spec in self.specs]
        if not self.input_specs:
            raise ConfigError("no modality is an input; set the role of at least one to 'input' or 'both'.")
        own_pixels = [spec.input_name for spec in self.specs if spec.target_of is None]
        for key, values in (("name", names), ("input_name", own_pixels)):
            if len(set(values)) != len(values):
                raise ConfigError(f"two modalities have the same {key} in {values}; give every modality its own.")
        for spec in self.specs:
            if "." in spec.name or not spec.name.isidentifier() or not spec.input_name.isidentifier():
                raise ConfigError(f"modality {spec.name!r} / {spec.input_name!r}: names must be Python identifiers.")
            if spec.masking == "motion" and self.num_frames == 1:
                raise ConfigError(f"modality {spec.name!r}: masking 'motion' requires clips; use 'random' for images.")
        check_encoders(self)
        if self.share_mask:
            kinds = {(spec.masking, spec.mask_ratio) for spec in self.input_specs}
            if len(kinds) > 1:
                raise ConfigError(
                    f"share_mask requires the same masking and mask_ratio for all inputs, but they are {sorted(kinds)}."
                )

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

    def _check_decoder(self) -> None:
        if self.joint_encoding:
            hidden = [spec.name for spec in self.input_specs if spec.drop_probability > 0]
            if hidden:
                raise ConfigError(
                    f"with joint_encoding, the latents of other modalities contain {hidden[0]!r} before it is hidden; "
                    "set its drop_probability to 0 or joint_encoding to False."
                )
            for term in ("contrastive", "matching"):
                if getattr(self, f"{term}_weight") > 0:
                    raise ConfigError(
                        f"the {term} term requires features of each modality alone; "
                        f"set joint_encoding to False or {term}_weight to 0."
                    )
        if self.decoder_fusion == "separate" and not self.joint_encoding and len(self.specs) > 1 and self.target_specs:
            cut = [s.name for s in self.target_specs if not s.is_input] or (
                [s.name for s in self.specs] if self.encoder_sharing == "separate" else []
            )
            if cut:
                raise ConfigError(
                    f"decoder_fusion 'separate' with separately encoded modalities disconnects {cut}: the loss of "
                    "one would not reach the encoder of the other. Use 'joint' or 'fused', or joint_encoding."
                )
        if self.decoder_fusion == "fused" and self.decoder_attention == "cross":
            raise ConfigError("decoder_attention 'cross' does not support decoder_fusion 'fused'; use 'joint'.")

    def _check_budget(self) -> None:
        for spec in self.specs:
            self._check_second_target(spec)
        if self.global_token and self.use_cls_token:
            raise ConfigError("global_token and use_cls_token serve the same purpose; set one of them to False.")
        if (self.token_budget is not None) != (self.decoder_kind == "per_target"):
            raise ConfigError(
                f"token_budget {self.token_budget} and decoder_kind {self.decoder_kind!r} cannot be combined: with a "
                "token budget the number of visible tokens varies by sample, which decoder_kind 'per_target' requires "
                "and other decoders do not support. Set both (method multimae) or neither."
            )
        if self.token_budget is None:
            return
        if not self.joint_encoding or self.use_cls_token or self.share_mask:
            raise ConfigError(
                "token_budget requires a joint sequence of all modalities: set joint_encoding to True, use_cls_token "
                "to "
                "False (global_token takes its place) and share_mask to None."
            )
        kinds = {spec.name: spec.masking for spec in self.input_specs if spec.masking != "random"}
        if kinds:
            raise ConfigError(f"token_budget draws positions at random; set masking 'random' for {kinds}.")
        self.budget_for(self.grid)

    def _check_second_target(self, spec: ModalitySpec) -> None:
        if spec.target_of is None:
            return
        sources = {other.name: other for other in self.input_specs}
        source = sources.get(spec.target_of)
        same = ("input_name", "mask_name", "channels")
        if source is None or any(getattr(source, name) != getattr(spec, name) for name in same):
            raise ConfigError(
                f"modality {spec.name!r}: target_of is {spec.target_of!r}; expected an input modality with the same "
                f"{', '.join(same)}, one of {sorted(sources)}."
            )
        if spec.is_target and self.decoder_kind != "per_target":
            raise ConfigError(f"modality {spec.name!r}: target_of requires decoder_kind 'per_target'.")

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

    def _check_pair_losses(self) -> None:
        pairwise = self.contrastive_weight > 0 or self.matching_weight > 0
        if pairwise and (not self.paired_specs or "rgb" not in [s.name for s in self.input_specs]):
            raise ConfigError("contrastive and matching terms require 'rgb' and a second input modality.")
        if self.contrastive_negatives == "batch" and self.contrastive_weight > 0:
            masked = any(spec.mask_ratio > 0 for spec in self.input_specs)
            if self.masks_are_shared and masked and self.contrastive_tokens == "visible":
                raise ConfigError(
                    "contrastive_negatives 'batch' with shared masks leaks the image identity through the pattern of "
                    "visible positions; set share_mask to False."
                )
            if self.contrastive_symmetric:
                raise ConfigError(
                    "contrastive_negatives 'batch' cannot be symmetric; set contrastive_symmetric to False or "
                    "contrastive_negatives to 'sample'."
                )
        if self.matching_pool == "cls" and self.matching_weight > 0 and not self.use_cls_token:
            raise ConfigError("matching_pool 'cls' requires use_cls_token True.")


@functools.cache
def field_types() -> dict[str, Any]:
    """Field -> type of what M33DConfig itself has; those of the library's base class are the library's to check."""
    own = inspect.get_annotations(M33DConfig).items()
    return {name: eval(hint, globals()) if isinstance(hint, str) else hint for name, hint in own}

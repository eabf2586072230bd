"""Architectures that our encoder cannot compute: recognised by their weights and refused, with what would be needed.

Our encoder is one stack of equal pre-norm blocks: global attention without biases between positions, a plain MLP,
positions added once before the first block, and at most one token (and registers) beside those of the patches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from m33d_hf.errors import ConversionError

_ONE_STAGE = "our encoder is one stack of equal blocks at one resolution"
_ONE_PROJECTION = "ours embeds every patch by one linear projection"

# (pattern of a key, what it is, what would be needed); the first match is used.
_SIGNS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), what, needed)
    for pattern, what, needed in (
        (
            r"(?:.*\.)?patch_embed(?:dings)?\.backbone\..*|(?:.*\.)?embeddings\.backbone\..*",
            "a hybrid ViT, whose patches are places of a convolutional network",
            f"that network in front of the first block; {_ONE_PROJECTION}",
        ),
        (
            r"(?:.*\.)?post_network\.\d+\..*|(?:.*\.)?network\.\d+\.\d+\.attn\.attn\..*",
            "VOLO",
            f"outlook attention, blocks for the class token alone and a convolutional stem; {_ONE_STAGE}",
        ),
        (
            r"(?:.*\.)?patch_embed\.(?:conv|proj|stem)\.\d+\..*",
            "XCiT or another ViT with a convolutional stem",
            f"that stem in front of the first block; {_ONE_PROJECTION}",
        ),
        (
            r"(?:.*\.)?layers\.\d+\.blocks\.\d+\..*|(?:.*\.)?layers\.\d+\.downsample\..*",
            "Swin, or another hierarchical transformer with windows",
            f"stages with windowed attention, relative position biases and patch merging; {_ONE_STAGE}",
        ),
        (
            r".*relative_position_bias_table|.*rel_pos_bias\..*|.*relative_position_index",
            "BEiT, data2vec or another ViT with relative position biases",
            "an attention that adds a learned bias for every pair of positions; ours adds none",
        ),
        (
            r".*\.attn\.rel_pos_[hwt]|.*\.attn\.pool_[qkv]\..*|.*\.attn\.norm_[qkv]\..*",
            "MViT, SAM or another ViT with decomposed relative positions",
            "an attention with relative positions by rows and columns (and pooled keys); ours has neither",
        ),
        (
            r"(?:.*\.)?blocks\.\d+\.proj\.(?:weight|bias)|(?:.*\.)?(?:encoder\.)?stages\.\d+\.(?:blocks|layers)\.\d+\.attn\..*",
            "Hiera, or another hierarchical transformer",
            f"stages of growing width with pooled queries; {_ONE_STAGE}",
        ),
        (
            r"(?:.*\.)?(?:stages|stage\d)\.\d+\.(?:blocks|layers|\d+)\.?.*(?:conv_dw|dwconv)\..*|(?:.*\.)?downsample_layers\..*",
            "ConvNeXt",
            "a convolutional encoder; ours is a transformer",
        ),
        (
            r"(?:.*\.)?layer[1-4]\.\d+\.(?:conv|bn)\d\..*|.*embedder\.embedder\.convolution\.weight",
            "ResNet",
            "a convolutional encoder; ours is a transformer",
        ),
        (
            r"(?:.*\.)?class_embedding|.*\.pre_layrnorm\..*|visual\.conv1\.weight|(?:.*\.)?ln_pre\..*|norm_pre\..*",
            "CLIP's image encoder, or another ViT with a norm before the first block",
            "a norm of the embedded tokens before the first block, which ours does not have (and, for OpenAI's weights,"
            " the activation quick_gelu)",
        ),
        (
            r"(?:.*\.)?head\.probe|(?:.*\.)?attn_pool\.latent|(?:.*\.)?embeddings\.patch_embedding\.weight",
            "SigLIP's image encoder",
            "a converter for its names and its attention pooling; there is none",
        ),
        (
            r".*(?:rope|rotary|inv_freq).*|(?:.*\.)?embeddings\.patch_embeddings\.weight",
            "EVA, DINOv3 or another ViT with rotary positions",
            "an attention that rotates queries and keys by their position; ours adds positions to the tokens",
        ),
        (
            r".*\.mlp\.(?:fc1_[gx]|w1|w2|w3|w12|weights_in)\..*|.*inner_attn_ln\..*",
            "EVA-02, DINOv2 giant or another ViT with a gated MLP (SwiGLU)",
            "an MLP whose inner values are multiplied by a second projection; ours is plain",
        ),
        (
            r".*\.attn\.[qv]_bias|.*\.attn\.q_proj\.weight",
            "EVA, BEiT or a related model (query and value biases but no key bias, for images)",
            "the rotary positions or relative position biases of these models, some of which no file holds; ours adds"
            " positions to the tokens",
        ),
        (
            r"(?:.*\.)?(?:dist_token|distillation_token)",
            "DeiT with distillation",
            "a second token (the distillation token) besides the class token; ours has at most one",
        ),
        (
            r".*(?:temporal_attention|temporal_attn|temporal_norm1|temporal_layernorm)\..*|.*time_embeddings?",
            "TimeSformer, or another ViT with an attention over time of its own",
            "a second attention in every block, over the frames of one place; ours attends to all tokens of a clip",
        ),
        (
            r".*\.(?:q_norm|k_norm)\..*",
            "a ViT that normalises queries and keys",
            "norms inside the attention; ours has none",
        ),
        (
            r".*\.(?:gamma_[12]|lambda_[12])",
            "a ViT with layer scales under BEiT's or CaiT's names",
            "a table of its names; only timm's layer scales (ls1.gamma) are known and folded",
        ),
    )
)

_VIVIT_TOKEN = re.compile(r"(?:vivit\.)?embeddings\.cls_token")
_FIRST_LINEAR = re.compile(r"(.*\.mlp\.fc)1\.weight")


def refuse_other_architectures(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise `ConversionError` for weights of a known other architecture, with what converting them would need."""
    for pattern, what, needed in _SIGNS:
        key = next(filter(pattern.fullmatch, tensors), None)
        if key is not None:
            raise ConversionError(
                f"{origin}: these are weights of {what} (by {key!r}), which cannot be converted. Needed: {needed}."
            )
    _refuse_packed_gate(tensors, origin)


def refuse_vivit(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise `ConversionError` for ViViT, which has VideoMAE's names in transformers and a class token besides."""
    for key in filter(_VIVIT_TOKEN.fullmatch, tensors):
        kernel = tensors.get(f"{key.removesuffix('cls_token')}patch_embeddings.projection.weight")
        if kernel is not None and kernel.ndim == 5:
            raise ConversionError(
                f"{origin}: these are weights of ViViT (by {key!r} beside an embedding of clips), which cannot be "
                "converted. Needed: a converter for its names, its learned positions of a class token and all places "
                "of a clip, its activation (GELU by tanh) and its pictures in -1 to 1; there is none."
            )


def _refuse_packed_gate(tensors: Mapping[str, Tensor], origin: str) -> None:
    """A gated MLP with value and gate in one matrix has the names of a plain one; its second matrix reads half."""
    for key, first in tensors.items():
        match = _FIRST_LINEAR.fullmatch(key)
        second = tensors.get(f"{match[1]}2.weight") if match else None
        if second is not None and first.ndim == second.ndim == 2 and first.shape[0] == 2 * second.shape[1]:
            raise ConversionError(
                f"{origin}: these are weights of DINOv2 giant or another ViT with a gated MLP (SwiGLU), whose {key!r} "
                f"makes {first.shape[0]} values of which the next matrix reads {second.shape[1]}, which cannot be "
                "converted. Needed: an MLP whose inner values are multiplied by a second projection; ours is plain."
            )

"""Translates a foreign checkpoint to neutral names: mapping tables and the fused-qkv rules, independent of our models.

Every foreign format is a table of `Row`s (one file per format). `translate` walks the foreign keys through
the table and returns a `Neutral` checkpoint whose names are those of one encoder and one decoder::

    patch.{weight,bias}  cls_token  encoder.layers.N.*  encoder.layernorm.*
    decoder.embed.*  decoder.mask_token  decoder.layers.N.*  decoder.layernorm.*  decoder.head.*
    fc_norm.*  classifier.*  positions                 (learned positions of the patches, (t * h * w, D))
    patch_depth.{weight,bias}  decoder.targets.T.*     (MultiMAE; its global token is the cls_token)
    segmentation_head.*  depth_head.*                  (MultiMAE, fine-tuned; the names of our own heads)

`m33d_hf.weights.apply` then loads a `Neutral` checkpoint into a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConversionError, nearest_name_hint

QKV_PARTS = ("q", "k", "v")

# Foreign names inside a block -> ours. The values "<name>:<part>" are fused into attention.qkv.
TIMM_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
LEGACY_TRANSFORMERS_BLOCK = {
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "attention.attention.query": "attention.qkv:q",
    "attention.attention.key": "attention.qkv:k",
    "attention.attention.value": "attention.qkv:v",
    "attention.output.dense": "attention.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


@dataclass(frozen=True)
class Row:
    """One line of a mapping table.

    `pattern` must match a whole foreign key; `target` is a template for `re.Match.expand`, either a neutral
    name,
    ``name:q|k|v|kv`` (a part of a fused tensor), ``table:encoder`` / ``table:decoder`` (a position table; further ones
    after a dot), or
    empty: the key is ignored for `reason`.
    """

    pattern: re.Pattern[str]
    target: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Weight:
    """A tensor under its neutral name, the foreign keys it was made of, and how."""

    tensor: Tensor
    sources: tuple[str, ...]
    how: str = "copied"


@dataclass
class Neutral:
    """A translated checkpoint: every foreign key is in `weights`, in `tables` or in `ignored`."""

    weights: dict[str, Weight] = field(default_factory=dict)
    tables: dict[str, Weight] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    def has_decoder(self) -> bool:
        """Whether the checkpoint has any decoder weight."""
        return any(name.startswith("decoder.") for name in self.weights)

    def depth(self, part: str) -> int:
        """Number of layers of ``encoder`` or ``decoder`` (highest index + 1)."""
        pattern = re.compile(rf"{part}\.layers\.(\d+)\.")
        return max((int(m.group(1)) + 1 for m in map(pattern.match, self.weights) if m), default=0)


@dataclass(frozen=True)
class Released:
    """Properties of the released models of a format that cannot be read from the weights.

    `heads`: (width, layers, patch) of an encoder -> its heads. `decoder_heads`: width of a decoder, with any of these
    encoders -> its heads. `layer_norm_eps`: of all of them.
    """

    heads: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    decoder_heads: Mapping[int, int] = field(default_factory=dict)
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class FormatTable:
    """The content of a format file: its rows and the two rules that are not plain renames.

    `zero_key_bias`: query and value biases come without a key bias, which is then zero (VideoMAE).
    `zero_fill`: neutral biases the architecture lacks, as name -> name of the weight whose row count they
    take.
    `cls_position_row`: position tables carry a first row for the class token (MAE).
    `position_kind`: the position table every checkpoint of this format was trained with: one of the fixed ones, which
    are verified and rebuilt, or "learned", which is taken over (`table:encoder`, or its parts `table:encoder.spatial`,
    `.temporal` and `.class`).
    `position_resize`: how the source brings learned positions to other sizes (`M33DConfig.position_embedding_resize`).
    `released`: what the weights do not show of the models that were published in this format.
    `prepare`: brings the tensors to our order of channels, key by key, before anything is renamed.
    `note`: what users of the converted model must know about every checkpoint of this format.
    """

    name: str
    rows: tuple[Row, ...]
    position_kind: str
    position_resize: Literal["interpolate", "antialias"] = "interpolate"
    zero_key_bias: bool = False
    zero_fill: Mapping[str, str] = field(default_factory=dict)
    cls_position_row: bool = False
    prepare: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    note: str = ""
    released: Released = field(default_factory=Released)


def row(pattern: str, target: str = "", reason: str = "") -> Row:
    """Build a `Row` from a regular expression."""
    return Row(re.compile(pattern), target, reason)


def parameter_rows(pairs: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
    """Rows for modules with a weight and a bias: (foreign module pattern, neutral module)."""
    return tuple(row(rf"{foreign}\.(?P<leaf>weight|bias)", rf"{ours}.\g<leaf>") for foreign, ours in pairs)


def block_rows(foreign_layer: str, part: str, names: Mapping[str, str]) -> tuple[Row, ...]:
    """Rows for all inner weights of transformer blocks.

    `foreign_layer` is the pattern of one layer with a single group ``(?P<n>\\d+)``; `part` is encoder or
    decoder.
    """
    rows = []
    for foreign, ours in names.items():
        name, _, piece = ours.partition(":")
        suffix = f":{piece}" if piece else ""
        pattern = rf"{foreign_layer}\.{re.escape(foreign)}\.(?P<leaf>weight|bias)"
        rows.append(row(pattern, rf"{part}.layers.\g<n>.{name}.\g<leaf>{suffix}"))
    return tuple(rows)


def translate(tensors: Mapping[str, Tensor], table: FormatTable) -> Neutral:
    """Send every key of `tensors` through `table`; raises `ConversionError` for keys no row explains."""
    result = Neutral()
    if table.prepare is not None:
        tensors = table.prepare(tensors)
    parts: dict[str, dict[str, tuple[str, Tensor]]] = {}
    unexplained: list[str] = []
    for key, tensor in tensors.items():
        found = _first_match(key, table.rows)
        if found is None:
            unexplained.append(key)
            continue
        matched_row, match = found
        target = match.expand(matched_row.target)
        if not target:
            result.ignored[key] = matched_row.reason
        elif target.startswith("table:"):
            _need_dimensions(key, tensor, 2, table)
            result.tables[target.removeprefix("table:")] = Weight(tensor, (key,))
        else:
            _need_dimensions(key, tensor, 1, table)
            name, _, piece = target.partition(":")
            if name in result.weights or piece in parts.get(name, {}):
                raise ConversionError(
                    f"{table.name}: several keys of the checkpoint map to {name!r} (the second is"
                    f" {key!r}): it mixes two naming schemes. Keep one of them."
                )
            if piece:
                parts.setdefault(name, {})[piece] = (key, tensor)
            else:
                result.weights[name] = Weight(tensor, (key,))
    _refuse_unexplained(unexplained, tensors, table)
    _refuse_gaps([*result.weights, *parts], table)
    for name, pieces in parts.items():
        if name in result.weights:
            raise ConversionError(f"{table.name}: both fused and split tensors map to {name!r}; keep one kind.")
        result.weights[name] = _fuse(name, pieces, table)
    for name, weight_name in table.zero_fill.items():
        if weight_name in result.weights and name not in result.weights:
            rows_count = result.weights[weight_name].tensor.shape[0]
            result.weights[name] = Weight(torch.zeros(rows_count), (), "zeros: the original layer has no bias")
    return result


def _need_dimensions(key: str, tensor: Tensor, least: int, table: FormatTable) -> None:
    if tensor.ndim < least:
        raise ConversionError(
            f"{table.name}: {key!r} has shape {tuple(tensor.shape)}, expected {least} or more dimensions; the file is"
            " damaged or from another model."
        )


def _first_match(key: str, rows: Sequence[Row]) -> tuple[Row, re.Match[str]] | None:
    for candidate in rows:
        match = candidate.pattern.fullmatch(key)
        if match:
            return candidate, match
    return None


def _refuse_unexplained(unexplained: list[str], tensors: Mapping[str, Tensor], table: FormatTable) -> None:
    if not unexplained:
        return
    known = [key for key in tensors if key not in unexplained]
    shown = ", ".join(repr(key) for key in unexplained[:5])
    raise ConversionError(
        f"{table.name}: {len(unexplained)} of {len(tensors)} keys cannot be explained: {shown}"
        f"{' ...' if len(unexplained) > 5 else ''}.{nearest_name_hint(unexplained[0], known)}"
        " Nothing was loaded; rename or remove these keys if you know what they are."
    )


_LAYER = re.compile(r"(.+?\.layers)\.(\d+)\.")


def _refuse_gaps(names: Iterable[str], table: FormatTable) -> None:
    """Raise if layers are not numbered 0, 1, 2, ...; otherwise a model of another depth would be built."""
    numbers: dict[str, set[str]] = {}
    for match in filter(None, map(_LAYER.match, names)):
        numbers.setdefault(match[1], set()).add(match[2])
    for part, found in numbers.items():
        missing = [n for n in range(len(found)) if str(n) not in found]
        if missing:
            raise ConversionError(
                f"{table.name}: {part} has {plural(len(found), 'numbered layer')}, but layer {missing[0]} is "
                "missing. The file is"
                " incomplete or its keys were renamed."
            )


def _fuse(name: str, pieces: Mapping[str, tuple[str, Tensor]], table: FormatTable) -> Weight:
    """Stack q, k, v along rows (head-major inside each); the only piece that may be missing is VideoMAE's key
    bias."""
    if "kv" in pieces and not {"k", "v"} & set(pieces):
        key, both = pieces["kv"]
        if both.ndim == 0 or both.shape[0] % 2:
            raise ConversionError(
                f"{table.name}: {key!r} has shape {tuple(both.shape)}, which cannot hold keys and values."
            )
        keys, values = both.chunk(2)
        pieces = {"k": (key, keys), "v": (key, values), **{p: pair for p, pair in pieces.items() if p != "kv"}}
    missing = [piece for piece in QKV_PARTS if piece not in pieces]
    how = "q, k, v stacked"
    tensors = {piece: tensor for piece, (_, tensor) in pieces.items()}
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) > 1 or () in shapes:
        raise ConversionError(f"{table.name}: the parts of {name!r} have different or no shapes: {sorted(shapes)}.")
    if missing == ["k"] and name.endswith(".bias") and table.zero_key_bias:
        tensors["k"] = torch.zeros_like(tensors["q"])
        how = "q and v biases around a zero key bias (the original has none)"
    elif missing:
        present = ", ".join(repr(key) for key, _ in pieces.values())
        raise ConversionError(
            f"{table.name}: {name!r} requires q, k and v, but {' and '.join(missing)} is missing (found"
            f" {present})."
            " The file is incomplete or its keys were renamed."
        )
    sources = tuple(dict.fromkeys(pieces[piece][0] for piece in QKV_PARTS if piece in pieces))
    return Weight(torch.cat([tensors[piece] for piece in QKV_PARTS], dim=0), sources, how)

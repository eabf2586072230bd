"""Layer scales: a learned factor per channel behind attention and MLP, multiplied into the layer that it scales.

Our blocks add ``proj(...)`` and ``fc2(...)`` without a scale. With ``gamma * (W x + b) = (gamma W) x + gamma b`` the
sums are the same, up to rounding. The scale is kept, but is no longer a separate parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m33d_hf.errors import ConversionError

FOLDED_REASON = "layer scale, multiplied into the projection that it scales"


@dataclass(frozen=True)
class LayerScales:
    """How a layout names its layer scales and what they scale.

    Args:
        block: pattern of a block, without groups.
        layers: name of a scale in its block -> names that the layer in front of it may have.
    """

    block: str
    layers: Mapping[str, Sequence[str]]

    @property
    def pattern(self) -> str:
        """Pattern of the keys of the scales, which are ignored for `FOLDED_REASON`."""
        return rf"{self.block}\.(?:{'|'.join(map(re.escape, self.layers))})"

    def fold(self, tensors: Mapping[str, Tensor], format: str) -> dict[str, Tensor]:
        """All tensors, those of scaled layers multiplied in float32: a product of float16 numbers has more digits.

        Raises:
            ConversionError: some blocks have a scale and others none, or one does not fit its layer.
        """
        result = dict(tensors)
        scales = [key for key in tensors if re.fullmatch(self.pattern, key)]
        if not scales:
            return result
        blocks = dict.fromkeys(
            match[1] for match in map(re.compile(rf"({self.block})\..+").fullmatch, tensors) if match
        )
        for block in blocks:
            for name, layers in self.layers.items():
                gamma = tensors.get(f"{block}.{name}")
                if gamma is None:
                    raise ConversionError(
                        f"{format}: {scales[0]!r} exists, but {block}.{name} is missing. Is the file incomplete?"
                    )
                for key in (f"{block}.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")):
                    if key in result:
                        result[key] = _scaled(f"{block}.{name}", gamma, key, result[key], format)
        return result


def _scaled(name: str, gamma: Tensor, key: str, tensor: Tensor, format: str) -> Tensor:
    if tensor.shape[:1] != gamma.shape:
        raise ConversionError(
            f"{format}: {name!r} has shape {tuple(gamma.shape)}, but {key!r} has {tuple(tensor.shape)}; it cannot scale"
            " its output."
        )
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.to(wide) * gamma.to(wide).reshape(-1, *[1] * (tensor.ndim - 1))

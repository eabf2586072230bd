"""Checks that two models agree: largest differences on random input, and an error if they exceed a tolerance.

Two models of the same function differ in float32 by rounding, which grows with depth and with large activations; in
float64 the remaining difference is one of the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m33d_hf.errors import ExportError


@dataclass(frozen=True)
class Difference:
    """How far an output is from that of our model.

    Attributes:
        shape: of the input.
        largest: largest absolute difference.
        scale: largest absolute value of our output.
    """

    shape: tuple[int, ...]
    largest: float
    scale: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.largest / self.scale if self.scale else self.largest


def difference(shape: Sequence[int], expected: Tensor, found: Tensor) -> Difference:
    """Compare one output.

    Raises:
        ExportError: another shape, or NaN or infinity.
    """
    if found.shape != expected.shape:
        raise ExportError(
            f"the output of the exported model has shape {tuple(found.shape)}, expected {tuple(expected.shape)}."
        )
    if not bool(torch.isfinite(found).all()):
        raise ExportError(f"the exported model returns NaN or infinity for an input of shape {tuple(shape)}.")
    largest = float((found.double() - expected.double()).abs().max())
    return Difference(tuple(shape), largest, float(expected.abs().max()))


@torch.no_grad()
def both_precisions(
    ours: nn.Module, theirs: nn.Module, run: Callable[[Tensor], tuple[Tensor, Tensor]], shapes: Sequence[Sequence[int]]
) -> dict[str, list[Difference]]:
    """Compare two models in float64, where rounding is negligible, and in float32.

    Args:
        ours, theirs: the models that `run` calls; their weights are unchanged afterwards.
        run: pixels to the outputs of both.
        shapes: of random pixels.
    """
    found = {}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        ours.to(dtype)
        theirs.to(dtype)
        inputs = [random_pixels(shape, seed).to(dtype) for seed, shape in enumerate(shapes)]
        found[name] = [difference(pixels.shape, *run(pixels)) for pixels in inputs]
    return found


def demand(differences: Sequence[Difference], tolerance: float, what: str, cause: str = "") -> None:
    """Raise if a difference is larger than `tolerance` times the largest value.

    Raises:
        ExportError: naming the worst input.
    """
    worst = max(differences, key=lambda each: each.relative)
    if worst.relative > tolerance:
        raise ExportError(
            f"{what} does not agree with the model: it differs by {worst.largest:.2e} where values reach "
            f"{worst.scale:.2e} "
            f"(a relative difference of {worst.relative:.1e}, allowed {tolerance:.0e}), for an input of shape "
            f"{worst.shape}. Nothing was written.{cause}"
        )


def random_pixels(shape: Sequence[int], seed: int) -> Tensor:
    """Normally distributed pixels, similar to normalised pictures."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def random_depth(shape: Sequence[int], seed: int) -> Tensor:
    """Normally distributed values, similar to standardised depth, with holes (NaN): in a corner of all, and all of the
    first row where there are several."""
    depth = random_pixels(shape, seed + 1000)
    depth[..., : shape[-2] // 2, : shape[-1] // 2] = torch.nan
    if shape[0] > 1:
        depth[0] = torch.nan
    return depth


def plain(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """The differences for JSON."""
    return [{"input": list(each.shape), "largest": each.largest, "relative": each.relative} for each in differences]

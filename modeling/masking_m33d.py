# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Which tokens stay visible (Table 11). Masks are ascending index tensors, never boolean: shapes stay static."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .configuration_m33d import M33DConfig, ModalitySpec
from .errors_m33d import ConfigError
from .patches_m33d import Grid, patch_view

# Name of the index tensor that takes the place of one per modality where a token budget divides the visible tokens.
JOINT = "joint"

Randomness = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class MotionChoice:
    """Visible tokens of masking "motion" whose randomness is drawn, while the motion is not known yet.

    Attributes:
        count: V.
        shows_motion: moving tokens are shown; otherwise they are hidden.
        gamma, floor: see M33DConfig's `motion_gamma` and `motion_floor`.
        uniform_BN: draws in [0, 1); None takes the tokens of the largest weights.
    """

    count: int
    shows_motion: bool
    gamma: float
    floor: float
    uniform_BN: torch.Tensor | None

    def indices(self, scores_BN: torch.Tensor) -> torch.Tensor:
        """(B, V) int64, ascending, on the device of the scores, where the draws must be too."""
        if not self.shows_motion:
            scores_BN = scores_BN.amax(dim=1, keepdim=True) - scores_BN
        floor = self.floor * scores_BN.mean(dim=1, keepdim=True)
        weights = (scores_BN**self.gamma + floor).clamp_min(1e-12)
        if self.uniform_BN is None:
            chosen = weights.topk(self.count, dim=1).indices
        else:
            # Gumbel top-k: sampling without replacement with probability proportional to the weights.
            uniform = self.uniform_BN.clamp(1e-20, 1.0)
            chosen = (weights.log() - (-uniform.log()).clamp_min(1e-20).log()).topk(self.count, dim=1).indices
        return chosen.sort(dim=1).values


Keep = Mapping[str, torch.Tensor | MotionChoice]


def visible_count(spec: ModalitySpec, grid: Grid) -> int:
    """Number of visible tokens V of a modality on a grid.

    random and motion keep ``int(N * (1 - ratio))`` as MAE does (float truncation included); tube masks
    ``int(ratio * N_frame)`` positions of each slot as VideoMAE does; frame masks ``int(ratio * t)`` slots.

    Raises:
        ConfigError: an input modality would keep no token, or a target would have none to predict.
    """
    t, h, w = grid
    total = t * h * w
    if not spec.is_input:
        return 0
    if spec.mask_ratio == 0:
        return total
    if spec.masking == "tube":
        count = t * (h * w - int(spec.mask_ratio * h * w))
    elif spec.masking == "frame":
        count = (t - int(spec.mask_ratio * t)) * h * w
    else:
        count = int(total * (1 - spec.mask_ratio))
    if count < 1:
        raise ConfigError(
            f"modality {spec.name!r}: mask_ratio {spec.mask_ratio} leaves none of {total} tokens visible "
            f"(grid {t} x {h} x {w}, masking {spec.masking!r}); reduce the ratio or use larger inputs."
        )
    if spec.is_target and count >= total:
        raise ConfigError(
            f"modality {spec.name!r}: mask_ratio {spec.mask_ratio} masks none of {total} tokens "
            f"(grid {t} x {h} x {w}, masking {spec.masking!r}); increase the ratio or set weight to 0."
        )
    return count


def draw_keep(
    config: M33DConfig,
    batch_size: int,
    grid: Grid | None = None,
    generator: Randomness = None,
    device: torch.device | str | None = None,
    motion: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Draw the visible tokens of every input modality.

    Args:
        config: model configuration; its `masks_are_shared` decides whether modalities show the same positions.
        batch_size: B.
        grid: (t, h, w); the configured one when None.
        generator: source of randomness (on CPU); torch's global one when None. With one generator per sample, what
            a sample shows does not depend on the batch around it.
        device: where the indices go.
        motion: (B, N) motion scores, needed by masking "motion" (see `motion_scores`).

    Returns:
        name -> (B, V) int64 indices, ascending; with a token budget "joint" -> (B, V) (see `draw_budget`).

    Raises:
        ConfigError: a ratio leaves a modality without tokens, or motion scores are missing.
    """
    keep = prepare_keep(config, batch_size, grid, generator)
    scores = None if motion is None else motion.to("cpu", torch.float32)
    return {name: index.to(device) for name, index in settle_keep(keep, scores).items()}


def prepare_keep(
    config: M33DConfig, batch_size: int, grid: Grid | None = None, generator: Randomness = None
) -> Keep:
    """All randomness of `draw_keep`, whose arguments these are; what depends on motion waits for `settle_keep`."""
    grid = grid or config.grid
    if config.token_budget is not None:
        return {JOINT: draw_budget(config, batch_size, grid, generator)}
    keep: dict[str, torch.Tensor | MotionChoice] = {}
    for spec in config.input_specs:
        if keep and config.masks_are_shared:
            keep[spec.name] = next(iter(keep.values()))
            continue
        keep[spec.name] = _draw_one(spec, config, batch_size, grid, generator)
    return keep


def settle_keep(keep: Keep, scores_BN: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """name -> (B, V) visible tokens, those that depend on motion by its scores; each equal choice is made once.

    Raises:
        ConfigError: motion scores are missing.
    """
    made: dict[int, torch.Tensor] = {}
    for name, choice in keep.items():
        if isinstance(choice, MotionChoice) and id(choice) not in made:
            if scores_BN is None:
                raise ConfigError(f"modality {name!r}: masking 'motion' requires motion scores (see motion_scores).")
            made[id(choice)] = choice.indices(scores_BN)
    return {name: made[id(choice)] if isinstance(choice, MotionChoice) else choice for name, choice in keep.items()}


def draw_budget(
    config: M33DConfig, batch_size: int, grid: Grid | None = None, generator: Randomness = None
) -> torch.Tensor:
    """Divide `config.token_budget` visible tokens among the input modalities, anew for every sample (MultiMAE).

    Proportions ~ Dirichlet(alpha); each modality nominates round(p * V) random tokens; of all tokens in random order,
    nominated ones first, V are taken. Rounding, and a modality with fewer tokens than its share, are settled by that
    last step, so that exactly V stay visible.

    Returns:
        (B, V) int64, ascending, into the M * N tokens of the modalities side by side: m * N + n is token n of
        modality m.
    """
    grid = grid or config.grid
    modalities, total = len(config.input_specs), math.prod(grid)
    budget = config.budget_for(grid)
    shares = _dirichlet(batch_size, modalities, float(config.token_budget_alpha), generator)
    noise = _uniform((batch_size, 2, modalities, total), generator)
    ranks = noise[:, 0].argsort(dim=-1).argsort(dim=-1)
    passed_over = ranks >= (shares * budget).round()[:, :, None]
    order = (noise[:, 1] + passed_over).flatten(1).argsort(dim=1)
    return order[:, :budget].sort(dim=1).values


def _dirichlet(rows: int, parts: int, alpha: float, generator: Randomness) -> torch.Tensor:
    """(rows, parts) proportions. NumPy's, seeded from the generator: torch's own sampler takes no generator."""
    sources = generator if isinstance(generator, Sequence) else [generator] * rows
    seeds = [int(torch.randint(2**62, (), generator=source)) for source in sources]
    drawn = np.stack([np.random.default_rng(seed).dirichlet([alpha] * parts) for seed in seeds])
    return torch.from_numpy(drawn)


def masked_by_budget(joint_BV: torch.Tensor, modalities: int, total: int) -> torch.Tensor:
    """(B, M, N) bool, True where a token of a modality is masked, from the joint index of `draw_budget`."""
    masked = torch.ones(joint_BV.shape[0], modalities * total, dtype=torch.bool, device=joint_BV.device)
    return masked.scatter(1, joint_BV, False).unflatten(1, (modalities, total))


def budget_without(joint_BV: torch.Tensor, modality: int, modalities: int, total: int) -> torch.Tensor:
    """The same budget with one modality unseen: the others keep their visible tokens and get the rest (diagnostics).

    Which further tokens they show is fixed, so that an evaluation repeats itself.

    Returns:
        (B, V) int64, ascending; fewer where the others have no V tokens.
    """
    masked = masked_by_budget(joint_BV, modalities, total)
    noise = torch.rand(modalities, total, generator=torch.Generator().manual_seed(0)).to(joint_BV.device)
    noise[modality] += 2.0
    count = min(joint_BV.shape[1], (modalities - 1) * total)
    return (masked + noise).flatten(1).argsort(dim=1)[:, :count].sort(dim=1).values


def _draw_one(
    spec: ModalitySpec,
    config: M33DConfig,
    batch_size: int,
    grid: Grid,
    generator: Randomness,
) -> torch.Tensor | MotionChoice:
    t, h, w = grid
    count = visible_count(spec, grid)
    if count == t * h * w:
        return torch.arange(count).repeat(batch_size, 1)  # not expanded: such memory cannot be page-locked
    if spec.masking == "motion":
        drawn = _uniform((batch_size, t * h * w), generator) if config.motion_select == "sample" else None
        shown = config.motion_target == "visible"
        return MotionChoice(count, shown, float(config.motion_gamma), config.motion_floor, drawn)
    if spec.masking == "tube":
        spatial = _random_subset(batch_size, h * w, count // t, generator)
        slots = torch.arange(t).view(1, t, 1) * (h * w)
        return (slots + spatial[:, None, :]).flatten(1)
    if spec.masking == "frame":
        slots = _random_subset(batch_size, t, count // (h * w), generator)
        return (slots[:, :, None] * (h * w) + torch.arange(h * w)).flatten(1)
    return _random_subset(batch_size, t * h * w, count, generator)


def _uniform(shape: tuple[int, ...], generator: Randomness) -> torch.Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        return torch.rand(shape, generator=generator)
    return torch.stack([torch.rand(shape[1:], generator=own) for own in generator])


def _random_subset(batch: int, total: int, count: int, generator: Randomness) -> torch.Tensor:
    noise = _uniform((batch, total), generator)
    return noise.argsort(dim=1)[:, :count].sort(dim=1).values


def motion_scores(pixels_BTCHW: torch.Tensor, config: M33DConfig) -> torch.Tensor:
    """Mean absolute difference to the previous frame inside each tubelet, our reading of the motion heuristic.

    The first frame has no predecessor, so its tubelet is scored by its other frames (or the next frame's
    difference when the tubelet is one frame long). A single frame does not move: all scores are 0.

    Returns:
        (B, N) float32 scores in the unit of the pixels.
    """
    pixels = pixels_BTCHW.detach().float()
    if pixels.shape[1] == 1:
        return pixels.new_zeros(pixels.shape[0], math.prod(config.grid_for(1, *pixels.shape[-2:])))
    return tubelet_motion(pixels, config.tubelet_size, config.patch_height_width)


def tubelet_motion(pixels_BTCHW: torch.Tensor, tubelet_size: int, patch: tuple[int, int]) -> torch.Tensor:
    """`motion_scores` of float32 clips of several frames."""
    pixels = pixels_BTCHW
    # In place: new memory costs more than the arithmetic.
    difference = torch.empty_like(pixels, memory_format=torch.contiguous_format)
    torch.sub(pixels[:, 1:], pixels[:, :-1], out=difference[:, 1:]).abs_()
    first = difference[:, 1 : max(tubelet_size, 2)]
    difference[:, :1] = first if tubelet_size <= 2 else first.mean(dim=1, keepdim=True)
    view = patch_view(difference, tubelet_size, patch)
    return view.mean(dim=(4, 5, 6, 7)).flatten(1)


def complement(keep_BV: torch.Tensor, total: int) -> torch.Tensor:
    """The masked tokens: (B, V) visible indices of `total` tokens to (B, total - V) ascending int64."""
    batch, visible = keep_BV.shape
    flags = torch.zeros(batch, total, dtype=torch.int64, device=keep_BV.device)
    flags = flags.scatter(1, keep_BV, 1)
    # A stable sort puts the masked tokens (flag 0) first, in ascending order, with a static shape.
    return flags.argsort(dim=1, stable=True)[:, : total - visible]

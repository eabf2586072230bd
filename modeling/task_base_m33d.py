# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What all fine-tuning models share: the encoders of their inputs without the rest of a pre-training checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batch_checks_m33d import check_alike
from .configuration_m33d import M33DConfig
from .encoder_choice_m33d import with_encoders
from .encoder_m33d import as_clip
from .errors_m33d import ConfigError, DataError
from .leftovers_m33d import FINAL_NORM, FUSION, OTHER_MODALITIES, PRETRAINING_PARTS, RGB
from .modeling_m33d import M33DModel, M33DPreTrainedModel
from .patches_m33d import tokens_with_pixels
from .task_fusion_m33d import M33DTaskFusion

RGB_ALONE = ("rgb",)


class M33DTaskModel(M33DPreTrainedModel):
    """The encoders of one or two inputs, and a head.

    Loading a pre-training checkpoint takes the encoders of the inputs; those of other modalities, decoder and
    pre-training heads are left out by name, the task head is reported as new. Its own folder says what it holds, so
    that M33DModel loads these encoders from there and misses nothing.

    Args:
        config: the configuration.
        final_norm: whether the encoders end in a layer norm.
        inputs: "rgb", "depth" or both.
    """

    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_PARTS, *OTHER_MODALITIES, FINAL_NORM, FUSION]  # noqa: RUF012

    def __init__(self, config: M33DConfig, final_norm: bool, inputs: Sequence[str] = RGB_ALONE) -> None:
        config = with_encoders(config, list(inputs), final_norm)
        super().__init__(config)
        self.task_inputs = tuple(inputs)
        self.m33d = M33DModel(config, modalities=list(inputs), final_norm=final_norm)
        fused = len(inputs) > 1 and config.task_tokens_are_fused
        self.task_fusion = M33DTaskFusion(config) if fused else None
        if "rgb" not in inputs:
            self._keys_to_ignore_on_load_unexpected = [*(self._keys_to_ignore_on_load_unexpected or []), *RGB]

    def get_input_embeddings(self) -> torch.nn.Module:
        """The patch projection of the first input."""
        return self.m33d.get_input_embeddings()

    def extract_features(self, pixel_values: Tensor | None = None, **inputs: Any) -> dict[str, Tensor]:
        """Encode every token: name of each input -> (B, N, D)."""
        return self.m33d.extract_features(pixel_values, **inputs)

    def given_inputs(
        self, pixel_values: Tensor | None, depth_values: Tensor | None, depth_mask: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The given inputs, and where there is depth.

        Args:
            pixel_values: (B, 3, H, W) or (B, T, 3, H, W) normalised RGB, or None.
            depth_values: (B, 1, H, W) or (B, T, 1, H, W) standardised depth, or None; what is not finite is a hole.
            depth_mask: bool of that shape, the pixels with depth; None: all that are finite.

        Returns:
            name -> (B, T, C, H, W), and (B, N) bool: tokens with a pixel of depth, None without depth.

        Raises:
            ConfigError: none of the model's inputs, one that it does not have, or a mask without its depth.
            DataError: inputs of the wrong shape, or that do not belong together.
        """
        given = {"rgb": pixel_values, "depth": depth_values}
        found = {name: as_clip(each, self.config.spec(name), self.config) for name, each in given.items()
                 if each is not None and self._takes(name)}  # fmt: skip
        if not found:
            return self._refuse_nothing()
        masks: dict[str, Tensor] = {}
        if "depth" in found:
            known = found["depth"].isfinite()
            masks["depth"] = known if depth_mask is None else known & self._as_mask(depth_mask, known)
            found["depth"] = found["depth"].masked_fill(~masks["depth"], 0.0)
        elif depth_mask is not None:
            raise ConfigError("forward got depth_mask without depth_values; pass both, or neither.")
        check_alike(found, masks)
        if "depth" not in found:
            return found, None
        return found, tokens_with_pixels(masks["depth"], self.config.tubelet_size, self.config.patch_height_width)

    def _takes(self, name: str) -> bool:
        if name not in self.task_inputs:
            spec = self.config.spec(name)
            raise ConfigError(
                f"forward got {spec.input_name}, but this model has task_inputs {list(self.task_inputs)}; leave it "
                f"out, or fine-tune a model with --model.task_inputs '[rgb, depth]'."
            )
        return True

    def _refuse_nothing(self) -> tuple[dict[str, Tensor], Tensor | None]:
        names = " or ".join(repr(self.config.spec(name).input_name) for name in self.task_inputs)
        rgb = "(B, 3, H, W) or (B, T, 3, H, W) normalised RGB"
        depth = "(B, 1, H, W) or (B, T, 1, H, W) standardised depth, as the processor gives it for depth="
        shapes = {"rgb": rgb, "depth": depth}
        words = "; ".join(shapes[name] for name in self.task_inputs)
        raise ConfigError(f"forward requires {names}: pass {words}.")

    @staticmethod
    def _as_mask(mask: Tensor, known: Tensor) -> Tensor:
        """The mask as (B, T, 1, H, W) bool, an image's repeated over its tubelet."""
        clip = mask[:, None] if mask.ndim == 4 else mask
        if clip.ndim == 5 and clip.shape[1] == 1:
            clip = clip.expand(-1, known.shape[1], -1, -1, -1)
        if clip.shape != known.shape:
            raise DataError(
                f"depth_mask has shape {tuple(mask.shape)}, but depth_values has {tuple(known.shape)} as "
                "(B, T, 1, H, W); pass one value for each pixel."
            )
        return clip.bool()

    def encode_inputs(self, inputs: dict[str, Tensor], seen_BN: Tensor | None, recorded: bool = False) -> Tensor:
        """One token per position of all inputs.

        In separate encoders the tokens of both are fused (`M33DTaskFusion`). In a shared one they are one sequence, of
        which these are the RGB tokens. Without RGB they are the depth tokens, whose holes are seen as zeros, as while
        pre-training.

        Args:
            inputs: name -> (B, T, C, H, W).
            seen_BN: bool, tokens with depth: others are left out of the fusion, or not attended to.
            recorded: see `M33DModel.encode`.

        Returns:
            (B, N, D), without class tokens; normed where the encoders end in a norm.
        """
        seen = None
        if len(inputs) > 1 and seen_BN is not None:
            # A class token of depth looks at nothing else where there is no depth.
            cls = int(bool(self.config.use_cls_token))
            seen = {"depth": torch.cat([seen_BN.any(dim=1, keepdim=True)[:, :cls], seen_BN], dim=1)}
        states = self.m33d.encode(inputs, recorded=recorded, seen=seen)
        tokens = {name: self.m33d.without_cls(states[name]) for name in inputs}
        if self.task_fusion is None:
            return tokens["rgb"] if "rgb" in tokens else tokens["depth"]
        rgb, depth = tokens.get("rgb"), tokens.get("depth")
        return self.task_fusion(rgb, depth, seen_BN)  # type: ignore[no-any-return]


def needed_pixels(pixel_values: Tensor | None) -> Tensor:
    """Raise where the input is missing; optional in the signature, so that a misspelt name is met first.

    Raises:
        ConfigError: no input.
    """
    if pixel_values is None:
        raise ConfigError("forward requires 'pixel_values': pass (B, 3, H, W) or (B, T, 3, H, W) normalised RGB.")
    return pixel_values


def single_frame(pixels: Tensor, reader: str, name: str = "pixel_values") -> Tensor:
    """(B, C, H, W) of images, or of clips of one frame, for a model that reads images.

    Raises:
        DataError: longer clips.
    """
    if pixels.ndim != 5:
        return pixels
    if pixels.shape[1] != 1:
        raise DataError(
            f"{name} has {pixels.shape[1]} frames, but {reader} reads images: pass one frame of the clip, "
            f"(B, {pixels.shape[2]}, H, W)."
        )
    return pixels[:, 0]

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What all fine-tuning models share: the RGB encoder without the rest of a pre-training checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from .configuration_m33d import M33DConfig
from .encoder_choice_m33d import with_encoders
from .errors_m33d import ConfigError, DataError
from .leftovers_m33d import FINAL_NORM, OTHER_MODALITIES, PRETRAINING_PARTS
from .modeling_m33d import M33DModel, M33DPreTrainedModel


class M33DTaskModel(M33DPreTrainedModel):
    """An RGB encoder and a head.

    Loading a pre-training checkpoint takes the RGB encoder; other modalities, decoder and pre-training heads are left
    out by name, the task head is reported as new. Its own folder says what it holds, so that M33DModel loads the RGB
    encoder from there and misses nothing.

    Args:
        config: the configuration.
        final_norm: whether the encoder ends in a layer norm.
    """

    _keys_to_ignore_on_load_unexpected = [*PRETRAINING_PARTS, *OTHER_MODALITIES, FINAL_NORM]  # noqa: RUF012

    def __init__(self, config: M33DConfig, final_norm: bool) -> None:
        config = with_encoders(config, ["rgb"], final_norm)
        super().__init__(config)
        self.m33d = M33DModel(config, modalities=["rgb"], final_norm=final_norm)

    def get_input_embeddings(self) -> torch.nn.Module:
        """The patch projection."""
        return self.m33d.get_input_embeddings()

    def extract_features(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Encode every token: {"rgb": (B, N, D)}."""
        return self.m33d.extract_features(pixel_values)


def needed_pixels(pixel_values: Tensor | None) -> Tensor:
    """Raise where the input is missing; optional in the signature, so that a misspelt name is met first.

    Raises:
        ConfigError: no input.
    """
    if pixel_values is None:
        raise ConfigError("forward requires 'pixel_values': pass (B, 3, H, W) or (B, T, 3, H, W) normalised RGB.")
    return pixel_values


def single_frame(pixel_values: Tensor, reader: str) -> Tensor:
    """(B, 3, H, W) of images, or of clips of one frame, for a model that reads images.

    Raises:
        DataError: longer clips.
    """
    if pixel_values.ndim != 5:
        return pixel_values
    if pixel_values.shape[1] != 1:
        raise DataError(
            f"pixel_values has {pixel_values.shape[1]} frames, but {reader} reads images: "
            "pass one frame of the clip, (B, 3, H, W)."
        )
    return pixel_values[:, 0]

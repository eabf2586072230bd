# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The encoders of a model, as its configuration states them: task models have only RGB's, with or without its norm."""

from __future__ import annotations

import copy

from .configuration_m33d import M33DConfig


def with_encoders(config: M33DConfig, modalities: list[str], final_norm: bool) -> M33DConfig:
    """The configuration of a model with these encoders; a copy if it differs, because callers may share theirs.

    Args:
        config: the configuration.
        modalities: names of the modalities that are encoded.
        final_norm: whether their encoders end in a layer norm.

    Returns:
        A configuration with `encoder_modalities` and `encoder_final_norm` set accordingly; both are None for all input
        modalities with `encoder_norm`.
    """
    everything = [spec.name for spec in config.input_specs]
    names = None if modalities == everything else list(modalities)
    norm = None if final_norm == config.encoder_norm else final_norm
    if (names, norm) == (config.encoder_modalities, config.encoder_final_norm):
        return config
    config = copy.deepcopy(config)
    config.encoder_modalities, config.encoder_final_norm = names, norm
    return config

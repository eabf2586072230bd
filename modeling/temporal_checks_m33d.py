# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What the fields of temporal models must not say together."""

from __future__ import annotations

from typing import Any

from .errors_m33d import ConfigError
from .task_heads_m33d import HeadFields

READ_BY = {
    "temporal_num_layers": ("gru", "transformer"),
    "temporal_tcn_stages": ("tcn",),
    "temporal_tcn_layers": ("tcn",),
    "temporal_tcn_smoothing": ("tcn",),
    "temporal_tcn_smoothing_limit": ("tcn",),
    "temporal_attention_window": ("transformer",),
    "temporal_num_attention_heads": ("transformer",),
}
"""Field -> the temporal models that read it; all others are read by all."""


def check_cameras(config: Any) -> None:
    """Refuse names of cameras that are too few, empty or equal.

    Raises:
        ConfigError: with the field and the fix.
    """
    names, dropout = config.temporal_cameras, config.temporal_camera_dropout
    if names is None:
        if dropout != HeadFields.temporal_camera_dropout:
            raise ConfigError(
                f"temporal_camera_dropout is {dropout}, but temporal_cameras names no cameras to leave out: leave it "
                f"at {HeadFields.temporal_camera_dropout}, or set temporal_cameras."
            )
        return
    if len(names) < 2 or not all(name.strip() for name in names):
        raise ConfigError(
            f"temporal_cameras is {names}; it must name at least two cameras, as the data does. Leave it out to take "
            "the mean over however many there are."
        )
    if len({name.casefold() for name in names}) < len(names):
        raise ConfigError(f"temporal_cameras is {names}; two of the names are equal, and each camera needs its own.")


def check_temporal_model(config: Any) -> None:
    """Refuse fields that the temporal model does not read, and heads that do not divide its width.

    Raises:
        ConfigError: with the field and the fix.
    """
    model = config.temporal_model
    for name, readers in READ_BY.items():
        value, usual = getattr(config, name), getattr(HeadFields, name)
        if model not in readers and value != usual:
            instead = ""
            if name == "temporal_num_layers":
                instead = " (the layers of its stages are temporal_tcn_layers)"
            raise ConfigError(
                f"{name} is {value}, but temporal_model {model!r} does not read it{instead}: leave it at {usual}, or "
                f"set temporal_model to {' or '.join(map(repr, readers))}."
            )
    width, heads = config.temporal_hidden_size, config.temporal_num_attention_heads
    if model == "transformer" and width % heads:
        raise ConfigError(
            f"temporal_hidden_size {width} is not a multiple of temporal_num_attention_heads {heads}; change one of "
            "the two."
        )
    check_cameras(config)
    smoothed = config.temporal_tcn_smoothing_limit != HeadFields.temporal_tcn_smoothing_limit
    if config.temporal_tcn_smoothing == 0 and smoothed:
        raise ConfigError(
            f"temporal_tcn_smoothing_limit {config.temporal_tcn_smoothing_limit} has no effect with "
            "temporal_tcn_smoothing 0; leave it out, or give the smoothing loss a weight."
        )

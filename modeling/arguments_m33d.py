# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Unknown arguments of forward."""

from __future__ import annotations

from typing import Any

from transformers.utils import TransformersKwargs

from .errors_m33d import ConfigError, nearest_name_hint


def refuse_unknown_arguments(kwargs: dict[str, Any], known: list[str]) -> None:
    """Refuse unknown forward arguments, which ``**kwargs`` would otherwise swallow.

    Raises:
        ConfigError: naming the argument and the nearest known one.
    """
    library = set(TransformersKwargs.__annotations__)
    library |= {"output_attentions", "output_hidden_states", "return_dict", "num_items_in_batch", "use_cache"}
    for name in kwargs:
        if name not in library:
            raise ConfigError(f"forward has no argument {name!r}.{nearest_name_hint(name, [*known, *library])}")

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""What M33DBackbone gives, as a configuration says it."""

from __future__ import annotations

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin

from .errors_m33d import ConfigError

BACKBONE_FIELDS = ("out_features", "out_indices", "reshape_hidden_states")


class BackboneFields(BackboneConfigMixin):
    """The choice of feature maps, named as in every configuration of transformers that has a backbone.

    No fields of the configuration proper: only M33DBackbone reads them, and a configuration that says nothing about
    them is saved without them.

    Attributes:
        stage_names: "stem" (the embedded patches), then "stage1" to the last block.
        out_features, out_indices: which of them become feature maps, by name or by number; None until one is set, and
            M33DBackbone then takes the last block.
        reshape_hidden_states: whether these are maps (B, D, h, w); else sequences (B, N, D), behind the class token
            where there is one, as DPT wants them.
    """

    num_hidden_layers: int

    @property
    def stage_names(self) -> list[str]:
        """Names of what can become a feature map."""
        return ["stem", *(f"stage{number}" for number in range(1, self.num_hidden_layers + 1))]

    def set_backbone_fields(
        self, out_features: Any = None, out_indices: Any = None, reshape_hidden_states: Any = True
    ) -> None:
        """Set the fields; see above for what they mean.

        Raises:
            ConfigError: `reshape_hidden_states` that is neither True nor False.
            ValueError: stages that are not there, twice or out of order, as transformers says it.
        """
        if not isinstance(reshape_hidden_states, bool):
            raise ConfigError(f"reshape_hidden_states is {reshape_hidden_states!r}; it must be True or False.")
        self.reshape_hidden_states = reshape_hidden_states
        self._out_features: list[str] | None = None
        self._out_indices: list[int] | None = None
        if out_features is not None or out_indices is not None:
            self.set_output_features_output_indices(out_features, out_indices)

    def to_dict(self) -> dict[str, Any]:
        """As the library's, without what says nothing."""
        plain = super().to_dict()
        unsaid = {name for name in BACKBONE_FIELDS if plain.get(name) in (None, True)}
        return {name: value for name, value in plain.items() if name not in unsaid}


__all__ = ["BACKBONE_FIELDS", "BackboneFields"]

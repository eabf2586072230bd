# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Which feature maps M33DBackbone returns, as fields of a configuration."""

from __future__ import annotations

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin

from .errors_m33d import ConfigError

BACKBONE_FIELDS = ("out_features", "out_indices", "reshape_hidden_states")


class BackboneFields(BackboneConfigMixin):
    """The choice of feature maps, named as in every configuration of transformers that has a backbone.

    These are not fields of the configuration proper: only M33DBackbone reads them, and a configuration that does not
    set them is saved without them.

    Attributes:
        stage_names: "stem" (the embedded patches), then "stage1" to the last block.
        out_features, out_indices: which of them become feature maps, by name or by index; None until one is set, and
            M33DBackbone then uses the last block.
        reshape_hidden_states: whether these are maps (B, D, h, w); if False, they are sequences (B, N, D) that begin
            with the class token if there is one, as DPT requires.
    """

    num_hidden_layers: int

    @property
    def stage_names(self) -> list[str]:
        """Names of the possible feature maps."""
        return ["stem", *(f"stage{number}" for number in range(1, self.num_hidden_layers + 1))]

    def set_backbone_fields(
        self, out_features: Any = None, out_indices: Any = None, reshape_hidden_states: Any = True
    ) -> None:
        """Set the fields; see above for what they mean.

        Raises:
            ConfigError: `reshape_hidden_states` that is neither True nor False.
            ValueError: unknown stages, repeated ones, or a wrong order (raised by transformers).
        """
        if not isinstance(reshape_hidden_states, bool):
            raise ConfigError(f"reshape_hidden_states is {reshape_hidden_states!r}; it must be True or False.")
        self.reshape_hidden_states = reshape_hidden_states
        self._out_features: list[str] | None = None
        self._out_indices: list[int] | None = None
        if out_features is not None or out_indices is not None:
            self.set_output_features_output_indices(out_features, out_indices)

    def to_dict(self) -> dict[str, Any]:
        """As the library's, without unset fields."""
        plain = super().to_dict()
        unsaid = {name for name in BACKBONE_FIELDS if plain.get(name) in (None, True)}
        return {name: value for name, value in plain.items() if name not in unsaid}


__all__ = ["BACKBONE_FIELDS", "BackboneFields"]

# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The RGB encoder as a backbone: feature maps for the dense models of transformers (AutoBackbone)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .arguments_m33d import refuse_unknown_arguments
from .configuration_m33d import M33DConfig
from .encoder_m33d import M33DEncoder
from .leftovers_m33d import TASK_HEADS
from .states_m33d import states_are_wanted
from .task_base_m33d import M33DTaskModel, needed_pixels, single_frame


class M33DBackbone(BackboneMixin, M33DTaskModel):  # type: ignore[misc]
    """The RGB encoder, which returns the outputs of the blocks named by `config.out_features` or `out_indices`.

    They are raw, as our own dense heads read them (normed with `config.head_norm`), and all of one size: a plain vision
    transformer has no pyramid.

    It loads the RGB encoder of any M33D checkpoint, pre-trained or fine-tuned.

    Args:
        config: the configuration; if it names no stage, the last block's output is returned and the configuration is
            set accordingly.
    """

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *(M33DTaskModel._keys_to_ignore_on_load_unexpected or []),
        *TASK_HEADS,
    ]

    def __init__(self, config: M33DConfig) -> None:
        if config.out_features is None:
            config.set_output_features_output_indices(None, None)
        super().__init__(config, final_norm=config.head_norm)
        self.num_features = [config.hidden_size] * len(self.stage_names)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: Tensor | None = None, **kwargs: Any) -> BackboneOutput:
        """Encode images.

        Args:
            pixel_values: (B, 3, H, W) normalised RGB, sides multiples of the patch; (B, 1, 3, H, W) is the same.
            kwargs: arguments of every model of transformers (`output_hidden_states` and the like).

        Returns:
            `feature_maps`, one for each stage: (B, D, h, w) on the token grid, without class token; with
            `config.reshape_hidden_states` off (B, N, D), the class token first where there is one.

        Raises:
            ConfigError: no input, or an unknown argument.
            DataError: clips.
        """
        refuse_unknown_arguments(kwargs, ["pixel_values"])
        pixels = single_frame(needed_pixels(pixel_values), type(self).__name__)
        layers = [index % len(self.stage_names) - 1 for index in self.config.out_indices]
        states, (_, height, width) = self.m33d.forward_intermediates(
            pixels, layers, states_are_wanted(self.config, kwargs), with_cls=not self.config.reshape_hidden_states
        )
        if self.config.head_norm:
            encoder = cast(M33DEncoder, self.m33d.encoders[self.config.encoder_name(self.config.spec("rgb"))])
            states = [encoder.normed(state) for state in states]
        if self.config.reshape_hidden_states:
            states = [state.transpose(1, 2).unflatten(2, (height, width)).contiguous() for state in states]
        return BackboneOutput(feature_maps=cast(Any, tuple(states)))  # which the library types as one tensor


__all__ = ["M33DBackbone"]

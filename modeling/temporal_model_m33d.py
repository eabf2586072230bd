# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The temporal model of action detection: GRU, temporal convolutional network or transformer, by one interface."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from transformers.utils.generic import maybe_autocast

from .cameras_m33d import drop_cameras
from .clip_model_m33d import M33DClipModel
from .configuration_m33d import M33DConfig
from .errors_m33d import ConfigError, DataError
from .recurrence_m33d import recur
from .sequences_m33d import State, without_unreadable
from .temporal_attention_m33d import M33DTemporalTransformer
from .temporal_convolutions_m33d import M33DConvolutionStage, M33DRefinementStage


class M33DTemporalModel(M33DClipModel):
    """A model of clips with the temporal model that its configuration asks for, and its classifier."""

    def __init__(self, config: M33DConfig) -> None:
        super().__init__(config)
        width, dropout = config.temporal_hidden_size, float(config.temporal_dropout)
        if config.temporal_model == "gru":
            self.gru = _gru(config)
            width *= 1 if config.temporal_causal else 2
        elif config.temporal_model == "tcn":
            self.tcn = M33DConvolutionStage(config, config.temporal_input_size)
            stages = range(config.temporal_tcn_stages - 1)
            self.refinement_stages = nn.ModuleList(M33DRefinementStage(config) for _ in stages)
            dropout = 0.0  # there is none before the classifiers of MS-TCN
        else:
            self.temporal_transformer = M33DTemporalTransformer(config)
        self.temporal_dropout = nn.Dropout(dropout)
        self.temporal_classifier = nn.Linear(width, config.num_labels or 0)

    @property
    def clips_at_once(self) -> int:
        """Clips that the temporal model computes together: what it costs grows in steps of so many."""
        return self.config.temporal_attention_window if self.config.temporal_model == "transformer" else 1

    def temporal(
        self, features: Tensor, attention_mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Logits of every clip from the features of all of them.

        Args:
            features: (B, S, D), clips in the order of time; (B, S, C * (D + 1)) of `joined_cameras` for a model with
                `temporal_cameras`.
            attention_mask: (B, S) bool, False for padding at the end and for clips that could not be read; what lies
                there changes nothing but, for unreadable clips inside a video, a step over zeros.
            state: what a causal model returned at the end of what came before; None starts a video.

        Returns:
            (B, S, L) logits, and the state that a causal model takes to go on, of one size however many clips came
            before: (layers, B, width) of a GRU, a tuple of tensors of the others. Without meaning if not causal.

        Raises:
            ConfigError: a state for a model that looks at later clips.
            DataError: features that are not (B, S, D), a mask of another shape, no video, one without clips, or the
                state of another model.
        """
        stages, state = self.temporal_stages(features, attention_mask, state)
        return stages[-1], state

    def step(self, features: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of the next clip of each video, as soon as it is there; equal to those of `temporal` over all clips.

        Args:
            features: (B, D), or (B, C * (D + 1)), of the clip, zeros where it could not be read.
            state: what the step before returned; None starts a video.

        Returns:
            (B, L) logits, and the state for the next step, whose size does not grow.

        Raises:
            ConfigError: a model that looks at later clips.
            DataError: features that are not (B, D), or the state of another model.
        """
        if not self.config.temporal_causal:
            raise ConfigError(
                "step takes clips one by one, but this model looks at later clips too; use a model trained with "
                "temporal_causal True."
            )
        if features.ndim != 2:
            raise DataError(f"features of a step have shape {tuple(features.shape)}, expected (B, D), one clip each.")
        logits, state = self.temporal(features[:, None], state=state)
        return logits[:, 0], state

    def temporal_stages(
        self, features: Tensor, attention_mask: Tensor | None, state: State | None
    ) -> tuple[list[Tensor], State]:
        """Logits of every stage, of which all models but temporal convolutional networks have one; see `temporal`."""
        self._check_sequences(features, attention_mask, state)
        with maybe_autocast(features.device.type, enabled=False):  # short sums over long sequences stay float32
            features = self._some_cameras(features.to(self.temporal_classifier.weight.dtype))
            if self.config.temporal_model == "gru":
                states, last = recur(self.gru, features, attention_mask, cast("Tensor | None", state))
                return [self.temporal_classifier(self.temporal_dropout(states))], last
            features, lengths = without_unreadable(features, attention_mask)
            parts = self._state_by_part(state)
            network = self.tcn if self.config.temporal_model == "tcn" else self.temporal_transformer
            states, kept = network(features, lengths, parts[0])
            logits = [self.temporal_classifier(self.temporal_dropout(states))]
            if self.config.temporal_model == "tcn":
                for stage, part in zip(self.refinement_stages, parts[1:], strict=True):
                    refined, more = cast(M33DRefinementStage, stage).refine(logits[-1], lengths, part)
                    logits.append(refined)
                    kept += more
            return logits, kept

    def _some_cameras(self, features: Tensor) -> Tensor:
        """In training, without the cameras that are left out."""
        cameras, probability = self.config.temporal_cameras, self.config.temporal_camera_dropout
        if cameras is None or not self.training or probability == 0:
            return features
        return drop_cameras(features, len(cameras), float(probability))

    def _state_by_part(self, state: State | None) -> list[tuple[Tensor, ...] | None]:
        """The state of every stage; of a transformer one.

        Raises:
            DataError: the state of another model.
        """
        config = self.config
        stages, each = 1, 2 * config.temporal_num_layers
        if config.temporal_model == "tcn":
            stages, each = config.temporal_tcn_stages, config.temporal_tcn_layers
        if state is None:
            return [None] * stages
        if not isinstance(state, tuple) or len(state) != stages * each:
            raise DataError(
                f"the state is not of this model, a temporal_model {config.temporal_model!r}; pass what its last call "
                "returned, or None to start a video."
            )
        return [state[number * each : (number + 1) * each] for number in range(stages)]

    def _layout(self) -> str:
        """What stands in the features of a clip, where that is not obvious."""
        names = self.config.temporal_cameras
        if names is None:
            return ""
        return f": joined_cameras makes them of the features of the cameras {', '.join(names)}, in this order"

    def _check_sequences(self, features: Tensor, attention_mask: Tensor | None, state: State | None) -> None:
        if state is not None and not self.config.temporal_causal:
            raise ConfigError(
                f"a {self.config.temporal_model} that looks at later clips reads the whole video at once; to pass a "
                "state, use a model with temporal_causal True."
            )
        width = self.config.temporal_input_size
        if features.ndim != 3 or features.shape[-1] != width or features.shape[0] == 0 or features.shape[1] == 0:
            raise DataError(
                f"features have shape {tuple(features.shape)}, expected (B, S, {width}) with at least one video "
                f"and one clip{self._layout()}."
            )
        if attention_mask is not None and attention_mask.shape != features.shape[:2]:
            raise DataError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, but features have {tuple(features.shape)}: "
                "pass one value per clip, (B, S)."
            )


def _gru(config: M33DConfig) -> nn.GRU:
    return nn.GRU(
        config.temporal_input_size,
        config.temporal_hidden_size,
        config.temporal_num_layers,
        batch_first=True,
        dropout=config.temporal_dropout if config.temporal_num_layers > 1 else 0.0,  # torch drops between layers only
        bidirectional=not config.temporal_causal,
    )

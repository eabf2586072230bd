"""One feed: frames go in one by one, the prediction for a clip comes out with its last frame; memory is constant."""

from __future__ import annotations

import copy
import time as clocks
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch import Tensor

from m33d_hf.inference.live.clips import Clip, ClipAssembler, ClipPrediction, Gap
from m33d_hf.inference.live.intake import FrameIntake
from m33d_hf.modeling.sequences_m33d import State
from m33d_hf.training.tasks.detection.features import ClipRule

Encoded = tuple[Clip, "Tensor | None", "Tensor | None"]
"""(clip without frames, features (D,), clip-wise logits (L,)); None where the clip could not be read."""


class LiveModel(Protocol):
    """What a feed needs of a detector."""

    rule: ClipRule
    names: list[str]

    @property
    def feature_width(self) -> int:
        """D of the features of a clip."""

    def prepared(self, frame: np.ndarray) -> Tensor:
        """(3, H, W) uint8 at the model's size, of an (H, W, 3) uint8 picture."""

    def encoded(self, clips: list[Clip]) -> Sequence[Encoded]:
        """Features and logits of clips."""

    def step(self, features: Tensor | None, state: State | None) -> tuple[np.ndarray, State]:
        """(probabilities (L,), state behind it) of the clip that comes after what made the state."""


class LiveFeed(FrameIntake):
    """The clips of one feed so far; only those that have not ended keep frames.

    Args:
        model: a causal detector.
    """

    def __init__(self, model: LiveModel) -> None:
        super().__init__()
        self.model = model
        self.assembler = ClipAssembler(model.rule)
        self.state: State | None = None
        self.begun: dict[int, float] = {}

    @property
    def first_open(self) -> int:
        """The first frame of the next clip to be told."""
        return self.assembler.first_open()

    @property
    def completed(self) -> int:
        """Clips that have been told so far."""
        return self.assembler.completed

    @property
    def wants_picture(self) -> bool:
        """Whether the next frame is one that a clip takes; of others the time is enough."""
        return self.assembler.rule.takes(self.length)

    def push(self, frame: np.ndarray | None, time: float, arrived: float | None = None) -> ClipPrediction | None:
        """Take the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB; None for one that could not be read, and where `wants_picture` is False.
            time: when it was taken, in seconds of any clock that does not run backwards.
            arrived: `time.monotonic()` when it came; None for now.

        Returns:
            the prediction for the clip that ends with this frame, None where none does.

        Raises:
            DataError: a time that is no number or not after the last one, or a picture of another size, shape or type
                than before. The feed is as it was, and goes on with the next frame.
        """
        came = clocks.monotonic() if arrived is None else arrived
        self.check(frame, time)
        number = self.length
        wanted = frame is not None and self.assembler.rule.takes(number)
        picture = self.model.prepared(frame) if wanted and frame is not None else None
        self.note(frame, time)
        if number % self.model.rule.clip_stride == 0:
            self.begun[number] = self.clock.last or 0.0
        ended = self.assembler.push(number, picture)
        if not ended:
            return None
        (clip,) = ended  # starts differ, so ends do
        gaps = self.told()
        found, self.state = self._predicted(clip, self.state, gaps, cut=False)
        del self.begun[clip.start]
        return replace(found, latency=clocks.monotonic() - came)

    def finish(self) -> list[ClipPrediction]:
        """The clips that the end of the feed cuts short, marked so, in the order of time.

        Nothing changes: when the feed is taken up again, they are completed.
        """
        state, found = self.state, []
        gaps = self.told(keep=True)
        for clip in self.assembler.finish(self.length):
            prediction, state = self._predicted(clip, state, gaps, cut=True)
            found.append(prediction)
            gaps = ()
        return found

    def twin(self) -> LiveFeed:
        """A feed that goes on from here on its own."""
        other = copy.copy(self)
        other.assembler = ClipAssembler(self.model.rule)
        other.assembler.restore(*self.assembler.state())
        other.clock = copy.deepcopy(self.clock)
        other.begun = dict(self.begun)
        other.expect(*self.pending())
        return other

    def _predicted(
        self, clip: Clip, state: State | None, gaps: tuple[Gap, ...], cut: bool
    ) -> tuple[ClipPrediction, State]:
        ((_, features, logits),) = self.model.encoded([clip])
        probabilities, state = self.model.step(features, state)
        even = np.full(len(self.model.names), 1.0 / len(self.model.names), np.float32)
        clipwise = even if logits is None else logits.softmax(-1).numpy()
        times = (self.begun[clip.start], self.clock.end)
        known = logits is not None
        return ClipPrediction(clip.start, clip.stop, known, probabilities, clipwise, *times, None, gaps, cut), state

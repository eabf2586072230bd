"""Where a source meets the feed that it goes on with: which frames can be used, and their times by the feed's clock."""

from __future__ import annotations

import time

import numpy as np

from m33d_hf.errors import CorruptFileError
from m33d_hf.inference.live.arrivals import Arrival, Arrivals, GrowingFrames, StreamFrames, head_of
from m33d_hf.inference.live.clock import is_number
from m33d_hf.inference.live.intake import FrameIntake

# Between the last frame before an interruption and the first one after it at least so many seconds pass.
_LEAST = 1e-3


class Junction:
    """A feed, new or taken up again, and a source.

    Attributes:
        feed: what the frames go to.
    """

    def __init__(self, feed: FrameIntake, source: Arrivals) -> None:
        self.feed, self.source = feed, source
        self._begun = False
        self._moved: float | None = 0.0
        self._seen: float | None = None

    def usable(self, arrival: Arrival, wanted: bool) -> tuple[np.ndarray | None, float] | str:
        """(picture, time by the clock of the feed) of the next frame; why it is left out, which the feed notes; or an
        empty text for one that was seen already.

        Args:
            arrival: the frame.
            wanted: whether its picture is.
        """
        feed, moment = self.feed, self.moment(arrival)
        if self._seen is not None and is_number(moment) and moment <= self._seen:
            return ""  # read again up to where the feed was
        picture, torn = None, "" if arrival.picture is not None else "a frame does not decode"
        if arrival.picture is not None and wanted:
            try:
                picture = arrival.picture()
            except CorruptFileError as error:
                torn = error.reason
        kind, problem = feed.problem(picture, moment)
        if problem or not is_number(moment):
            feed.leave_out(kind, problem)
            return problem
        if torn:
            feed.leave_out("damaged", torn)
        if arrival.note:
            feed.hole(None, None, arrival.note)
        return picture, moment

    def moment(self, arrival: Arrival) -> object:
        """The time of a frame by the clock of the feed; anything where the frame has none.

        A new connection, or a new file, has stamps of its own: the feed's time goes on by the time that has passed.
        """
        self.begin()
        given = arrival.time
        if not is_number(given):
            return given
        if self._moved is None:
            clock, now = self.feed.clock, time.time()
            passed = max(now - (self.feed.arrived or now), clock.usual or 0.0, _LEAST)
            self._moved = (clock.given or 0.0) + passed - given
            self.feed.hole(None, None, f"the feed was taken up again {passed:.1f} s after its last frame")
        return given + self._moved

    def begin(self) -> None:
        """At the first frame: whether a feed that is taken up again goes on by stamps, or by the clock on the wall."""
        if self._begun:
            return
        self._begun = True
        source, feed = self.source, self.feed
        if not isinstance(source, StreamFrames):
            return
        if isinstance(source, GrowingFrames):
            known, feed.recording = feed.recording, head_of(source.path)
            if known is not None and head_of(source.path, known[0]) == known:
                self._seen = feed.clock.given
                return
        self._moved = None if feed.length else 0.0

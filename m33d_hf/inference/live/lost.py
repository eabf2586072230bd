"""Frames of a stream in the order in which they are shown, also after damage, and those that never decode.

Of a frame that is sent and does not decode, only the stamp of its packet is known. After damage decoders also give
frames too early, before others that are shown first: such a frame is held until all that is shown before it was sent.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from m33d_hf.modeling.video_scan_m33d import HIDDEN_FRAME_CODECS

# More than a decoder ever holds back: stamps of packets are then not those of frames.
_MOST = 256
# A stamp closer to the frame before than this share of the usual step is that of its second field, not a frame.
_FIELD = 0.75
_STEPS = 32
# Frames after damage during which the order of the decoder is not trusted; twice what H.264 may hold back.
_RECOVERING = 32


@dataclass(frozen=True)
class Shown:
    """What is shown next.

    Attributes:
        stamp: in ticks of the stream; None where unknown.
        frame: as decoded; None where it does not decode.
        sound: whether it can be used.
    """

    stamp: int | None
    frame: Any
    sound: bool


class LostFrames:
    """Puts the frames of a decoder in order, with those that were sent and did not come; memory is constant."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._last: int | None = None
        self._works = True
        self._held: list[tuple[int, int, Any, bool]] = []
        self._taken = self._recovering = 0
        self._sent: int | None = None  # packets that are still to come are shown later than this
        self._latest: int | None = None
        self._gone: deque[int] = deque(maxlen=_MOST)

    def sent(self, packet: Any) -> None:
        """Take note of a packet."""
        if packet.size == 0 or packet.is_discard or not self._works:
            return
        if packet.pts is None or packet.stream.codec_context.name in HIDDEN_FRAME_CODECS or len(self._waiting) > _MOST:
            self._works, self._waiting = False, []
            return
        self._sent = packet.pts if packet.dts is None else packet.dts
        heapq.heappush(self._waiting, packet.pts)

    def take(self, frame: Any, sound: bool) -> Iterator[Shown]:
        """What can be shown now that the decoder gave a frame."""
        if not self._works or frame.pts is None:
            yield from self.rest()
            yield Shown(frame.pts, frame, sound)
            return
        if frame.pts in self._gone:
            return  # was told as lost already
        # As where a recording is read: a frame that comes after a later one is not looked for.
        late = self._latest is not None and frame.pts < self._latest
        self._latest = frame.pts if self._latest is None else max(self._latest, frame.pts)
        if late or not sound:
            self._recovering = _RECOVERING
        self._taken += 1
        heapq.heappush(self._held, (frame.pts, self._taken, frame, sound and not late))
        while self._held and self._is_due(self._held[0][0]):
            yield from self._next()

    def rest(self) -> Iterator[Shown]:
        """What is held when no more comes."""
        while self._held:
            yield from self._next()

    def _is_due(self, stamp: int) -> bool:
        """Whether nothing that is shown before can come any more, as far as that is known."""
        if self._waiting and self._waiting[0] < stamp:
            self._recovering = _RECOVERING
        early = self._sent is not None and stamp > self._sent
        return not (self._recovering and early) or len(self._held) > _RECOVERING

    def _next(self) -> Iterator[Shown]:
        stamp, _, frame, sound = heapq.heappop(self._held)
        self._recovering = max(self._recovering - 1, 0)
        for lost in self._before(stamp):
            self._gone.append(lost)
            yield Shown(lost, None, False)
        yield Shown(stamp, frame, sound)

    def _before(self, shown: int) -> list[int]:
        """Stamps of the frames that should have come between the last frame and this one."""
        passed = []
        while self._waiting and self._waiting[0] <= shown:
            passed.append(heapq.heappop(self._waiting))
        last, self._last = self._last, shown
        if last is None:  # what is lost before the first frame is told by its number
            return []
        usual = median(self._steps) if self._steps else None
        if not (lost := [stamp for stamp in passed if last < stamp < shown]):
            self._steps.append(shown - last)
        return [] if usual is None else [stamp for stamp in lost if stamp - last >= _FIELD * usual]

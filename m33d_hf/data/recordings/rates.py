"""The rate of a recording by the times of its frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_USUAL = (5.0, 6.0, 10.0, 15.0, 24.0, 25.0, 30.0, 50.0, 60.0, 90.0)
_TICK = 1e-3  # seconds to which recorders round
_ORDINARY = (0.5, 1.5)  # of the median: a longer step is that over lost frames


def frames_per_second(seconds: Sequence[float]) -> float | None:
    """The mean rate of frames that follow each other; a usual one where rounding to milliseconds leaves that open.

    A median step would be one of 33 ms for frames at 30 a second, which is wrong by a hundredth: half a minute an hour.

    Args:
        seconds: of the frames, in any order.

    Returns:
        None for fewer than two frames, or times that do not go on.
    """
    steps = np.diff(np.sort(np.asarray(seconds, np.float64)))
    median = float(np.median(steps)) if steps.size else 0.0
    if median <= 0:
        return None
    kept = steps[(steps >= _ORDINARY[0] * median) & (steps <= _ORDINARY[1] * median)]
    total, count = float(kept.sum()), int(kept.size)
    usual = [rate for rate in _USUAL if abs(count / rate - total) <= _TICK]
    return usual[0] if usual else count / total

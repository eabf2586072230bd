"""Time as people read it, in lines on progress and in reports: the only such place."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, those below 0 as none; NaN is "an unknown time"."""
    if seconds != seconds:
        return "an unknown time"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

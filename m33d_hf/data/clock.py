"""Time as people read it, in lines on progress."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss; NaN is "an unknown time"."""
    if seconds != seconds:
        return "an unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

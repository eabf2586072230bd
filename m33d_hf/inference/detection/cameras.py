"""The cameras of one case in detection: which video is by which, and their clips beside those of the first one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m33d_hf.data.plural import plural
from m33d_hf.data.sources.phases.base import ClipSpan
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.inference.live.clips import Clip
from m33d_hf.inference.live.clock import is_number
from m33d_hf.training.tasks.detection.features import ClipRule

Given = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
"""A video; the videos of several cameras; or the same by their names."""


@dataclass(frozen=True)
class CameraVideo:
    """One video of a case.

    Attributes:
        name: of the camera.
        path: the video.
        offset: seconds from the beginning of the case's clock to its first frame.
    """

    name: str
    path: Path
    offset: float = 0.0


def given_cameras(
    given: Given, names: Sequence[str] | None, offsets: Mapping[str, float] | None = None
) -> list[CameraVideo]:
    """The cameras that were given; a single video without a name is one.

    Args:
        given: see `Given`.
        names: of the cameras that the model reads side by side; None for the mean over any.
        offsets: camera -> seconds, see `CameraVideo`.

    Raises:
        ConfigError: none, two of one name, others than the model reads, or an offset of a camera that is not there.
    """
    found = _named(given, names)
    if not found:
        raise ConfigError("no video was given; pass a path, or those of the cameras of one case.")
    for name, offset in (offsets or {}).items():
        if name not in found:
            raise ConfigError(
                f"offsets has a camera {name!r}, but the videos are by {', '.join(map(repr, found))}; take it out."
                f"{nearest_name_hint(name, list(found))}"
            )
        if not is_number(offset):
            raise ConfigError(f"the offset of camera {name!r} is {offset!r}; it must be a number of seconds.")
    return [CameraVideo(name, Path(path), float((offsets or {}).get(name, 0.0))) for name, path in found.items()]


def _named(given: Given, names: Sequence[str] | None) -> dict[str, str | Path]:
    listed = "" if names is None else ", ".join(names)
    if isinstance(given, Mapping):
        for name in given if names is not None else ():
            if names is not None and name not in names:
                raise ConfigError(
                    f"there is a video by camera {name!r}, but the model was trained on the cameras {listed}."
                    f"{nearest_name_hint(name, list(names))}"
                )
        return dict(given)
    if isinstance(given, (str, Path)):
        if names is not None:
            raise ConfigError(
                f"this model reads the cameras {listed} together, but {given} does not say which of them it is by: "
                f"pass a mapping such as {{{names[0]!r}: path}} (any of them may be missing), or --cameras to "
                "detect_actions.py."
            )
        return {"": given}
    if names is not None:
        if len(given) != len(names):
            raise ConfigError(
                f"{plural(len(given), 'video')} given, but the model was trained on {plural(len(names), 'camera')} "
                f"({listed}): pass "
                "one for each in this order, or, where some are missing, a mapping from camera to video."
            )
        return dict(zip(names, given, strict=True))
    found = {Path(path).stem: path for path in given}
    if len(found) < len(given):
        raise ConfigError(
            "two of the videos have the same name; pass a mapping from the name of a camera to its video."
        )
    return found


class SpanAssembler:
    """Builds given clips out of frames that come one by one; they may overlap, or be equal.

    Args:
        rule: which frames of a clip are taken.
        spans: the clips, in the order of their first frames, which is also that of their last ones.
    """

    def __init__(self, rule: ClipRule, spans: Sequence[ClipSpan]) -> None:
        self.rule, self.spans = rule, list(spans)
        self._starts = [span.start for span in self.spans]
        self._offsets: dict[int, list[int]] = {}
        self._frames: dict[int, Tensor | None] = {}
        self._next = 0

    def takes(self, number: int) -> bool:
        """Whether a clip takes frame `number`."""
        place = bisect_right(self._starts, number) - 1
        while place >= 0 and self._starts[place] > number - self.rule.span:
            if number - self._starts[place] in self._taken(self.spans[place]):
                return True
            place -= 1
        return False

    def push(self, number: int, frame: Tensor | None) -> list[Clip]:
        """Take frame `number`, the next one, (3, H, W) uint8; None where it is unreadable, or no clip takes it."""
        if self.takes(number):
            self._frames[number] = frame
        found = []
        while self._next < len(self.spans) and self.spans[self._next].stop <= number + 1:
            found.append(self._closed(self.spans[self._next]))
            self._next += 1
        if found:
            first = self._starts[self._next] if self._next < len(self.spans) else number + 1
            self._frames = {place: kept for place, kept in self._frames.items() if place >= first}
        return found

    def finish(self, length: int) -> list[Clip]:
        """Clips that should have ended later than the video does: they cannot be read."""
        rest, self._next = self.spans[self._next :], len(self.spans)
        return [Clip(span.start, span.stop, None) for span in rest]

    def _taken(self, span: ClipSpan) -> list[int]:
        length = span.stop - span.start
        return self._offsets.setdefault(length, self.rule.frames(length))

    def _closed(self, span: ClipSpan) -> Clip:
        rows = [self._frames.get(span.start + offset) for offset in self._taken(span)]
        frames = [row for row in rows if row is not None]
        return Clip(span.start, span.stop, torch.stack(frames) if len(frames) == len(rows) else None)

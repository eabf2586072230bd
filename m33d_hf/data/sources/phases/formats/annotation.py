"""The common form of all layouts of phase annotations, and the options for reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from m33d_hf.errors import ConfigError, nearest_name_hint

FORMATS = ("frames", "rows", "timestamps", "segments", "levels", "subtitles")
MILLISECONDS = "milliseconds"
UNITS = ("frames", "seconds", MILLISECONDS)
LEVELS = ("phases", "steps")
CLOCKS = ("auto", "mm:ss", "hh:mm")


@dataclass(frozen=True)
class AnnotationOptions:
    """Options for reading annotation files that are ambiguous.

    Attributes:
        kind: one of `FORMATS`, or "auto" to tell by the content.
        unit: one of `UNITS`, of segments whose columns' names do not say it; None where they do.
        level: "phases" or "steps" of files with several levels.
        ignored: names whose segments count as if nothing had been written.
        clock: what times of two parts are: "mm:ss", "hh:mm", or "auto" to tell by the whole column.

    Raises:
        ConfigError: a value that is none of these.
    """

    kind: str = "auto"
    unit: str | None = None
    level: str = "phases"
    ignored: Sequence[str] = ()
    clock: str = "auto"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("annotation_format", self.kind, ("auto", *FORMATS)),
            ("annotation_level", self.level, LEVELS),
            ("clock", self.clock, CLOCKS),
            ("segment_unit", self.unit, (None, *UNITS)),
        ):
            if value not in known:
                names = [name for name in known if name is not None]
                hint = nearest_name_hint(str(value), names)
                raise ConfigError(f"{option} is {value!r}; it must be one of {', '.join(names)}.{hint}")


@dataclass(frozen=True)
class Annotation:
    """The annotation of one video in one file, in the file's own units.

    Attributes:
        path: the file.
        kind: one of `FORMATS`.
        unit: of `starts`, `stops` and `resolution`: "frames" (numbered at the label rate) or "seconds".
        names: phases in order of first appearance.
        codes: (n,) int32 the phase of each line, an index into `names`.
        starts: (n,) float64, never falling; segments are sorted by it.
        lines: (n,) int32 line numbers counted from one.
        stops: (n,) float64 as written, for segments; None otherwise.
        resolution: the smallest step that the file's numbers can tell: 1 frame, or 1, 0.1, 0.01 ... seconds.
        video: value of the video column, None without.
        encoding: of the file's text.
        dropped: names whose segments were left out as asked.
        notes: sentences on what the file left open and how it was read.
        hours_fit: whether times of two parts, taken for mm:ss, may be hh:mm as far as the file tells; None without any.
        entry: what `lines` number, for messages.
    """

    path: Path
    kind: str
    unit: str
    names: tuple[str, ...]
    codes: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    lines: np.ndarray = field(repr=False)
    stops: np.ndarray | None = field(default=None, repr=False)
    resolution: float = 1.0
    video: str | None = None
    encoding: str = "UTF-8"
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hours_fit: bool | None = None
    entry: str = "line"

    def first_line(self, name: str) -> int:
        """Line on which `name`, one of `names`, first occurs."""
        return int(self.lines[np.argmax(self.codes == self.names.index(name))])

    def place_of(self, name: str) -> str:
        """`FILE, line 7`: where `name`, one of `names`, first occurs."""
        return f"{self.path}, {self.entry} {self.first_line(name)}"


def coded(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """(names in order of first appearance, (n,) int32 index of each into them)."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(codes, dtype=np.int32)

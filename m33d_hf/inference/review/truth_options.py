"""What annotation files do not say of themselves: the words of detect_actions.py's --truth_options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from m33d_hf.data.sources import source_option_types
from m33d_hf.data.sources.options import check_option
from m33d_hf.data.sources.phases.formats.annotation import AnnotationOptions
from m33d_hf.errors import ConfigError, DataError, LabelError, nearest_name_hint
from m33d_hf.inference.detection.deep_clips import source_options

FLAG = "--truth_options"


@dataclass(frozen=True)
class TruthOptions:
    """Options of the source `phases` (`PhasesSource`) that are about annotations, with its defaults.

    Attributes:
        annotation_format, annotation_level, clock, ignored_phases, label_fps, label_start, length_tolerance,
            segment_end, segment_unit: as there.
    """

    annotation_format: str = "auto"
    annotation_level: str = "phases"
    clock: str = "auto"
    ignored_phases: str | Sequence[str] | None = None
    label_fps: float | None = None
    label_start: int | None = None
    length_tolerance: float = 1.0
    segment_end: str = "auto"
    segment_unit: str | None = None

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of `ignored_phases`."""
        names = self.ignored_phases
        return (names,) if isinstance(names, str) else tuple(names or ())

    @property
    def reading(self) -> AnnotationOptions:
        """Those for reading the files.

        Raises:
            ConfigError: a format, level, clock or unit that is none.
        """
        return AnnotationOptions(
            self.annotation_format, self.segment_unit, self.annotation_level, self.ignored, self.clock
        )


def truth_options(words: Sequence[str]) -> TruthOptions:
    """The options that a command line states.

    Args:
        words: NAME=VALUE each.

    Raises:
        ConfigError: a word of another form, another option, or a value of the wrong type or out of range.
    """
    types = source_option_types("phases")
    known = [field.name for field in fields(TruthOptions)]
    found: dict[str, Any] = {}
    for name, value in source_options(words, FLAG, "label_fps=1").items():
        if name not in known:
            raise ConfigError(f"{FLAG} has no {name!r}; it takes {', '.join(known)}.{nearest_name_hint(name, known)}")
        found[name] = check_option(f"{FLAG} {name}", name, value, types[name])
    return TruthOptions(**found)


@contextmanager
def in_own_words(rate: str) -> Iterator[None]:
    """Errors in the block advise the options of detect_actions.py in place of those of a run.

    Args:
        rate: the option that states frames per second.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        text = re.sub(r"--data\.options\.fps(?![\w])", rate, str(error))
        text = re.sub(r"--data\.options\.annotations(?![\w])", "--truth", text)
        text = text.replace("--data.options.", f"{FLAG} ")
        if type(error) not in (ConfigError, DataError, LabelError) or text == str(error):
            raise
        raise type(error)(text) from error

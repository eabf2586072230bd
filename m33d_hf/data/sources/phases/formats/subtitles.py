"""Subtitles as annotations: SubRip (`NAME.srt`) and WebVTT (`NAME.vtt`), one cue per segment, whose text is the phase.

They come from `scripts/detect_actions.py --export srt vtt`, corrected in any editor of subtitles, or are written there.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from m33d_hf.data.sources.phases.formats.annotation import Annotation, AnnotationOptions
from m33d_hf.data.sources.phases.formats.segments import Segment, annotation_of
from m33d_hf.errors import DataError

SUBTITLE_SUFFIXES = (".srt", ".vtt")
_ARROW = "-->"
_TIME = re.compile(r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])[.,]([0-9]{1,3})")
_WEB_TAG = re.compile(r"</?(?:b|i|u|c|v|lang|ruby|rt)(?:[ .][^<>]*)?>|<[0-9:.]+>")
_STYLED = re.compile(r"<(b|i|u|font)(?: [^<>]*)?>(.*)</\1>|\{\\[^{}]*\}(.*)", re.IGNORECASE)
_HEAD = "WEBVTT"
_NOT_CUES = ("NOTE", "STYLE", "REGION", _HEAD)

Block = list[tuple[int, str]]
"""Lines without an empty one between them: (number counted from one, text)."""


def looks_like_subtitles(text: str) -> bool:
    """Whether a text begins as WebVTT does, or with a cue's times."""
    first = next(_blocks(text), [])
    return bool(first) and (_is_head(first[0][1]) or any(_ARROW in line for _, line in first[:2]))


def read_subtitles(path: Path, text: str, options: AnnotationOptions) -> list[Annotation]:
    """Read all cues of a file.

    Raises:
        DataError: a cue without times, with malformed ones, that ends before it starts, or whose text is not one line;
            no cue at all. (Cues that overlap are refused where they are laid over the frames.)
    """
    web = _is_head(text.lstrip().partition("\n")[0])
    found = [
        _segment(path, block, web)
        for block in _blocks(text)
        if not (web and re.split(r"[ \t]", block[0][1].strip(), maxsplit=1)[0] in _NOT_CUES)
    ]
    if not found:
        raise DataError(f"{path}: subtitles without a cue; expected lines 'HH:MM:SS,mmm --> HH:MM:SS,mmm' and a phase")
    notes = ("subtitles: the text of a cue is the phase, its times are those of the segment",)
    return [annotation_of(path, "subtitles", "seconds", found, options, 1e-3, None, notes)]


def plain_text(text: str) -> str:
    """Text of a SubRip cue without a style for the whole of it, which some editors write; what lies inside stays."""
    found = _STYLED.fullmatch(text.strip())
    return text.strip() if found is None else plain_text(found[2] or found[3] or "")


def _web_text(text: str) -> str:
    return html.unescape(_WEB_TAG.sub("", text)).strip()


def _is_head(line: str) -> bool:
    return line.strip() == _HEAD or line.startswith((f"{_HEAD} ", f"{_HEAD}\t"))


def _blocks(text: str) -> Iterator[Block]:
    block: Block = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _segment(path: Path, block: Block, web: bool) -> Segment:
    place = next((place for place, (_, line) in enumerate(block[:2]) if _ARROW in line), None)
    number, line = block[0]
    if place is None:
        raise DataError(
            f"{path}, line {number}: {line.strip()[:80]!r} does not begin a cue; expected a line with its times, "
            "'HH:MM:SS,mmm --> HH:MM:SS,mmm'"
        )
    number, line = block[place]
    first, _, rest = line.partition(_ARROW)
    last = rest.split()[0] if rest.split() else ""  # WebVTT has settings behind it
    start, stop = _seconds(path, number, first.strip()), _seconds(path, number, last)
    if stop <= start:
        raise DataError(f"{path}, line {number}: the cue ends at {stop:g}, not after its start {start:g} (seconds)")
    words = [_web_text(text) if web else plain_text(text) for _, text in block[place + 1 :]]
    if len(words) != 1 or not words[0]:
        shown = " / ".join(words)[:80] if any(words) else "nothing"
        raise DataError(
            f"{path}, line {number}: the text of the cue is {shown!r}; it must be one line, the name of a phase. Leave "
            "the cue out if no phase is annotated"
        )
    return Segment(start, stop, words[0], number)


def _seconds(path: Path, number: int, text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise DataError(
            f"{path}, line {number}: {text[:40]!r} is not a time HH:MM:SS,mmm (minutes and seconds below 60)"
        )
    hours, minutes, seconds, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(rest.ljust(3, "0")) / 1000

"""Skipped inputs in a few lines: one per reason, and what to do about depth maps that were taken for pictures."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

from m33d_hf.data.files.skips import FILE_NAME, SkippedFile
from m33d_hf.data.plural import plural

_SHOWN = 5  # reasons
_DEPTH = "is it a depth map?"


def skipped_lines(skipped: Sequence[SkippedFile], good: Collection[Path]) -> list[str]:
    """A line per reason, with the first file and the number of them.

    Args:
        skipped: inputs that cannot be used.
        good: those that can.
    """
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file in skipped:
        by_reason[file.reason].append(file.path)
    groups = sorted(by_reason.items(), key=lambda group: -len(group[1]))
    lines = []
    for reason, paths in groups[:_SHOWN]:
        which = paths[0] if len(paths) == 1 else f"{plural(len(paths), 'file')}, the first {paths[0]}"
        lines.append(f"skipped {which}: {reason}")
        if reason.endswith(_DEPTH) and (pattern := _pattern(good, paths)) is not None:
            lines.append(f"  to leave them aside, name the pictures alone: --input '{pattern}'")
    if skipped:
        rest = sum(len(paths) for _, paths in groups[_SHOWN:])
        more = f".. and {rest} more, for other reasons; " if rest else ""
        lines.append(f"{more}skipped files are listed in {FILE_NAME} there.")
    return lines


def _pattern(good: Collection[Path], bad: Sequence[str]) -> str | None:
    """A glob that matches all usable files and none of the others; None where it is no simple one."""
    wrong = [Path(path) for path in bad]
    if not good:
        return None
    root = os.path.commonpath([path.parent for path in (*good, *wrong)])
    ways = [lambda path: f"*{path.suffix}", lambda path: f"{path.parent.name}/*"]
    for way in ways:
        patterns = {way(path) for path in good}
        if len(patterns) == 1:
            (pattern,) = patterns
            if not any(PurePath(path).match(pattern) for path in wrong):
                return f"{root}/**/{pattern}"
    return None

"""Parses columns of times; cells that are ambiguous alone are interpreted by the whole column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m33d_hf.errors import DataError

STAMP = re.compile(r"(-?)([0-9]{1,9}):([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]{1,15}))?")
SHORT = re.compile(r"(-?)([0-9]{1,9}):([0-9]{2})(?:[.,]([0-9]{1,15}))?")
_PLAIN = re.compile(r"-?[0-9]{1,15}(?:[.,]([0-9]{1,15}))?")
_WHOLE_HOURS = 23


@dataclass(frozen=True)
class TimeColumn:
    """The times of a column.

    Attributes:
        seconds: (n,) float64.
        decimals: digits behind the point that were written, at most.
        hours_fit: of times of two parts that were taken for mm:ss, whether the column leaves open that they are hh:mm;
            None without such times, or where somebody stated what they are.
        notes: sentences on how it was read.
    """

    seconds: np.ndarray
    decimals: int
    hours_fit: bool | None = None
    notes: tuple[str, ...] = ()


def parse_seconds(text: str) -> tuple[float, int] | None:
    """(seconds, decimals written) of `HH:MM:SS.xx`, or of a plain number with a point; None where it is neither.

    A negative time is returned as such; minutes and seconds of 60 and more are no time.
    """
    stamp = STAMP.fullmatch(text.strip())
    if stamp:
        sign, hours, minutes, seconds, decimals = stamp.groups()
        if int(minutes) > 59 or int(seconds) > 59:
            return None
        value = int(hours) * 3600 + int(minutes) * 60 + float(f"{seconds}.{decimals or 0}")
        return (-value if sign else value), len(decimals or "")
    number = _PLAIN.fullmatch(text.strip())
    return (float(text), len(number[1] or "")) if number and "," not in text else None


def is_time(text: str) -> bool:
    """Whether a cell holds a time with colons, of two parts or three."""
    return bool(STAMP.fullmatch(text.strip()) or SHORT.fullmatch(text.strip()))


def read_times(
    path: Path, cells: Sequence[tuple[int, str]], clock: str = "auto", numbers: bool = True, what: str = "a time"
) -> TimeColumn:
    """Read a column of times.

    `HH:MM:SS.xx` always; `MM:SS.xx` where no cell of the column says that it could be anything else; plain seconds with
    a decimal point, or with a decimal comma where none of the column can be one between thousands.

    Args:
        path: the file, for messages.
        cells: (line number, text) from top to bottom.
        clock: "mm:ss" or "hh:mm" settles times of two parts; "auto" judges.
        numbers: whether plain numbers are times here.
        what: what a cell should be, for messages.

    Raises:
        DataError: a cell that is not a time, a negative one, or a column that can be read in two ways.
    """
    _refuse_two_points(path, cells)
    short = [match for match in (SHORT.fullmatch(text) for _, text in cells) if match]
    scale = 60.0 if clock == "hh:mm" and short else 1.0
    settled = any(match[4] or int(match[2]) > _WHOLE_HOURS for match in short)
    settled |= len(short) < sum(":" in text for _, text in cells)  # beside 1:00:02, 59:58 is no time of day
    values, decimals = [], 0
    for line, text in cells:
        parsed = _parsed(text, numbers)
        if parsed is None:
            raise DataError(f"{path}, line {line}: {text!r} is not {what}")
        value, digits = parsed
        if value < 0:
            raise DataError(f"{path}, line {line}: {text!r} is negative; the video starts at 0")
        values.append(value * scale if ":" in text and SHORT.fullmatch(text) else value)
        decimals = max(decimals, digits)
    read_as = "hours and minutes" if scale > 1 else "minutes and seconds"
    notes = [f"times of two parts such as {short[0][0]} are read as {read_as}"] if short else []
    commas = [text for _, text in cells if "," in text]
    notes += [f"commas in times such as {commas[0]} are decimal points"] if commas else []
    hours_fit = not settled if short and clock == "auto" else None
    return TimeColumn(np.array(values, dtype=np.float64), decimals, hours_fit, tuple(notes))


def _parsed(text: str, numbers: bool) -> tuple[float, int] | None:
    short = SHORT.fullmatch(text)
    if short:
        sign, minutes, seconds, decimals = short.groups()
        if int(seconds) > 59:
            return None
        value = int(minutes) * 60 + float(f"{seconds}.{decimals or 0}")
        return (-value if sign else value), len(decimals or "")
    if ":" not in text and not numbers:
        return None
    return parse_seconds(text if ":" in text else text.replace(",", ".", 1))


def _refuse_two_points(path: Path, cells: Sequence[tuple[int, str]]) -> None:
    """Refuse columns in which a comma may be a decimal point or stand between thousands."""
    commas = [(line, text) for line, text in cells if "," in text]
    if not commas:
        return
    line, text = commas[0]
    if any("." in other for _, other in cells):
        raise DataError(
            f"{path}, line {line}: {text!r} has a comma, but other times of the column have a point; write all of them "
            "with a point"
        )
    plain = [other for _, other in commas if ":" not in other]
    if plain and all(re.fullmatch(r"-?[1-9][0-9]{0,2},[0-9]{3}", other) for other in plain):
        raise DataError(
            f"{path}, line {line}: {text!r} may be a decimal number or have a comma between thousands, and no other "
            "time of the column decides it; write it with a decimal point, or without the comma"
        )

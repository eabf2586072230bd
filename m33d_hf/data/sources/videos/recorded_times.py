"""When the frames of an imported recording were taken: `frames.csv`, which scripts/import_recording.py writes."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.video_times_m33d import FrameTimes, times_of

logger = logging.getLogger(__name__)

TABLE, RECORD = "frames.csv", "import.json"
_PICTURES = "color"  # the folder of an imported recording that holds them
_NANO = 10**9
_TICKS = (10**6, 10**3, 1)  # nanoseconds: a millisecond, where all times are whole ones
_CACHED = 64
_NO_TIMES = "its frames have no times. State an even rate (fps), or repair the table"


def recorded_table(folder: Path) -> Path | None:
    """The table of an imported recording; None in any other folder, and where an import was stopped, with a warning."""
    table = folder / TABLE
    if not (folder / RECORD).is_file():
        return None
    if table.is_file():
        return table
    _warn(folder, f"has {RECORD} and no {TABLE}: the import was stopped, frames are missing at its end and none has a "
          "time. Repeat the command of scripts/import_recording.py, which goes on")  # fmt: skip
    return None


def recording_of(pictures: Path) -> Path | None:
    """The folder of the imported recording that a folder of pictures belongs to; None of any other folder."""
    return pictures.parent if pictures.name == _PICTURES and recorded_table(pictures.parent) is not None else None


def is_recorded_table(path: Path) -> bool:
    """Whether a file is such a table."""
    return path.name == TABLE and path.with_name(RECORD).is_file()


def recorded_times(table: Path, files: Sequence[str]) -> FrameTimes | None:
    """The times of frames, from the first of them.

    Args:
        table: `frames.csv`.
        files: of the frames, in order; their names are the numbers in the table.

    Returns:
        None where the table does not have all of them, or they do not go on; a warning says so, once.

    Raises:
        CorruptFileError: it cannot be read.
    """
    try:
        state = table.stat()
    except OSError as error:
        raise CorruptFileError(table, f"cannot be read ({error.strerror or error})") from error
    known = _read(table, state.st_mtime_ns, state.st_size)
    numbers = [PurePosixPath(file).stem for file in files]
    stamps = [known.get(int(number)) if number.isdecimal() else None for number in numbers]
    found = [stamp for stamp in stamps if stamp is not None]
    if len(found) < len(stamps):
        _warn(table, f"has no time of {len(stamps) - len(found)} of {len(stamps)} frames, the first: "
              f"{numbers[stamps.index(None)]}; {_NO_TIMES}")  # fmt: skip
        return None
    back = next((place for place, (before, after) in enumerate(pairwise(found), 1) if after <= before), None)
    if back is not None:
        _warn(
            table,
            f"has times that do not go on: frame {numbers[back]} is not later than the one before it; {_NO_TIMES}",
        )
        return None
    if len(found) < 2:
        return None
    tick = next(tick for tick in _TICKS if all(stamp % tick == 0 for stamp in found))
    ticks = [stamp // tick for stamp in found]
    rate = (len(ticks) - 1) * _NANO / ((found[-1] - found[0]) or 1)
    even = next((each for each in (round(rate), rate) if each and _is_even(ticks, each, tick)), None)
    return times_of(ticks, Fraction(tick, _NANO), None if even is None else float(even))


@lru_cache(maxsize=1024)
def _warn(path: Path, what: str) -> None:
    """Once for each: the times are asked for again and again."""
    logger.warning("%s %s", path, what)


def _is_even(ticks: Sequence[int], rate: float, tick: int) -> bool:
    step = _NANO / (tick * rate)
    return all(abs(stamp - ticks[0] - number * step) <= 1 for number, stamp in enumerate(ticks))


@lru_cache(maxsize=_CACHED)
def _read(table: Path, modified: int, size: int) -> dict[int, int]:
    """Number -> nanoseconds; frames without a time are left out."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        return {int(number): round(float(seconds) * _NANO) for number, seconds in rows[1:] if seconds}
    except (OSError, ValueError) as error:
        raise CorruptFileError(table, f"is no table of frames and seconds ({error})") from error

"""When the frames of an imported recording were taken: `frames.csv`, which scripts/import_recording.py writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.video_times_m33d import FrameTimes, times_of

TABLE, RECORD = "frames.csv", "import.json"
_NANO = 10**9
_TICKS = (10**6, 10**3, 1)  # nanoseconds: a millisecond, where all times are whole ones
_CACHED = 64


def recorded_table(folder: Path) -> Path | None:
    """The table of an imported recording; None in any other folder."""
    table = folder / TABLE
    return table if table.is_file() and (folder / RECORD).is_file() else None


def is_recorded_table(path: Path) -> bool:
    """Whether a file is such a table."""
    return path.name == TABLE and path.with_name(RECORD).is_file()


def recorded_times(table: Path, files: Sequence[str]) -> FrameTimes | None:
    """The times of frames, from the first of them.

    Args:
        table: `frames.csv`.
        files: of the frames, in order; their names are the numbers in the table.

    Returns:
        None where the table does not have all of them, or they do not go on.

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
    if len(found) < max(len(stamps), 2) or any(after <= before for before, after in pairwise(found)):
        return None
    tick = next(tick for tick in _TICKS if all(stamp % tick == 0 for stamp in found))
    ticks = [stamp // tick for stamp in found]
    rate = (len(ticks) - 1) * _NANO / ((found[-1] - found[0]) or 1)
    even = next((each for each in (round(rate), rate) if each and _is_even(ticks, each, tick)), None)
    return times_of(ticks, Fraction(tick, _NANO), None if even is None else float(even))


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

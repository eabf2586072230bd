"""Times as people write them: what a whole column settles, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.data.sources.phases.formats.times import TimeColumn, read_times
from m33d_hf.errors import DataError

FILE = Path("times.csv")


def _read(*texts: str, clock: str = "auto") -> TimeColumn:
    return read_times(FILE, list(enumerate(texts, 2)), clock)


@pytest.mark.parametrize(
    ("texts", "seconds", "hours_fit"),
    [
        (("00:00", "03:25", "45:10"), [0, 205, 2710], False),  # 45 is no hour of a day
        (("59:58", "1:00:02"), [3598, 3602], False),
        (("00:10.5", "12:34"), [10.5, 754], False),
        (("00:10,5", "12:34"), [10.5, 754], False),
        (("00:00", "12:34"), [0, 754], True),
        (("0,5", "1,25", "10"), [0.5, 1.25, 10], None),
        (("0,125", "1,250"), [0.125, 1.25], None),  # nobody writes a zero before thousands
        (("00:00:01,25", "00:00:02"), [1.25, 2], None),
        (("90:00", "100:30"), [5400, 6030], False),
    ],
)
def test_columns_that_leave_nothing_open(texts: tuple[str, ...], seconds: list[float], hours_fit: bool | None) -> None:
    found = _read(*texts)
    assert found.seconds.tolist() == pytest.approx(seconds) and found.hours_fit is hours_fit
    assert bool(found.notes) == any("," in text or text.count(":") == 1 for text in texts)


def test_a_stated_clock(tmp_path: Path) -> None:
    hours = _read("00:00", "02:34", clock="hh:mm")
    assert hours.seconds.tolist() == [0, 9240] and "hours and minutes" in hours.notes[0] and hours.hours_fit is None
    minutes = _read("00:00", "02:34", clock="mm:ss")
    assert minutes.seconds.tolist() == [0, 154] and minutes.hours_fit is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("1,500", "2,250"), r"line 2: '1,500' may be a decimal number or have a comma between thousands"),
        (("0.5", "1,25"), r"line 3: '1,25' has a comma, but other times of the column have a point"),
        (("00:60", "00:10"), r"line 2: '00:60' is not a time"),
        (("00:1", "00:10"), r"line 2: '00:1' is not a time"),
        (("1,2,3",), r"line 2: '1,2,3' is not a time"),
        (("-00:10", "00:20"), r"line 2: '-00:10' is negative"),
        (("-0,5", "1,25"), r"line 2: '-0,5' is negative"),
        (("soon",), r"line 2: 'soon' is not a time"),
        (("٣:٤٥",), "is not a time"),
        (("9" * 400,), "is not a time"),
    ],
)
def test_columns_that_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(*texts)

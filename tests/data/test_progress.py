"""Lines of progress: how much is done and left, and not more often than asked for."""

from __future__ import annotations

import pytest

from m33d_hf.data import progress
from m33d_hf.data.progress import Progress, tell


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock: the time is what the test says."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_rest_takes_as_long_per_unit_as_what_is_done(seconds: list[float]) -> None:
    said: list[str] = []
    work = Progress(40, 5.0, said.append, "clips", "features")
    for _ in range(10):
        seconds[0] += 2.0
        work.done += 1
        work.report("video 1 of 4 (a)")
    assert said == [
        "features: 3 of 40 clips (8%), 0:00:06 so far, about 0:01:14 left, video 1 of 4 (a)",
        "features: 6 of 40 clips (15%), 0:00:12 so far, about 0:01:08 left, video 1 of 4 (a)",
        "features: 9 of 40 clips (22%), 0:00:18 so far, about 0:01:02 left, video 1 of 4 (a)",
    ]


def test_what_an_earlier_run_did_does_not_count_for_the_speed(seconds: list[float]) -> None:
    said: list[str] = []
    work = Progress(4, 1.0, said.append)
    work.already(2)
    seconds[0] += 10
    work.done += 0.5
    work.report()
    assert said == ["2.5 of 4 inputs (62%), 0:00:10 so far, about 0:00:30 left"]


def test_nothing_done_is_an_unknown_time(seconds: list[float]) -> None:
    said: list[str] = []
    work = Progress(4, 1.0, said.append)
    seconds[0] += 2
    work.report()
    assert said == ["0 of 4 inputs (0%), 0:00:02 so far, about an unknown time left"]


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a line")
    assert capsys.readouterr() == ("", "a line\n")

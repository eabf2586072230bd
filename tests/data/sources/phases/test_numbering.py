"""Whether annotations count from 0 or from 1: shown by the data, stated, or asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.sources.phases.alignment import Timing, frame_phases
from m33d_hf.data.sources.phases.annotations import Annotation, read_annotations
from m33d_hf.data.sources.phases.numbering import first_number
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.video_times_m33d import FrameTimes


def _lines(folder: Path, name: str, numbers: range | list[int]) -> Annotation:
    (folder / f"{name}.txt").write_text("Frame\tPhase\n" + "".join(f"{number}\tcut\n" for number in numbers))
    return read_annotations(folder / f"{name}.txt")[0]


def _segments(folder: Path, name: str, text: str) -> Annotation:
    (folder / f"{name}.csv").write_text(f"start_frame,end_frame,phase\n{text}")
    return read_annotations(folder / f"{name}.csv")[0]


def _first(
    annotations: Mapping[str, Annotation], timings: Mapping[str, Timing], stated: int | None = None
) -> tuple[int, str | None]:
    return first_number(annotations, timings.get, stated)


def test_at_one_a_second(tmp_path: Path) -> None:
    """A video of 10 s at 25 fps: 1 to 10 counts from 1; 1 to 9 does not tell; another video of the set tells for it."""
    ten, nine = _lines(tmp_path, "ten", range(1, 11)), _lines(tmp_path, "nine", range(1, 10))
    timing = Timing(250, 25.0, label_fps=1.0)
    found, how = _first({"ten": ten}, {"ten": timing})
    assert found == 1 and how is not None and "ten.txt ends at 10, which counted from 0 would lie after" in how
    with pytest.raises(ConfigError, match=r"nine\.txt \(line 2\), none has a 0.*--data\.options\.label_start=1"):
        _first({"nine": nine}, {"nine": timing})
    both = {"nine": nine, "ten": ten}
    assert _first(both, dict.fromkeys(both, timing))[0] == 1
    assert _first({"nine": nine}, {"nine": timing}, 1) == (
        1,
        "frames are numbered from 1 in the annotations, as given",
    )
    assert _first({"nine": nine}, {"nine": timing}, 0)[0] == 0


def test_a_started_second_counts(tmp_path: Path) -> None:
    """10.4 s: 1 to 11 counts from 1, as 10 is the last second that begins inside."""
    timing = Timing(260, 25.0, label_fps=1.0)
    assert _first({"a": _lines(tmp_path, "a", range(1, 12))}, {"a": timing})[0] == 1
    with pytest.raises(ConfigError, match="label_start"):
        _first({"a": _lines(tmp_path, "a", range(1, 11))}, {"a": timing})


def test_a_zero_settles_it(tmp_path: Path) -> None:
    whole, late = _lines(tmp_path, "whole", range(10)), _lines(tmp_path, "late", range(1, 10))
    timings = {"whole": Timing(10), "late": Timing(10), "long": Timing(10)}
    assert _first({"late": late, "whole": whole}, timings) == (0, None)
    with pytest.raises(DataError, match=r"contradict each other: .*long\.txt ends at 10.*whole\.txt begins at 0"):
        _first({"long": _lines(tmp_path, "long", range(1, 11)), "whole": whole}, timings)
    with pytest.raises(DataError, match=r"whole\.txt, line 2: the number is 0, but label_start is 1"):
        _first({"whole": whole}, timings, 1)
    assert _first({"a": _lines(tmp_path, "a", range(40, 60))}, {"a": Timing(100)}) == (0, None)
    assert _first({}, {}) == (0, None)


def test_every_kth_frame_as_matlab_counts_them(tmp_path: Path) -> None:
    found, how = _first({"a": _lines(tmp_path, "a", range(1, 500, 25))}, {"a": Timing(500, 25.0)})
    assert found == 1 and how is not None and "every 25th of them as 1, 26" in how


def test_segments(tmp_path: Path) -> None:
    inclusive = Timing(10, inclusive=True)
    assert _first({"a": _segments(tmp_path, "a", "1,4,cut\n5,10,sew\n")}, {"a": inclusive})[0] == 1
    assert _first({"a": _segments(tmp_path, "a", "0,4,cut\n5,9,sew\n")}, {"a": inclusive})[0] == 0
    assert _first({"a": _segments(tmp_path, "a", "1,5,cut\n5,11,sew\n")}, {"a": Timing(10)})[0] == 1
    with pytest.raises(ConfigError, match="label_start"):
        _first({"a": _segments(tmp_path, "a", "1,4,cut\n5,9,sew\n")}, {"a": inclusive})


def test_another_rate_is_said_first(tmp_path: Path) -> None:
    """1 to 123 in 123 s at 25 fps without label_fps: `frame_phases` names the rate, which then shows the start."""
    annotation = _lines(tmp_path, "a", range(1, 124))
    assert _first({"a": annotation}, {"a": Timing(3075, 25.0)}) == (0, None)
    assert _first({"a": annotation}, {"a": Timing(3075, 25.0, label_fps=1.0)})[0] == 1


def test_times_and_bare_rows_have_no_first_number(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Time\tPhase\n00:00:01\tcut\n00:00:02\tsew\n")
    (tmp_path / "b.txt").write_text("1\n1\n2\n")
    for name in "ab":
        assert _first({name: read_annotations(tmp_path / f"{name}.txt")[0]}, {name: Timing(3, 1.0)}) == (0, None)


@pytest.mark.parametrize("stated", [2, -1, True, "1"])
def test_only_0_and_1_can_be_stated(stated: int) -> None:
    with pytest.raises(ConfigError, match="it must be 0 or 1"):
        _first({}, {}, stated)


def test_unreadable_videos_tell_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_start"):
        _first({"a": _lines(tmp_path, "a", range(1, 11))}, {})


def _seconds(folder: Path, name: str, numbers: range, header: str = "Second\tPhase") -> Annotation:
    (folder / f"{name}.txt").write_text(header + "\n" + "".join(f"{number}\tcut\n" for number in numbers))
    return read_annotations(folder / f"{name}.txt")[0]


def test_whole_seconds_one_by_one_are_numbers_too(tmp_path: Path) -> None:
    """10 s: the second called 10 lies behind the end unless the first is called 1; 1 to 9 does not tell."""
    timing = Timing(250, 25.0)
    found, how = _first({"ten": _seconds(tmp_path, "ten", range(1, 11))}, {"ten": timing})
    assert found == 1 and how is not None and "ten.txt ends at 10" in how
    nine = _seconds(tmp_path, "nine", range(1, 10), "time\tphase")
    with pytest.raises(ConfigError, match=r"nine\.txt \(line 2\), none has a 0.*label_start=1"):
        _first({"nine": nine}, {"nine": timing})
    for first, expected in ((1, (0, 225)), (0, (25, 250))):
        own = replace(timing, first=first)
        (labelled,) = np.nonzero(frame_phases(nine, np.zeros(9, np.uint8), own, "nine") == 0)
        assert (labelled[0], labelled[-1] + 1) == expected
    (tmp_path / "changes.txt").write_text("time\tphase\n1\tcut\n4\tsew\n9\tcut\n")  # changes, not a count
    assert _first({"v": read_annotations(tmp_path / "changes.txt")[0]}, {"v": timing}) == (0, None)


def test_a_variable_rate_is_judged_by_true_times(tmp_path: Path) -> None:
    """100 frames in 24.98 s, at 10 fps and then at 2.5: 1 to 25 counts from one, 1 to 24 does not tell."""
    stamps = np.append(np.arange(50) * 0.1, 5 + np.arange(50) * 0.4)
    timing = Timing(100, 100 / 24.98, label_fps=1.0, times=FrameTimes(100, 100 / 24.98, stamps, 24.98))
    assert _first({"v": _lines(tmp_path, "v", range(1, 26))}, {"v": timing})[0] == 1
    with pytest.raises(ConfigError, match="label_start"):
        _first({"v": _lines(tmp_path, "v", range(1, 25))}, {"v": timing})

"""Annotations laid over video frames, against a search frame by frame; names, rates and lengths that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.labels.class_table import read_class_table
from m33d_hf.data.sources.phases.alignment import (
    CHOLEC80_PHASES,
    PhaseNames,
    Timing,
    collect_names,
    ends_are_inclusive,
    frame_phases,
)
from m33d_hf.data.sources.phases.annotations import Annotation, read_annotations
from m33d_hf.errors import ConfigError, DataError, LabelError

NAMES = PhaseNames(("cut", "sew", "wash"))


def _annotation(tmp_path: Path, text: str, name: str = "v-phase.txt") -> Annotation:
    path = tmp_path / name
    path.write_text(text)
    return read_annotations(path)[0]


def _lines(numbers: range | list[int], names: list[str]) -> str:
    return "Frame\tPhase\n" + "".join(f"{i}\t{name}\n" for i, name in zip(numbers, names, strict=True))


def _laid(annotation: Annotation, timing: Timing) -> list[int]:
    return frame_phases(annotation, NAMES.ids(annotation), timing, "v").tolist()


def _runs(*pairs: tuple[int, int]) -> list[int]:
    return [phase for phase, count in pairs for _ in range(count)]


def test_a_line_per_frame(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(6), ["cut"] * 2 + ["wash"] * 4))
    assert _laid(annotation, Timing(6, 25.0)) == _runs((0, 2), (2, 4))
    assert _laid(annotation, Timing(6)) == _runs((0, 2), (2, 4))  # no rate is needed
    assert _laid(annotation, Timing(8, 25.0)) == _runs((0, 2), (2, 4), (255, 2))  # the end is not annotated


def test_one_frame(tmp_path: Path) -> None:
    assert _laid(_annotation(tmp_path, _lines([0], ["sew"])), Timing(1, 25.0)) == [1]
    assert _laid(_annotation(tmp_path, "t\tp\n00:00:00.00\tsew\n"), Timing(1, 25.0)) == [1]
    assert _laid(_annotation(tmp_path, "start_frame,end_frame,phase\n0,1,sew\n"), Timing(1)) == [1]


def test_every_25th_frame_holds_until_the_next(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(0, 100, 25), ["cut", "cut", "sew", "wash"]))
    assert _laid(annotation, Timing(100, 25.0)) == _runs((0, 50), (1, 25), (2, 25))
    assert _laid(annotation, Timing(80, 25.0)) == _runs((0, 50), (1, 25), (2, 5))  # one step of tolerance
    with pytest.raises(DataError, match="longer than the video"):
        _laid(annotation, Timing(74, 25.0))


def test_lines_that_are_left_out_are_not_annotated(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines([0, 1, 2, 6, 7, 8, 9], ["cut"] * 3 + ["sew"] * 4))
    assert _laid(annotation, Timing(10)) == _runs((0, 3), (255, 3), (1, 4))
    with pytest.raises(DataError, match=r"no common step \(3 to 40\)"):
        _laid(_annotation(tmp_path, _lines([0, 3, 10, 50, 71], ["cut"] * 5)), Timing(90))


def test_numbers_counted_from_one_are_moved_where_it_is_known(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(1, 7), ["cut"] * 2 + ["wash"] * 4))
    assert _laid(annotation, Timing(6, first=1)) == _runs((0, 2), (2, 4))
    assert _laid(annotation, Timing(8, first=1)) == _runs((0, 2), (2, 4), (255, 2))
    assert _laid(annotation, Timing(8)) == _runs((255, 1), (0, 2), (2, 4), (255, 1))
    segments = _annotation(tmp_path, "start_frame,end_frame,phase\n1,2,cut\n3,6,wash\n")
    assert _laid(segments, Timing(6, inclusive=True, first=1)) == _runs((0, 2), (2, 4))
    stamps = _annotation(tmp_path, "t\tp\n00:00:00\tcut\n00:00:01\twash\n")
    assert _laid(stamps, Timing(4, 2.0, first=1)) == _runs((0, 2), (2, 2))  # times have no first number


def test_no_rate_is_advised_that_nobody_annotates_at(tmp_path: Path) -> None:
    """1 to 123 in a video of 123 s: counted from 1 at one a second, not 1.01 a second."""
    annotation = _annotation(tmp_path, _lines(range(1, 124), ["cut"] * 123))
    with pytest.raises(DataError, match=r"At 1 fps they would match: .* pass --data\.options\.label_fps=1"):
        _laid(annotation, Timing(3075, 25.0))
    assert _laid(annotation, Timing(3075, 25.0, label_fps=1.0, first=1)) == [0] * 3075
    odd = _annotation(tmp_path, _lines(range(170), ["cut"] * 170))
    with pytest.raises(DataError, match=r"at another rate, pass it with --data\.options\.label_fps\.") as caught:
        _laid(odd, Timing(3075, 25.0))
    assert "would fit" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "last", "unit"),
    [
        ("start_frame,end_frame,phase", 18_000, "milliseconds"),
        ("start_seconds,end_seconds,phase", 18_000, "milliseconds"),
        ("start_seconds,end_seconds,phase", 450, "frames"),
    ],
)
def test_segments_in_another_unit_are_told_which_one_would_match(tmp_path: Path, header: str, last: int, unit: str):
    """A video of 450 frames, 18 seconds."""
    table = _annotation(tmp_path, f"{header}\n0,100,cut\n100,{last},sew\n")
    with pytest.raises(DataError, match=rf"As {unit} they would match: .*--data\.options\.segment_unit={unit}\. "):
        _laid(table, Timing(450, 25.0))


def test_seconds_called_milliseconds_are_refused(tmp_path: Path) -> None:
    """Else all labels would lie within the first thousandth of the video, and the rest would silently have none."""
    annotation = _annotation(tmp_path, "start_ms,end_ms,phase\n0,400,cut\n400,700,sew\n", "v.csv")
    with pytest.raises(DataError, match=r"thousandth of the video.*--data\.options\.segment_unit=seconds"):
        _laid(annotation, Timing(720 * 25, fps=25.0))
    assert _laid(annotation, Timing(25, fps=25.0)) == _runs((0, 10), (1, 7), (255, 8))  # a video of a second


def test_segments_that_are_too_long_in_every_unit_are_told_none(tmp_path: Path):
    table = _annotation(tmp_path, "start_seconds,end_seconds,phase\n0,9000,cut\n")
    with pytest.raises(DataError, match="longer than the video") as caught:
        _laid(table, Timing(450, 25.0))
    assert "would match" not in str(caught.value)


def test_lines_at_one_per_second_need_their_rate(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(4), ["cut", "cut", "sew", "wash"]))
    with pytest.raises(DataError) as caught:
        _laid(annotation, Timing(100, 25.0))
    message = str(caught.value)
    for part in ("v-phase.txt", "are 4 frames of video", "100 frames at 25 fps", "--data.options.label_fps=1."):
        assert part in message
    assert _laid(annotation, Timing(100, 25.0, label_fps=1.0)) == _runs((0, 50), (1, 25), (2, 25))
    # Stated, a rate is believed: here the annotation simply ends early.
    assert _laid(annotation, Timing(100, 25.0, label_fps=25.0)) == _runs((0, 2), (1, 1), (2, 1), (255, 96))
    with pytest.raises(ConfigError, match=r"label_fps is 1, .* is unknown: pass --data\.options\.fps"):
        _laid(annotation, Timing(100, None, label_fps=1.0))
    with pytest.raises(DataError, match=r"an unknown rate.* pass both --data\.options\.fps"):
        _laid(annotation, Timing(100))


def test_lines_for_every_frame_of_a_thinned_out_video_need_their_rate(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(100), ["cut"] * 50 + ["wash"] * 50))
    with pytest.raises(DataError, match=r"longer than the video. At 25 fps .* --data\.options\.label_fps=25\."):
        _laid(annotation, Timing(4, 1.0))
    assert _laid(annotation, Timing(4, 1.0, label_fps=25.0)) == [0, 0, 2, 2]


def test_a_rate_that_differs_by_little_is_noticed_too(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(2500), ["cut"] * 2500))
    with pytest.raises(DataError, match=r"do not match.* At 25 fps"):
        _laid(annotation, Timing(3000, 30.0))
    laid = _laid(annotation, Timing(3000, 30.0, label_fps=25.0))
    assert laid == [0] * 3000
    assert _laid(annotation, Timing(2800, 30.0)).count(255) == 300  # no usual rate explains it: the end is missing


@pytest.mark.parametrize("seed", range(20))
def test_any_rates_equal_a_search_frame_by_frame(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fps, label_fps = (float(rate) for rate in rng.choice([1.0, 5.0, 12.5, 25.0, 29.97, 30.0, 60.0], 2))
    step, number = int(rng.integers(1, 6)), int(rng.integers(3, 40))
    names = rng.choice(NAMES.names, number).tolist()
    annotation = _annotation(tmp_path, _lines(range(0, step * number, step), names))
    length = max(int(step * number * fps / label_fps), 1)
    expected = []
    for frame in range(length):
        moment = frame / fps + 1e-7  # seconds
        row = max((i for i in range(number) if i * step / label_fps <= moment), default=None)
        held = row is not None and moment < (row + 1) * step / label_fps
        expected.append(NAMES.names.index(names[row]) if held else 255)
    assert _laid(annotation, Timing(length, fps, label_fps)) == expected


def test_too_long_by_more_than_a_step_names_both_sides(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(12), ["cut"] * 12))
    assert len(_laid(annotation, Timing(11, 25.0))) == 11
    with pytest.raises(DataError) as caught:
        _laid(annotation, Timing(10, 25.0))
    for part in ("v-phase.txt", "number 11", "v has 10 frames at 25 fps", "--data.options.length_tolerance"):
        assert part in str(caught.value)
    assert len(_laid(annotation, Timing(10, 25.0, tolerance=2.0))) == 10


def test_a_stamp_holds_until_the_next_and_the_last_for_good(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, "t\tp\n00:00:00.40\tcut\n00:00:01.00\tsew\n00:00:02.00\twash\n")
    assert _laid(annotation, Timing(30, 10.0)) == _runs((255, 4), (0, 6), (1, 10), (2, 10))
    # 0.4 s at 29.97 fps is frame 11.99: the nearest frame is meant.
    assert _laid(annotation, Timing(90, 29.97))[11:13] == [255, 0]
    with pytest.raises(ConfigError, match="in seconds, but the frame rate of v is unknown"):
        _laid(annotation, Timing(30))
    with pytest.raises(DataError, match=r"up to 2 s, v has 10 frames at 10 fps = 1 s: .* longer than the video"):
        _laid(annotation, Timing(10, 10.0))


def test_stamps_at_a_steady_pace_are_samples(tmp_path: Path) -> None:
    rows = "".join(f"00:00:0{i}\t{name}\n" for i, name in enumerate(["cut", "cut", "sew", "sew"]))
    annotation = _annotation(tmp_path, f"t\tp\n{rows}")
    assert _laid(annotation, Timing(30, 5.0)) == _runs((0, 10), (1, 10), (255, 10))


def test_segments_leave_gaps_and_may_not_overlap(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, "start_frame,end_frame,phase\n2,5,cut\n7,9,sew\n9,10,cut\n")
    assert _laid(annotation, Timing(12)) == [255, 255, 0, 0, 0, 255, 255, 1, 1, 0, 255, 255]
    seconds = _annotation(tmp_path, "start_seconds,end_seconds,phase\n0.2,0.5,cut\n0.7,0.9,sew\n")
    assert _laid(seconds, Timing(10, 10.0)) == [255, 255, 0, 0, 0, 255, 255, 1, 1, 255]
    overlapping = _annotation(tmp_path, "start_frame,end_frame,phase\n6,9,cut\n0,7,sew\n")
    with pytest.raises(DataError, match=r"lines 3 \(0 to 7\) and 2 \(6 to 9 frames\) overlap"):
        _laid(overlapping, Timing(12))
    with pytest.raises(DataError, match="longer than the video"):
        _laid(annotation, Timing(8))
    with pytest.raises(DataError, match="longer than the video"):
        _laid(seconds, Timing(5, 10.0))


def test_segments_in_frames_of_another_rate(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, "start_frame,end_frame,phase\n0,10,cut\n10,40,sew\n")
    with pytest.raises(DataError, match=r"At 1 fps"):
        _laid(annotation, Timing(1000, 25.0))
    assert _laid(annotation, Timing(1000, 25.0, label_fps=1.0)) == _runs((0, 250), (1, 750))
    assert _laid(annotation, Timing(90, 25.0))[40:] == [255] * 50  # no usual rate would fill the video


def test_ends_that_name_the_last_frame_are_noticed(tmp_path: Path) -> None:
    inclusive = _annotation(tmp_path, "start_frame,end_frame,phase\n0,4,cut\n5,9,sew\n")
    answer, sentence = ends_are_inclusive([inclusive])
    assert answer and sentence is not None
    assert _laid(inclusive, Timing(10, inclusive=True)) == _runs((0, 5), (1, 5))
    exclusive = _annotation(tmp_path, "start_frame,end_frame,phase\n0,5,cut\n5,10,sew\n")
    assert ends_are_inclusive([exclusive]) == (False, None)
    assert ends_are_inclusive([inclusive, exclusive]) == (False, None)  # the same rule for the whole data set
    assert ends_are_inclusive([exclusive], "inclusive") == (True, None)
    with pytest.raises(ConfigError, match=r"segment_end is 'include'.*Did you mean 'inclusive'"):
        ends_are_inclusive([], "include")
    single = _annotation(tmp_path, "start_frame,end_frame,phase\n3,3,cut\n")
    assert ends_are_inclusive([single])[0]
    with pytest.raises(DataError, match=r"line 2: .* contains no frame.*segment_end=inclusive"):
        _laid(single, Timing(10))


def test_names_are_collected_in_a_fixed_order(tmp_path: Path) -> None:
    first = _annotation(tmp_path, _lines(range(2), ["wash", "cut"]))
    second = _annotation(tmp_path, _lines(range(2), ["sew", "cut"]))
    assert collect_names([first, second])[0] == collect_names([second, first])[0] == ["cut", "sew", "wash"]
    surgical = _annotation(tmp_path, _lines(range(7), sorted(CHOLEC80_PHASES)))
    names, how = collect_names([surgical])
    assert names == list(CHOLEC80_PHASES) and names != sorted(names) and "Cholec80" in how
    six = _annotation(tmp_path, _lines(range(6), list(CHOLEC80_PHASES[:6])))
    assert collect_names([six])[0] == sorted(CHOLEC80_PHASES[:6])


def test_two_phases_with_one_name_are_refused(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(3), ["cut", "sew", "Cut"]))
    with pytest.raises(LabelError, match=r"'cut' \(.*line 2\) and 'Cut' \(.*line 4\)"):
        collect_names([annotation])


def test_numbers_need_names(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(3), ["0", "2", "1"]))
    with pytest.raises(
        LabelError, match=r"line 2: the phase is the number 0.* not standard.*--data\.options\.phase_names"
    ):
        collect_names([annotation])
    table = read_class_table(["cut", "sew", "wash"], tmp_path)
    assert PhaseNames(table.names, table.numbers).ids(annotation).tolist() == [0, 2, 1]
    fractions = _annotation(tmp_path, _lines(range(3), ["0.0", "2.0", "01"]))  # as some tools write whole numbers
    assert PhaseNames(table.names, table.numbers).ids(fractions).tolist() == [0, 2, 1]
    (tmp_path / "names.txt").write_text("4\tsew\n2\tcut\n")
    table = read_class_table("names.txt", tmp_path)
    assert table.names == ("sew", "cut")
    with pytest.raises(LabelError, match=r"line 2: phase '0' is not one of the 2 phases sew, cut"):
        PhaseNames(table.names, table.numbers).ids(annotation)
    assert PhaseNames(table.names, table.numbers, "ignore").ids(annotation).tolist() == [255, 1, 255]
    with pytest.raises(
        ConfigError, match=r"phase_names='none\.txt' was not found as a file under .*, nor in the current"
    ):
        read_class_table("none.txt", tmp_path)


def test_a_phase_never_seen_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    annotation = _annotation(tmp_path, _lines(range(3), ["cut", "sew", "wsah"]))
    with pytest.raises(LabelError) as caught:
        NAMES.ids(annotation)
    message = str(caught.value)
    for part in ("v-phase.txt, line 4", "'wsah'", "cut, sew, wash", "Did you mean 'wash'?", "unknown_phase=ignore"):
        assert part in message
    assert PhaseNames(NAMES.names, None, "ignore").ids(annotation).tolist() == [0, 1, 255]

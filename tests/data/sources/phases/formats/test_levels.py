"""JSON with levels of segments, against a painter that goes over the video millisecond by millisecond."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m33d_hf.data.sources.phases.annotations import Annotation, AnnotationOptions, detect_format, read_annotations
from m33d_hf.errors import ConfigError, DataError


def _entry(start: float, end: float, name: str) -> dict[str, Any]:
    return {"start": start, "end": end, "label_name": name, "label_id": 0}


def _write(path: Path, **levels: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(levels))
    return path


def _painted(annotation: Annotation, length: int) -> list[str | None]:
    """Name at every millisecond."""
    row: list[str | None] = [None] * length
    assert annotation.stops is not None
    for start, stop, code in zip(annotation.starts, annotation.stops, annotation.codes):
        for at in range(round(start * 1000), round(stop * 1000)):
            assert row[at] is None, "pieces must not overlap"
            row[at] = annotation.names[code]
    return row


def test_the_inner_segment_counts(tmp_path: Path) -> None:
    """By hand: out of body from 20 to 30 and from 90 to 100, right at the end of what holds it; 130 to 140 is alone."""
    path = _write(
        tmp_path / "v.mp4.json",
        phases=[
            _entry(10, 60, "preparation"),
            _entry(20, 30, "out_of_body"),
            _entry(60, 100, "stapling"),
            _entry(90, 100, "out_of_body"),
            _entry(130, 140, "test"),
        ],
        steps=[_entry(0, 140, "null")],
    )
    (annotation,) = read_annotations(path)
    assert annotation.kind == detect_format(path) == "levels" and annotation.unit == "seconds"
    assert annotation.starts.tolist() == pytest.approx([0.010, 0.020, 0.030, 0.060, 0.090, 0.130])
    assert annotation.stops is not None and annotation.stops.tolist() == pytest.approx(
        [0.02, 0.03, 0.06, 0.09, 0.1, 0.14]
    )
    spoken = [annotation.names[code] for code in annotation.codes]
    assert spoken == ["preparation", "out_of_body", "preparation", "stapling", "out_of_body", "test"]
    assert any("inner ones count" in note for note in annotation.notes)
    (steps,) = read_annotations(path, AnnotationOptions(level="steps"))
    assert steps.names == ("null",) and not any("inner" in note for note in steps.notes)
    (without,) = read_annotations(path, AnnotationOptions(ignored=["out_of_body"]))
    assert without.starts.tolist() == pytest.approx([0.01, 0.06, 0.13]) and without.dropped == ("out_of_body",)
    assert not any("inner" in note for note in without.notes)


@pytest.mark.parametrize("seed", range(20))
def test_any_nesting_equals_painting_the_longest_first(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries: list[dict[str, Any]] = []

    def fill(low: int, high: int, depth: int) -> None:
        at = low
        while at < high - 1 and len(entries) < 60:
            start = int(rng.integers(at, high))
            stop = int(rng.integers(start + 1, high + 1))
            # What fills its outer segment whole would be its equal, which is refused.
            if stop > start and (stop - start) < (high - low):
                entries.append(_entry(start, stop, f"p{rng.integers(6)}"))
                if depth < 3 and stop - start > 4:
                    fill(start, stop, depth + 1)
            at = stop + int(rng.integers(0, 3))

    fill(0, 300, 0)
    expected: list[str | None] = [None] * 300
    for entry in sorted(entries, key=lambda each: each["start"] - each["end"]):
        for at in range(entry["start"], entry["end"]):
            expected[at] = entry["label_name"]
    rng.shuffle(entries)  # type: ignore[arg-type]
    (annotation,) = read_annotations(_write(tmp_path / "v.json", phases=entries))
    assert _painted(annotation, 300) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"phases": [{"start": 0, "end": 5, "label_name": "a"}, {"start": 4, "end": 9, "label_name": "b"}]}',
            "neither",
        ),
        (
            '{"phases": [{"start": 0, "end": 5, "label_name": "a"}, {"start": 0, "end": 5, "label_name": "b"}]}',
            "neither",
        ),
        ('{"phases": [{"start": 5, "end": 5, "label_name": "a"}]}', "entry 1: the segment ends at 5, not after"),
        ('{"phases": [{"start": -1, "end": 5, "label_name": "a"}]}', "they must be milliseconds"),
        ('{"phases": [{"start": true, "end": 5, "label_name": "a"}]}', "they must be milliseconds"),
        ('{"phases": [{"start": NaN, "end": 5, "label_name": "a"}]}', "they must be milliseconds"),
        ('{"phases": [{"start": "0", "end": 5, "label_name": "a"}]}', "they must be milliseconds"),
        ('{"phases": [{"start": 0, "end": 1e300, "label_name": "a"}]}', "they must be milliseconds"),
        ('{"phases": [{"start": 0, "end": 5}]}', "entry 1: has no label_name"),
        ('{"phases": [3]}', "entry 1: '3' is not a segment"),
        ('{"phases": []}', "holds no segment"),
        ('{"phases": {}}', "an unknown structure"),
        ('{"shapes": []}', "an unknown structure"),
        ('{"phases": [', "not valid JSON"),
        ("{" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_annotations(tmp_path / "v.json")
    assert str(tmp_path / "v.json") in str(caught.value)


def test_a_level_that_is_not_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.json", steps=[_entry(0, 5, "a")])
    with pytest.raises(
        ConfigError, match=r"has no level 'phases', only steps; pass --data\.options.annotation_level=steps"
    ):
        read_annotations(path)
    with pytest.raises(ConfigError, match=r"annotation_level is 'step'.*Did you mean 'steps'"):
        AnnotationOptions(level="step")


def test_the_same_segment_twice_is_one(tmp_path: Path) -> None:
    (annotation,) = read_annotations(_write(tmp_path / "v.json", phases=[_entry(0, 5, "a"), _entry(0, 5, "a")]))
    assert _painted(annotation, 6) == ["a"] * 5 + [None]

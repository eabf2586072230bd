"""Damaged annotations, class tables and lists: read as what they are, or refused by an error of ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.fuzzing import Outcomes, mutations, slices
from m33d_hf.data.files.text_files import decode_file
from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.sources.actions.ucf101_lists import read_classes, read_list
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import select_split
from m33d_hf.data.sources.phases.alignment import PhaseNames, Timing, collect_names, ends_are_inclusive, frame_phases
from m33d_hf.data.sources.phases.annotations import Annotation, AnnotationOptions, read_annotations
from m33d_hf.data.sources.phases.numbering import first_number
from m33d_hf.data.sources.phases.reading import check_clock, describe_reading
from m33d_hf.errors import M33DError
from m33d_hf.training.run.seen_videos import read_seen
from m33d_hf.training.tasks.class_numbers import trained_classes

FRAMES = 200
_FRAME_LINES = "".join(f"{i}\t{('cut', 'sew', 'Präparation')[i // 67]}\n" for i in range(FRAMES))
ANNOTATIONS = {
    "cholec80": f"Frame\tPhase\n{_FRAME_LINES}",
    "autolaparo": "Frame\tPhase\n" + "".join(f"{i}\t{1 + i // 3}\n" for i in range(1, 9)),
    "heichole": "".join(f"{i},{i // 50}\r\n" for i in range(FRAMES)),
    "rows": "".join(f"{i // 50}\n" for i in range(FRAMES)),
    "stamps": "Time\tPhase\n00:00:00.00\tcut\n00:00:03.20\tsew\n00:00:06.00\tcut\n",
    "minutes": "Time;Phase\n00:00,5;cut\n00:03,2;sew\n25:10,0;cut\n",
    "seconds": "start (s);end (s);phase\n0,0;1,5;cut\n1,5;6,25;sew\n",
    "segments": 'start_frame,end_frame,phase\n0,50,cut\n50,120,"sew, twice"\n120,200,cut\n',
    "table of frames": "video,frame,phase\n" + "".join(f"v{i % 3},{i // 3},cut\n" for i in range(90)),
    "table of segments": "video,start_time,end_time,label\nv1,0,2.5,cut\nv2,0,1,sew\nv1,2.5,8,sew\n",
    "multibypass": json.dumps(
        {
            "phases": [
                {"start": 0, "end": 6000, "label_name": "preparation", "label_id": 0},
                {"start": 1000, "end": 2000, "label_name": "out_of_body", "label_id": 12},
                {"start": 6000, "end": 7900, "label_name": "pouch", "label_id": 1},
            ],
            "steps": [{"start": 0, "end": 7000, "label_name": "null", "label_id": 0}],
        }
    ),
}
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252")
_WORDS = ("", "-1", "1e9", "NaN", "inf", "99999999999999999999", "٣", "²", '"', "00:99", "1:2:3:4", "\x00", "é", "\t\t")


def _all_of(path: Path, number: int) -> list[Annotation]:
    """Everything that the source does with a file, from its bytes to the phase of each frame."""
    options = AnnotationOptions(
        unit=(None, "frames", "seconds")[number % 3],
        level=("phases", "steps")[number % 2],
        ignored=("cut",) if number % 5 == 0 else (),
        clock=("auto", "mm:ss", "hh:mm")[number % 7 % 3],
    )
    found = read_annotations(path, options)
    for annotation in found:
        _check(annotation)
    describe_reading(found, ())
    by_key = {str(place): annotation for place, annotation in enumerate(found)}
    inclusive, _ = ends_are_inclusive(found)
    timing = Timing(FRAMES, 25.0, label_fps=(None, 1.0, 25.0)[number % 3], tolerance=5.0, inclusive=inclusive)
    check_clock(by_key, lambda key: timing)
    first, _ = first_number(by_key, lambda key: timing, (None, 0, 1)[number % 11 % 3])
    names = (
        PhaseNames(("cut", "sew"), {0: 0, 1: 1}, "ignore") if number % 2 else PhaseNames(tuple(collect_names(found)[0]))
    )
    for key, annotation in by_key.items():
        own = Timing(FRAMES, 25.0, timing.label_fps, 5.0, inclusive, first)
        phases = frame_phases(annotation, names.ids(annotation), own, key)
        assert phases.shape == (FRAMES,) and phases.dtype == np.uint8
        assert set(np.unique(phases).tolist()) <= {*range(len(names.names)), 255}
    return found


def _check(annotation: Annotation) -> None:
    """What everybody who reads an `Annotation` relies on."""
    count = len(annotation.starts)
    assert len(annotation.codes) == len(annotation.lines) == count
    assert np.isfinite(annotation.starts).all() and (annotation.starts >= 0).all()
    assert (np.diff(annotation.starts) >= 0).all()
    assert all(name and name == name.strip() for name in annotation.names)
    if count:
        assert annotation.codes.min() >= 0 and annotation.codes.max() < len(annotation.names)
    if annotation.stops is not None:
        assert len(annotation.stops) == count and (annotation.stops >= annotation.starts).all()


def _reworded(rng: random.Random, text: str) -> str:
    """Some cells of a table put in another's place, left out or replaced: damage that bytes hardly ever make."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        mark = next((mark for mark in "\t;," if mark in lines[at]), " ")
        cells = lines[at].split(mark)
        kind = rng.randrange(5)
        place = rng.randrange(len(cells))
        if kind == 0:
            cells[place] = rng.choice(_WORDS)
        elif kind == 1:
            cells.insert(place, rng.choice(cells))
        elif kind == 2:
            del cells[place]
        elif kind == 3:
            lines.insert(rng.randrange(len(lines)), lines[at])
            continue
        else:
            rng.shuffle(cells)
        lines[at] = mark.join(cells)
    return "\n".join(lines)


@pytest.mark.parametrize(("seed", "count"), slices(150, 1500))
def test_damaged_annotations(tmp_path: Path, seed: int, count: int) -> None:
    outcomes = Outcomes()
    for name, text in ANNOTATIONS.items():
        path = tmp_path / "v1.txt"
        path.write_text(text, encoding="utf-8")
        assert read_annotations(path), name
        for number, (told, damaged) in enumerate(mutations(text.encode(), seed, count // 2)):
            path.write_bytes(damaged)
            outcomes.judge(f"{name}: {told}", partial(_all_of, path, number))
        for number in range(count - count // 2):
            rng = random.Random(f"{seed}:{number}:{name}")
            encoding = rng.choice(ENCODINGS)
            path.write_bytes(_reworded(rng, text).encode(encoding, "replace"))
            told = f"{name}: seed {seed}, rewording {number} in {encoding}"
            outcomes.judge(told, partial(_all_of, path, number))
    assert outcomes["accepted"] > count and outcomes["refused"] > count  # both happen, of many formats


def _sequences() -> dict[str, list[Frame]]:
    return {f"v{number}": [Frame(f"v{number}", rgb=f"v{number}.mp4")] for number in range(5)}


def _split(path: Path) -> Any:
    return select_split(path.parent, _sequences(), "train", path.name, whole=True)


def _stored_classes(path: Path) -> ClassTable | None:
    path.rename(path.with_name("classes.json"))
    return trained_classes(str(path.parent))


def _stored_videos(path: Path) -> list[dict[str, Any]]:
    path.rename(path.with_name("seen_videos.json"))
    return read_seen(str(path.parent))


LISTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "names": ("cut\nsew\nPräparation\n", read_class_table),
    "numbers": ("number\tname\n2\tcut\n0\tsew\n1\tPräparation\n", read_class_table),
    "classInd": ("1 Archery\r\n2 Bücken\r\n3 YoYo\r\n", read_classes),
    "trainlist": (
        "Archery/v_Archery_g01_c01.avi 1\nYoYo/v_YoYo_g02_c01.avi 3\n",
        lambda path: read_list(path, ["Archery", "Bücken", "YoYo"]),
    ),
    "split": ("v1\nv2.mp4 # the second\nv3\n", _split),
    "classes.json": (json.dumps(ClassTable(("a", "b"), {2: 0, 1: 1}).to_dict()), _stored_classes),
    "seen_videos.json": (
        json.dumps({"version": 1, "trained": [{"task": "t", "salt": "ab", "videos": 1, "digests": ["cd"]}]}),
        _stored_videos,
    ),
}


@pytest.mark.parametrize(("seed", "count"), slices(150, 3000))
def test_damaged_lists(tmp_path: Path, seed: int, count: int) -> None:
    outcomes = Outcomes()
    for name, (text, reader) in LISTS.items():
        path = tmp_path / "list.txt"
        for number in range(count):
            rng = random.Random(f"{seed}:{number}:{name}")
            content = _reworded(rng, text).encode(rng.choice(ENCODINGS), "replace") if number % 2 else None
            told, damaged = f"rewording {number}", content
            if damaged is None:
                ((told, damaged),) = mutations(text.encode(), seed * 100_003 + number, 1)
            path.write_bytes(damaged)
            outcomes.judge(f"{name}: seed {seed}, {told}", partial(reader, path))
    assert outcomes["accepted"] > count and outcomes["refused"] > count // 2


@pytest.mark.parametrize(("seed", "count"), slices(300, 5000))
def test_any_bytes_are_text_or_are_refused(tmp_path: Path, seed: int, count: int) -> None:
    """What is read is what an independent decoder of the named encoding reads."""
    codecs = {
        "UTF-8": "utf-8-sig",
        "Latin-1": "latin-1",
        "Windows-1252": "cp1252",
        "UTF-16": "utf-16",
        "UTF-32": "utf-32",
    }
    outcomes = Outcomes()
    path = tmp_path / "a.txt"
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        letters = [chr(rng.choice((rng.randint(32, 126), rng.randint(32, 126), rng.randint(160, 255), 10, 13, 0x4E2D)))
                   for _ in range(rng.randint(0, 40))]  # fmt: skip
        raw = "".join(letters).encode(rng.choice((*ENCODINGS, "utf-32")), "ignore")
        if rng.random() < 0.3:
            ((_, raw),) = mutations(raw, seed * 100_003 + number, 1)
        path.write_bytes(raw)
        found = outcomes.judge(f"seed {seed}, text {number}", lambda: decode_file(path))
        if isinstance(found, M33DError):
            continue
        codec = codecs[found.encoding]
        if found.encoding == "UTF-16" and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            codec = "utf-16-le" if raw[1::2].count(0) > raw[0::2].count(0) else "utf-16-be"
        expected = raw.decode(codec).replace("\r\n", "\n").replace("\r", "\n")
        assert found.text == expected, f"seed {seed}, text {number}"
    assert outcomes["accepted"] > count // 3

"""Damaged videos of many formats: read, or refused with an error of ours; no hang, no crash, no frame that is not so.

FFmpeg is C code that a damaged file may bring down, and no signal handler interrupts it: the files are read by a
process of their own, which says how far it came.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fuzzing import SECONDS_PER_CALL, mutations, slices
from helpers.videos import write_uneven, write_video

pytest.importorskip("av")
FORMATS: dict[str, dict[str, object]] = {
    "h264.mp4": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "h264.mkv": {"codec": "libx264", "options": {"bf": "2"}},
    "h264.ts": {"codec": "libx264"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "vp8.webm": {"codec": "libvpx"},
    "flv1.flv": {"codec": "flv1"},
    "wmv2.wmv": {"codec": "wmv2"},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
# One line per file: its name, and what came out. Frames are read in order and by themselves, and must show one number.
READER = """
import json, logging, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
logging.disable(logging.WARNING)
from helpers.videos import numbered_frame
from m33d_hf.errors import M33DError
from m33d_hf.modeling.video_reading_m33d import iterate_video, probe_video, read_video

wanted = np.stack([numbered_frame(number, (32, 48)) for number in range(100)]).astype(int)

def shown(frame):
    # None where damage that no format notices makes it like none of them.
    if frame.shape != (32, 48, 3):
        return None
    distances = np.abs(wanted - frame).mean((1, 2, 3))
    return int(distances.argmin()) if distances.min() < 12 else None

def outcome(path):
    info = probe_video(path, "pyav")
    times = info.times
    if times is not None:
        starts = times.at(np.arange(info.num_frames + 1))
        assert np.isfinite(starts).all() and (np.diff(starts) >= 0).all(), "times do not ascend"
    assert all(lack.reason for lack in info.lacks)
    streamed = {}
    try:
        for number, frame in iterate_video(path, info=info):
            if number in (0, 1, info.num_frames // 2, info.num_frames - 1):
                streamed[number] = frame
    except M33DError:
        pass  # frames behind the first damaged one may still be read by themselves
    read, differing = 0, []
    for number in sorted({0, 1, info.num_frames // 2, info.num_frames - 1}):
        if number >= info.num_frames:
            continue
        try:
            frame = read_video(path, [number], info=info)[0]
        except M33DError:
            continue
        read += 1
        both = {shown(frame), shown(streamed.get(number, frame))}
        if len(both) > 1 and None not in both:
            differing.append(number)
    return f"differs: {differing} of {info.num_frames}" if differing else "accepted" if read else "no frame read"

for line in sys.stdin:
    path = Path(line.strip())
    begun = time.monotonic()
    try:
        found = outcome(path)
    except M33DError as error:
        found = "refused" if str(error).strip() else "refused without a word"
    except BaseException as error:
        found = f"foreign {type(error).__name__}: {error}"
    print(json.dumps([path.name, found, time.monotonic() - begun]), flush=True)
"""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    found = {name: write_video(folder / name, 24, size=(32, 48), gop=6, **how) for name, how in FORMATS.items()}  # type: ignore[arg-type]
    found["uneven.mkv"] = write_uneven(folder / "uneven.mkv", "mpeg4")
    return {name: path.read_bytes() for name, path in found.items()}


def _damaged(originals: dict[str, bytes], folder: Path, seed: int, count: int) -> dict[str, str]:
    """File name -> what was done to it; as many of each format."""
    told: dict[str, str] = {}
    for name, data in originals.items():
        for number, (what, damaged) in enumerate(mutations(data, seed, count)):
            path = folder / f"{number}_{name}"
            path.write_bytes(damaged)
            told[path.name] = f"{name}, {what}"
    return told


def _outcomes(files: list[Path]) -> Iterator[tuple[str, str, float]]:
    """What a process of its own says about each file; a crash or a hang is said of the file that it happened with."""
    limit = 60 + SECONDS_PER_CALL * len(files) / 10
    child = [sys.executable, "-c", READER, str(Path(__file__).parents[1])]
    text = "".join(f"{file}\n" for file in files)
    try:
        run = subprocess.run(child, input=text, capture_output=True, text=True, timeout=limit)
        output, ended = run.stdout, f"the process ended with {run.returncode}: {run.stderr[-400:]}"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ended = f"still running after {limit:.0f} s"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    yield from ((name, found, seconds) for name, found, seconds in lines)
    if len(lines) < len(files):
        yield files[len(lines)].name, ended, 0.0


@pytest.mark.parametrize(("seed", "count"), slices(quick=15, long=100))
def test_damaged_videos_are_read_or_refused(tmp_path: Path, originals: dict[str, bytes], seed: int, count: int) -> None:
    told = _damaged(originals, tmp_path, seed, count)
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    for name, found, seconds in _outcomes([tmp_path / name for name in told]):
        if found not in ("accepted", "refused", "no frame read") or seconds > SECONDS_PER_CALL:
            faults.append(f"{told[name]}: {found}, after {seconds:.1f} s")
        outcomes[found] += 1
    assert not faults, "\n".join([f"{len(faults)} of {len(told)}:", *faults[:40]])
    assert outcomes.total() == len(told) and outcomes["accepted"] and outcomes["refused"]

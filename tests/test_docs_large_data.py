"""docs/large_data.md: its arithmetic, from the figures that it states itself; and what it says of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from m33d_hf.data.files import remote
from m33d_hf.data.prepared import remote_reading, tar_reading
from m33d_hf.data.sources.hub import source
from m33d_hf.training.run import seen_videos

TEXT = (Path(__file__).parents[1] / "docs" / "large_data.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())
UNITS = {"": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "minutes": 60.0, "days": 86400.0, "million": 1e6}
UNITS |= {"USD": 1.0, "hours": 3600.0}
FRAMES = (2.5e6, 1e9)


def figure(pattern: str) -> float:
    """The one number that the page states at a place."""
    found = re.findall(pattern, FLAT)
    assert len(found) == 1, (pattern, found)
    return float(found[0].replace(",", ""))


BYTES = figure(r"labels: (\d+) kB a frame in shards") * 1e3
INDEX = figure(r"(\d+) bytes more in the index")
PREPARING = figure(r"(\d+) ms of CPU time to prepare") / 1e3
RATE = figure(r"(\d+) samples a second and process to the collated")
ROWS = {
    "bytes": lambda n: n * BYTES,
    "files of 256 MiB": lambda n: n * BYTES / (256 << 20),
    "preparing, 64 processes": lambda n: n * PREPARING / 64,
    "indices, read at the start": lambda n: n * INDEX,
    "index in memory, 16 bytes a frame": lambda n: n * (8 + 4 + 4),  # starts, sizes, checksums
    "order of an epoch in memory, 8 bytes a frame": lambda n: n * 8,
    "requests of an epoch, one per frame": lambda n: n,
    "at 0.4 USD per million requests": lambda n: n * 0.4e-6,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_table(name: str) -> None:
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {name} |")]
    for cell, frames in zip(line.strip("| ").split(" | ")[1:], FRAMES, strict=True):
        number, _, unit = cell.replace("a billion", "1,000 million").partition(" ")
        assert float(number.replace(",", "")) * UNITS[unit] == pytest.approx(ROWS[name](frames), rel=0.02), cell


def test_the_sentences() -> None:
    assert figure(r"1,500 / 442 = (\d+) processes") == -(-1500 // RATE)
    assert figure(r"1,500 x 98 kB = (\d+) MB/s") == 1500 * BYTES / 1e6
    side = remote_reading._THREADS
    assert tar_reading._THREADS == side == figure(r"side by side, (\d+) at a time in each process")
    assert figure(r"16 / 0.05 = (\d+) frames a second") == side / 0.05
    both = 1 / (1 / (side / 0.05) + 1 / RATE)
    assert figure(r"1/442\) = (\d+) samples a second") == round(both) and -(-1500 // both) == 9
    assert figure(r"(\d+) MB/s: four times") == pytest.approx(1500 * 4 * 95e3 / 1e6, rel=0.01)
    assert figure(r"at 50 ms, (\d+) seconds for ScanNet") == round(913 / side * 0.05)
    assert figure(r"a billion frames (\d+) minutes, and 72 GB") == round(365_000 / side * 0.05 / 60)
    assert figure(r"a machine needs (\d+) GB") == 8 * (16 + 8)
    assert figure(r"costs ([\d,]+) USD") == 1e9 * BYTES / 1e9 * 0.09
    assert figure(r"asked five times within ([\d.]+) seconds") == sum(remote.DELAYS) and len(remote.DELAYS) == 4
    assert figure(r"warns above (\d+) rows") == source._LARGE_GROUP
    assert figure(r"\((\d+) in all of remote data") == seen_videos._MOST_REQUESTED

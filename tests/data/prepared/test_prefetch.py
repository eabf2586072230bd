"""Frames of a batch are fetched side by side over a network, and are the same."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.preparations import assert_same_sample, prepared
from helpers.range_server import serving_ranges
from m33d_hf.data.files import remote
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.mixture import MixtureSource

COUNT = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prefetch")
    source = build_source("folder", root=write_frames(place / "in", COUNT), depth_unit="mm")
    for form in ("parquet", "shards"):
        prepared(source, place / form, format=form)
    return place


def opened(form: str, url: str) -> Any:
    options = {"streaming": True} if form == "parquet" else {}
    return build_source("hub" if form == "parquet" else "shards", root=f"{url}/{form}", **options)


@pytest.mark.parametrize("form", ["parquet", "shards"])
def test_requests_of_a_batch_do_not_wait_for_each_other(
    place: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(0, index) for index in (3, 17, 8, 22, 12, 1, 20, 15)]
    expected = SampleDataset(build_source("hub", root=place / "parquet")).__getitems__(rows)
    with serving_ranges(place) as traffic:
        alone = opened(form, traffic.url)
        alone[0].read([0])  # connected, and the columns are known
        bytes_of, waiting, most = remote._bytes, [0], [0]

        def slowly(*args: Any) -> bytes:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
            time.sleep(0.05)
            try:
                return bytes_of(*args)
            finally:
                waiting[0] -= 1

        monkeypatch.setattr(remote, "_bytes", slowly)
        traffic.ranges.clear()
        found = SampleDataset(alone).__getitems__(rows)
        asked = len(traffic.ranges)
    assert most[0] >= 4
    for one, other in zip(expected, found, strict=True):
        assert_same_sample(one, other)  # type: ignore[arg-type]
    assert asked <= (len(rows) if form == "shards" else 2 * len(rows))  # none twice


def test_what_is_damaged_is_one_sample_s_own(place: Path, tmp_path: Path) -> None:
    for path in (place / "shards").rglob("file-*"):
        (tmp_path / path.relative_to(place)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.relative_to(place)).write_bytes(path.read_bytes())
    tar = sorted(tmp_path.rglob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[data.find(b"IDAT") + 60] ^= 0x10
    tar.write_bytes(data)
    with serving_ranges(tmp_path) as traffic:
        samples = SampleDataset(opened("shards", traffic.url)).__getitems__([(0, 0), (0, 5), (0, 20)])
    assert [bool(sample.meta.get("dropped")) for sample in samples] == [True, False, False]  # type: ignore[union-attr]


def test_members_of_a_mixture_fetch_their_own(place: Path) -> None:
    with serving_ranges(place) as traffic:
        members = {"a": opened("shards", traffic.url), "b": build_source("hub", root=place / "parquet")}
        mixture = MixtureSource(members, [1, 1])
        traffic.ranges.clear()
        samples = SampleDataset(mixture).__getitems__([(0, index) for index in (2, 30, 9, 40)])
        assert [sample.key for sample in samples] == [mixture[index].key for index in (2, 30, 9, 40)]  # type: ignore[union-attr]
        assert len(traffic.ranges) == 2


def _no_collating(samples: list[Any]) -> dict[str, Any]:
    return {"keys": [sample.key for sample in samples]}


@pytest.mark.parametrize("form", ["parquet", "shards"])
def test_a_process_goes_on_after_its_workers(place: Path, form: str) -> None:
    """Workers inherit its connections; what they do to them must not reach it: it would wait for an answer for ever."""
    with serving_ranges(place) as traffic, ThreadPoolExecutor(1) as pool:
        source = opened(form, traffic.url)
        assert source[0].read([0]).rgb is not None
        sampler = StepSampler(COUNT, 6, start_step=0, total_steps=2)
        loader = build_loader(SampleDataset(source, train=True), _no_collating, sampler, num_workers=2)
        assert len([batch for batch in loader]) == 2
        del loader
        again = pool.submit(lambda: opened(form, traffic.url)[7].read([0]))
        assert again.result(timeout=60).rgb is not None

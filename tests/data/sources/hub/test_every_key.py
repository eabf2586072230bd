"""Prepared data in the loader, from a disk and over a network: no key lost or doubled on 1, 2, 3 processes, exact
resume inside an epoch."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.preparations import keys_of, prepared
from helpers.range_server import Traffic, serving_ranges
from helpers.ranks import ForkedRanks
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler, StepSampler
from m33d_hf.data.source import Source
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.data.sources.mixture import MixtureSource
from m33d_hf.data.sources.shards.source import ShardsSource

COUNT, SEED = 36, 5
FORMS = ("parquet", "shards", "streamed parquet", "streamed shards", "mixture")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Traffic]]:
    place = tmp_path_factory.mktemp("keys")
    source = FolderSource(write_frames(place / "in", COUNT), depth_unit="mm")
    for form in ("parquet", "shards"):
        prepared(source, place / form, format=form)
    with serving_ranges(place) as traffic:
        yield place, traffic


def opened(form: str, root: Path, url: str) -> Source:
    if form == "mixture":
        members = {"a": HubSource(root / "parquet"), "b": ShardsSource(root / "shards")}
        return MixtureSource(members, [1.0, 1.0])
    if form == "parquet":
        return HubSource(root / form)
    if form == "shards":
        return ShardsSource(root / form)
    folder = f"{url}/{form.removeprefix('streamed ')}"
    return HubSource(folder, streaming=True) if form.endswith("parquet") else ShardsSource(folder)


def collate(samples: list[Any]) -> dict[str, Any]:
    return {"keys": [sample.key for sample in samples]}


def batches_of(source: Source, rank: int, world: int, start: int, stop: int, workers: int = 0) -> list[list[str]]:
    dataset = SampleDataset(source, train=True, seed=SEED)
    sampler = StepSampler(len(dataset), 12 // world, rank, world, SEED, start, stop)
    return [batch["keys"] for batch in build_loader(dataset, collate, sampler, num_workers=workers)]


def epochs_of(form: str) -> int:
    """Epochs to look at; a request takes its time."""
    return 1 if form.startswith("streamed") else 2


def _write_keys(root: str, url: str, output: str, world: int) -> None:
    rank = int(os.environ.get("RANK", "0"))
    sources = {form: opened(form, Path(root), url) for form in FORMS}
    found = {
        form: batches_of(source, rank, world, 0, epochs_of(form) * len(source) // 12, workers=2)
        for form, source in sources.items()
    }
    Path(output, f"{world}-{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_key_once_an_epoch(served: tuple[Path, Traffic], tmp_path: Path, world: int) -> None:
    """In processes of their own where there are several, with two workers each."""
    root, traffic = served
    told = (str(root), traffic.url, str(tmp_path), world)
    if world == 1:
        _write_keys(*told)
    else:
        ranks = ForkedRanks(_write_keys, *told, log=tmp_path / "log.txt", processes=world)
        assert ranks.wait() == [0] * world, ranks.output()
    read = [json.loads((tmp_path / f"{world}-{rank}.json").read_text()) for rank in range(world)]
    for form in FORMS:
        source = opened(form, root, traffic.url)
        by_rank = [found[form] for found in read]
        steps = len(source) // 12
        count = epochs_of(form)
        epochs = [
            Counter(key for rank in by_rank for batch in rank[first * steps : (first + 1) * steps] for key in batch)
            for first in range(count)
        ]
        everything = Counter(keys_of(opened(form.removeprefix("streamed "), root, traffic.url)))
        assert len(everything) == len(source) == COUNT * (1 + (form == "mixture")), form
        assert epochs == [everything] * count, form
        together = [sorted(key for rank in by_rank for key in rank[step]) for step in range(count * steps)]
        alone = batches_of(source, 0, 1, 0, count * steps)
        assert together == [sorted(batch) for batch in alone], form  # whatever the number of processes


def test_where_rows_lie_changes_nothing_in_their_order(served: tuple[Path, Traffic]) -> None:
    root, traffic = served
    expected = batches_of(opened("parquet", root, traffic.url), 0, 2, 0, 4)
    for form in FORMS[1:4]:
        assert batches_of(opened(form, root, traffic.url), 0, 2, 0, 4) == expected, form


@pytest.mark.parametrize("form", FORMS)
def test_a_run_goes_on_in_the_middle_of_an_epoch(served: tuple[Path, Traffic], form: str) -> None:
    root, traffic = served
    source = opened(form, root, traffic.url)
    whole = batches_of(source, 1, 3, 0, 9)
    assert batches_of(source, 1, 3, 4, 9) == whole[4:]
    assert batches_of(source, 1, 3, 4, 9, workers=2) == whole[4:]


def test_a_resumed_stream_fetches_what_is_left(served: tuple[Path, Traffic]) -> None:
    root, traffic = served
    source = opened("streamed shards", root, traffic.url)
    traffic.ranges.clear()
    (keys,) = batches_of(source, 0, 1, 2, 3)
    assert 0 < len(traffic.ranges) <= 12 and all(name.endswith(".tar") for name, _, _ in traffic.ranges)
    sizes = dict(zip(keys_of(opened("shards", root, "")), source.rows._sizes, strict=True))  # type: ignore[attr-defined]
    assert traffic.bytes == sum(sizes[key] for key in keys)  # to the byte


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_key_once(served: tuple[Path, Traffic], world: int) -> None:
    root, traffic = served
    for form in FORMS[:2]:
        source = opened(form, root, traffic.url)
        found = Counter(
            key
            for rank in range(world)
            for batch in build_loader(SampleDataset(source), collate, EvaluationSampler(COUNT, 5, rank, world))
            for key in batch["keys"]
        )
        assert found == Counter(keys_of(source))

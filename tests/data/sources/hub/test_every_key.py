"""Prepared data in the loader: no key lost or doubled on 1, 2, 3 processes, exact resume inside an epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.preparations import keys_of, prepared
from helpers.ranks import ForkedRanks
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler, StepSampler
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource

COUNT, SEED = 36, 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    prepared(FolderSource(write_frames(place / "in", COUNT), depth_unit="mm"), place / "out")
    return place / "out"


def collate(samples: list[Any]) -> dict[str, Any]:
    return {"keys": [sample.key for sample in samples]}


def batches_of(root: Path, rank: int, world: int, start: int, stop: int, workers: int = 0) -> list[list[str]]:
    dataset = SampleDataset(HubSource(root), train=True, seed=SEED)
    sampler = StepSampler(len(dataset), 12 // world, rank, world, SEED, start, stop)
    return [batch["keys"] for batch in build_loader(dataset, collate, sampler, num_workers=workers)]


def _write_keys(root: str, output: str, world: int) -> None:
    import json
    import os

    rank = int(os.environ.get("RANK", "0"))
    found = batches_of(Path(root), rank, world, 0, 6, workers=2)
    Path(output, f"{world}-{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_key_once_an_epoch(root: Path, tmp_path: Path, world: int) -> None:
    """In processes of their own, with two workers each."""
    import json

    ranks = ForkedRanks(_write_keys, str(root), str(tmp_path), world, log=tmp_path / "log.txt", processes=world)
    assert ranks.wait() == [0] * world, ranks.output()
    by_rank = [json.loads((tmp_path / f"{world}-{rank}.json").read_text()) for rank in range(world)]
    epochs = [
        Counter(key for rank in by_rank for batch in rank[first : first + 3] for key in batch) for first in (0, 3)
    ]
    everything = Counter(keys_of(HubSource(root)))
    assert len(everything) == COUNT and epochs == [everything, everything]
    steps = [sorted(key for rank in by_rank for key in rank[step]) for step in range(6)]
    assert steps == [sorted(batch) for batch in batches_of(root, 0, 1, 0, 6)]  # whatever the number of processes


def test_a_run_goes_on_in_the_middle_of_an_epoch(root: Path) -> None:
    whole = batches_of(root, 1, 3, 0, 9)
    assert batches_of(root, 1, 3, 4, 9) == whole[4:]
    assert batches_of(root, 1, 3, 4, 9, workers=2) == whole[4:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_key_once(root: Path, world: int) -> None:
    dataset = SampleDataset(HubSource(root))
    found = Counter(
        key
        for rank in range(world)
        for batch in build_loader(dataset, collate, EvaluationSampler(COUNT, 5, rank, world))
        for key in batch["keys"]
    )
    assert found == Counter(keys_of(HubSource(root)))

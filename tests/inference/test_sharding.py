"""inference/sharding.py: complete, disjoint shares."""

from __future__ import annotations

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.sharding import launched_place, rank_share


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 20])
def test_shares_are_complete_disjoint_and_even(world_size: int) -> None:
    items = [f"item {i}" for i in range(13)]
    shares = [rank_share(items, rank, world_size) for rank in range(world_size)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert shares[0][0] == items[0]


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_impossible_ranks_are_refused(rank: int, world_size: int) -> None:
    with pytest.raises(ConfigError, match="between 0"):
        rank_share([1], rank, world_size)


def test_place_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launched_place() == (0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="RANK is not set"):
        launched_place()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched_place() == (3, 4, 1)
    monkeypatch.setenv("RANK", "three")
    with pytest.raises(ConfigError, match="'three'"):
        launched_place()


def test_place_comes_from_slurm_where_no_launcher_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched_place() == (5, 8, 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "6")  # of this step of a job of eight
    assert launched_place() == (5, 6, 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "5")
    with pytest.raises(ConfigError, match="rank 5 of 5"):
        launched_place()
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)  # torchrun within a job
    assert launched_place() == (0, 2, 0)

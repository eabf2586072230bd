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

"""inference/sharding.py: complete, disjoint shares; files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.sharding import launched_place, rank_share, write_atomically, write_text_atomically


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


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text_atomically(tmp_path / "deep" / "file.json", "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_leftovers_of_a_killed_process_go_and_suffixes_stay(tmp_path: Path) -> None:
    (tmp_path / ".tmp-123-array[1].npy").write_text("half")
    (tmp_path / ".tmp-123-other.npy").write_text("of another file")
    (tmp_path / ".tmp-456-array[1].npy").write_text("another rank is at it")
    for name in (".tmp-123-array[1].npy", ".tmp-123-other.npy"):
        os.utime(tmp_path / name, (0, 0))
    write_atomically(tmp_path / "array[1].npy", lambda temporary: np.save(temporary, np.arange(3)))
    assert np.load(tmp_path / "array[1].npy").tolist() == [0, 1, 2]
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == [".tmp-123-other.npy", ".tmp-456-array[1].npy", "array[1].npy"]


def test_ranks_may_write_one_file_at_once(tmp_path: Path) -> None:
    def writes(temporary: Path) -> None:
        temporary.write_text("outer")
        write_text_atomically(tmp_path / "spec.json", "inner")

    write_atomically(tmp_path / "spec.json", writes)
    assert (tmp_path / "spec.json").read_text() == "outer"

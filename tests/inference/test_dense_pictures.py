"""Names of the columns of pictures; the pictures themselves are tested with scripts/visualize.py."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.inference.dense_pictures import _names


def test_names_are_as_long_as_it_takes_to_tell_them_apart(tmp_path: Path) -> None:
    def named(*paths: str) -> list[str]:
        return _names([tmp_path / path for path in paths])

    assert named("A/seed0/depth", "B/seed0/depth") == ["A/seed0/depth", "B/seed0/depth"]
    assert named("A/depth", "B/depth", "C/other") == ["A/depth", "B/depth", "C/other"]
    assert named("A/one", "B/two") == ["one", "two"]
    assert len(set(named("A/depth", "A/x/../depth"))) == 1, "the same folder, which is refused"

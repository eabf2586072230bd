"""A folder is listed and indexed once per command, and again in the next one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from helpers.frames_on_disk import write_frames
from m33d_hf.data.remembering import forget, remembered, remembering
from m33d_hf.data.sources import build_source
from m33d_hf.data.sources.frames import folder, layouts


def test_only_inside_of_the_block_and_until_it_is_forgotten() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [remembered("key", make), remembered("key", make)] == [0, 1]
    with remembering():
        assert [remembered("key", make), remembered("key", make), remembered("other", make)] == [2, 2, 3]
        with remembering():
            assert remembered("key", make) == 4
        assert remembered("key", make) == 2
        forget()
        assert remembered("key", make) == 5
    assert remembered("key", make) == 6


def test_an_error_is_not_remembered() -> None:
    def fail() -> None:
        raise ValueError

    with remembering():
        for _ in range(2):
            with pytest.raises(ValueError):
                remembered("key", fail)


def test_two_splits_share_the_index_and_what_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for scene in ("a", "b", "c"):
        write_frames(tmp_path / scene)
    write_frames(tmp_path / "c", count=1, start=7, depth=None)
    calls: list[str] = []
    for module, name in ((layouts, "_listed"), (folder, "find_frames")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *words, real=real, name=name: (calls.append(name), real(*words))[1])
    caplog.set_level(logging.WARNING)
    with remembering():
        train, test = (build_source("folder", root=tmp_path, split=split) for split in ("train", "validation"))
    assert calls == ["_listed", "find_frames"]
    assert sum("1 file is not used" in record.message for record in caplog.records) == 1
    assert train.split_note != test.split_note  # type: ignore[attr-defined]
    apart = [build_source("folder", root=tmp_path, split=split) for split in ("train", "validation")]
    assert calls == ["_listed", "find_frames"] * 3
    assert [each.digest() for each in apart] == [train.digest(), test.digest()]
    assert [each.notes for each in apart] == [train.notes, test.notes]  # type: ignore[attr-defined]

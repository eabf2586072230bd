"""data/files/atomic_writing.py: files that are whole or not there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from m33d_hf.data.files import atomic_writing
from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically


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


def test_on_windows_a_file_is_flushed_that_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")  # as _commit of Windows

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(atomic_writing, "_WINDOWS", True)
    assert write_text_atomically(tmp_path / "file.json", "whole").read_text() == "whole"

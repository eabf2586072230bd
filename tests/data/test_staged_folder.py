"""Folders of models appear complete or not at all, and a full disk is told in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from safetensors import SafetensorError

from m33d_hf.data.staged_folder import replacing, staged
from m33d_hf.errors import ConfigError, ExportError

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("I/O error: No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/0"),
]


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("kind", [staged, replacing])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, kind: Callable[[Path], AbstractContextManager[Path]], error: Exception
) -> None:
    with pytest.raises(ConfigError, match=r"out cannot be written: .*make room"), kind(tmp_path / "out") as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (ExportError("does not agree"), RuntimeError("a mistake"), ValueError("another")):
        with pytest.raises(type(error), match=str(error)), staged(tmp_path / "out"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    for name in ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    with pytest.raises(ConfigError), replacing(tmp_path) as folder:
        (folder / "config.json").write_text("new")
        raise FULL[1]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    with replacing(tmp_path) as folder:
        (folder / "config.json").write_text("new")
        (folder / "model.safetensors").write_text("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"config.json": "new", "model.safetensors": "new", "notes.txt": "old"}


@pytest.mark.skipif(os.name == "nt", reason="no such modes on Windows")
@pytest.mark.parametrize("kind", [staged, replacing])
@pytest.mark.parametrize("around", [0o755, 0o2775])
@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_a_folder_is_for_those_for_whom_mkdir_makes_it(
    tmp_path: Path, kind: Callable[[Path], AbstractContextManager[Path]], around: int, mask: int
) -> None:
    tmp_path.chmod(around)
    before = os.umask(mask)
    try:
        (tmp_path / "plain").mkdir()
        with kind(tmp_path / "out") as folder:
            (folder / "config.json").touch()
    finally:
        os.umask(before)
    plain, made = (tmp_path / "plain").stat(), (tmp_path / "out").stat()
    assert (made.st_mode, made.st_gid) == (plain.st_mode, plain.st_gid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plain"]

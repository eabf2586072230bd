"""A folder that may not be read stops a listing: what lies in it would be missing from training without a word."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import DataError
from m33d_hf.inference.depth_items import files_below


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sequences, and what reads them as somebody who may not look into folders called closed or lost+found."""
    for name in ("a", "closed", "lost+found"):
        write_frames(tmp_path / name, 2)
    listing = os.scandir

    def scandir(folder: Any = ".") -> Any:
        if os.path.basename(folder) in ("closed", "lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    return tmp_path


def test_a_sequence_that_may_not_be_read_is_named(data: Path) -> None:
    with pytest.raises(DataError, match=r"closed cannot be read \(Permission denied\)"):
        FolderSource(data, depth_unit="mm")
    with pytest.raises(DataError, match=r"closed cannot be read \(Permission denied\)"):
        files_below(data, None)
    assert files_below(data, data / "closed")


def test_the_file_systems_own_folder_is_left_out(data: Path) -> None:
    (data / "closed").rename(data / ".closed")
    assert {item.key.split("/")[0] for item in FolderSource(data, depth_unit="mm")} == {"a"}

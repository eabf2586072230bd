"""A folder that may not be read stops a listing: what lies in it would be missing from training without a word."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.frames_on_disk import write_frames
from helpers.nyuv2_files import write_mat, write_tables
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.data.sources.hub.source import HubSource
from m33d_hf.data.sources.nyuv2.source import NYUv2Source
from m33d_hf.data.sources.shards.source import ShardsSource
from m33d_hf.data.walking import files_ending
from m33d_hf.errors import DataError
from m33d_hf.inference.depth_items import files_below


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sequences, and what reads them as somebody who may not look into folders called closed or lost+found."""
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


def test_a_folder_of_a_table_of_shards_or_of_masks_that_may_not_be_read_is_named(data: Path) -> None:
    (data / "a" / "train.parquet").touch()
    for build in (HubSource, ShardsSource):
        with pytest.raises(DataError, match=r"closed cannot be read \(Permission denied\)"):
            build(data, depth_unit="mm")
    write_tables(data)
    write_mat(data / "nyu_depth_v2_labeled.mat", (0,))
    (data / "masks" / "closed").mkdir(parents=True)
    with pytest.raises(DataError, match=r"masks/closed cannot be read \(Permission denied\)"):
        NYUv2Source(data, split="train", valid="masks")


def test_files_by_their_ends_are_those_of_folders_alone(tmp_path: Path) -> None:
    for name in ("b/x.tar", "b/.y.tar", "b/z.tar.gz", ".hidden/x.tar", "a.tar", "elsewhere/c/x.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "root").symlink_to(tmp_path)
    (tmp_path / "b/link").symlink_to(tmp_path / "elsewhere")
    found = [file.relative_to(tmp_path / "root").as_posix() for file in files_ending(tmp_path / "root", ".tar")]
    assert found == [".hidden/x.tar", "a.tar", "b/x.tar", "elsewhere/c/x.tar"]


def test_a_folder_that_another_process_removes_meanwhile_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path / "data/a", 2)
    write_frames(tmp_path / "data/gone", 2)
    listing = os.scandir

    def scandir(folder: Any = ".") -> Any:
        if os.path.basename(folder) == "gone":
            os.rename(folder, tmp_path / "away")
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert {item.key.split("/")[0] for item in FolderSource(tmp_path / "data", depth_unit="mm")} == {"a"}


def test_the_file_systems_own_folder_is_left_out(data: Path) -> None:
    (data / "closed").rename(data / ".closed")
    assert {item.key.split("/")[0] for item in FolderSource(data, depth_unit="mm")} == {"a"}

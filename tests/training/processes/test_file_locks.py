"""Only a lock that is held refuses a folder; a file system without locks is said once and used."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from m33d_hf.errors import ConfigError
from m33d_hf.inference.folder_lock import shared_folder
from m33d_hf.inference.sharding import Place
from m33d_hf.training.processes import guards
from m33d_hf.training.processes.guards import is_in_use, output_lock


@pytest.fixture
def failing(monkeypatch):
    """Makes every flock fail with an error number, as file systems do."""
    monkeypatch.setattr(guards, "_told", set())

    def fail_with(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail_with


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_is_warned_of_once_and_used(failing, number, tmp_path, caplog):
    failing(number)
    for folder in (tmp_path / "one", tmp_path / "two"):
        with output_lock(folder):
            assert not is_in_use(folder)
    with shared_folder(tmp_path / "three", Place(0, 1, 0)):
        assert (tmp_path / "three" / ".lock").is_file()
    assert not (tmp_path / "three" / ".lock").exists()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "has no locks" in said[0] and str(tmp_path / "one") in said[0]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_is_held_refuses(failing, number, tmp_path):
    (tmp_path / ".lock").touch()
    failing(number)
    with pytest.raises(ConfigError, match="is being written by"), output_lock(tmp_path):
        pass
    assert is_in_use(tmp_path)
    with pytest.raises(ConfigError, match="is being written by"), shared_folder(tmp_path, Place(0, 1, 0)):
        pass

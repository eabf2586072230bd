"""Locks on files that go with their process; where a system or a file system has none, work goes on without."""

from __future__ import annotations

import errno
import logging
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

SYSTEM_HAS_LOCKS = fcntl is not None
logger = logging.getLogger(__name__)

# The only ones that tell of a lock that another process holds. Others mean that the file system has no such locks
# (ENOSYS of Lustre without the mount option flock, ENOLCK, EOPNOTSUPP), or none of this kind (EBADF of NFS).
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
_told: set[int] = set()


def lock_alone(file: IO[str] | int, where: object, wait: bool = False) -> bool:
    """Take the exclusive lock of an open file, or of a descriptor.

    Args:
        file: open; the lock ends when it is closed, or with the process.
        where: its folder, for the warning.
        wait: for a process that holds it.

    Returns:
        False if another process holds a lock of it; True otherwise, also where there are no locks (a file system
        without them is warned of once).
    """
    return fcntl is None or _locked(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, where)


def lock_shared(file: IO[str] | int, where: object) -> bool:
    """As `lock_alone`, without waiting, the lock that several processes can hold at once."""
    return fcntl is None or _locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB, where)


def _locked(file: IO[str] | int, how: int, where: object) -> bool:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno in _HELD:
            return False
        _tell(error, where)
    return True


def _tell(error: OSError, where: object) -> None:
    """Once for each kind of error: every folder on such a file system fails alike."""
    number = error.errno or 0
    if number not in _told:
        _told.add(number)
        logger.warning(
            "the file system of %s has no locks (%s): two runs that write to one folder at the same time are not "
            "noticed there. Give each run an output folder of its own.",
            where, error.strerror or error,
        )  # fmt: skip

"""Worker processes that are known to have started, on systems that fork.

A forked child has a copy of one thread of its parent. A lock that another thread holds at that moment is never released
in the child: CPython 3.11 itself waits for one of its own locks at the end of `fork` while a native thread is starting
or ending (those of gloo and autograd do). Such a child never starts its work, the loader waits for it for ever, and
nobody sees an error. So every child reports that it has started, and one that does not is killed and forked again.
"""

from __future__ import annotations

import logging
import multiprocessing.context
import multiprocessing.popen_fork
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from m33d_hf.errors import WorkerStartError

logger = logging.getLogger(__name__)

# A child begins within milliseconds; within seconds where memory is being swapped.
PATIENCE = 60.0
ATTEMPTS = 3


class _Process(multiprocessing.context.ForkProcess):
    """A forked process whose `start` returns when the child is running."""

    _begun: Connection

    def run(self) -> None:
        """Report that the child has started, then do its work."""
        self._begun.send_bytes(b"1")
        self._begun.close()
        super().run()

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # multiprocessing's name for what starts a child
        for attempt in range(1, ATTEMPTS + 1):
            begun, process_obj._begun = multiprocessing.Pipe(duplex=False)
            child = multiprocessing.popen_fork.Popen(process_obj)
            process_obj._begun.close()
            with begun:
                # A child that ends at once closes its end, which counts too: whoever waits for its work sees its exit.
                if begun.poll(PATIENCE):
                    return child
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            logger.warning(
                "A worker process did not start within %g seconds (attempt %d of %d): a deadlock between fork and "
                "another thread; it was killed.", PATIENCE, attempt, ATTEMPTS
            )  # fmt: skip
        raise WorkerStartError(
            f"{ATTEMPTS} worker processes in a row did not start within {PATIENCE:g} seconds of being forked; is the "
            "machine out of memory? --data.num_workers 0 reads the data in the training process itself"
        )


class ForkContext(multiprocessing.context.ForkContext):
    """multiprocessing's "fork" with children that are known to have started.

    Raises (when a process is started):
        WorkerStartError: ATTEMPTS children in a row did not start.
    """

    Process = _Process

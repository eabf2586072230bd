"""Reading processes that are known to have started, where the system forks.

A child is a copy of one thread of a process that has others. A lock that one of those holds at that moment is never let
go in the child: CPython 3.11 itself waits for one of its own on the way out of `fork` where a native thread is just
coming or going (gloo's and autograd's do). Such a child never gets to its work, the loader waits for it without end,
and nobody sees an error. So every child says that it has begun, and one that does not is killed and forked again.
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
    """A forked process whose `start` returns once the child runs."""

    _begun: Connection

    def run(self) -> None:
        """Say that the child has begun, then do its work."""
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
                "A reading process did not begin within %g seconds (attempt %d of %d): a deadlock between fork and "
                "another thread; it was killed.", PATIENCE, attempt, ATTEMPTS
            )  # fmt: skip
        raise WorkerStartError(
            f"{ATTEMPTS} reading processes in a row did not begin within {PATIENCE:g} seconds of being forked; is the "
            "machine out of memory? --data.num_workers 0 reads in the training process itself"
        )


class ForkContext(multiprocessing.context.ForkContext):
    """multiprocessing's "fork" with children that are known to have started.

    Raises (when a process is started):
        WorkerStartError: ATTEMPTS children in a row did not begin.
    """

    Process = _Process

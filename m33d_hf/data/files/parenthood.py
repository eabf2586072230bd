"""Ends helper processes whose parent is gone: a parent that is killed cannot tell them."""

from __future__ import annotations

import os
import threading
import time

# As it was imported: whoever replaces it for a test must not end this process.
_parent_now = os.getppid


def end_with(parent: int, every: float = 1.0) -> None:
    """End this process immediately, soon after `parent` is gone; returns at once.

    Args:
        parent: number of the process that started this one. It is passed in, not looked up, because it may be gone
            already.
        every: seconds between two checks.
    """

    def watch() -> None:
        while _parent_now() == parent:
            time.sleep(every)
        os._exit(1)  # a thread cannot raise in the main thread, and nobody is left to be told

    threading.Thread(target=watch, name="end with parent", daemon=True).start()

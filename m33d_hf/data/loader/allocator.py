"""Let the host's allocator keep freed memory: training steps and loaders ask for the same buffers again and again."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = (1 << 30, 32 << 20)  # 32 MiB is the limit of older glibc (mallopt(3))
_NEVER = 2**31 - 1
_OWN_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Make glibc keep freed buffers of up to 1 GiB (old ones: 32 MiB) instead of returning all of them to the kernel.

    By default each large temporary of a step is mapped, zeroed page by page on first touch, and unmapped: 3 to 8 % of a
    step on CPU, a fifth of reading a clip. This changes where memory comes from and no computed number. It holds for
    the rest of the process, because glibc's thresholds can be set but not read, so there is no earlier value to
    restore. The memory kept between steps is what the largest step needs anyway.

    Nothing is changed if the environment already sets these thresholds (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_,
    or glibc.malloc in GLIBC_TUNABLES).

    Returns:
        True if the setting was changed; False on systems without glibc, which have other allocators.
    """
    decided = any(name in os.environ for name in _OWN_VARIABLES)
    if decided or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # The trim threshold alone would harm: glibc then no longer raises the other one, which starts at 128 KiB.
    if not any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_KEPT):
        return False
    return bool(library.mallopt(_M_TRIM_THRESHOLD, _NEVER))

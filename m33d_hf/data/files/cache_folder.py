"""Where things are kept that cost time to make and nothing to lose."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$M33D_CACHE/kind`, else `~/.cache/m33d_hf/kind`; not made here."""
    root = os.environ.get("M33D_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "m33d_hf") / kind

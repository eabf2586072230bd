"""The checkpoints that the repository carries, and what they say about themselves."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints"
DEPTH, SEMSEG = CHECKPOINTS / "rooms-depth", CHECKPOINTS / "rooms-semseg"
BOTH = (DEPTH, SEMSEG)


def results(folder: Path) -> dict[str, Any]:
    """The committed results.json of a checkpoint."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def maker(name: str) -> ModuleType:
    """A module beside the checkpoints, which are no package: `train` or `checkpoint_folder`."""
    sys.path.insert(0, str(CHECKPOINTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CHECKPOINTS))

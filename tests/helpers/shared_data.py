"""Real sample data that lives beside the checkout; tests that need it are skipped by name where it is absent."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("M33D_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def shared(relative: str) -> Path:
    """Return the path of a shared sample, or skip the calling test naming what is missing."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"sample data {relative!r} is not here (set M33D_SHARED_DATA to the folder that holds it)")
    return path

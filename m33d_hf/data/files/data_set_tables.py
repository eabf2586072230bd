"""Lists and tables that are published with a data set: where they lie, and MATLAB's of version 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.errors import decoding


def stated_places(root: Path, stated: str | Path) -> list[Path]:
    """Where a file or folder that an option of a source names is looked for, in order: under the root of the data, so
    that a run means the same wherever it is started, then as a path of its own or in the working folder."""
    return [root / Path(stated).expanduser(), Path(stated).expanduser()]


def file_near(root: Path, name: str, places: Sequence[str], stated: str | None = None) -> Path | None:
    """The file of a table, None where it is missing.

    Args:
        root: of the data.
        name: of the published file.
        places: folders relative to the root in which it is looked for, in order.
        stated: what the user says instead, see `stated_places`.
    """
    if stated is not None:
        candidates = stated_places(root, stated)
    else:
        candidates = [root / place / name for place in places]
    return next((path for path in candidates if path.is_file()), None)


def read_matlab(path: Path, **options: Any) -> Mapping[str, Any]:
    """The variables of a MATLAB file of version 5; `options` are those of `scipy.io.loadmat`.

    Raises:
        CorruptFileError: missing, damaged or of another version.
    """
    from scipy.io import loadmat

    with decoding(path, "cannot be read as a MATLAB file"):
        return dict(loadmat(path, **options))

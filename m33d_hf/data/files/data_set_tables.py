"""Lists and tables that are published with a data set: where they lie, and MATLAB's of version 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.errors import decoding


def file_near(root: Path, name: str, places: Sequence[str], stated: str | None = None) -> Path | None:
    """The file of a table, None where it is missing.

    Args:
        root: of the data.
        name: of the published file.
        places: folders relative to the root in which it is looked for, in order.
        stated: what the user says instead, relative to the working folder or to the root.
    """
    if stated is not None:
        candidates = [Path(stated).expanduser(), root / stated]
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

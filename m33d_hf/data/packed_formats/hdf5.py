"""Opens HDF5 files, including MATLAB files of version 7.3, once per process."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from m33d_hf.errors import CorruptFileError, MissingDependencyError, decoding
from m33d_hf.modeling.picture_files_m33d import file_size

_MATLAB_5 = b"MATLAB 5.0"


def open_hdf5(path: Path, size: str) -> Any:
    """The open `h5py.File`; the same one for every call in a process, another one in a forked child.

    Args:
        path: the file.
        size: of the complete file, for the message about an incomplete download.

    Raises:
        CorruptFileError: missing, truncated, or of MATLAB's version 5.
        MissingDependencyError: h5py is not installed.
    """
    found = file_size(path)  # raises a clear error if it is not a file
    return _opened(path, size, found, path.stat().st_mtime_ns, os.getpid())


@lru_cache(maxsize=4)
def _opened(path: Path, whole: str, size: int, modified: int, process: int) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"{path} requires h5py: pip install h5py") from error
    with path.open("rb") as file:
        begin = file.read(len(_MATLAB_5))
    if begin == _MATLAB_5:
        raise CorruptFileError(path, "is a MATLAB file of version 5; the published file has version 7.3 (HDF5)")
    with decoding(path, "cannot be read as HDF5 (MATLAB 7.3)", f"; is the download complete ({whole})?"):
        return h5py.File(path, "r")

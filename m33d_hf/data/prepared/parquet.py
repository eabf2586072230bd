"""Opens Parquet files with their checksums checked, and tells what is a picture in them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from m33d_hf.errors import MissingDependencyError, decoding


def open_parquet(path: Path) -> Any:
    """An open `pyarrow.parquet.ParquetFile` that checks its pages.

    Raises:
        CorruptFileError: it cannot be opened. MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path} requires pyarrow, which comes with `pip install datasets`.") from error
    with reading(path):
        return parquet.ParquetFile(path, page_checksum_verification=True)


def reading(path: Path) -> AbstractContextManager[None]:
    """What the library raises in the block becomes a `CorruptFileError` of `path`."""
    return decoding(path, "cannot be read as Parquet")


def is_picture(kind: Any) -> bool:
    """Whether an Arrow type is that of `datasets.Image`: a structure with bytes."""
    import pyarrow

    return bool(pyarrow.types.is_struct(kind)) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]

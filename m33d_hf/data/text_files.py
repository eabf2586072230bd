"""Reads the small text files that come with data: lists, tables, annotations."""

from __future__ import annotations

from pathlib import Path

from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.picture_files_m33d import file_size


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file, with or without a byte order mark, every line end as "\\n".

    Raises:
        CorruptFileError: missing, unreadable, or not UTF-8 text.
    """
    file_size(path)  # a named pipe would be waited for
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(path, f"is not a readable UTF-8 text file ({error}); save it as UTF-8") from error

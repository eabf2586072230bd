"""data/text_files.py: marks, line ends, and files that are no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.data.text_files import read_text
from m33d_hf.errors import CorruptFileError


def test_byte_order_marks_and_line_ends_go(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfeins\r\nzwei\rdrei\n")
    assert read_text(tmp_path / "a.txt") == "eins\nzwei\ndrei\n"


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(CorruptFileError, match=r"latin\.txt.*not a readable UTF-8 text file"):
        read_text(tmp_path / "latin.txt")
    with pytest.raises(CorruptFileError, match="does not exist"):
        read_text(tmp_path / "absent.txt")
    with pytest.raises(CorruptFileError, match="not a readable"):
        read_text(tmp_path)

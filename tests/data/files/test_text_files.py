"""data/files/text_files.py: marks, line ends, and files that are no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from m33d_hf.data.files.text_files import read_text
from m33d_hf.errors import CorruptFileError


def test_byte_order_marks_and_line_ends_go(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfeins\r\nzwei\rdrei\n")
    assert read_text(tmp_path / "a.txt") == "eins\nzwei\ndrei\n"


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("latin-1", "Latin-1"),
        ("cp1252", "Windows-1252"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
def test_other_encodings_are_told_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, named: str
) -> None:
    text = "Frame\tPhase\n0\tPräparation" + (" – \u201equer\u201c" if encoding != "latin-1" else "") + "\n1\tNaht\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    for _ in range(2):
        assert read_text(tmp_path / "a.txt") == text
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'a.txt'} is {named} text, not UTF-8; it is read as such"
    ]


def test_utf_8_goes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes("Größe – 大\n".encode())
    assert read_text(tmp_path / "a.txt") == "Größe – 大\n" and not caplog.records


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    damaged = "Größe und Maß\n".encode()
    for name, content in (
        ("damaged.txt", damaged[:3] + b"\xff" + damaged[3:]),  # UTF-8 with a byte too many is not taken for Latin-1
        ("binary.txt", bytes(range(256))),
        ("zeros.txt", b"0\tcut\0\n"),
        ("zipped.txt", b"PK\x03\x04\x14\x00\x08\x08"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFileError, match=rf"{name}.*not a readable text file"):
            read_text(tmp_path / name)
    with pytest.raises(CorruptFileError, match="does not exist"):
        read_text(tmp_path / "absent.txt")
    with pytest.raises(CorruptFileError, match="is a folder, not a file"):
        read_text(tmp_path)

"""Reads the small text files that come with data: lists, tables, annotations."""

from __future__ import annotations

import codecs
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from m33d_hf.errors import CorruptFileError
from m33d_hf.modeling.picture_files_m33d import file_size

logger = logging.getLogger(__name__)

UTF8 = "UTF-8"
_MARKS = (  # the longer mark first: that of UTF-32 begins as that of UTF-16
    (codecs.BOM_UTF8, "utf-8", UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")
_MANY_ZEROS = 0.3  # of the bytes in one place of every pair: the empty halves of UTF-16


class DecodedText(NamedTuple):
    """The content of a file, every line end as "\\n", and the name of its encoding."""

    text: str
    encoding: str


def read_text(path: Path) -> str:
    """The whole of a text file, with or without a byte order mark, every line end as "\\n".

    Normally UTF-8; UTF-16 and Latin-1 (or Windows-1252) are recognised by their bytes, and the log says so.

    Raises:
        CorruptFileError: missing, unreadable, or no text.
    """
    decoded = decode_file(path)
    if decoded.encoding != UTF8:
        say_once(f"{path} is {decoded.encoding} text, not UTF-8; it is read as such")
    return decoded.text


def decode_file(path: Path) -> DecodedText:
    """As `read_text`, with the encoding and without logging.

    Raises:
        CorruptFileError: missing, unreadable, or no text.
    """
    file_size(path)  # a named pipe would be waited for
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptFileError(path, "does not exist") from error
    except OSError as error:
        raise CorruptFileError(path, f"is not a readable text file ({error})") from error
    try:
        text, encoding = _decoded(raw)
    except UnicodeError as error:
        raise CorruptFileError(path, f"is not a readable text file ({error}); save it as UTF-8") from error
    return DecodedText(text.replace("\r\n", "\n").replace("\r", "\n"), encoding)


@lru_cache(maxsize=1024)
def say_once(message: str) -> None:
    """Log a warning once per process, however often a source is built."""
    logger.warning("%s", message)


def _decoded(raw: bytes) -> tuple[str, str]:
    """Raises UnicodeError for bytes that are no text."""
    for mark, codec, name in _MARKS:
        if raw.startswith(mark):
            return _checked(raw[len(mark) :].decode(codec)), name
    if b"\0" in raw:
        return _checked(raw.decode(_wide_codec(raw))), "UTF-16"
    try:
        return raw.decode("utf-8"), UTF8
    except UnicodeDecodeError as error:
        return _single_bytes(raw, error)


def _checked(text: str) -> str:
    if "\0" in text:
        raise UnicodeError("it contains NUL characters")
    return text


def _wide_codec(raw: bytes) -> str:
    """Of UTF-16 without a mark: every second byte of mostly western text is zero."""
    pairs = max(len(raw) // 2, 1)
    first, second = raw[0::2].count(0) / pairs, raw[1::2].count(0) / pairs
    if len(raw) % 2 == 0 and second >= _MANY_ZEROS and first < second / 10:
        return "utf-16-le"
    if len(raw) % 2 == 0 and first >= _MANY_ZEROS and second < first / 10:
        return "utf-16-be"
    raise UnicodeError("it contains NUL bytes")


def _single_bytes(raw: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    """Latin-1 or Windows-1252, unless it is UTF-8 with some bytes damaged, or no text at all."""
    some = raw.decode("utf-8", "ignore")
    if _CONTROL.search(raw) or b"\xff" in raw or any(ord(letter) > 127 for letter in some):
        raise error  # 0xff is no letter of any Western language, and what erased memory is full of
    if any(0x80 <= byte < 0xA0 for byte in raw):
        return raw.decode("cp1252"), "Windows-1252"
    return raw.decode("latin-1"), "Latin-1"

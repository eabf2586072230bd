"""Names of files and folders that look alike are the same, however a system stores their accented letters."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names that look alike are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A composed name in which upper and lower case are equal, too."""
    return composed(name).casefold()

"""Numbers of things in sentences for people: "1 file is", "2 files are". The only such place."""

from __future__ import annotations

_HISSING = ("s", "x", "z", "ch", "sh")
_VOWELS = "aeiou"


def plural(number: int, noun: str) -> str:
    """The number and the noun: "1 batch", "0 batches", "12 entries".

    Args:
        number: of things.
        noun: in the singular, and regular; words before the last one stay as they are ("label map").
    """
    return f"{number} {noun if number == 1 else plural_of(noun)}"


def plural_of(noun: str) -> str:
    """The plural of a regular noun."""
    if noun.endswith(_HISSING):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in _VOWELS else f"{noun}s"


def agree(number: int, one: str, many: str) -> str:
    """The form of a verb or pronoun that goes with a number of things: `agree(2, "is", "are")`."""
    return one if number == 1 else many

"""JSON files that this package writes and reads back: written atomically and sealed with a digest of their content.

The seal is the last entry of the outermost object, `"seal": "blake2b:..."`. Files without one, from earlier versions
or written by hand, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.json_objects import parse_json_object
from m33d_hf.errors import CorruptFileError

SEAL = "seal"
_KIND = "blake2b:"


def write_sealed_json(path: str | Path, value: dict[str, Any]) -> Path:
    """Write indented JSON with a seal, atomically; values that JSON does not know are written as text.

    Raises:
        OSError: the file cannot be written.
    """
    plain = json.loads(json.dumps(value, default=str))  # as it will be read: keys are text, tuples are lists
    return write_text_atomically(path, sealed(plain))


def read_sealed_json(path: str | Path) -> dict[str, Any]:
    """The object that `write_sealed_json` wrote, without its seal.

    Raises:
        CorruptFileError: the file cannot be read, is not a JSON object, or is not what was sealed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(path, f"cannot be read ({error})") from error
    try:
        return unsealed(text)
    except ValueError as error:
        raise CorruptFileError(path, str(error)) from error


def unsealed(text: str) -> dict[str, Any]:
    """The object of a sealed text, such as the metadata of another file, without its seal.

    Raises:
        ValueError: not a JSON object, a key that occurs twice, or not what was sealed.
    """
    try:
        value = parse_json_object(text)
    except ValueError as error:
        raise ValueError(f"cannot be read as JSON ({error})") from error
    # Any entry that looks like a seal counts as one: damage may have hit its name.
    seals = SEAL in value or any(isinstance(entry, str) and entry.startswith(_KIND) for entry in value.values())
    value.pop(SEAL, None)
    if seals and sealed(value) != text:
        raise ValueError("is not what was written (its seal does not match): it is damaged or was changed by hand")
    return value


def sealed(value: dict[str, Any]) -> str:
    """JSON text of an object of plain values, with a seal as its last entry."""
    content = json.dumps(value, indent=1)
    seal = _KIND + hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    return json.dumps({**value, SEAL: seal}, indent=1) + "\n"

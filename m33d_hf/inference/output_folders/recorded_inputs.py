"""Which file each name in an output folder stands for, so that one name never means two inputs.

`inputs.jsonl` has a line `[name, path]` for every input, added before anything is made of it. Lines cannot be mistaken
if a killed process left half of one: it is no JSON, and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError

RECORD_FILE = "inputs.jsonl"


def claim_names(output: Path, sources: Mapping[str, Path], share: Mapping[str, Path] | None = None) -> None:
    """Take note of what names stand for, or refuse names that an earlier call gave to other inputs.

    Names that no call took note of are new, or of an earlier version, which is believed.

    Args:
        output: the folder, which exists.
        sources: name -> input, of all ranks.
        share: those of this rank, which are noted; None for all.

    Raises:
        ConfigError: a name stands for another input already.
    """
    path = output / RECORD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    known = _parsed(text)
    absolute = {name: os.path.abspath(source) for name, source in sources.items()}
    taken = [name for name, source in absolute.items() if name in known and not _same(known[name], source)]
    if taken:
        first = taken[0]
        raise ConfigError(
            f"--output {output} holds what was made of other inputs of the same name ({plural(len(taken), 'name')}): "
            f"{first} is {known[first]} there, {absolute[first]} now. Choose another --output; if the files were only "
            f"moved, remove {path}."
        )
    fresh = [name for name in (sources if share is None else share) if name not in known]
    if not fresh:
        return
    lines = "".join(json.dumps([name, absolute[name]]) + "\n" for name in fresh)
    with path.open("ab") as stream:  # ranks append side by side
        stream.write((lines if text.endswith("\n") or not text else f"\n{lines}").encode())


def _parsed(text: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for line in text.splitlines():
        try:
            name, source = json.loads(line)
        except (ValueError, TypeError):  # half a line of a process that was killed
            continue
        known[name] = source
    return known


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one file, whatever links they pass."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False

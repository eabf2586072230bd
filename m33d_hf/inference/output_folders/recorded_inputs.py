"""Which file each name in an output folder stands for, so that one name never means two inputs.

`inputs.jsonl` has a line `[name, path, content]` for every input, added before anything is made of it; the last one of
a name holds. Paths inside of the output are relative to it, so that both can be moved together; `content` (see
`_content`) tells a file that was moved from another one. Lines cannot be mistaken if a killed process left half of one:
it is no JSON, and is left out. Earlier versions wrote absolute paths, and no content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError
from m33d_hf.inference.output_folders.contents import content_digest
from m33d_hf.inference.output_folders.results_of import RECORD_FILE, first_result
from m33d_hf.modeling.video_reading_m33d import frame_files


class RecordedInput(NamedTuple):
    """What a name stands for.

    Attributes:
        path: absolute, or relative to the output that it lies in.
        content: of the file or folder of frames, as `_content` gives it; None where nobody took note of it.
    """

    path: str
    content: str | None


def claim_names(
    output: Path,
    sources: Mapping[str, Path],
    share: Mapping[str, Path] | None = None,
    kinds: Collection[str] | None = None,
) -> None:
    """Take note of what names stand for, or refuse names that an earlier call gave to other inputs.

    Names that no call took note of are new, or of an earlier version, which is believed. An input that is no longer
    where it was, and is found elsewhere with the same content, was moved: its new place is noted. One that was replaced
    in place is another input, too, unless nothing was made of it yet, as of a broken file that was repaired.

    Args:
        output: the folder, which exists.
        sources: name -> input, of all ranks.
        share: those of this rank, which are noted, and whose content is compared; None for all.
        kinds: folders of the output that hold results; None for the output itself, see `first_result`.

    Raises:
        ConfigError: a name stands for another input already, or there are results of other content.
    """
    path = output / RECORD_FILE
    known = recorded_inputs(output)
    absolute = {name: os.path.abspath(source) for name, source in sources.items()}
    elsewhere = [name for name, source in absolute.items() if name in known and not _same(output, known[name], source)]
    moved = {name for name in elsewhere if _was_moved(output, known[name], absolute[name])}
    if taken := [name for name in elsewhere if name not in moved]:
        first = taken[0]
        raise ConfigError(
            f"--output {output} holds what was made of other inputs of the same name ({plural(len(taken), 'name')}): "
            f"{first} is {output / known[first].path} there, {absolute[first]} now. Choose another --output; if the "
            f"files were only moved, remove {path}."
        )
    mine = sources if share is None else share
    changed = {name for name in mine if name in known and name not in moved and _has_changed(output, known[name])}
    made = {name: first_result(output, name, known, absolute[name], kinds) for name in mine if name in changed}
    if stale := {name: result for name, result in made.items() if result is not None}:
        name, result = next(iter(stale.items()))
        raise ConfigError(
            f"--output {output} holds what was made of other content of {plural(len(stale), 'input')}: "
            f"{absolute[name]} has changed since. Choose another --output, or remove what was made of {name} there "
            f"({result}, and more of that name) and repeat the command."
        )
    fresh = [name for name in mine if name not in known or name in moved or name in changed]
    if not fresh:
        return
    inside = folders_inside(output, absolute.values())
    rows = [[name, _noted(absolute[name], inside), _content(absolute[name])] for name in fresh]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab+") as stream:  # ranks append side by side
        stream.write((f"\n{lines}" if _is_torn(stream) else lines).encode())


def _is_torn(stream: BinaryIO) -> bool:
    """Whether a file ends within a line."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 1))
    return size > 0 and stream.read() != b"\n"


def recorded_inputs(output: Path) -> dict[str, RecordedInput]:
    """Name -> what it stands for in an output; nothing where there is no record.

    Raises:
        OSError: it cannot be read.
    """
    path = output / RECORD_FILE
    known: dict[str, RecordedInput] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            name, source, *more = json.loads(line)
        except (ValueError, TypeError):  # half a line of a process that was killed
            continue
        if isinstance(name, str) and isinstance(source, str):
            known[name] = RecordedInput(source, more[0] if more else None)
    return known


def folders_inside(output: Path, paths: Iterable[str]) -> dict[str, str]:
    """The folders of these paths that lie in an output, whatever links lead there -> their place relative to it."""
    root = output.resolve()
    folders = {name: Path(name).resolve() for name in {os.path.dirname(path) for path in paths}}
    return {name: place.relative_to(root).as_posix() for name, place in folders.items() if place.is_relative_to(root)}


def _noted(source: str, inside: Mapping[str, str]) -> str:
    folder, name = os.path.split(source)
    return os.path.normpath(os.path.join(inside[folder], name)) if folder in inside else source


def _same(output: Path, known: RecordedInput, source: str) -> bool:
    """Whether both lead to one file, whatever links they pass."""
    former = os.path.abspath(output / known.path)
    if former == source:
        return True
    try:
        return os.path.samefile(former, source)
    except OSError:
        return False


def _was_moved(output: Path, known: RecordedInput, source: str) -> bool:
    if known.content is None or os.path.lexists(output / known.path):
        return False
    return _content(source) == known.content


def _has_changed(output: Path, known: RecordedInput) -> bool:
    """Whether there is other content where an input was; what cannot be read is not known to be other."""
    now = None if known.content is None else _content(os.path.abspath(output / known.path))
    return now is not None and now != known.content


def _content(source: str) -> str | None:
    """`content_digest` of a file, or of all frames of a folder; None where it cannot be read."""
    path = Path(source)
    try:
        files = frame_files(path) if path.is_dir() else [path]
        return content_digest([(file.name, file) for file in files])
    except OSError:
        return None

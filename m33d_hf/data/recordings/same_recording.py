"""Whether the frames that an output holds are those of a recording, by which two of one name are told apart.

Frames are compared, not files: a damaged file that was copied again, one that arrived late, and what others put beside
them leave the recording what it was, and what was imported already stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.depth.stores import Quantization
from m33d_hf.data.depth.writing import Quantizer
from m33d_hf.data.files.files import read_map
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.recordings.recording import About, Content, Recording, picture_suffix
from m33d_hf.errors import ConfigError, CorruptFileError, DataError

_COMPARED = 16  # frames, evenly spread over those that are there


def stored_depth(depth: np.ndarray, about: About, quantizer: Quantizer) -> tuple[np.ndarray, Quantization]:
    """(h, w) uint16 as it is written, and its meaning: integers as they are, floats as `quantizer` rounds them."""
    if depth.dtype == np.uint16:
        return depth, Quantization(float(about.depth_spec.scale or 1.0), 0.0)
    return quantizer.quantize(np.where(depth > 0, depth, np.nan)), quantizer.quantization


def refuse_another(recording: Recording, source: Path, output: Path) -> None:
    """Compare some of the frames that are there with those of the recording, before one is written.

    Args:
        recording: opened.
        source: where it lies, for messages.
        output: of the import, by the same rules.

    Raises:
        ConfigError: one is another, or none of them can be compared. CorruptFileError: one of the output is damaged.
    """
    there = sorted(int(path.stem) for path in (output / "depth").glob("[0-9]*.png") if path.stem.isdecimal())
    if not there:
        return
    chosen = evenly_spaced(there, _COMPARED)
    left, same = set(chosen), 0
    for frame in recording.frames():
        if frame.number not in left:
            continue
        left.remove(frame.number)
        try:
            content = frame.load()
        except DataError:  # damaged since; the frame that is there is kept
            content = None
        if content is not None:
            _refuse_other_frame(frame.number, content, recording.about, source, output)
            same += 1
        if not left:
            break
    if not same:
        raise ConfigError(
            f"{output} holds {plural(len(there), 'frame')}, and {source} lacks the {len(chosen)} of them that were "
            f"looked for, or {agree(len(chosen), 'it is', 'they are')} damaged there, so that nothing tells whether it "
            "is the same recording. Choose another --output for it."
        )


def _refuse_other_frame(number: int, content: Content, about: About, source: Path, output: Path) -> None:
    """Depth is compared by its values; colour where it is kept byte by byte: decoders of videos differ by rounding."""
    depth = output / "depth" / f"{number:06d}.png"
    color = output / "color" / f"{number:06d}{picture_suffix(content.color)}"
    try:
        values = read_map(depth)
    except CorruptFileError as error:
        raise CorruptFileError(depth, f"{error.reason}; remove it, and it is written again") from error
    differing = None if np.array_equal(values, stored_depth(content.depth, about, Quantizer("metric"))[0]) else depth
    if isinstance(content.color, bytes) and color.is_file() and color.read_bytes() != content.color:
        differing = color
    if differing is not None:
        raise ConfigError(
            f"{output} holds another import: {differing.relative_to(output).as_posix()} is not frame {number} of "
            f"{source}. Choose another --output for this recording, or repeat the earlier command to continue."
        )

"""Which frames of a sequence are used, and where sequences are cut into windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import pairwise

from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.errors import ConfigError, DataError

_NAMED = 5  # sequences and windows named in a note; all are listed
TOO_SHORT = "sequence of "  # begins the reason of a sequence that is left out for its length


def thin_out(
    sequences: dict[str, list[Frame]],
    unit: str,
    every: int,
    min_frames: int | None,
    unpaired: list[Unpaired],
    clip_length: int | None = None,
    notes: list[str] | None = None,
) -> dict[str, list[Frame]]:
    """Keep every k-th frame and, for clips, the sequences that are long enough; the others go to `unpaired`.

    Long enough means `min_frames`, or without it `clip_length`: a shorter sequence would repeat its last frame, and one
    of a few frames would be a still picture. Those that are left out are named in a note, where `notes` are given.

    Raises:
        ConfigError: a number below 1, or an unknown unit.
        DataError: no sequence is long enough.
    """
    choose("unit", unit, ("frames", "clips"))
    least = min_frames if min_frames is not None else clip_length or 1
    for name, value in (("every", every), ("min_frames", least), ("clip_length", clip_length or 1)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    kept = {key: frames[::every] for key, frames in sequences.items()}
    if unit == "frames":
        return kept
    lengths = {key: len(frames) for key, frames in kept.items() if len(frames) < least}
    what = f"min_frames={least}" if min_frames is not None else f"a clip covers {least}, num_frames x frame_stride"
    unpaired += [Unpaired(key, f"{TOO_SHORT}{length} frames; {what}") for key, length in lengths.items()]
    kept = {key: frames for key, frames in kept.items() if len(frames) >= least}
    if not kept:
        raise DataError(
            f"no sequence is long enough ({what}; every={every}): of {len(lengths)} sequences the longest has "
            f"{max(lengths.values(), default=0)} frames. Use a smaller --data.frame_stride or --model.num_frames, or "
            "set --data.options.min_frames (the last frame is then repeated)."
        )
    if lengths and notes is not None:
        named = _first_of([f"{key} ({length})" for key, length in lengths.items()])
        notes.append(f"left out as too short ({what}; frames in brackets): {named}")
    return kept


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@dataclass(frozen=True)
class Window:
    """A stretch of a sequence; its name does not tell which: a sequence itself may be called `cam@60`."""

    sequence: str
    frames: tuple[Frame, ...]


def cut_windows(
    sequences: dict[str, list[Frame]],
    clip_length: int | None,
    windows: int | None,
    notes: list[str],
    clip_stride: int | None = None,
) -> dict[str, Window]:
    """Cut every sequence into windows of (nearly) the same length; each gives one clip per epoch.

    Args:
        sequences: frames by name.
        clip_length: frames that a clip covers; None leaves sequences whole.
        windows: number per sequence; None takes as many as there are whole clips, which is also the maximum.
        notes: a sentence is added to it if something is cut or repeated.
        clip_stride: frames from one window's start to the next, for windows of exactly a clip that may overlap; the
            last one ends with the sequence. None cuts windows that do not overlap and leave nothing out.

    Returns:
        Windows by name: that of the sequence, with "@" and the number of its first frame where there are several.

    Raises:
        ConfigError: fewer windows than one, or a stride together with a number or without the length of a clip.
        DataError: a window would be called as another sequence is.
    """
    if clip_stride is not None:
        return _overlapping(sequences, clip_length, windows, notes, clip_stride)
    if windows is not None and windows < 1:
        raise ConfigError(f"windows is {windows}; it must be at least 1")
    parts: dict[str, Window] = {}
    for key, frames in sequences.items():
        fitting = 1 if clip_length is None else max(1, len(frames) // clip_length)
        count = fitting if windows is None else min(windows, fitting)
        starts = [number * len(frames) // count for number in range(count + 1)]
        for first, stop in pairwise(starts):
            _add(parts, key if count == 1 else f"{key}@{first}", Window(key, tuple(frames[first:stop])))
    if len(parts) > len(sequences):
        notes.append(
            f"{_cut_into(sequences, parts)} of at least the {clip_length} frames that a clip covers; each gives one "
            "clip per epoch (--data.options.windows 1 keeps sequences whole)"
        )
    short = sum(len(frames) < (clip_length or 1) for frames in sequences.values())
    if short:
        notes.append(
            f"{plural(short, 'sequence')} {agree(short, 'has', 'have')} fewer frames than the {clip_length} of a clip; "
            f"{agree(short, 'its', 'their')} last frame is repeated"
        )
    return parts


def leave_out_blind(windows: Mapping[str, Window], unpaired: list[Unpaired], notes: list[str]) -> dict[str, Window]:
    """The windows of which some frame has depth; the others go to `unpaired` and are named in a note."""
    kept = {key: window for key, window in windows.items() if any(frame.depth for frame in window.frames)}
    blind = [key for key in windows if key not in kept]
    if blind:
        unpaired += [Unpaired(key, "no frame of the window has depth") for key in blind]
        notes.append(
            f"left out, because none of {agree(len(blind), 'its', 'their')} frames has depth: "
            f"{plural(len(blind), 'window')}, {_first_of(blind)} (--data.options.require_depth false "
            "keeps what has RGB alone)"
        )
    return kept


def _overlapping(
    sequences: dict[str, list[Frame]],
    clip_length: int | None,
    windows: int | None,
    notes: list[str],
    clip_stride: int,
) -> dict[str, Window]:
    """Windows of a clip's length, `clip_stride` frames apart, and one at the end of what they leave."""
    if windows is not None:
        raise ConfigError(f"give windows ({windows}) or clip_stride ({clip_stride}), not both")
    if clip_length is None:
        raise ConfigError("clip_stride requires clip_length, the frames of a clip, which a run sets by itself")
    parts: dict[str, Window] = {}
    for key, frames in sequences.items():
        last = max(len(frames) - clip_length, 0)
        starts = [*range(0, last, clip_stride), last]
        for first in starts:
            window = Window(key, tuple(frames[first : first + clip_length]))
            _add(parts, key if len(starts) == 1 else f"{key}@{first}", window)
    notes.append(
        f"{_cut_into(sequences, parts)} of {clip_length} frames, {clip_stride} from one to the next; each gives one "
        "clip per epoch"
    )
    return parts


def _add(parts: dict[str, Window], name: str, window: Window) -> None:
    """Add a window, whose name must be its own: keys of samples are, and one of two would be lost."""
    if name in parts:
        first, second = parts[name].sequence, window.sequence
        raise DataError(
            f"a window of the sequence {first!r} and one of {second!r} would both be called {name!r}. Rename the "
            "folder whose name ends in @ and a number, or keep sequences whole (--data.options.windows 1, without "
            "clip_stride)."
        )
    parts[name] = window


def _cut_into(sequences: Sized, parts: Sized) -> str:
    whole = f"{plural(len(sequences), 'sequence')} {agree(len(sequences), 'is', 'are')}"
    return f"{whole} cut into {plural(len(parts), 'window')}"

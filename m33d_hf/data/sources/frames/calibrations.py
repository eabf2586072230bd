"""Which calibration belongs to which sequence, and whether it fits its files, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from m33d_hf.data.depth.calibration import Calibration, read_calibration
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.layouts import folders_up
from m33d_hf.data.sources.frames.reading import Frame, refuse_turned
from m33d_hf.data.sources.frames.splits import Sequences
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.depth_m33d import DepthSpec


def find_calibrations(
    root: Path, sequences: Sequences, file: str | None, notes: list[str], top: Path | None = None
) -> dict[str, Calibration] | None:
    """Calibration of every sequence; None where no file is stated.

    `file` is looked for in the folder of the sequence and those above it, up to the root (or to `top`, where the
    root lies below that), then as a path of its own.

    Raises:
        ConfigError: a sequence without one, or a file that is none.
    """
    if file is None:
        return None
    read: dict[Path, Calibration] = {}
    found: dict[str, Calibration] = {}
    for key in sequences:
        places = [folder / file for folder in folders_up(root, key, top)]
        path = next((place for place in (*places, Path(file).expanduser()) if place.is_file()), None)
        if path is None:
            raise ConfigError(
                f"the calibration {file!r} (--data.options.calibration) of the sequence {key!r} is neither in its "
                f"folder under {top or root} nor in one above it, and no path of its own"
            )
        if path not in read:
            read[path] = read_calibration(path)
        found[key] = read[path]
    notes.append(
        f"depth is registered into the colour picture by {file} ({plural(len(read), 'file')} for "
        f"{plural(len(found), 'sequence')})"
    )
    return found


def check_calibrated(calibrations: Mapping[str, Calibration] | None, align: str, orientation: str) -> None:
    """Refuse options that contradict a calibration.

    Raises:
        ConfigError: naming both.
    """
    if calibrations and align == "rgb_to_depth":
        raise ConfigError(
            "align=rgb_to_depth resizes colour over the depth, but a calibration registers depth into the colour "
            "picture; leave one of them out (--data.options.align, --data.options.calibration)"
        )
    if calibrations and orientation != "refuse":
        raise ConfigError(
            f"orientation={orientation} turns maps, but a calibration refers to the pictures as they are stored; leave "
            "one of them out (--data.options.orientation, --data.options.calibration)"
        )


def check_calibrated_frame(
    root: Path,
    frame: Frame,
    found: Mapping[str, tuple[int, int, int]] | None,
    calibration: Calibration,
    spec: DepthSpec | None,
) -> None:
    """Compare a frame's files with their calibration.

    Args:
        found: (height, width, orientation) by file; None where a file cannot be read, which is counted later.

    Raises:
        ConfigError: sizes that differ, or depth without a unit. DataError: a picture that is to be turned.
    """
    if spec is not None and spec.kind != "metric":
        raise ConfigError(
            f"a calibration needs depth in metres, and this is {spec.kind} depth without a unit; remove the calibration"
        )
    if found is None:
        return
    if frame.rgb is not None:
        refuse_turned(root, frame, found[frame.rgb][2])
    color, depth = (None if file is None else found[file][:2] for file in (frame.rgb, frame.depth))
    calibration.require_sizes(color, depth, f"{frame.key} under {root}")

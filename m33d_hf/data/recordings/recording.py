"""What every reader of a camera's recording offers to the importer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.data.depth.shapes import same_shape
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec
from m33d_hf.modeling.picture_files_m33d import decode_picture

MILLIMETRES = DepthSpec(unit="millimetre")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ImportOptions:
    """What is read of a recording; the fields are the command-line flags.

    Attributes:
        every: keep every k-th frame.
        limit: stop after so many frames; None for all.
        min_confidence: depth with less confidence (0 low, 1 medium, 2 high) becomes a hole, where there is confidence.
        color_topic, depth_topic: of ROS bags; None takes the only ones.
        max_difference: seconds between colour and depth of one frame, where they are recorded apart.
        max_bad_fraction: share of frames that may be unusable or missing.
        report_seconds: time between two lines of progress.

    Raises:
        ConfigError: a value out of its range.
    """

    every: int = 1
    limit: int | None = None
    min_confidence: int = 1
    color_topic: str | None = None
    depth_topic: str | None = None
    max_difference: float = 0.02
    max_bad_fraction: float = 0.01
    report_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("every", 1, None),
            ("limit", 1, None),
            ("min_confidence", 0, 2),
            ("max_difference", 0, None),
            ("max_bad_fraction", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not (value >= low and (high is None or value <= high)):
                bounds = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ConfigError(f"--{name} is {value}; it must be {bounds}")


class Content(NamedTuple):
    """One frame.

    Attributes:
        color: a JPEG or PNG file as the camera stored it, or (H, W, 3) uint8.
        size: (height, width) of the colour picture.
        depth: (h, w) uint16 as `Recording.depth_spec` says, or floating point metres, NaN or 0 for none.
    """

    color: bytes | np.ndarray
    size: tuple[int, int]
    depth: np.ndarray


class PendingFrame(NamedTuple):
    """A frame that has been found and not yet read.

    Attributes:
        number: in the recording, from 0; numbers of a recording never change.
        seconds: when it was taken, by the recording's clock; None where that is not recorded.
        load: reads it; raises CorruptFileError where it is damaged.
    """

    number: int
    seconds: float | None
    load: Callable[[], Content]


class Recording(Protocol):
    """An opened recording; constant memory, whatever its length."""

    @property
    def about(self) -> About:
        """What is known before a frame is read."""

    def frames(self) -> Iterator[PendingFrame]:
        """All frames in their order, the same in every call; what is damaged raises in `load` alone."""


@dataclass
class About:
    """What a recording says of itself.

    Attributes:
        kind: of recording, in words.
        announced: frames that its own index or header counts.
        calibration: None where it does not say enough.
        depth_spec: meaning of 16-bit depth; floats are written as millimetres.
        fps: frames per second, if known.
        notes: sentences on what was assumed.
    """

    kind: str
    announced: int
    calibration: Calibration | None = None
    depth_spec: DepthSpec = MILLIMETRES
    fps: float | None = None
    notes: list[str] = field(default_factory=list)


def stored_picture(path: Path, data: bytes) -> tuple[bytes | np.ndarray, tuple[int, int]]:
    """A picture's file, kept byte by byte where it is JPEG or PNG, and its (height, width); decoded to prove it whole.

    Raises:
        CorruptFileError: damaged, or to be turned by its EXIF.
    """
    pixels, lies = decode_picture(path, data)
    if lies != 1:
        raise CorruptFileError(path, f"is to be turned by its EXIF orientation ({lies}); save it upright")
    size = (pixels.shape[0], pixels.shape[1])
    return (data if data.startswith((_JPEG, _PNG)) else np.ascontiguousarray(pixels)), size


def refuse_other_view(where: Path, depth: tuple[int, int], color: tuple[int, int]) -> None:
    """Refuse depth that cannot show its picture's whole view, by (height, width): one of the two is turned, or cropped.

    Raises:
        CorruptFileError: their aspect ratios differ.
    """
    if not same_shape(depth, color):
        raise CorruptFileError(
            where,
            f"has depth of {depth[1]} x {depth[0]} (width x height), but pictures of {color[1]} x {color[0]}: it "
            "cannot show their view. Is one of the two turned or cropped? Export both alike",
        )


def picture_suffix(color: bytes | np.ndarray) -> str:
    """Of the file that a frame's colour is written to."""
    return ".jpg" if isinstance(color, bytes) and color.startswith(_JPEG) else ".png"


def with_confidence(depth: np.ndarray, confidence: np.ndarray, least: int, where: Path) -> np.ndarray:
    """The depth with holes (0) where the confidence is below `least`.

    Raises:
        CorruptFileError: maps of two sizes.
    """
    if depth.shape != confidence.shape:
        raise CorruptFileError(where, f"depth is {depth.shape} and its confidence {confidence.shape} (height, width)")
    return np.where(confidence >= least, depth, depth.dtype.type(0))

"""Depth beside RGB-only data: written by `extract_depth` or by another tool.

A sidecar root holds `depth_spec.json` (meaning and origin of the values, see `DepthSpec`) and, for a video whose path
below the data's root is REL + suffix, one of

- a folder REL of frames (16-bit PNG, TIFF, PGM, .npy, .npz, PFM, OpenEXR); the last number in a name is the frame's:
  `000012.png`, `0012_disp.npy`,
- `REL.parquet` (columns frame, png), `REL.npy` or `REL.npz` with an array (T, h, w),
- `REL.png` (.tif, .pfm, .exr): the depth of one image.

Disparity, as monodepth2 writes it, is kind "inverse". Values of kind inverse and relative written by `extract_depth`
are stored / scale + offset with one scale and offset for all frames of a video (scale.json in the folder, metadata of
the Parquet file, text of the PNG), so that equal predictions are equal numbers in every frame of it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Literal

import numpy as np
import torch

from m33d_hf.data.depth.checks import FARTHEST_MEDIAN, NEAREST_MEDIAN
from m33d_hf.data.depth.figures import thinned
from m33d_hf.data.depth.options import check_depth_options
from m33d_hf.data.depth.shapes import same_shape
from m33d_hf.data.depth.stores import (
    NUMBERED,
    SCALE_FILE,
    ArrayStore,
    DepthStore,
    FolderStore,
    MissingFrameError,
    ParquetStore,
    PictureStore,
    Quantization,
)
from m33d_hf.data.depth.units import reciprocal_hint
from m33d_hf.data.files.json_objects import read_json_object
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import Hole
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec
from m33d_hf.modeling.fields_m33d import Range, check_value
from m33d_hf.modeling.picture_files_m33d import lies_unknown

SPEC_FILE = "depth_spec.json"
DEPTH_FOLDERS = ("depth", "depths", "disparity")
_CHECKED_PIXELS = 1500
# Keys of depth_spec.json that are no fields of a DepthSpec.
_EXTRA_KEYS = ("provenance", "first_frame")
# What "nothing here" is stored as, where nobody says: in disparity the largest value is the nearest thing.
_INVALID_VALUES: dict[str, tuple[float, ...]] = {"metric": (0, 65535), "inverse": (0,), "relative": ()}
_FILE_STORES: dict[str, Callable[[Path], DepthStore]] = {
    ".parquet": ParquetStore,
    ".npy": ArrayStore,
    ".npz": ArrayStore,
    **{suffix: PictureStore for suffix in (".png", ".tif", ".tiff", ".pfm", ".exr")},
}


@dataclass(frozen=True)
class DepthMaps:
    """The depth of one video, frame by frame; no file stays open between reads.

    Attributes:
        key: path below the sidecar root, without suffix.
        spec: what stored values mean.
        store: where the frames lie.
        upright: whether it was made from upright pictures, by `extract_depth`; False if unknown.
        same_view: whether it is stated to show all of its pictures, whatever its shape; False if unknown.
    """

    key: str
    spec: DepthSpec
    store: DepthStore
    upright: bool = False
    same_view: bool = False

    @property
    def length(self) -> int:
        """Number of frames, including missing ones in between.

        Raises:
            DataError: files whose numbers make no sense; CorruptFileError for an unreadable file.
        """
        return self.store.length

    @property
    def reading_rules(self) -> dict[str, Any]:
        """How stored values and numbers of frames are understood: plain values."""
        first = self.store.first_frame if isinstance(self.store, FolderStore) else None
        return {"depth": self.spec.to_dict(), "first_frame": first, "upright": self.upright}

    def of_video(self, num_frames: int, video: object) -> DepthMaps:
        """The same depth, with the frames of a video; some of them may be missing (`FolderStore.of_video`).

        Raises:
            DataError: depth of another number of frames, so that frames would not correspond; names both numbers.
        """
        store: DepthStore | None = self.store
        if isinstance(self.store, NUMBERED):
            store = self.store.of_video(num_frames)
        elif self.store.length != num_frames:
            store = None
        if store is None:
            raise DataError(
                f"{video} has {plural(num_frames, 'frame')}, but its depth {self.key} has {self.length}: it was "
                "made from other frames. Extract the depth again (scripts/extract_depth.py), or remove it."
            )
        return self if store is self.store else replace(self, store=store)

    def missing(self, num_frames: int) -> list[int]:
        """Frames for which nothing is stored, of the depth that `of_video` made.

        Raises:
            CorruptFileError: it cannot be looked into.
        """
        return self.store.missing(num_frames) if isinstance(self.store, NUMBERED) else []

    def require_upright(self, orientations: Sequence[int], picture: tuple[int, int], maps: torch.Tensor) -> None:
        """Refuse maps of pictures with an EXIF orientation if it is unknown whether the maps were turned too.

        Args:
            orientations: EXIF's, one for each picture; for all of a video's, `VideoInfo.orientation`.
            picture: (height, width) of the upright pictures.
            maps: (T, 1, h, w), as `read` returns them.

        Raises:
            DataError: the message says how to fix it.
        """
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        unknown = [each for each in orientations if lies_unknown(each, picture, size)]
        if unknown and not self.upright:
            raise DataError(
                f"the pictures of {self.key} have the EXIF orientation {unknown[0]} (or the video has it) and "
                "are turned upright, but it is unknown whether their depth was made from upright pictures. Extract it "
                "again (scripts/extract_depth.py, into a new folder), store the pictures upright, or, if the depth is "
                f'upright, write "provenance": {{"upright": true}} into {SPEC_FILE}.'
            )

    def require_same_view(self, picture: tuple[int, int], maps: torch.Tensor) -> None:
        """Refuse metric maps of another aspect ratio than their pictures: resizing would misplace every pixel.

        What a network predicted (inverse, relative) may have the shape of its input, into which it squeezed the whole
        picture, as monodepth2 stores it. Of metric depth, which a camera may have measured, this has to be stated.

        Args:
            picture: (height, width) of the upright pictures.
            maps: (T, 1, h, w), as `read` returns them.

        Raises:
            DataError: naming both sizes.
        """
        height, width = int(maps.shape[-2]), int(maps.shape[-1])
        if self.spec.kind == "metric" and not self.same_view and not same_shape((height, width), picture):
            raise DataError(
                f"the depth {self.key} is {height}x{width}, but its pictures are {picture[0]}x{picture[1]} (height x "
                "width): of another aspect ratio, so that one view would be stretched over another. Crop both to the "
                "same part of the scene, or register depth to RGB before it is written. If a network saw whole "
                f'pictures squeezed into its shape, write "provenance": {{"same_view": true}} into {SPEC_FILE}.'
            )

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Read frames, in any order, repeated or not.

        Returns:
            (T, 1, h, w) float32: metres for metric depth, otherwise the model's unit; NaN where invalid.

        Raises:
            DataError: a missing frame, or frames of different sizes; CorruptFileError for a damaged one.
        """
        unique = self._unique(indices)
        return self._decoded(self.store.stored(unique), unique, indices)

    def read_clip(self, indices: Sequence[int]) -> tuple[torch.Tensor | None, list[Hole]]:
        """Read frames of a clip, of which some may be missing or damaged: they are NaN, as what a sensor misses is.

        Returns:
            (T, 1, h, w) as `read`, None where all are missing; and the frames without depth, by their places.

        Raises:
            DataError: frames of different sizes. CorruptFileError: some are damaged, and none of them can be read.
        """
        unique = self._unique(indices)
        if (whole := self._stored(unique)) is not None:
            return self._decoded(whole, unique, indices), []
        maps: dict[int, np.ndarray] = {}
        wrong: dict[int, CorruptFileError] = {}
        for frame in unique:
            try:
                maps[frame] = np.asarray(self.store.stored([frame])[0])
            except CorruptFileError as error:
                wrong[frame] = error
        damaged = [error for error in wrong.values() if not isinstance(error, MissingFrameError)]
        if not maps and damaged:
            raise damaged[0]
        holes = [
            Hole(place, found.path, found.reason, not isinstance(found, MissingFrameError))
            for place, frame in enumerate(indices)
            if (found := wrong.get(frame)) is not None
        ]
        if not maps:
            return None, holes
        known = list(maps)
        decoded = self._decoded(list(maps.values()), known, known)
        clip = decoded.new_full((len(indices), *decoded.shape[1:]), math.nan)
        there = [place for place, frame in enumerate(indices) if frame in maps]
        clip[there] = decoded[[known.index(indices[place]) for place in there]]
        return clip, holes

    def _stored(self, frames: Sequence[int]) -> Sequence[np.ndarray] | np.ndarray | None:
        """All of these frames; None where one cannot be read, which is to be found frame by frame."""
        try:
            return self.store.stored(frames)
        except CorruptFileError:
            return None

    def _unique(self, indices: Sequence[int]) -> list[int]:
        unique = sorted(set(indices))
        if not unique or unique[0] < 0:
            raise DataError(f"{self.key}: cannot read the depth of frames {list(indices)}.")
        return unique

    def _decoded(
        self, maps: Sequence[np.ndarray] | np.ndarray, unique: Sequence[int], indices: Sequence[int]
    ) -> torch.Tensor:
        """(T, 1, h, w) of the stored frames `unique`, in the order of `indices`."""
        if not isinstance(maps, np.ndarray):
            sizes = {each.shape for each in maps}
            if len(sizes) > 1:
                raise DataError(f"{self.key}: its depth frames differ in size: {sorted(sizes)}.")
            maps = np.stack(maps)
        # Decoded together: a frame of a clip is small, and costs calls.
        quantization = self.store.quantization
        decoded = decode_depth(maps, self.spec, quantization)
        if quantization is not None and not np.isfinite(decoded).any():
            self._refuse_blanking(maps, quantization)
        if self.spec.kind == "metric":
            self._refuse_implausible(decoded)
        if list(indices) != list(unique):
            place = {frame: number for number, frame in enumerate(unique)}
            decoded = decoded[[place[frame] for frame in indices]]
        return torch.from_numpy(decoded)[:, None]

    def _refuse_blanking(self, maps: np.ndarray, quantization: Quantization) -> None:
        """Refuse a scale that leaves no pixel of maps that hold some: it was damaged."""
        free = decode_depth(maps, replace(self.spec, min_depth=None, max_depth=None), quantization)
        if not np.isfinite(free).any() and not np.isin(maps, self.spec.invalid_values).all():
            raise DataError(
                f"{self.key}: stored / {quantization.scale:g} + {quantization.offset:g}, as {SCALE_FILE} or the file "
                "states, leaves no valid depth although some is stored: the scale is damaged. Extract the depth again "
                "(scripts/extract_depth.py)."
            )

    def _refuse_implausible(self, decoded: np.ndarray) -> None:
        """Refuse metres that no camera measures: the stated unit is another than the stored one."""
        some = thinned(decoded, _CHECKED_PIXELS)
        some = some[np.isfinite(some)]
        if some.size and not NEAREST_MEDIAN / 3 <= (median := float(np.median(some))) <= FARTHEST_MEDIAN * 3:
            raise DataError(
                f"{self.key}: its depth has a median of {median:,.3g} m as {self.spec.unit}, which no camera measures. "
                f"Correct the unit in {SPEC_FILE}, or the options depth_unit or depth_scale."
            )


def decode_depth(stored: np.ndarray, spec: DepthSpec, quantization: Quantization | None) -> np.ndarray:
    """Stored values of any shape to float32, NaN = invalid; `quantization` replaces the spec's scale."""
    if quantization is None:
        return spec.decode(stored)
    values = stored.astype(np.float64) / quantization.scale + quantization.offset
    for invalid in spec.invalid_values:
        values[stored == invalid] = np.nan
    return spec.with_changes(scale=1.0, invalid_values=()).decode(values)


def find_depth_maps(
    root: str | Path, rel: str, spec: DepthSpec | None = None, first_frame: int | None = None
) -> DepthMaps | None:
    """The depth of the video (or image) `rel`, or None where there is none.

    Args:
        root: sidecar root.
        rel: the video's path below the data's root, without suffix, with forward slashes.
        spec: what the values mean; None reads depth_spec.json.
        first_frame: number of a folder's first frame; None takes that of depth_spec.json, otherwise the lowest number
            when it is 0 or 1.

    Raises:
        ConfigError: no spec and no depth_spec.json. DataError: the depth exists twice, in two formats.
    """
    root = Path(root)
    stated = read_spec_file(spec_folder(root) or root)
    if spec is None:
        spec = read_sidecar_spec(root)
    if first_frame is None and stated is not None:
        first_frame = stated.get("first_frame")
    candidates: dict[Path, DepthStore] = {}
    for name in _spellings(rel):
        if (folder := root / name).is_dir():
            candidates[folder] = FolderStore(folder, first_frame)
        for suffix, make in _FILE_STORES.items():
            if (path := root / f"{name}{suffix}").is_file():
                candidates[path] = make(path)
    if len(candidates) > 1:
        raise DataError(f"the depth of {rel} exists more than once: {', '.join(map(str, candidates))}. Keep only one.")
    known = {name: states(stated, name) for name in ("upright", "same_view")}
    return DepthMaps(rel, spec, next(iter(candidates.values())), **known) if candidates else None


def states(stated: Mapping[str, Any] | None, fact: Literal["upright", "same_view"]) -> bool:
    """Whether the `provenance` of a depth_spec.json says of its maps that they were made from upright pictures, or that
    they show the whole picture whatever their shape."""
    provenance = (stated or {}).get("provenance")
    return isinstance(provenance, dict) and provenance.get(fact) is True


def shows_what_pictures_show(stated: Mapping[str, Any] | None) -> bool:
    """Whether the `provenance` of a depth_spec.json says that maps were computed from the pictures, as this package has
    it of what it writes, or that they show the same view. That they are upright alone is stated of measured ones, too.
    """
    provenance = (stated or {}).get("provenance")
    if not isinstance(provenance, dict):
        return False
    return "made_by" in provenance or {"model", "upright"} <= set(provenance) or states(stated, "same_view")


def _spellings(rel: str) -> list[str]:
    """A name, and the other form of its accented letters where it has some: other systems store it so."""
    if rel.isascii():
        return [rel]
    return list(dict.fromkeys((rel, *(unicodedata.normalize(form, rel) for form in ("NFC", "NFD")))))


def depth_folder(path: PurePosixPath) -> int | None:
    """Where the first folder called `depth` or the like stands among the parts of a path; None without one."""
    return next((place for place, part in enumerate(path.parts[:-1]) if part.lower() in DEPTH_FOLDERS), None)


def depth_keys(video: Path, bases: Sequence[Path]) -> list[str]:
    """The names under which the depth of a video is searched below a sidecar root, in this order.

    `extract_depth` names depth by the video's path below its --input, without suffix. That is the data root, the folder
    of the videos, or a folder above one of them, so the depth of ROOT/videos/video01.mp4 is `videos/video01` or
    `video01`.

    Args:
        video: the file, or folder of frames.
        bases: folders that the extraction may have been given; those that the video does not lie below are left out.
    """
    below = [base for base in bases if base in video.parents]
    names = [video.relative_to(base) for base in below]
    names += [Path(base.name, video.relative_to(base)) for base in below if base.name]
    bare = (name if video.is_dir() else name.with_suffix("") for name in names)
    return list(dict.fromkeys(name.as_posix() for name in bare))


def find_depth_of(
    root: str | Path, keys: Sequence[str], spec: DepthSpec | None = None, first_frame: int | None = None
) -> DepthMaps | None:
    """The depth of a video under one of several names (see `depth_keys`), or None.

    Raises:
        ConfigError, DataError: as `find_depth_maps`; also depth under two of the names.
    """
    found = [maps for key in keys if (maps := find_depth_maps(root, key, spec, first_frame)) is not None]
    if len({maps.key.casefold() for maps in found}) > 1:
        listed = " and ".join(maps.key for maps in found)
        raise DataError(f"{root} holds the depth of one video under two names: {listed}. Keep only one.")
    return found[0] if found else None


def how_to_extract(source: Path, root: Path) -> str:
    """The command that extracts the depth of everything below `source`, for messages."""
    where = f"--input {quote(str(source))} --output {quote(str(root))}"
    return f"python scripts/extract_depth.py --model MODEL --items videos {where}"


def spec_folder(root: Path) -> Path | None:
    """The folder whose depth_spec.json holds for `root`: itself or the nearest above, None where there is none."""
    return next((folder for folder in (root, *root.resolve().parents) if (folder / SPEC_FILE).is_file()), None)


def read_sidecar_spec(
    root: str | Path,
    kind: str | None = None,
    scale: float | None = None,
    unit: str | None = None,
    invalid_values: Sequence[float] | None = None,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> DepthSpec:
    """What the depth below `root` means: from depth_spec.json, there or in a folder above, or as the arguments state.

    The arguments may add what a depth_spec.json leaves open; kind, unit and scale must not contradict it.

    Raises:
        ConfigError: both are missing, or they contradict each other, or depth_spec.json is not a DepthSpec; or neither
            states unit or scale of metric depth.
    """
    root = Path(root)
    options: dict[str, Any] = {"kind": kind, "scale": scale, "unit": unit, "invalid_values": invalid_values}
    options |= {"min_depth": min_depth, "max_depth": max_depth}
    stated = {name: value for name, value in options.items() if value is not None}
    check_depth_options(stated)
    place = spec_folder(root) or root
    said = stated_fields(place)
    if said is None:
        if kind is None and scale is None and unit is None:
            raise ConfigError(_how_to_state(root))
        if unit is scale is None and kind == "metric":
            raise ConfigError(
                f"{root}: depth_kind metric does not say in which unit the values are stored. Add "
                f"--data.options.depth_unit (such as millimetre) or depth_scale, or write {root / SPEC_FILE}."
            )
        return _spec_from(stated)
    spec = _spec_from(said)
    if said.get("unit") is said.get("scale") is None:
        # It leaves the unit open, and the kind if it states none either: a unit alone says that depth is metric.
        left_open = ("unit", "scale") if "kind" in said else ("kind", "unit", "scale")
        said |= {name: stated[name] for name in left_open if name in stated}
        spec = _spec_from(said)
        if spec.kind == "metric" and unit is scale is None:
            raise ConfigError(
                f'{place / SPEC_FILE}: metric depth needs its stored unit; add "unit": "millimetre", or "scale": 1000.'
            )
    for name in ("kind", "unit", "scale"):
        if name in stated and getattr(_spec_from({"kind": spec.kind, **stated}), name) != getattr(spec, name):
            raise ConfigError(
                f"{place / SPEC_FILE} says {name} = {getattr(spec, name)!r}, but the options say {stated[name]!r}. "
                f"Leave the option --data.options.depth_{name} out, or correct the file."
            )
    loose = {name: stated[name] for name in ("min_depth", "max_depth", "invalid_values") if name in stated}
    return replace(spec, **loose)


def stated_fields(root: Path) -> dict[str, Any] | None:
    """What depth_spec.json states of a `DepthSpec`, by its fields, without what it leaves open; None without a file.

    Raises:
        ConfigError: as `read_spec_file`, or it is not a DepthSpec.
    """
    written = read_spec_file(root)
    if written is None:
        return None
    said = {name: value for name, value in written.items() if name not in _EXTRA_KEYS}
    try:
        _spec_from(said)
    except ConfigError as error:
        raise ConfigError(f"{root / SPEC_FILE}: {error}") from error
    return said


def invalid_values_of(kind: str) -> tuple[float, ...]:
    """Stored values that mean "nothing here" where a depth_spec.json says the kind alone."""
    return _INVALID_VALUES[kind]


def read_spec_file(root: Path) -> dict[str, Any] | None:
    """The content of depth_spec.json, or None where there is none.

    Raises:
        ConfigError: not a JSON object, or a first_frame that is no number, at least 0.
    """
    path = root / SPEC_FILE
    try:
        stamp = path.stat()
    except FileNotFoundError:
        return None
    return dict(_parse_spec_file(path, stamp.st_mtime_ns, stamp.st_size))


@lru_cache(maxsize=16)
def _parse_spec_file(path: Path, modified: int, size: int) -> dict[str, Any]:
    try:
        content = read_json_object(path)
    except (OSError, ValueError) as error:
        example = '{"kind": "metric", "unit": "millimetre"}'
        raise ConfigError(f"{path} cannot be read as JSON ({error}); expected an object such as {example}.") from error
    if content.get("first_frame") is not None:
        name = f"{path}: first_frame (the number of a video's first frame)"
        check_value(name, content["first_frame"], int, Range(low=0))
    return content


def _spec_from(values: dict[str, Any]) -> DepthSpec:
    kind = values.get("kind", "metric")
    invalid = _INVALID_VALUES.get(kind, ()) if isinstance(kind, str) else ()
    spec = DepthSpec.from_dict({"invalid_values": invalid, **values})
    if spec.kind == "metric" and (hint := reciprocal_hint(spec.scale)):
        raise ConfigError(hint)
    return spec


def _how_to_state(root: Path) -> str:
    place = "does not exist" if not root.is_dir() else f"has no {SPEC_FILE}, nor has any folder above it"
    return (
        f"the depth folder {root} {place}, so the meaning of its values is unknown. "
        f'scripts/extract_depth.py writes this file. For other depth, write {root / SPEC_FILE}: {{"kind": "inverse"}} '
        'for monodepth2 disparity or {"kind": "metric", "unit": "millimetre"} (with "first_frame": 1 if files are '
        "numbered from 1), or pass --data.options.depth_kind inverse."
    )

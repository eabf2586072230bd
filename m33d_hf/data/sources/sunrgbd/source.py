"""The `sunrgbd` source: 10,335 frames of four cameras, with the toolbox's split and its 37 classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.files.data_set_tables import read_matlab
from m33d_hf.data.files.files import RGB_SUFFIXES
from m33d_hf.data.files.packed import packed_name
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.nyu40 import NYU40, UNLABELLED
from m33d_hf.data.options import choose
from m33d_hf.data.packed_formats.sun_mat import num_frames
from m33d_hf.data.plural import plural
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import Sequences, SplitChoice, canonical_split
from m33d_hf.errors import CorruptFileError, DataError, MissingSplitError

NUM_CLASSES = 37  # the first of NYU40's, with its names
DEPTHS = ("depth_bfx", "depth")
_LABELS, _META = "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat", "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
_SPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
_ARRAYS = {"train": "alltrain", "test": "alltest"}
_TOP = "SUNRGBD"  # after it in the toolbox's paths comes the frame's folder
_SCENES = "sun3ddata"  # below it, a folder per scene
_DEEP = 6
_AS_OBJECTS = {"squeeze_me": True, "struct_as_record": False}


class SunRgbdSource(FrameSource):
    """SUN RGB-D: a folder per frame with `image/`, `depth/` and `depth_bfx/`, in `kv1`, `kv2`, `realsense` and `xtion`.

    Depth is stored in millimetres with its bits rotated by three; the unit `sunrgbd` reverses this.

    Args:
        root: the folder of `SUNRGBD` and `SUNRGBDtoolbox`, or any folder with frames below it (no split, no labels).
        split: `train` (5,285), `test` (5,050), or None / `all`. There is no validation split.
        depth: `depth_bfx` (holes filled in by multi-view fusion and filtering) or `depth` (as measured).
        labels: `none`, or `auto`: 37 classes from the toolbox's `SUNRGBD2Dseg.mat`.
        align, orientation, depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the
            `folder` source.

    Raises:
        ConfigError: an unknown split.
        DataError: no frame, or a required file of the toolbox is missing.
    """

    name = "sunrgbd"
    group_word = "scenes or single images"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        depth: str = "depth_bfx",
        labels: str = "none",
        align: str = "refuse",
        orientation: str = "refuse",
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
    ) -> None:
        root = Path(root).expanduser()
        choose("depth", depth, DEPTHS)
        choose("labels", labels, ("none", "auto"))
        unpaired: list[Unpaired] = []
        notes: list[str] = []
        frames = _find_frames(root, depth, unpaired)
        notes.append(f"{plural(len(frames), 'frame')}; depth is {depth}")
        if labels == "auto":
            frames = _with_labels(root, frames, unpaired)
            notes.append(f"{len(frames)} of them have label maps of {NUM_CLASSES} classes")
        unit = "sunrgbd" if depth_unit is None and depth_scale is None and depth_kind is None else depth_unit
        super().__init__(
            root,
            {self.name: list(frames.values())},
            unit="frames",
            split=SplitChoice(split),
            depth_options=DepthOptions(unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth),
            label_rules=_label_rules() if labels == "auto" else None,
            align=align,
            fps=None,
            unpaired=unpaired,
            notes=notes,
            orientation=orientation,
        )

    def _of_split(self, root: Path, sequences: Sequences, wanted: SplitChoice) -> tuple[Sequences, str]:
        """The frames of a split as the toolbox lists it.

        Raises:
            ConfigError: an unknown split.
            DataError: no list, or no frame of this split.
        """
        if wanted.name is None or wanted.name == "all":
            return sequences, "all frames, not split"
        name = canonical_split(wanted.name)
        if name not in _ARRAYS:
            raise MissingSplitError(
                "SUN RGB-D has the splits train and test, but no validation split; evaluate on test (--data.eval_split "
                "test)",
                instead="test",
            )
        path = _toolbox(root, _SPLIT)
        arrays = read_matlab(path, **_AS_OBJECTS)
        entries = {key: np.atleast_1d(arrays.get(key, ())) for key in _ARRAYS.values()}
        listed = {key: {_frame_folder(entry) for entry in found} for key, found in entries.items()}
        if not all(listed.values()) or listed["alltrain"] & listed["alltest"]:
            raise CorruptFileError(path, "does not hold two disjoint lists alltrain and alltest")
        official = listed[_ARRAYS[name]]
        chosen = [frame for frame in sequences[self.name] if _frame_folder(frame.key) in official]
        if not chosen:
            raise DataError(f"{root} has no frame of split {name} as listed in {path}")
        return {self.name: chosen}, f"split {name} of {path.name}: {len(chosen)} of {len(official)} frames"

    def groups(self) -> list[str] | None:
        """The scene of a frame of SUN3D, which took several of each; of other frames the frame itself."""
        keys = [PurePosixPath(sequence.key) for sequence in self.sequences]
        return [str(key.parent if _SCENES in key.parts else key) for key in keys]


def _label_rules() -> LabelRules:
    return LabelRules(NUM_CLASSES, list(NYU40.values())[:NUM_CLASSES], offset=1, ignore=[UNLABELLED])


def _find_frames(root: Path, depth: str, unpaired: list[Unpaired]) -> dict[str, Frame]:
    """Folder of the frame, relative to the root -> frame; folders without depth go to `unpaired`.

    Raises:
        DataError: the root is not a folder, or holds no frame.
    """
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is not a folder")
    frames: dict[str, Frame] = {}
    below = [("", 0)]
    while below:
        folder, level = below.pop()
        entries = {entry.name for entry in os.scandir(root / folder) if entry.is_dir() and entry.name[0] != "."}
        if {"image", "depth"} <= entries:
            rgb, stored = _only_file(root, folder, "image"), _only_file(root, folder, depth)
            if rgb is None or stored is None:
                missing = "picture in image" if rgb is None else f"map in {depth}"
                unpaired.append(Unpaired(folder or ".", f"not exactly one {missing}"))
                continue
            frames[folder] = Frame(folder or root.name, rgb, stored)
        elif level < _DEEP:
            inside = sorted(entries - {"SUNRGBDtoolbox"})
            below += [(f"{folder}/{name}" if folder else name, level + 1) for name in inside]
    if not frames:
        raise DataError(
            f"{root} holds no frame of SUN RGB-D. Expected folders with image/ and {depth}/ that hold one file each, "
            "such as SUNRGBD/kv1/NYUdata/NYU0001."
        )
    return dict(sorted(frames.items()))


def _only_file(root: Path, folder: str, name: str) -> str | None:
    """The only picture in a folder; None if there is none, or several."""
    place = root / folder / name
    if not place.is_dir():
        return None
    files = [path.name for path in place.iterdir() if path.suffix.lower() in RGB_SUFFIXES and path.name[0] != "."]
    return PurePosixPath(folder, name, files[0]).as_posix() if len(files) == 1 else None


def _toolbox(root: Path, name: str) -> Path:
    for place in (root / name, root.parent / name):
        if place.is_file():
            return place
    raise DataError(f"{name} of SUN RGB-D's toolbox is neither in {root} nor beside it; splits and labels require it")


def _frame_folder(stated: object) -> str:
    """`kv1/NYUdata/NYU0001` from a path in the toolbox, `/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU0001`."""
    parts = PurePosixPath(str(stated)).parts
    return "/".join(parts[parts.index(_TOP) + 1 :] if _TOP in parts else parts)


def _by_toolbox_name(frames: Mapping[str, Frame]) -> dict[str, str]:
    """The toolbox's name of a frame's folder -> ours."""
    return {_frame_folder(folder): folder for folder in frames}


def _with_labels(root: Path, frames: Mapping[str, Frame], unpaired: list[Unpaired]) -> dict[str, Frame]:
    """The frames that have a label map, with it; the toolbox's metadata assign the maps to frames.

    Raises:
        DataError: a file is missing, or two files disagree.
    """
    path, meta = _toolbox(root, _LABELS), _toolbox(root, _META)
    entries = np.atleast_1d(read_matlab(meta, **_AS_OBJECTS).get("SUNRGBDMeta", ()))
    if len(entries) != (count := num_frames(path)) or not all(hasattr(entry, "rgbpath") for entry in entries):
        raise CorruptFileError(
            meta, f"describes {plural(len(entries), 'frame')}, but {path.name} has {count} label maps"
        )
    base = path.parents[2]
    file = os.path.relpath(base, root)
    name = PurePosixPath(_LABELS).as_posix() if file == "." else PurePosixPath(Path(file, _LABELS)).as_posix()
    known = _by_toolbox_name(frames)
    labelled: dict[str, Frame] = {}
    for number, entry in enumerate(entries):
        folder = known.get(_frame_folder(PurePosixPath(str(entry.rgbpath)).parents[1]))
        if folder is not None:
            frame = frames[folder]
            labelled[folder] = Frame(frame.key, frame.rgb, frame.depth, packed_name(name, "seglabel", number))
    unpaired += [Unpaired(folder, "no label map in the toolbox") for folder in frames if folder not in labelled]
    if not labelled:
        raise DataError(f"{meta} describes none of the {len(frames)} frames under {root}")
    return dict(sorted(labelled.items()))

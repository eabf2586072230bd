"""Finds ScanNet's scenes under a root and the frames of each: `.sens` recordings, exports, `scannet_frames_25k`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from m33d_hf.data.files.packed import packed_name
from m33d_hf.data.packed_formats.sens import SensHeader, read_index
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, nearest_name_hint

SCENE = re.compile(r"scene\d{4}_\d{2}")
LAYOUTS = ("auto", "sens", "exported", "frames_25k")
# Folders of label maps in a scene's folder, in order of preference: filtered labels are the clean ones.
LABEL_FOLDERS = ("label-filt", "label_filt", "labels-filt", "label", "labels")
_COLOUR_SUFFIXES = (".jpg", ".jpeg", ".png")
_DEEP = 4  # levels of folders below the root that are searched for scenes
_PADDED = 6  # digits of the names in scannet_frames_25k


@dataclass(frozen=True)
class Scene:
    """One scan: its frames by number, and their layout.

    Attributes:
        name: `scene0000_00`.
        frames: those that are kept, in the order of their numbers.
        layout: `sens`, `exported` or `frames_25k`.
        header: of its recording; None for pictures.
        label_folder: name of the folder of its labels; None without labels.
        unpaired: files that are left out, with the reason.
        found: number of frames before `every` is applied.
    """

    name: str
    frames: list[Frame]
    layout: str
    header: SensHeader | None = None
    label_folder: str | None = None
    unpaired: list[Unpaired] = field(default_factory=list)
    found: int = 0


@dataclass(frozen=True)
class SceneOptions:
    """Options for reading a scene.

    Attributes:
        layout: one of `LAYOUTS`; `auto` reads pictures if there are any, otherwise the recording.
        labels: `auto`, `none` or the name of a folder.
        every: frames whose number is a multiple of it are kept.
        require_labels: leave out frames without a label map.
    """

    layout: str
    labels: str
    every: int
    require_labels: bool

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            hint = nearest_name_hint(self.layout, LAYOUTS)
            raise ConfigError(f"layout is {self.layout!r}; it must be one of {', '.join(LAYOUTS)}.{hint}")
        if self.every < 1:
            raise ConfigError(f"every is {self.every}; it must be at least 1")


def find_scenes(root: Path, options: SceneOptions) -> list[Scene]:
    """Every scene under `root` with at least one frame or one file that is left out, in the order of their names.

    Raises:
        DataError: `root` is not a folder, or holds no scene.
    """
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is not a folder")
    folders = _scene_folders(root)
    if not folders:
        raise DataError(
            f"{root} holds no scene of ScanNet. Expected folders named scene0000_00 (at the root, or in scans/ below "
            "it) "
            "with scene0000_00.sens, or with color/, depth/ and label/ or label-filt/. Use the source 'folder' for "
            "your "
            "own frames."
        )
    return [_read_scene(root, folder, options) for folder in folders]


def _scene_folders(root: Path) -> list[Path]:
    if SCENE.fullmatch(root.name):
        return [root]
    found: dict[str, Path] = {}
    below = [(root, 0)]
    while below:
        folder, depth = below.pop()
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            if not entry.is_dir() or entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if SCENE.fullmatch(entry.name):
                if (other := found.setdefault(entry.name, path)) != path:
                    raise DataError(f"the scene {entry.name} exists twice: {other} and {path}. Pass one as the root.")
            elif depth + 1 < _DEEP:
                below.append((path, depth + 1))
    return [found[name] for name in sorted(found)]


def _read_scene(root: Path, folder: Path, options: SceneOptions) -> Scene:
    recording = folder / f"{folder.name}.sens"
    held = {entry.name: entry.is_dir() for entry in os.scandir(folder)}  # listed once: a scan may lie far away
    missing = [name for name in ("color", "depth") if not held.get(name)]
    if options.layout == "sens" or (options.layout == "auto" and held.get(recording.name) is False and missing):
        return _recorded(root, folder, held, recording, options)
    if missing:
        why = f"no folder {' and no '.join(missing)}" + ("" if options.layout != "auto" else f", no {recording.name}")
        return Scene(folder.name, [], options.layout, unpaired=[Unpaired(_relative(root, folder), why)])
    return _exported(root, folder, held, options)


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _prefix(root: Path, folder: Path) -> str:
    """The prefix of the names of a scene's files."""
    where = _relative(root, folder)
    return "" if where == "." else f"{where}/"


def _numbered(folder: Path, suffixes: tuple[str, ...]) -> tuple[dict[int, str], list[str]]:
    """Number -> name of the files of a folder, and the names that are not numbers."""
    found: dict[int, str] = {}
    others = []
    for entry in os.scandir(folder):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in suffixes and stem.isdecimal() and int(stem) not in found:
            found[int(stem)] = entry.name
        elif not entry.name.startswith("."):
            others.append(entry.name)
    return found, sorted(others)


def _label_folder(folder: Path, held: Mapping[str, bool], labels: str) -> str | None:
    if labels == "none":
        return None
    if labels != "auto":
        return labels if (folder / labels).is_dir() else None  # of any depth
    return next((name for name in LABEL_FOLDERS if held.get(name)), None)


def _labels_of(folder: Path, held: Mapping[str, bool], options: SceneOptions) -> tuple[str | None, dict[int, str]]:
    name = _label_folder(folder, held, options.labels)
    return name, {} if name is None else _numbered(folder / name, (".png",))[0]


def _recorded(root: Path, folder: Path, held: Mapping[str, bool], recording: Path, options: SceneOptions) -> Scene:
    file = _relative(root, recording)
    try:
        index = read_index(recording)
    except CorruptFileError as error:
        return Scene(folder.name, [], "sens", unpaired=[Unpaired(file, error.reason)])
    unpaired = [] if index.lack is None else [Unpaired(file, f"{index.lack}; the first {index.num_frames} are used")]
    pictured = 0 not in index.header.color_size
    numbers = {
        number: {"depth": packed_name(file, "depth", number)}
        | ({"rgb": packed_name(file, "color", number)} if pictured else {})
        for number in range(0, index.num_frames, options.every)
    }
    return _scene(root, folder, held, numbers, options, "sens", unpaired, index.header, index.num_frames)


def _exported(root: Path, folder: Path, held: Mapping[str, bool], options: SceneOptions) -> Scene:
    color, _ = _numbered(folder / "color", _COLOUR_SUFFIXES)
    depth, _ = _numbered(folder / "depth", (".png",))
    padded = all(len(PurePosixPath(name).stem) == _PADDED for name in color.values())
    layout = options.layout if options.layout != "auto" else "frames_25k" if padded and color else "exported"
    lonely = [Unpaired(_relative(root, folder / "color" / color[n]), "no depth") for n in sorted(color.keys() - depth)]
    lonely += [
        Unpaired(_relative(root, folder / "depth" / depth[n]), "no colour") for n in sorted(depth.keys() - color)
    ]
    both = sorted(color.keys() & depth)
    where = _relative(root, folder)
    prefix = "" if where == "." else f"{where}/"
    numbers = {
        number: {"rgb": f"{prefix}color/{color[number]}", "depth": f"{prefix}depth/{depth[number]}"}
        for number in both
        if number % options.every == 0
    }
    return _scene(root, folder, held, numbers, options, layout, lonely, None, len(both))


def _scene(
    root: Path,
    folder: Path,
    held: Mapping[str, bool],
    numbers: Mapping[int, Mapping[str, str]],
    options: SceneOptions,
    layout: str,
    unpaired: list[Unpaired],
    header: SensHeader | None,
    found: int,
) -> Scene:
    """The frames of a scene, each with its label map if it has one."""
    label_folder, maps = _labels_of(folder, held, options)
    where = _prefix(root, folder)
    frames = []
    for number, files in numbers.items():
        labels = None if number not in maps else f"{where}{label_folder}/{maps[number]}"
        if labels is None and options.require_labels:
            unpaired.append(Unpaired(files.get("rgb", files["depth"]), "no label map"))
            continue
        frames.append(Frame(f"{folder.name}/{number}", files.get("rgb"), files["depth"], labels))
    return Scene(folder.name, frames, layout, header, label_folder, unpaired, found)

"""The `scenes` source: RGB-D frames of large indoor data sets through scenezoo."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.nyu40 import NYU40, UNLABELLED
from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.frames.reading import ALIGNMENTS, Frame
from m33d_hf.data.sources.frames.splits import Sequences, canonical_split
from m33d_hf.data.sources.frames.windows import cut_windows, thin_out
from m33d_hf.data.sources.scenes.handles import METRES, SceneHandle, SceneReader
from m33d_hf.data.sources.scenes.scene_library import Library, load_library
from m33d_hf.data.sources.scenes.tables import REGISTER, SEMANTIC, SceneSet, scene_set
from m33d_hf.errors import ConfigError, DataError, M33DError, MissingSplitError, first_line

_VERIFIED = "arkitscenes"


class ScenesSource(Source):
    """ScanNet++, ARKitScenes, Matterport3D, MultiScan, 3RScan, Structured3D and Aria Synthetic Environments.

    The library scenezoo (`pip install 'm33d-hf[scenes]'`) finds and decodes the files as each data set lays them out.
    Depth comes in metres along the optical axis; that of Aria, which lies along the rays of its fisheye camera, is
    converted. Frames whose camera pose is invalid are left out, as the library does. Panoramas are refused.

    Args:
        root: the data set's folder, as it is downloaded and unpacked.
        dataset: `scannetpp`, `arkitscenes`, `matterport3d`, `multiscan`, `3rscan`, `structured3d` or `ase`.
        split: `train`, `validation` (`val`), `test`, or None / `all`: the data set's own; not all have all three.
        unit: `frames` (each frame an item) or `clips` (each scene, or room of Structured3D, an item).
        stream: camera: `iphone` of ScanNet++; `lowres_wide`, `wide`, `mov` or `threedod` of ARKitScenes; `undistorted`
            or `raw` of Matterport3D; None takes the first of these.
        every: keep every k-th frame of a scene.
        labels: `none` or `auto`: semantic classes of Structured3D (NYU40), instance ids of Aria (the modality
            `instances`, exact as float32). The others have no label maps of pictures.
        align: `rgb_to_depth`, `depth_to_rgb` or `refuse`, as in the `folder` source, or `register`, which registers
            depth into the colour picture by the intrinsics of both. None: `register` for 3RScan, whose cameras see
            different parts of the scene, else `rgb_to_depth`.
        upright: turn the pictures of hand-held devices upright, as the data set says.
        tables: local files in place of lists and tables that the library loads from the network, by the names of its
            arguments, such as `{split_file: PATH}` for MultiScan.
        offline: never load from the network.
        min_depth, max_depth: metres; depth outside is invalid.
        fps: frames per second of the scenes, where they are not timed.
        min_frames, clip_length, windows: as in the `folder` source.

    Raises:
        MissingDependencyError: scenezoo is not installed.
        ConfigError: an unknown data set, stream or split, or options that contradict each other.
        DataError: no frame, or a list of scenes that cannot be read.
    """

    name = "scenes"
    group_word = "scenes"
    root: Path
    notes: list[str]
    unpaired: list[Unpaired]

    def __init__(
        self,
        root: str | Path,
        dataset: str,
        split: str | None = None,
        unit: str = "frames",
        stream: str | None = None,
        every: int = 1,
        labels: str = "none",
        align: str | None = None,
        upright: bool = True,
        tables: Mapping[str, str] | None = None,
        offline: bool = False,
        min_depth: float | None = None,
        max_depth: float | None = None,
        fps: float | None = None,
        min_frames: int | None = None,
        clip_length: int | None = None,
        windows: int | None = None,
    ) -> None:
        found = scene_set(dataset)
        choose("labels", labels, ("none", "auto"))
        align = found.align if align is None else align
        choose("align", align, (*ALIGNMENTS, REGISTER))
        _refuse(found, dataset, labels, align)
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise DataError(f"data root {str(root)!r} is not a folder")
        load_library()
        stated = tuple(sorted((str(key), str(value)) for key, value in (tables or {}).items()))
        library = Library(found, str(self.root), found.stream(stream), stated, offline, upright)
        item = found.labels if labels == "auto" else None
        rules = None
        if item == SEMANTIC:
            rules = LabelRules(len(NYU40), list(NYU40.values()), offset=1, ignore=[UNLABELLED])
        self.depth_spec = METRES.with_changes(unit="metre", min_depth=min_depth, max_depth=max_depth)
        self.class_names = None if rules is None else list(NYU40.values())
        self.reader = SceneReader(library, self.depth_spec, align, item, rules)
        self.notes, self.unpaired = [], []
        sequences, rates = self._found(library, _split_of(found, split))
        if not sequences:
            raise DataError(_nothing(found, self.root, self.unpaired, self.notes))
        kept = thin_out(sequences, unit, every, min_frames, self.unpaired, clip_length)
        total, scenes = sum(len(frames) for frames in kept.values()), len({_scene_of(key) for key in kept})
        via = "" if library.stream is None else f", stream {library.stream}"
        self.notes.append(
            f"{plural(total, 'frame')} of {scenes} scenes of {found.title}{via}; depth in metres along the axis"
        )
        self.notes.append(
            f"split {split} as in the data set" if split not in (None, "all") else "all frames, not split"
        )
        if dataset != _VERIFIED:
            self.notes.append(f"the reading of {found.title} has not been tried on its files: look at some samples")
        self._items = self._handles(kept, unit, clip_length, windows, fps, every, rates)
        self._groups = [item_.scene for item_ in self._items]

    def _found(self, library: Library, split: str | None) -> tuple[Sequences, dict[str, float]]:
        """Sequence (scene, or scene/room) -> its frames, and frames per second where times are known."""
        sequences: Sequences = {}
        rates: dict[str, float] = {}
        absent: list[str] = []
        for scene in library.scenes(split):
            try:
                for room in library.parts(scene):
                    key = scene if room is None else f"{scene}/{room}"
                    numbers, times = library.numbers(scene, room)
                    if not len(numbers):
                        self.unpaired.append(Unpaired(key, "no frame with colour, depth and a valid camera"))
                        continue
                    sequences[key] = [Frame(f"{key}/{number:06d}") for number in numbers]
                    steps = np.diff(times) if times is not None else np.zeros(0)
                    if len(steps) and (step := float(np.median(steps))) > 0:
                        rates[key] = 1 / step
            except (M33DError, ImportError):
                raise
            except FileNotFoundError as error:
                absent.append(f"{scene}: {error}")
            except Exception as error:  # of a library whose readers raise what their files make them raise
                self.unpaired.append(Unpaired(scene, f"cannot be listed ({first_line(error)})"))
        if absent:
            self.notes.append(
                f"{plural(len(absent), 'scene')} of the list {agree(len(absent), 'is', 'are')} not among the "
                f"files, the first: {absent[0]}"
            )
        return sequences, rates

    def _handles(
        self,
        kept: Sequences,
        unit: str,
        clip_length: int | None,
        windows: int | None,
        fps: float | None,
        every: int,
        rates: Mapping[str, float],
    ) -> list[SceneHandle]:
        if unit == "frames":
            return [self._handle(frame.key, key, [frame]) for key, frames in kept.items() for frame in frames]
        parts = cut_windows(kept, clip_length, windows, self.notes)  # type: ignore[arg-type]
        handles = []
        for name, window in parts.items():
            key, frames = window.sequence, window.frames
            rate = fps if fps is not None else rates[key] / every if key in rates else None
            handles.append(self._handle(name, key, list(frames), rate))
        return handles

    def _handle(self, name: str, key: str, frames: list[Frame], fps: float | None = None) -> SceneHandle:
        numbers = tuple(int(frame.key.rpartition("/")[2]) for frame in frames)
        library = self.reader.opened
        scene, _, room = key.rpartition("/") if library.set.rooms else (key, "", None)
        return SceneHandle(name, str(scene), room, numbers, self.reader, fps)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> SceneHandle:
        if not -len(self._items) <= index < len(self._items):
            raise IndexError(f"item {index} of a source of {len(self._items)}")
        return self._items[index]

    def groups(self) -> list[str] | None:
        """The scene of every item; None where all are of one."""
        return self._groups if len(set(self._groups)) > 1 else None

    def digest(self) -> str:
        """Digest of the names and numbers of the frames and of how they are read; files are not looked at."""
        reader, library = self.reader, self.reader.opened
        state = {
            "source": self.name,
            "dataset": library.set.known_as,
            "stream": library.stream,
            "upright": library.upright,
            "align": reader.align,
            "depth": reader.depth_spec.to_dict(),
            "labels": reader.label_item,
        }
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
        for item in self._items:
            digest.update(f"\n{item.key} {item.numbers}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _scene_of(key: str) -> str:
    return key.partition("/")[0]


def _refuse(found: SceneSet, dataset: str, labels: str, align: str) -> None:
    """Raise a ConfigError for labels that there are not, and for rays that cannot be registered."""
    if labels != "none" and found.labels is None:
        raise ConfigError(f"labels={labels}: {found.title} has no label maps of its pictures that scenezoo reads")
    if dataset == "ase" and align == REGISTER:
        raise ConfigError(
            f"align=register: colour and depth of {found.title} are of one fisheye camera and fit already"
        )


def _split_of(found: SceneSet, split: str | None) -> str | None:
    """The library's name of a split, None for all.

    Raises:
        MissingSplitError: the data set has no such split.
    """
    if split is None or split == "all":
        return None
    name = canonical_split(split)
    if name not in found.splits:
        raise MissingSplitError(
            f"{found.title} has no split {name!r} with depth; it has {', '.join(found.splits)}. Evaluate on one of "
            "these, or read everything with split 'all'",
            "test" if "test" in found.splits else None,
        )
    return found.splits[name]


def _nothing(found: SceneSet, root: Path, unpaired: list[Unpaired], notes: list[str]) -> str:
    reasons = Counter(entry.reason for entry in unpaired).most_common(2)
    told = "; ".join([*notes, *(f"{reason} ({count} times)" for reason, count in reasons)])
    told = told or "its list of scenes is empty"
    return f"{root} has no usable frame of {found.title}: {told}"

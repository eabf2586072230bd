"""The `ucf101` source: class folders of videos, the official train and test lists, optional depth beside the videos."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.depth.maps import (
    DEPTH_FOLDERS,
    DepthMaps,
    depth_keys,
    find_depth_of,
    how_to_extract,
    read_sidecar_spec,
)
from m33d_hf.data.files.data_set_tables import stated_places
from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.actions.ucf101_files import VideoTree, list_videos
from m33d_hf.data.sources.actions.ucf101_folders import find_class_folders
from m33d_hf.data.sources.actions.ucf101_lists import (
    CLASS_FILE,
    Listed,
    find_lists,
    read_classes,
    select_entries,
)
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint
from m33d_hf.modeling.depth_m33d import DepthSpec

logger = logging.getLogger(__name__)

SPLIT_INDICES = (1, 2, 3)


class Ucf101Source(Source):
    """UCF-101, or your own videos in its layout: ROOT/Class/video.avi (also below ROOT/UCF-101) and its lists.

    Videos of your own need no lists: without any, the folders are the classes in the order of their names, and a fifth
    of each one's videos, drawn by name, is the validation and test split.

    Args:
        root: folder of the data.
        split: "train", "validation" or "test", or None / "all" for both lists. The official lists have no validation
            part: without `validation_fraction` it is the test list.
        split_index: 1 to 3, which pair of lists (trainlist01.txt and testlist01.txt, ...).
        lists: folder of classInd.txt and the lists; None looks in the root and in ucfTrainTestlist in or beside it.
        validation_fraction: share of each class's groups (gNN: clips of one longer video) that is taken out of the
            training list and becomes the validation split, in (0, 1). The draw depends on the names alone.
        missing: "error" stops at a listed video that is missing; "skip" leaves it out and lists it in `unpaired`.
        depth: None or "none"; "auto" takes ROOT/depth where it exists; or the folder of the depth (see
            `m33d_hf.data.depth.maps`).
        require_depth: a video without depth counts as missing; False keeps it as RGB only.
        depth_unit, depth_scale, depth_kind, min_depth, max_depth: as in the `folder` source; only where no
            depth_spec.json says it.
        backend: reader of the videos, see `m33d_hf.modeling.video_reading_m33d.probe_video`.

    Attributes:
        root, action_names, class_names (None), depth_spec: see `Source`.
        unpaired: videos and folders that are not used, with the reason.
        notes: sentences on what was found, for logs and the dry run.

    Raises:
        ConfigError: an invalid option, or depth of unknown meaning.
        DataError: lists that are missing or contradict each other or the folders; a missing video.
    """

    name = "ucf101"

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        split_index: int = 1,
        lists: str | None = None,
        validation_fraction: float | None = None,
        missing: str = "error",
        depth: str | None = None,
        require_depth: bool = True,
        depth_kind: str | None = None,
        depth_unit: str | None = None,
        depth_scale: float | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        backend: str = "auto",
    ) -> None:
        self.root: Path = Path(root).expanduser()
        if not self.root.is_dir():
            raise DataError(f"data root {str(root)!r} is not a folder; set --data.root to the UCF-101 folder")
        choose("missing", missing, ("error", "skip"))
        if split_index not in SPLIT_INDICES:
            raise ConfigError(f"split_index is {split_index!r}; UCF-101 has the splits 1, 2 and 3")
        if validation_fraction is not None and not 0.0 < validation_fraction < 1.0:
            raise ConfigError(f"validation_fraction is {validation_fraction}; it must be between 0 and 1")
        self.unpaired: list[Unpaired] = []
        self.notes: list[str] = []
        self.class_names: list[str] | None = None
        self.action_names: list[str] | None
        self.split_note: str | None = None  # lists are nobody's surprise; a draw is told
        folders = find_class_folders(self.root, lists)
        if folders is not None:
            folder, self.action_names = folders.base, folders.names
            entries, how = folders.select(split, validation_fraction)
            self.split_note = how
            self.notes.append(f"{plural(len(folders.names), 'class')}, the folders of {folder}; {how}")
        else:
            folder = find_lists(self.root, lists)
            self.action_names = read_classes(folder / CLASS_FILE)
            entries, how = select_entries(folder, self.action_names, split, split_index, validation_fraction)
            self.notes.append(f"{plural(len(self.action_names), 'class')} of {folder / CLASS_FILE}; {how}")
        tree = list_videos(self.root, self.action_names)
        self._note_strangers(tree)
        found = self._find_videos(tree, entries, folder, missing)
        depth_root = _depth_root(depth, self.root, tree.base)
        self.depth_spec: DepthSpec | None = None
        maps: dict[str, DepthMaps] = {}
        if depth_root is not None:
            self.depth_spec = read_sidecar_spec(
                depth_root, depth_kind, depth_scale, depth_unit, min_depth=min_depth, max_depth=max_depth
            )
            found, maps = self._find_depth(depth_root, tree, found, require_depth, missing)
        elif depth == "auto":
            self.notes.append(f"no depth: there is no {self.root / 'depth'}")
        self._videos = [
            VideoFile(entry.key, Path(path), maps.get(entry.key), entry.label, tree.base, backend)
            for entry, path in found
        ]
        self._labels = [entry.label for entry, _ in found]
        if self.unpaired:
            first = self.unpaired[0]
            logger.warning("%s: %d left out; the first: %s (%s)", root, len(self.unpaired), first.path, first.reason)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> VideoFile:
        """Handle of a video; its key is "Class/video" as listed, without suffix.

        Raises:
            IndexError: `index` lies outside the source.
        """
        if not -len(self._videos) <= index < len(self._videos):
            raise IndexError(f"item {index} of a source of {len(self._videos)}")
        return self._videos[index]

    def labels(self) -> list[int] | None:
        """Class id of every video, 0-based."""
        return list(self._labels)

    def groups(self) -> list[str]:
        """Key of every video: low-label draws take videos."""
        return [video.key for video in self._videos]

    def digest(self) -> str:
        """Digest of names, labels, sizes in bytes and reading rules; modification times and the location of the root do
        not count."""
        rules = {
            "source": self.name,
            "classes": self.action_names,
            "depth": self.depth_spec.to_dict() if self.depth_spec else None,
        }
        state = hashlib.sha256(json.dumps(rules, sort_keys=True).encode())
        for video, label in zip(self._videos, self._labels, strict=True):
            path = video.file
            size = path.stat().st_size if path.is_file() else len(list(path.iterdir())) if path.is_dir() else -1
            state.update(f"\n{video.key} {label} {size} {video.depth is not None}".encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def _note_strangers(self, tree: VideoTree) -> None:
        for folder in tree.strangers:
            if folder.lower() in DEPTH_FOLDERS:
                self.unpaired.append(Unpaired(folder, "depth is read from pictures and arrays, not from videos"))
                continue
            hint = nearest_name_hint(folder, self.action_names or [])
            self.unpaired.append(
                Unpaired(folder, f"a folder of videos whose name is not a class of {CLASS_FILE}.{hint}")
            )

    def _find_videos(
        self, tree: VideoTree, entries: Sequence[Listed], folder: Path, missing: str
    ) -> list[tuple[Listed, str]]:
        """(line, path below the tree's base) of the listed videos."""
        places = [(entry, tree.find(entry)) for entry in entries]
        absent = [entry for entry, path in places if path is None]
        if absent and missing == "error":
            first = absent[0]
            raise DataError(
                f"{folder / first.file}, line {first.line}: the video {first.path} is not under {tree.base} "
                f"({len(absent)} of {len(entries)} listed videos are missing).{tree.hint(first)} Complete the data, or "
                "train on the existing videos: --data.options.missing skip."
            )
        self.unpaired += [
            Unpaired(entry.path, f"{entry.file}, line {entry.line}: listed, but missing") for entry in absent
        ]
        found = [(entry, path) for entry, path in places if path is not None]
        if not found:
            raise DataError(
                f"none of the {len(entries)} videos listed in {folder} is under {tree.base}.{tree.hint(entries[0])}"
            )
        missing = f", {len(absent)} missing" if absent else ""
        self.notes.append(f"{plural(len(found), 'video')} under {tree.base}{missing}")
        respelled = [(entry, path) for entry, path in found if path != entry.path]
        if respelled:
            entry, path = respelled[0]
            what = agree(len(respelled), "video is", "videos are")
            self.notes.append(
                f"{len(respelled)} {what} spelled differently from the list, such as {path} for {entry.path}"
            )
        return found

    def _find_depth(
        self, depth_root: Path, tree: VideoTree, found: list[tuple[Listed, str]], required: bool, missing: str
    ) -> tuple[list[tuple[Listed, str]], dict[str, DepthMaps]]:
        """The videos that stay, and their depth by key."""
        maps: dict[str, DepthMaps] = {}
        without: list[tuple[Listed, str]] = []
        for entry, path in found:
            names = dict.fromkeys([*depth_keys(tree.base / path, (tree.base, self.root)), entry.key])
            depth = find_depth_of(depth_root, list(names), self.depth_spec)
            if depth is None:
                without.append((entry, path))
            else:
                maps[entry.key] = depth
        self.notes.append(f"depth of {len(maps)} of {plural(len(found), 'video')} in {depth_root}")
        if not without or not required:
            return found, maps
        first = without[0][0].key
        if missing == "error" or not maps:
            raise DataError(
                f"{len(without)} of {len(found)} videos have no depth in {depth_root}, the first is {first} (expected "
                f"{depth_root / first} as a folder of PNG, or .parquet, .npy, .npz). Extract it: "
                f"{how_to_extract(tree.base, depth_root)}; or leave those videos out with --data.options.missing skip; "
                "or read them without depth: --data.options.require_depth false."
            )
        self.unpaired += [Unpaired(path, f"no depth in {depth_root}") for _, path in without]
        return [(entry, path) for entry, path in found if entry.key in maps], maps


def _depth_root(depth: str | None, root: Path, base: Path) -> Path | None:
    """The sidecar root that the option `depth` means, or None for no depth."""
    if depth is None or depth == "none":
        return None
    if depth == "auto":
        return next((folder for folder in (root / "depth", base / "depth") if folder.is_dir()), None)
    found = next((folder for folder in stated_places(root, depth) if folder.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"depth is {str(depth)!r}, which is not a folder, neither under {root} nor in the current folder; give a "
            "folder, auto or none (--data.options.depth)"
        )
    return found

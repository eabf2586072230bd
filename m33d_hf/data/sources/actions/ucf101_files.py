"""Class folders of videos on disk, and the listed videos in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m33d_hf.data.names import folded
from m33d_hf.data.sources.actions.ucf101_lists import Listed, without_suffix
from m33d_hf.data.sources.videos.files import VIDEO_SUFFIXES
from m33d_hf.errors import DataError, nearest_name_hint

VIDEO_FOLDERS = (".", "UCF-101", "UCF101", "videos")


@dataclass
class VideoTree:
    """Videos on disk, by class folder.

    Attributes:
        base: the folder that holds the class folders.
        videos: folded "class/video" without suffix -> paths below `base`, as spelled on disk.
        folders: folded class -> folder, as spelled on disk.
        strangers: folders of videos whose name is not a class.
    """

    base: Path
    videos: dict[str, list[str]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)

    def find(self, entry: Listed) -> str | None:
        """The listed video, even if its suffix or the case of a letter differs; None if it is missing.

        Raises:
            DataError: several videos could be meant.
        """
        candidates = self.videos.get(folded(entry.key), [])
        if len(candidates) > 1:
            exact = [path for path in candidates if folded(path) == folded(entry.path)]
            candidates = [path for path in exact if path == entry.path] or exact or candidates
        if len(candidates) > 1:
            raise DataError(
                f"{entry.file}, line {entry.line}: {entry.path} could be {' or '.join(sorted(candidates))} under "
                f"{self.base}; keep only one of them."
            )
        return candidates[0] if candidates else None

    def hint(self, entry: Listed) -> str:
        """A hint for a missing video: its folder, or a similar name."""
        folder, _, video = entry.path.partition("/")
        there = self.folders.get(folded(folder))
        if there is None:
            return f" There is no folder {folder}.{nearest_name_hint(folder, self.strangers)}"
        names = [Path(path).name for paths in self.videos.values() for path in paths if path.startswith(f"{there}/")]
        return nearest_name_hint(video, names)


def list_videos(root: Path, names: Sequence[str]) -> VideoTree:
    """Find the class folders and the videos in them: files by suffix, and folders (of frames).

    Raises:
        DataError: no class folder anywhere, or two that differ only in case.
    """
    known = {folded(name) for name in names}
    for place in VIDEO_FOLDERS:
        base = root / place if place != "." else root
        folders = folders_in(base)
        if any(folded(folder) in known for folder in folders):
            break
    else:
        there = ", ".join(folders_in(root)[:8]) or "none"
        hint = next((found for folder in folders_in(root) if (found := nearest_name_hint(folder, names))), "")
        raise DataError(
            f"no class folder under {root}: expected {root / names[0]} or {root / VIDEO_FOLDERS[1] / names[0]} and so "
            f"on, with videos in them. Folders there: {there}.{hint}"
        )
    tree = VideoTree(base)
    for folder in folders:
        videos = videos_in(base / folder)
        plain = folded(folder)
        if plain not in known:
            if any(is_video(name) for name in videos):
                tree.strangers.append(folder)
            continue
        if plain in tree.folders:
            raise DataError(
                f"{base}: {tree.folders[plain]!r} and {folder!r} are two class folders whose names differ only in case"
            )
        tree.folders[plain] = folder
        for name in videos:
            path = f"{folder}/{name}"
            tree.videos.setdefault(folded(without_suffix(path)), []).append(path)
    return tree


def folders_in(base: Path) -> list[str]:
    """Names of the folders in `base`, sorted, without hidden ones; none where there is no such folder."""
    if not base.is_dir():
        return []
    with os.scandir(base) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def is_video(name: str) -> bool:
    """Whether a name has the suffix of a video file; a folder of frames as a rule has none."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def videos_in(folder: Path) -> list[str]:
    """Names of the videos in `folder`, sorted, without hidden ones: files by suffix, and folders (of frames)."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and (is_video(entry.name) or entry.is_dir())
        )

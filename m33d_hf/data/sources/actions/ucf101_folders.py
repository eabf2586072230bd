"""Class folders of one's own without UCF-101's lists: the folders are the classes, and a fifth of each is held out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.data.depth.maps import DEPTH_FOLDERS
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.actions.ucf101_files import VIDEO_FOLDERS, folders_in, is_video, videos_in
from m33d_hf.data.sources.actions.ucf101_lists import CLASS_FILE, Listed, has_lists, hold_out
from m33d_hf.data.sources.frames.splits import canonical_split
from m33d_hf.errors import DataError

HELD_OUT = 0.2
# UCF-101 itself, whose lists are missing: clips of one longer video would be trained and tested on.
_OFFICIAL = re.compile(r"v_\w+_g\d+_c\d+")


@dataclass(frozen=True)
class ClassFolders:
    """Folders of videos, at least two.

    Attributes:
        base: the folder that holds them.
        names: their names, sorted: the classes in id order.
        videos: all of them, by name.
    """

    base: Path
    names: list[str]
    videos: list[Listed]

    def select(self, split: str | None, validation_fraction: float | None) -> tuple[list[Listed], str]:
        """The videos of one split, and a sentence on how they were chosen.

        Raises:
            ConfigError: an unknown split.
            DataError: nothing is left for it.
        """
        wanted = None if split in (None, "all") else canonical_split(str(split))
        if wanted is None:
            return self.videos, f"all {plural(len(self.videos), 'video')}"
        tested = hold_out(self.videos, HELD_OUT)
        rest = [video for video in self.videos if video.group not in tested]
        validated = set() if validation_fraction is None else hold_out(rest, validation_fraction)
        if wanted == "train":
            chosen = [video for video in rest if video.group not in validated]
        elif wanted == "validation" and validation_fraction is not None:
            chosen = [video for video in rest if video.group in validated]
        else:
            chosen = [video for video in self.videos if video.group in tested]
        if not chosen:
            raise DataError(
                f"split {wanted!r} is empty: no class folder of {self.base} has more than one video. Add videos, or "
                f"choose them yourself by {CLASS_FILE} and lists."
            )
        held = f"{HELD_OUT:.0%} of each folder's videos, at least one, drawn by name, are held out for evaluation"
        return chosen, f"split {wanted}: {len(chosen)} of {len(self.videos)} videos; there are no lists, so {held}"


def find_class_folders(root: Path, lists: str | None) -> ClassFolders | None:
    """The class folders of a root without lists; None where there are lists or should be.

    Args:
        root: of the data.
        lists: folder that the user named for the lists; then there should be some.
    """
    if lists is not None or has_lists(root):
        return None
    for place in VIDEO_FOLDERS:
        base = root / place if place != "." else root
        classes = [folder for folder in folders_in(base) if folder.lower() not in DEPTH_FOLDERS]
        folders = {folder: list(filter(is_video, videos_in(base / folder))) for folder in classes}
        found = {folder: names for folder, names in folders.items() if names}
        if len(found) < 2:
            continue
        stems = [Path(name).stem for names in found.values() for name in names]
        if 2 * sum(_OFFICIAL.fullmatch(stem) is not None for stem in stems) > len(stems):
            return None
        videos = [
            Listed(f"{folder}/{name}", label, "class folders", 0)
            for label, (folder, names) in enumerate(found.items())
            for name in names
        ]
        return ClassFolders(base, list(found), videos)
    return None

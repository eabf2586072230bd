"""Depth maps of recorded frames, which lie beside their pictures, not under their names: color/7.jpg + depth/7.png."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.sources.frames.folder import find_frames
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.errors import DataError, first_line


class FramePairs:
    """Pictures and maps of one tree, paired as the source `folder` pairs them in training; from several threads.

    Args:
        folder: of maps. It may hold the pictures as well, or lie below an input folder, beside theirs.
        inputs: of the prediction: files, globs and folders.
    """

    def __init__(self, folder: Path, inputs: Sequence[str]) -> None:
        self._folder = Path(os.path.abspath(folder))
        given = [Path(os.path.abspath(Path(word).expanduser())) for word in inputs]
        self._roots = [self._folder, *(root for root in given if root in self._folder.parents)]
        self._pairs: dict[Path, dict[Path, Path]] = {}
        self.problems: list[str] = []  # why nothing could be paired below a folder, where that was tried
        self._listing = threading.Lock()

    def map_of(self, picture: Path) -> Path | None:
        """The map of a picture; None where nothing pairs with it."""
        root = next((root for root in self._roots if root in picture.parents), None)
        if root is None:
            return None
        with self._listing:
            if root not in self._pairs:
                self._pairs[root] = self._paired(root)
        found = self._pairs[root].get(picture)
        return found if found is not None and self._folder in found.parents else None

    def _paired(self, root: Path) -> dict[Path, Path]:
        try:
            frames, _, _ = find_frames(
                list_files(root), {"rgb": "auto", "depth": "auto"}, {"rgb", "depth"}, association="auto"
            )
        except DataError as error:  # no frame has both, or a list of pairs cannot be read
            self.problems.append(first_line(error))
            return {}
        return {root / str(frame.rgb): root / str(frame.depth) for each in frames.values() for frame in each}

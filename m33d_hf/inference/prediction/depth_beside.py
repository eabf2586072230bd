"""Depth maps of recorded frames, which lie beside their pictures, not under their names: color/7.jpg + depth/7.png.

Beside them lies the calibration of the two cameras, by which the source `folder` registers depth where it is told to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.depth.calibration import CALIBRATION_FILE, Calibration, read_calibration
from m33d_hf.data.sources.frames.folder import find_frames
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.errors import ConfigError, DataError, first_line

UNREGISTERED = "none"  # of --calibration: the model was trained on depth as it is stored


def registering(calibration: Path | None) -> Path | None:
    """--calibration where it registers maps; None where nothing is stated, and for `none`, which states just that."""
    return None if str(calibration) == UNREGISTERED else calibration


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


class MapCalibrations:
    """The calibration of each folder of maps: of the option, or none; one that lies there unused is not passed over.

    Args:
        folder: of --depth.
        stated: --calibration: a file's name, looked for in the folder of the maps and those above it, up to the one
            above --depth, then as a path of its own; or `none`; None where nothing is stated.
    """

    def __init__(self, folder: Path, stated: Path | None) -> None:
        self._folder, self._stated = Path(os.path.abspath(folder)), stated
        self._found: dict[Path, Calibration | None] = {}

    def of(self, maps: Path) -> Calibration | None:
        """By which the maps of a folder are registered; None where they are read as they are stored.

        Raises:
            ConfigError: the stated one is nowhere, or none is stated and one beside the maps moves them; or a file that
                is no calibration.
        """
        if maps not in self._found:
            self._found[maps] = self._of(Path(os.path.abspath(maps)))
        return self._found[maps]

    def _of(self, maps: Path) -> Calibration | None:
        if self._stated is not None and registering(self._stated) is None:
            return None
        above = (maps, *(folder for folder in maps.parents if folder.is_relative_to(self._folder)))
        places = dict.fromkeys((*above, self._folder, self._folder.parent))
        name = CALIBRATION_FILE if self._stated is None else self._stated
        path = next((folder / name for folder in places if (folder / name).is_file()), None)
        if self._stated is None:
            if path is not None and not read_calibration(path).shows_one_view:
                raise ConfigError(
                    f"{path} says that the depth of {maps} is of another camera than its pictures. If the model was "
                    f"trained with --data.options.calibration, pass --calibration {CALIBRATION_FILE}, which registers "
                    f"depth as training does; if it was trained on depth as it is stored, --calibration {UNREGISTERED}."
                )
            return None
        path = path or self._stated.expanduser()
        if not path.is_file():
            raise ConfigError(
                f"--calibration {self._stated} is neither in {maps} nor in a folder above it, up to "
                f"{self._folder.parent}, and no path of its own"
            )
        return read_calibration(path)

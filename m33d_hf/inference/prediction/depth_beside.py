"""Depth maps of recorded frames, which lie beside their pictures, not under their names: color/7.jpg + depth/7.png.

Beside them lies the calibration of the two cameras, by which the source `folder` registers depth where it is told to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from m33d_hf.data.depth.calibration import CALIBRATION_FILE, Calibration, read_calibration
from m33d_hf.data.depth.maps import read_spec_file, shows_what_pictures_show, spec_folder
from m33d_hf.data.sources.frames.folder import find_frames
from m33d_hf.data.sources.frames.layouts import folder_modality, list_files
from m33d_hf.data.sources.frames.pairing import words_of
from m33d_hf.errors import ConfigError, DataError, first_line

UNREGISTERED = "none"  # of --calibration: the model was trained on depth as it is stored
_LIES_AS_PICTURES = {"registered", "aligned"}  # words of folders of maps


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

    Where nothing is stated, that is one of the maps or of a folder above them, up to --depth, or up to the one above
    where --depth is a recording's own folder of depth, `depth` or the like. It is of no matter for maps that were made
    from the pictures. A file of that name which is none of ours belongs to something else: `problems` tells it.

    Args:
        folder: of --depth.
        stated: --calibration: a file's name, looked for in the folder of the maps and those above it, up to the one
            above --depth, then as a path of its own; or `none`; None where nothing is stated.
        registers: whether what predicts can register maps, for what a refusal advises.
    """

    def __init__(self, folder: Path, stated: Path | None, registers: bool = True) -> None:
        self._folder, self._stated, self._registers = Path(os.path.abspath(folder)), stated, registers
        self._found: dict[Path, Calibration | None] = {}
        self._foreign: dict[Path, str] = {}
        words = set(words_of(self._folder.name))
        self._is_of_recording = folder_modality(self._folder.name) == "depth" and words.isdisjoint(_LIES_AS_PICTURES)

    @property
    def problems(self) -> list[str]:
        """What was passed over, each file once."""
        return list(self._foreign.values())

    def of(self, maps: Path) -> Calibration | None:
        """By which the maps of a folder are registered; None where they are read as they are stored.

        Raises:
            ConfigError: the stated one is nowhere or no calibration, or none is stated and one beside the maps moves
                them.
        """
        if maps not in self._found:
            self._found[maps] = self._of(Path(os.path.abspath(maps)))
        return self._found[maps]

    def _of(self, maps: Path) -> Calibration | None:
        if self._stated is not None and registering(self._stated) is None:
            return None
        above = (maps, *(folder for folder in maps.parents if folder.is_relative_to(self._folder)))
        places = list(dict.fromkeys((*above, self._folder)))
        if self._stated is None:
            self._refuse_unstated(maps, [*places, *([self._folder.parent] if self._is_of_recording else [])])
            return None
        files = (folder / self._stated for folder in (*places, self._folder.parent))
        path = next((file for file in files if file.is_file()), self._stated.expanduser())
        if not path.is_file():
            raise ConfigError(
                f"--calibration {self._stated} is neither in {maps} nor in a folder above it, up to "
                f"{self._folder.parent}, and no path of its own"
            )
        return read_calibration(path)

    def _refuse_unstated(self, maps: Path, places: Sequence[Path]) -> None:
        """Refuse maps of another camera than their pictures, by the nearest calibration in these folders."""
        said_in = spec_folder(maps)
        if said_in is not None and shows_what_pictures_show(read_spec_file(said_in)):
            return
        for path in [folder / CALIBRATION_FILE for folder in places if (folder / CALIBRATION_FILE).is_file()]:
            try:
                calibration = read_calibration(path)
            except ConfigError as error:
                self._foreign[path] = (
                    f"{first_line(error)}: it was passed over, and depth was read as it is stored; if it is the one "
                    f"of the maps, correct it, or else pass --calibration {UNREGISTERED}"
                )
                continue
            if not calibration.shows_one_view:
                raise ConfigError(
                    f"{path} says that the depth of {maps} is of another camera than its pictures. {self._how_to_go_on}"
                )
            return

    @property
    def _how_to_go_on(self) -> str:
        if not self._registers:
            return (
                "This model sees clips, whose depth is not registered here: if it was trained on depth as it is "
                f"stored, pass --calibration {UNREGISTERED}; if it was trained with --data.options.calibration, store "
                f"the depth registered, and pass --calibration {UNREGISTERED} with that."
            )
        return (
            f"If the model was trained with --data.options.calibration, pass --calibration {CALIBRATION_FILE}, which "
            "registers depth as training does; if it was trained on depth as it is stored, --calibration "
            f"{UNREGISTERED}."
        )

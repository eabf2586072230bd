"""The library scenezoo: imported on demand, its data sets opened once per process, its errors as ours."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.libusb import with_libusb
from m33d_hf.data.sources.scenes.tables import SceneSet
from m33d_hf.errors import ConfigError, DataError, M33DError, MissingDependencyError, first_line, type_and_text

_FOLDS = ("Training", "Validation")
# Stream of ARKitScenes -> the folder of its depth maps in a scene's folder.
_ARKIT_DEPTH = {"lowres_wide": "lowres_depth", "wide": "highres_depth", "mov": "lowres_depth"}
_OLDEST = (0, 3)


@dataclass(frozen=True)
class Library:
    """One data set as scenezoo opens it; the same in every process that it is sent to.

    Attributes:
        set: what is read of it.
        root: its folder.
        stream: of the camera; None where there is but one.
        tables: further arguments of the library's class, names of files.
        upright: whether pictures are turned as the data set says.
    """

    set: SceneSet
    root: str
    stream: str | None
    tables: tuple[tuple[str, str], ...] = ()
    offline: bool = False
    upright: bool = True

    @property
    def dataset(self) -> Any:
        """The library's own object.

        Raises:
            MissingDependencyError: scenezoo is not installed. ConfigError: tables that it does not know.
        """
        return _open(self.set.known_as, self.root, self.tables, self.offline)

    def scenes(self, split: str | None) -> list[str]:
        """Names of the scenes of a split (the library's name), None for all.

        Raises:
            DataError: the list of scenes cannot be read.
        """
        dataset = self.dataset
        try:
            return [str(scene) for scene in dataset.get_ids(split)]
        except M33DError:
            raise
        except Exception as error:  # of a library that loads lists from the network where they are not stated
            of = "" if split is None else f" of the split {split}"
            raise DataError(
                f"{self.set.title} under {self.root}: scenezoo cannot read its list of scenes{of} "
                f"({type_and_text(error)}). It loads lists that are not among the files from the network; "
                "name local ones with --data.options.tables, such as {split_file: PATH}."
            ) from error

    def parts(self, scene: str) -> list[str | None]:
        """The rooms of a scene; [None] where it has none. Raises what the library raises."""
        return list(self.dataset.get_room_ids(scene)) if self.set.rooms else [None]

    def numbers(self, scene: str, room: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers of the frames with colour and depth, and their times where they are known.

        Raises what the library raises.
        """
        batch = self.frames(scene, room, None, self.set.listing)
        found, times = np.asarray(batch.indices), batch.timestamps
        if self.set.known_as == "arkitscenes":
            keep = self._with_depth(scene, times)
            found, times = found[keep], times[keep]
        return found, times

    def frames(self, scene: str, room: str | None, indices: list[int] | None, items: tuple[str, ...]) -> Any:
        """The library's FrameBatch. Raises what the library raises."""
        more: dict[str, Any] = {} if self.stream is None else {"source": self.stream}
        if room is not None:
            more["room_id"] = room
        return self.dataset.get_frames(scene, indices=indices, items=items, rotate_to_up=self.upright, **more)

    def _with_depth(self, scene: str, times: np.ndarray) -> np.ndarray:
        """Which of ARKitScenes' pictures have a depth map: the library looks only where it also reads all of them."""
        dataset, stream = self.dataset, str(self.stream)
        name = f"{scene}_frames/depth_densified" if stream == "threedod" else _ARKIT_DEPTH[stream]
        for root in (dataset.data_root, dataset.depth_upsampling_root):
            for fold in _FOLDS:
                folder = Path(root) / fold / scene / name
                if folder.is_dir():
                    stamps = [
                        float(Path(file).stem.rpartition("_")[2]) for file in os.listdir(folder) if file[0] != "."
                    ]
                    return _near(np.sort(np.array(stamps)), times, float(dataset.timestamp_tolerance))
        raise FileNotFoundError(f"{name} of {scene} was not downloaded")


def _near(stamps: np.ndarray, times: np.ndarray, tolerance: float) -> np.ndarray:
    if not len(stamps):
        return np.zeros(len(times), bool)
    after = np.searchsorted(stamps, times).clip(0, len(stamps) - 1)
    before = (after - 1).clip(0)
    return np.minimum(np.abs(stamps[after] - times), np.abs(stamps[before] - times)) <= tolerance + 1e-12


@lru_cache(maxsize=8)
def _open(name: str, root: str, tables: tuple[tuple[str, str], ...], offline: bool) -> Any:
    library = load_library()
    try:
        # Its reader of a data set imports Open3D, which needs libusb.
        return with_libusb(lambda: library.get_dataset(name, root, offline=offline, **dict(tables)), "Open3D", "scenes")
    except TypeError as error:
        raise ConfigError(
            f"--data.options.tables names {', '.join(key for key, _ in tables)}, which scenezoo's {name} does not all "
            f"take ({error})"
        ) from error


def load_library() -> Any:
    """The module scenezoo.

    Raises:
        MissingDependencyError: it is not installed, too old, or lacks something itself.
    """
    install = "pip install 'm33d-hf[scenes]' (scenezoo 0.3 or newer, which brings Open3D: about 1 GB)"
    try:
        library = importlib.import_module("scenezoo")
    except ImportError as error:
        raise MissingDependencyError(
            f"the source 'scenes' reads through scenezoo: {install}. ({first_line(error)})"
        ) from error
    version = tuple(int(part) for part in str(library.__version__).split(".")[:2] if part.isdecimal())
    if version < _OLDEST:
        raise MissingDependencyError(f"scenezoo {library.__version__} is too old for the source 'scenes': {install}.")
    return library

"""What is read of each data set of scenezoo: its camera streams, its splits, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from m33d_hf.errors import ConfigError, nearest_name_hint

REGISTER = "register"
SEMANTIC, INSTANCES = "semantic_maps", "instance_maps"


@dataclass(frozen=True)
class SceneSet:
    """One data set.

    Attributes:
        known_as: what scenezoo calls it.
        title: for messages.
        streams: camera streams with colour and depth, the first is the default; empty where there is but one.
        refused: streams that are not read, with the reason.
        splits: ours -> the library's.
        labels: item of the library with label maps; None without.
        listing: items that are asked for to list frames, none of which are pictures.
        align: how depth and colour get one size unless an option says otherwise.
        rooms: whether a scene holds rooms, each with its own frames.
    """

    known_as: str
    title: str
    streams: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "validation": "val", "test": "test"})
    labels: str | None = None
    listing: tuple[str, ...] = ()
    align: str = "rgb_to_depth"
    rooms: bool = False

    def stream(self, wanted: str | None) -> str | None:
        """The stream that is read.

        Raises:
            ConfigError: one that is not read, with the reason, or an unknown one.
        """
        if wanted is not None and wanted in self.refused:
            raise ConfigError(f"stream {wanted!r} of {self.title} is not read: {self.refused[wanted]}")
        if wanted is not None and wanted not in self.streams:
            known = ", ".join(self.streams) or "none to choose from"
            raise ConfigError(
                f"{self.title} has no stream {wanted!r}; its streams of colour and depth: {known}."
                f"{nearest_name_hint(wanted, self.streams)}"
            )
        return wanted if wanted is not None else next(iter(self.streams), None)


_PANORAMA = "a panorama is no picture of a pinhole camera, and its depth lies along rays into all directions"
_NO_DEPTH = "it has no depth"
_ARKIT = {"train": "train_raw", "validation": "val_raw"}
SCENE_SETS: Mapping[str, SceneSet] = {
    "scannetpp": SceneSet(
        "scannetppv2",
        "ScanNet++",
        ("iphone",),
        {
            "panocam": _PANORAMA,
            "panocam_resized": _PANORAMA,
            "dslr": _NO_DEPTH,
            "dslr_undistorted": _NO_DEPTH,
            "dslr_original": _NO_DEPTH,
        },
        {"train": "nvs_sem_train", "validation": "nvs_sem_val", "test": "sem_test"},
    ),
    "arkitscenes": SceneSet(
        "arkitscenes",
        "ARKitScenes",
        ("lowres_wide", "wide", "mov", "threedod"),
        {"ultrawide": _NO_DEPTH, "vga_wide": _NO_DEPTH},
        _ARKIT,
        listing=("timestamps",),
    ),
    "matterport3d": SceneSet("matterport3d", "Matterport3D", ("undistorted", "raw")),
    "multiscan": SceneSet("multiscan", "MultiScan", listing=("timestamps",)),
    "3rscan": SceneSet("3rscan", "3RScan", align=REGISTER),
    "structured3d": SceneSet(
        "structured3d", "Structured3D", ("perspective",), {"panorama": _PANORAMA}, labels=SEMANTIC, rooms=True
    ),
    "ase": SceneSet(
        "ase",
        "Aria Synthetic Environments",
        splits={"train": "train"},
        labels=INSTANCES,
        listing=("timestamps", "rgb_intrinsics", "depth_intrinsics"),
    ),
}


def scene_set(name: str) -> SceneSet:
    """The data set of an option.

    Raises:
        ConfigError: an unknown one, with the nearest.
    """
    if name not in SCENE_SETS:
        raise ConfigError(
            f"dataset is {name!r}; it must be one of {', '.join(SCENE_SETS)}.{nearest_name_hint(name, SCENE_SETS)}"
        )
    return SCENE_SETS[name]

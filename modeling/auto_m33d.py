# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""The code of a saved folder: the class that each Auto class of transformers loads, and the files that define it.

Every saved configuration and processor names all classes and is saved with all files of this folder, so that any head
loads from any folder without this package, with `trust_remote_code=True`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pushing_m33d import PushesInOneCommit
from .task_heads_m33d import HEADS

if TYPE_CHECKING:
    # transformers finds the files that a class needs by parsing import lines, also those below a condition. This file
    # and the table of heads lead to every file of the folder, and the configuration leads to this file: whichever
    # class is loaded, all files are fetched, so that a model saved afterwards is complete too.
    from .backbone_m33d import M33DBackbone  # noqa: F401
    from .image_processing_m33d import M33DImageProcessor  # noqa: F401
    from .pretraining_m33d import M33DForPreTraining  # noqa: F401
    from .rgbd_pipelines_m33d import RGBDImageSegmentationPipeline  # noqa: F401
    from .video_processing_m33d import M33DVideoProcessor  # noqa: F401


def _places(entry: Any) -> list[Any]:
    """The classes that an entry names: one, or one for each backend."""
    return list(entry.values()) if isinstance(entry, dict) else [entry]


AUTO_MAP: dict[str, Any] = {
    "AutoConfig": "configuration_m33d.M33DConfig",
    "AutoModel": "modeling_m33d.M33DModel",
    "AutoModelForPreTraining": "pretraining_m33d.M33DForPreTraining",
    **{head.auto_class: head.model for head in HEADS if head.auto_class is not None},
    "AutoBackbone": "backbone_m33d.M33DBackbone",
    "AutoImageProcessor": {
        "torchvision": "image_processing_m33d.M33DImageProcessor",
        "pil": "image_processing_m33d.M33DImageProcessorPil",
    },
    "AutoVideoProcessor": "video_processing_m33d.M33DVideoProcessor",
}
"""Auto class -> "module.Class" that it loads; models of task heads are in the table of heads."""


# The modules of the classes above; other classes in them count as ours too.
_MODULES = {str(place).split(".")[0] for entry in AUTO_MAP.values() for place in _places(entry)}


def completed_auto_map(given: dict[str, Any] | None) -> dict[str, Any]:
    """The whole table; entries of `given` that name a class of another module (a user's own head) are kept."""
    return {**AUTO_MAP, **{name: entry for name, entry in (given or {}).items() if not _is_ours(entry)}}


def _is_ours(entry: Any) -> bool:
    """Whether an entry, possibly with a repo in front ("org/name--module.Class"), names modules of this folder."""
    return all(str(place).split("--")[-1].split(".")[0] in _MODULES for place in _places(entry))


def copy_code(folder: str | os.PathLike[str]) -> None:
    """Copy the files of this folder into `folder`, which is created if it is missing."""
    os.makedirs(folder, exist_ok=True)
    for path in sorted(Path(__file__).parent.glob("*_m33d.py")):
        shutil.copyfile(path, Path(folder) / path.name)


class TravelsWithItsCode(PushesInOneCommit):
    """Base of the configuration and the processors, before the library's base class: saves the code with them."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As the library's, but also save the code and the table of classes."""
        if not os.path.isfile(save_directory):  # which the library refuses
            copy_code(save_directory)
        self.auto_map = completed_auto_map(getattr(self, "auto_map", None))
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def to_dict(self) -> dict[str, Any]:
        """As the library's, but with a complete table of classes if there is one.

        The library reduces the table of an object loaded as remote code to the class of that object.
        """
        plain: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        return plain if plain.get("auto_map") is None else {**plain, "auto_map": completed_auto_map(plain["auto_map"])}


__all__ = ["AUTO_MAP", "TravelsWithItsCode", "completed_auto_map", "copy_code"]

"""Which reader a recording needs, by its name and what lies in it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from m33d_hf.data.recordings.realsense_files import is_realsense
from m33d_hf.data.recordings.recording import ImportOptions, Recording
from m33d_hf.errors import CorruptFileError

_READERS = {
    ".r3d": "m33d_hf.data.recordings.record3d:Record3DRecording",
    ".mkv": "m33d_hf.data.recordings.kinect:KinectRecording",
    ".bag": "m33d_hf.data.recordings.ros:RosRecording",
    ".db3": "m33d_hf.data.recordings.ros:RosRecording",
    ".mcap": "m33d_hf.data.recordings.ros:RosRecording",
}
_REALSENSE = "m33d_hf.data.recordings.realsense:RealSenseRecording"
_PHONE = "m33d_hf.data.recordings.phone_folder:PhoneFolder"
ROS2_METADATA = "metadata.yaml"
_KINDS = (
    "RealSense (.bag, .db3), Record3D (.r3d), Azure Kinect (.mkv), ROS 1 (.bag), ROS 2 (the folder with metadata.yaml, "
    ".db3 or .mcap), or a folder of pictures with rgb/ (or rgb.mp4), depth/ and confidence/ from a phone"
)


def open_recording(path: Path, options: ImportOptions) -> Recording:
    """The reader of a recording.

    Raises:
        CorruptFileError: missing, or of no known kind; or what the reader says.
        MissingDependencyError: a package that the reader needs is not installed.
    """
    if not path.exists():
        raise CorruptFileError(path, "does not exist")
    suffix = path.suffix.lower()
    if path.is_dir():
        name = _READERS[".db3"] if (path / ROS2_METADATA).is_file() else _PHONE
    elif is_realsense(path):
        name = _REALSENSE
    elif suffix in _READERS:
        name = _READERS[suffix]
    else:
        raise CorruptFileError(path, f"is no recording that is known by its name: {_KINDS}")
    module, _, reader = name.partition(":")
    return cast(Recording, getattr(importlib.import_module(module), reader)(path, options))

"""What RealSense's SDK records, seen without the SDK: whether a file is its work, and how many pictures are in it.

Before version 2.59 the SDK writes bags of ROS 1 (`.bag`), from then on the data base of a bag of ROS 2 without its
metadata (`.db3`). Both name their topics `/device_0/sensor_1/Color_0/image/data`. The counts are compared with what
the SDK hands out, which leaves frames out where it is not asked with care.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from m33d_hf.errors import CorruptFileError, MissingDependencyError, decoding

SUFFIXES = (".bag", ".db3")
_DEVICE = re.compile(rb"/device_\d+/sensor_\d+/")
_PICTURES = re.compile(r"/device_(?P<device>\d+)/sensor_\d+/(?P<stream>[A-Za-z]+_\d+)/image/data(/\w+)?")
_INDEX = re.compile(rb"index_pos=(.{8})", re.DOTALL)  # of the header of a ROS 1 bag
_LOOKED_AT = 1 << 16
_COUNTED = (
    "SELECT topics.name, COUNT(messages.id) FROM topics LEFT JOIN messages ON messages.topic_id = topics.id "
    "GROUP BY topics.id"
)


def is_realsense(path: Path) -> bool:
    """Whether a file was recorded by RealSense's SDK: its topics stand near the beginning, or in the bag's index."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT)
        if _DEVICE.search(head):
            return True
        index = _INDEX.search(head)
        if index is None:
            return False
        file.seek(min(int.from_bytes(index[1], "little"), path.stat().st_size))
        return _DEVICE.search(file.read(_LOOKED_AT)) is not None


def count_pictures(path: Path) -> dict[str, int]:
    """Stream (`Depth_0`, `Color_0`, `Infrared_1`) -> pictures in the file, as its own index counts them.

    Raises:
        CorruptFileError: damaged or cut short, or of several devices.
        MissingDependencyError: a `.bag` without rosbags.
    """
    counts: dict[str, int] = {}
    devices = set()
    topics = _topics_of_bag(path) if path.suffix.lower() == ".bag" else _topics_of_database(path)
    for topic, count in topics:
        if found := _PICTURES.fullmatch(topic):
            devices.add(found["device"])
            counts[found["stream"]] = counts.get(found["stream"], 0) + count
    if len(devices) > 1:
        raise CorruptFileError(path, f"holds {len(devices)} devices; record each camera to its own file")
    return counts


def _topics_of_bag(path: Path) -> Iterator[tuple[str, int]]:
    try:
        from rosbags.rosbag1 import Reader
    except ImportError as error:
        raise MissingDependencyError(
            "the frames of RealSense's bags are counted by rosbags: pip install 'm33d-hf[cameras]'."
        ) from error
    cure = "; a bag that was not closed is repaired by ROS's tool: rosbag reindex"
    with decoding(path, "cannot be read as a bag", cure), Reader(path) as reader:
        yield from [(connection.topic, connection.msgcount) for connection in reader.connections]


def _topics_of_database(path: Path) -> Iterator[tuple[str, int]]:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            yield from base.execute(_COUNTED).fetchall()
    except sqlite3.Error as error:
        raise CorruptFileError(
            path, f"cannot be read as a data base ({error}); was the recording cut short?"
        ) from error

"""The embedded data set: procedurally rendered RGB-D rooms and clips with exact depth, class and motion labels."""

from m33d_hf.data.sources.rooms.source import RoomsHandle, RoomsSource

__all__ = ["RoomsHandle", "RoomsSource"]

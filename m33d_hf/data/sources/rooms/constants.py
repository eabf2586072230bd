"""Names, ids and slot counts that the renderer's files share.

Axes: x right, y up (floor at y = 0), z into the room; the room spans [-X, X] x [0, Y] x [-Z, Z]. Lengths are
metres, angles radians. Shape letters, besides the house's B, T, H, W: O objects, F furniture slots (the first
objects), S boards on the walls, M materials, K packed primitives.
"""

from __future__ import annotations

# Raise it whenever the same seed gives other pixels: it is part of the cache's name.
RENDERER_VERSION = 1

CLASS_NAMES = ("floor", "wall", "ceiling", "box", "sphere", "cylinder", "table", "shelf", "chair", "board")
FLOOR, WALL, CEILING, BOX, SPHERE, CYLINDER, TABLE, SHELF, CHAIR, BOARD = range(10)
EMPTY = -1

MOTION_NAMES = (
    "dolly_in",
    "dolly_out",
    "pan_left",
    "pan_right",
    "orbit",
    "fall",
    "slide_left",
    "slide_right",
    "spin",
    "approach",
)

FURNITURE_SLOTS = 4
SIMPLE_SLOTS = 3
OBJECT_SLOTS = FURNITURE_SLOTS + SIMPLE_SLOTS
BOARD_SLOTS = 3
HERO_SLOT = FURNITURE_SLOTS  # clips put the object that everything is about here

# Materials: floor, ceiling, four walls, then one per object and per board.
ROOM_FACES = 6
NUM_MATERIALS = ROOM_FACES + OBJECT_SLOTS + BOARD_SLOTS
HERO_MATERIAL = ROOM_FACES + HERO_SLOT
MAX_PARTS = 7  # boxes of the most complicated piece of furniture, the shelf

SPLITS = ("train", "validation", "test")
UNITS = ("frames", "clips")
DEPTHS = ("sensor", "clean")

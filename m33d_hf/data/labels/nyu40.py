"""The 40 classes that NYUv2 and ScanNet are labelled with, by their ids; 0 is unlabelled."""

from __future__ import annotations

NYU40 = {
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 12: "counter", 13: "blinds", 14: "desk", 15: "shelves", 16: "curtain",
    17: "dresser", 18: "pillow", 19: "mirror", 20: "floor mat", 21: "clothes", 22: "ceiling", 23: "books",
    24: "refrigerator", 25: "television", 26: "paper", 27: "towel", 28: "shower curtain", 29: "box",
    30: "whiteboard", 31: "person", 32: "night stand", 33: "toilet", 34: "sink", 35: "lamp", 36: "bathtub", 37: "bag",
    38: "otherstructure", 39: "otherfurniture", 40: "otherprop",
}  # fmt: skip
UNLABELLED = 0

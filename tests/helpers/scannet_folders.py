"""Writes small ScanNet folders: recordings, exports and `scannet_frames_25k`, with labels whose ids are known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from helpers.frames_on_disk import save
from helpers.sens_files import depth_ramp, smooth_picture, write_sens

SIZE = (24, 32)
# A part of the data set's table, in its order of columns: raw id, raw name, NYU40 id.
TABLE = [
    (1, "wall", 1), (2, "chair", 5), (22, "books", 23), (3, "floor", 2), (1163, "object", 40), (56, "trash can", 39),
]  # fmt: skip
CRLF = "\r\n"


def write_table(path: Path) -> Path:
    """The table with the columns that are read and one that is not."""
    rows = [f"{raw}\t{name}\t{name}\t7\t{nyu}\tx" for raw, name, nyu in TABLE]
    path.write_bytes(CRLF.join(["id\traw_category\tcategory\tcount\tnyu40id\tnyu40class", *rows, ""]).encode())
    return path


def stripes(values: Iterable[int], size: tuple[int, int], kind: type) -> np.ndarray:
    """(H, W) of vertical stripes of the given values, all of one width."""
    values = list(values)
    return np.repeat(np.array(values, kind), size[1] // len(values))[None].repeat(size[0], 0)


def write_exported(
    root: Path, name: str = "scene0000_00", numbers: Iterable[int] = range(4), labels: str | None = "label-filt"
) -> Path:
    """`color/N.jpg` of twice the depth's size, `depth/N.png` in millimetres, label maps of raw ids at colour's size."""
    for number in numbers:
        save(root / name / f"color/{number}.jpg", smooth_picture(number % 7, (48, 64)))
        save(root / name / f"depth/{number}.png", depth_ramp(number % 7, SIZE))
        if labels is not None:
            save(root / name / labels / f"{number}.png", stripes((1, 2, 3, 1163, 0, 22, 56, 2), (48, 64), np.uint16))
    return root


def write_frames_25k(root: Path, name: str = "scene0000_00", numbers: Iterable[int] = (0, 100, 200)) -> Path:
    """Six-digit names, labels of 8 bits with NYU40 ids."""
    for number in numbers:
        save(root / name / f"color/{number:06d}.jpg", smooth_picture(1, SIZE))
        save(root / name / f"depth/{number:06d}.png", depth_ramp(1, SIZE))
        save(root / name / f"label/{number:06d}.png", stripes((1, 5, 2, 40, 0, 23, 39, 5), SIZE, np.uint8))
    return root


def write_recorded(root: Path, name: str = "scene0000_00", count: int = 4, **options: object) -> Path:
    """`NAME/NAME.sens`, with raw label maps of its colour's size for the even frames."""
    write_sens(root / name / f"{name}.sens", count, SIZE, **options)
    for number in range(0, count, 2):
        labels = stripes((1, 2, 3, 1163, 0, 22, 56, 2), (48, 64), np.uint16)
        save(root / name / "label-filt" / f"{number}.png", labels)
    return root

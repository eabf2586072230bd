"""Writes `nyu_depth_v2_labeled.mat` at its full size, sparse: only some frames have content, element by element."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import scipy.io

FRAMES, HEIGHT, WIDTH = 1449, 480, 640


def picture_of(frame: int) -> np.ndarray:
    """(H, W, 3): red grows with the row, green with the column, blue is the frame's number."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = (np.arange(HEIGHT) // 2)[:, None]
    picture[..., 1] = (np.arange(WIDTH) // 3)[None]
    picture[..., 2] = frame % 256
    return picture


def depth_of(frame: int) -> np.ndarray:
    """(H, W) float32 metres: 1 m at the top to 3 m at the bottom, and a hundredth more per frame."""
    return np.linspace(1, 3, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1) + np.float32(frame / 100)


def raw_of(frame: int) -> np.ndarray:
    """`depth_of`, a centimetre nearer, without the leftmost 64 columns."""
    raw = depth_of(frame) - np.float32(0.01)
    raw[:, :64] = 0
    return raw


def labels_of(frame: int) -> np.ndarray:
    """(H, W) uint16: four quarters, of ids 0, 3, 21 and 894 from left to right at the top, 4 below."""
    labels = np.full((HEIGHT, WIDTH), 4, np.uint16)
    for number, value in enumerate((0, 3, 21, 894)):
        labels[: HEIGHT // 2, number * WIDTH // 4 : (number + 1) * WIDTH // 4] = value
    return labels


def write_mat(path: Path, frames: Iterable[int] = (0, 4, 1448), leave_out: str = "") -> Path:
    """The file with the given frames, counted from 0; MATLAB's column order makes HDF5 see every axis reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "images": ((FRAMES, 3, WIDTH, HEIGHT), np.uint8, picture_of),
        "depths": ((FRAMES, WIDTH, HEIGHT), np.float32, depth_of),
        "rawDepths": ((FRAMES, WIDTH, HEIGHT), np.float32, raw_of),
        "labels": ((FRAMES, WIDTH, HEIGHT), np.uint16, labels_of),
    }
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, (shape, kind, content) in arrays.items():
            if name == leave_out:
                continue
            array = file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]))
            for frame in frames:
                values = content(frame)
                stored = np.empty(shape[1:], kind)
                for column in range(WIDTH):
                    stored[..., column, :] = values[:, column].T if values.ndim == 3 else values[:, column]
                array[frame] = stored
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def write_tables(folder: Path) -> None:
    """A split of all frames, the first and the last in training, and a map of the classes that the labels hold."""
    numbers = np.arange(1, FRAMES + 1, dtype=np.uint16)
    train = np.union1d(numbers[::2], [1, FRAMES]).astype(np.uint16)
    test = np.setdiff1d(numbers, train).astype(np.uint16)
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": train[:, None], "testNdxs": test[:, None]})
    classes = np.full((1, 894), 40, np.uint8)
    classes[0, [3 - 1, 21 - 1, 4 - 1]] = [3, 1, 22]
    scipy.io.savemat(folder / "classMapping40.mat", {"mapClass": classes})

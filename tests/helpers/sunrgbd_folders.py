"""Writes small SUN RGB-D folders with the toolbox's files, as MATLAB lays them out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.io

from helpers.frames_on_disk import rgb_array, save

FRAMES = ("kv1/NYUdata/NYU0001", "kv2/kinect2data/000002", "realsense/lg/2014_10-a", "xtion/sun3ddata/mit/mit/0000103")
SIZE = (24, 32)
THERE = "/n/fs/sun3d/data/SUNRGBD"


def rotated(millimetres: np.ndarray) -> np.ndarray:
    """Millimetres as SUN RGB-D stores them: the lowest 13 bits move up by three, the highest three come down."""
    wide = millimetres.astype(np.uint32)
    return ((wide << 3) & 0xFFFF | (wide >> 13)).astype(np.uint16)


def millimetres_of(number: int) -> np.ndarray:
    """(H, W) from 1 m to 3 m, another offset per frame; the first row is a hole."""
    values = np.linspace(1000, 3000, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16) + number * 100
    values[0] = 0
    return values


def labels_of(number: int) -> np.ndarray:
    """(H, W): 0 at the left, then 1, 37 and the frame's number + 2."""
    return np.repeat(np.array([0, 1, 37, number + 2], np.uint8), SIZE[1] // 4)[None].repeat(SIZE[0], 0)


def write_sunrgbd(root: Path) -> Path:
    """Four frames; the toolbox lists them in reverse order, the first two for training."""
    for number, frame in enumerate(FRAMES):
        save(root / f"SUNRGBD/{frame}/image/{number:07d}.jpg", rgb_array(number, SIZE))
        save(root / f"SUNRGBD/{frame}/depth_bfx/{number:07d}.png", rotated(millimetres_of(number)))
        save(root / f"SUNRGBD/{frame}/depth/{number:07d}.png", rotated(millimetres_of(number) + 1))
    metadata, split = root / "SUNRGBDtoolbox/Metadata", root / "SUNRGBDtoolbox/traintestSUNRGBD"
    metadata.mkdir(parents=True)
    split.mkdir()
    order = range(len(FRAMES))[::-1]
    kind = [("sequenceName", object), ("rgbpath", object)]
    pictures = {n: f"{THERE}/{FRAMES[n]}/image/{n:07d}.jpg".replace("mit/mit", "mit/mit/") for n in order}
    rows = [(f"SUNRGBD/{FRAMES[n]}", pictures[n]) for n in order]
    scipy.io.savemat(metadata / "SUNRGBDMeta.mat", {"SUNRGBDMeta": np.array(rows, kind)[None]})
    with h5py.File(metadata / "SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        references = file.create_dataset("SUNRGBD2Dseg/seglabel", (len(FRAMES), 1), h5py.ref_dtype)
        for place, number in enumerate(order):
            references[place, 0] = file.create_dataset(f"#refs#/{place}", data=labels_of(number).T).ref
    lists = {"alltrain": FRAMES[:2], "alltest": FRAMES[2:]}
    cells = {name: np.array([f"{THERE}/{frame}" for frame in frames], object)[None] for name, frames in lists.items()}
    scipy.io.savemat(split / "allsplit.mat", cells)
    return root

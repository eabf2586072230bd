"""Writes small data sets as their authors lay them out, by their own descriptions and not by the reader's.

ARKitScenes (DATA.md of apple/ARKitScenes): raw/FOLD/VIDEO/lowres_wide/VIDEO_TIME.png, lowres_depth in millimetres,
lowres_wide_intrinsics/VIDEO_TIME.pincam (width height fx fy cx cy), lowres_wide.traj (time, axis and angle, shift).
Structured3D: scene_00000/2D_rendering/ROOM/perspective/full/N. Aria Synthetic: train/N/{rgb,depth,instances}.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.recordings import millimetres, picture

SIZE = (24, 32)
VIDEOS = {"41000001": ("Training", "Up"), "41000002": ("Validation", "Left")}
ARIA_SIZE = 704


def save(path: Path, values: np.ndarray) -> None:
    """A PNG or JPEG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_arkitscenes(root: Path, count: int = 4, without_depth: int | None = None) -> Path:
    """Two videos of which the second was filmed sideways; depth 2 ms after the colour of its frame."""
    rows = ["video_id,visit_id,fold,sky_direction,is_in_upsampling,is_in_threedod,has_laser_scanner_point_clouds"]
    for video, (fold, sky) in VIDEOS.items():
        rows.append(f"{video},{420000 + int(video[-1])},{fold},{sky},False,True,False")
        folder = root / "raw" / fold / video
        track = []
        for number in range(count):
            time, late = (f"{100 + number / 10 + extra:.3f}" for extra in (0, 0.002))
            save(folder / f"lowres_wide/{video}_{time}.png", picture(number, SIZE))
            if number != without_depth:
                save(folder / f"lowres_depth/{video}_{late}.png", millimetres(number, SIZE))
            save(folder / f"confidence/{video}_{late}.png", np.full(SIZE, 2, np.uint8))
            intrinsics = folder / f"lowres_wide_intrinsics/{video}_{time}.pincam"
            intrinsics.parent.mkdir(exist_ok=True)
            intrinsics.write_text("32 24 26.5 26.5 15.5 11.5\n")
            track.append(f"{time} 0.0 0.1 0.0 {0.01 * number} 0.0 0.0")
        (folder / "lowres_wide.traj").write_text("\n".join(track) + "\n")
    (root / "raw/metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def write_structured3d(root: Path, rooms: tuple[str, ...] = ("485142", "485143")) -> Path:
    """One scene; two views of each room, with NYU40 ids; and the tables that the library loads otherwise."""
    for room in rooms:
        for view in range(2):
            folder = root / f"Structured3D/scene_00000/2D_rendering/{room}/perspective/full/{view}"
            save(folder / "rgb_rawlight.png", picture(view, SIZE))
            save(folder / "depth.png", millimetres(view, SIZE))
            save(folder / "semantic.png", (np.arange(SIZE[1]) % 41).astype(np.uint8)[None].repeat(SIZE[0], 0))
            (folder / "camera_pose.txt").write_text("0 0 1500 1 0 0 0 0 1 0.6 0.5 0")
    (root / "rooms.txt").write_text("kitchen\n")
    (root / "labels.txt").write_text("1 wall\n2 floor\n")
    (root / "errata.txt").write_text("# invalid scene\nscene_00183\n")
    return root


def structured3d_tables(root: Path) -> dict[str, str]:
    """Names of the library's arguments -> local files."""
    names = {"room_type_file": "rooms.txt", "label_name_file": "labels.txt", "errata_file": "errata.txt"}
    return {argument: str(root / file) for argument, file in names.items()}


def write_aria(root: Path, millimetres_along_rays: np.ndarray, instances: np.ndarray, count: int = 2) -> Path:
    """One training sequence of frames that are all alike, 704 x 704."""
    folder = root / "train/7"
    header = "tracking_timestamp_us," + ",".join(f"t{axis}_world_device" for axis in "xyz")
    rows = [header + "," + ",".join(f"q{axis}_world_device" for axis in "xyzw")]
    for number in range(count):
        save(folder / f"rgb/vignette{number:07d}.jpg", picture(number, (ARIA_SIZE, ARIA_SIZE)))
        save(folder / f"depth/depth{number:07d}.png", millimetres_along_rays)
        save(folder / f"instances/instance{number:07d}.png", instances)
        rows.append(f"{1000 + 100000 * number},0,0,1.6,0,0,0,1")
    (folder / "trajectory.csv").write_text("\n".join(rows) + "\n")
    return root

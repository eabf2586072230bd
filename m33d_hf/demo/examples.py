"""Rendered pictures and clips to try the page with: rooms that no model has been trained on.

They lie in `rendered/` beside this file. `python -m m33d_hf.demo.examples` renders them anew (minutes).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m33d_hf.data.sources.rooms.procedures import ProceduresSource
from m33d_hf.data.sources.rooms.source import CLIP_FPS, RoomsSource
from m33d_hf.inference.prediction.files.video_files import write_video_file

FOLDER = Path(__file__).parent / "rendered"
_SIZE, _CLIP_SIZE = (192, 256), (96, 128)


def pictures() -> list[Path]:
    """Rooms, as PNG."""
    return sorted(FOLDER.glob("room*_rgb.png"))


def depth_of(picture: Path) -> Path:
    """The measured depth of a room: PNG of 16 bits, in millimetres, 0 for holes."""
    return picture.with_name(picture.name.replace("_rgb", "_depth"))


def clips() -> list[Path]:
    """Two seconds of a moving camera each, as MP4."""
    return sorted(FOLDER.glob("clip*.mp4"))


def procedures() -> list[Path]:
    """Half a minute with several phases, as MP4."""
    return sorted(FOLDER.glob("procedure*.mp4"))


def render(folder: Path = FOLDER, frames: int = 3, videos: int = 2, long_videos: int = 1) -> None:
    """Write all examples, from the test split of the rooms."""
    folder.mkdir(parents=True, exist_ok=True)
    rooms = RoomsSource("test", num_frames=frames, image_size=_SIZE)
    for number in range(frames):
        sample = rooms[number].read([0])
        rgb, depth = np.asarray(sample.rgb), np.asarray(sample.depth)
        Image.fromarray(rgb[0].transpose(1, 2, 0)).save(folder / f"room{number}_rgb.png", optimize=True)
        metres = np.nan_to_num(depth[0, 0])
        millimetres = np.rint(1000 * metres).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / f"room{number}_depth.png", optimize=True)
    moving = RoomsSource("test", unit="clips", num_clips=videos, image_size=_CLIP_SIZE, clip_length=16)
    for number in range(videos):
        _write(folder / f"clip{number}.mp4", moving[number], range(16))
    recordings = ProceduresSource("test", num_videos=long_videos, image_size=_CLIP_SIZE)
    for number, video in enumerate(recordings.videos):
        _write(folder / f"procedure{number}.mp4", video.handle, range(video.handle.length))


def _write(path: Path, handle: Any, frames: Sequence[int]) -> None:
    rgb = np.asarray(handle.read(frames).rgb)
    write_video_file(path, (frame.transpose(1, 2, 0) for frame in rgb), CLIP_FPS)


if __name__ == "__main__":
    render()

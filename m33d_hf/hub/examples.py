"""A rendered room as the card's example: nobody's data, the same picture for everybody."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from m33d_hf.data.sources.rooms.generate import RoomsSpec, render_chunks
from m33d_hf.errors import MissingDependencyError
from m33d_hf.inference.prediction.files.video_files import write_video_file

_SIDE, _FRAMES, _FPS = 96, 16, 8.0


def write_example(folder: Path, clip: bool) -> str | None:
    """Write examples/room.png or examples/room.mp4; returns its name in the folder, None where PyAV is missing."""
    name = "examples/room.mp4" if clip else "examples/room.png"
    unit, length = ("clips", _FRAMES) if clip else ("frames", 1)
    rendered = next(iter(render_chunks(RoomsSpec("test", 0, unit, 1, length, _SIDE, _SIDE))))
    frames = list(rendered.rgb[0].transpose(0, 2, 3, 1).copy())  # (T, H, W, 3)
    (folder / name).parent.mkdir()
    if not clip:
        Image.fromarray(frames[0]).save(folder / name)
        return name
    try:
        write_video_file(folder / name, frames, _FPS)
    except MissingDependencyError:
        (folder / name).parent.rmdir()
        return None
    return name

"""Videos and RGB-D frames to measure readers and loaders on, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CODECS = {
    "h264 GOP 250": ("libx264", 250, ".mp4"),
    "h264 GOP 16": ("libx264", 16, ".mp4"),
    "xvid (mpeg4)": ("mpeg4", 12, ".avi"),
}
CLASSES = ("Juggling", "Makeup")
# Of xvid, as a clip of UCF-101 has it (320 x 240, 2,118 bytes a frame); what is not given FFmpeg takes a third of it.
XVID_BITS_PER_SECOND = 8 * 2118 * 25


@dataclass(frozen=True)
class Sizes:
    """How much is made: videos of (height, width), long ones for readers and short ones to train on; pictures; the
    colour of scans, whose depth has the size of pictures."""

    video: tuple[int, int] = (240, 320)
    long_video: int = 300
    video_frames: int = 120
    videos: int = 4
    picture: tuple[int, int] = (480, 640)
    small_picture: tuple[int, int] = (256, 341)
    pictures: int = 24
    scan_color: tuple[int, int] = (968, 1296)
    scan_frames: int = 8


TINY = Sizes((64, 80), 40, 40, 2, (48, 64), (32, 43), 4, (96, 128), 4)


@lru_cache(maxsize=300)  # the same pictures go through several codecs
def scene(height: int, width: int, shift: float, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: edges, gradients and grain in motion, which compress about as real pictures do."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    columns = columns + 2.0 * shift
    waves = [np.sin(columns / (7 + 5 * c) + seed) * np.cos((rows + shift) / (11 + 3 * c)) for c in range(3)]
    blocks = ((columns // 40 + rows // 30) % 3 - 1) * 35
    grain = np.random.default_rng(int(seed * 1000 + shift)).normal(0, 3, (height, width, 1))
    return np.clip(128 + 60 * np.stack(waves, -1) + blocks[..., None] + grain, 0, 255).astype(np.uint8)


def depth_of(height: int, width: int, shift: float, seed: int = 0) -> np.ndarray:
    """(H, W) uint16 millimetres, 0 for holes."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    metres = 2.0 + np.sin((columns + shift) / 50 + seed) + rows / height
    draws = np.random.default_rng(int(seed * 1000 + shift) + 1)
    stored = (1000 * (metres + draws.normal(0, 0.003, metres.shape))).astype(np.uint16)
    holes = draws.random((height // 16 + 1, width // 16 + 1)) < 0.08
    stored[np.kron(holes, np.ones((16, 16), bool))[:height, :width]] = 0
    return stored


def write_video(path: Path, codec: str, gop: int, size: tuple[int, int], frames: int, seed: int = 0) -> Path:
    """Encode a moving scene.

    Raises:
        ImportError: PyAV is not installed. Others as PyAV: a codec that it lacks.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        if codec == "mpeg4":
            stream.bit_rate = XVID_BITS_PER_SECOND * (size[0] * size[1]) // (240 * 320)
        if codec == "libx264":
            # Key frames at scene changes would shorten the groups.
            stream.options = {"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0"}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(*size, number, seed), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_action_data(root: Path, sizes: Sizes) -> Path:
    """Videos (xvid) in the layout of UCF-101 with its lists, and metric depth at half the resolution beside them."""
    height, width = sizes.video
    names = [_action_name(number) for number in range(sizes.videos)]
    for number, name in enumerate(names):
        write_video(root / f"{name}.avi", "mpeg4", 12, sizes.video, sizes.video_frames, seed=number)
        depth = [depth_of(height // 2, width // 2, frame, number) for frame in range(sizes.video_frames)]
        file = root / "depth" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.stack(depth))
    (root / "depth" / "depth_spec.json").write_text('{"kind": "metric", "unit": "millimetre"}')
    return _write_lists(root, [f"{name}.avi" for name in names])


def link_action_data(root: Path, videos: Sequence[Path], least: int) -> Path:
    """Real videos, without depth, in the layout of UCF-101: links, with classes that mean nothing.

    Where there are fewer than `least`, which fills a batch, they come again under other names.
    """
    files = []
    for number, video in enumerate(islice(cycle(videos), max(least, len(videos)))):
        files.append(f"{_action_name(number)}{video.suffix.lower()}")
        link = root / files[-1]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(video.resolve())
    return _write_lists(root, files)


def _action_name(number: int) -> str:
    name = CLASSES[number % len(CLASSES)]
    return f"{name}/v_{name}_g{number + 1:02d}_c01"


def _write_lists(root: Path, files: Sequence[str]) -> Path:
    """Classes, and all files to train on, of `_action_name` in turn."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(CLASSES)))
    lines = [f"{file} {number % len(CLASSES) + 1}\n" for number, file in enumerate(files)]
    (lists / "trainlist01.txt").write_text("".join(lines))
    return root


def write_frames(root: Path, size: tuple[int, int], count: int, labels: int = 40) -> Path:
    """color/N.jpg, depth/N.png (16-bit millimetres) and label/N.png (class ids below `labels`)."""
    for name in ("color", "depth", "label"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rgb, depth = scene(*size, 9 * number), depth_of(*size, 9 * number)
        Image.fromarray(rgb).save(root / "color" / f"{number}.jpg", quality=92)
        Image.fromarray(depth).save(root / "depth" / f"{number}.png")
        ids = (rgb[..., 0] // 16 + depth // 400) % labels
        Image.fromarray(ids.astype(np.uint8)).save(root / "label" / f"{number}.png")
    return root


def write_scan(root: Path, sizes: Sizes) -> Path:
    """One scan as ScanNet's exporter writes it: colour larger than depth, in millimetres."""
    scan = root / "scene0000_00"
    for name in ("color", "depth"):
        (scan / name).mkdir(parents=True)
    for number in range(sizes.scan_frames):
        Image.fromarray(scene(*sizes.scan_color, 9 * number)).save(scan / "color" / f"{number}.jpg", quality=92)
        Image.fromarray(depth_of(*sizes.picture, 9 * number)).save(scan / "depth" / f"{number}.png")
    return root


def write_sun(root: Path, sizes: Sizes) -> Path:
    """Frames in the layout of SUN RGB-D: a folder each, depth with its 16 bits rotated by three."""
    for number in range(sizes.pictures):
        frame = root / f"SUNRGBD/xtion/made/{number:04d}"
        depth = depth_of(*sizes.picture, 9 * number)
        rotated = (depth << 3 | depth >> 13).astype(np.uint16)
        for name in ("image", "depth", "depth_bfx"):
            (frame / name).mkdir(parents=True)
        Image.fromarray(scene(*sizes.picture, 9 * number)).save(frame / "image" / "made.jpg", quality=92)
        for name in ("depth", "depth_bfx"):
            Image.fromarray(rotated).save(frame / name / "made.png")
    return root


# Kind of prepared data -> further options of `scripts/prepare_data.py`.
PREPARED: dict[str, dict[str, Any]] = {"prepared": {}, "shards": {"format": "shards"}}


def write_prepared(root: Path, frames: Path, side: int, **words: Any) -> Path:
    """The frames of a folder as `scripts/prepare_data.py --rgb_format jpeg --size SIDE` writes them."""
    from m33d_hf.data.sources import build_source
    from m33d_hf.inference.preparation.preparing import PreparationOptions, prepare_data

    options = PreparationOptions(output=str(root / "train"), size=str(side), rgb_format="jpeg", quality=92, **words)
    prepare_data(options, build_source("folder", root=frames, depth_unit="mm", labels="none"), say=lambda line: None)
    return root

"""Bare decoding, without anything of this package: what readers cost, and the yardstick of the loaders."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Read = Callable[[Path, Sequence[int]], np.ndarray]


def read_decord(path: Path, frames: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8 by decord."""
    import decord

    return decord.VideoReader(str(path), num_threads=1).get_batch(list(frames)).asnumpy()


def read_pyav(path: Path, frames: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8 by PyAV: seek to the key frame before the first, decode up to the last."""
    import av
    from av.video.reformatter import VideoReformatter

    # The frames' own `to_ndarray(format=...)` prepares the conversion for each frame anew: half as much time again.
    wanted, found, reformatter = set(frames), {}, VideoReformatter()
    options = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        step = 1 / (stream.average_rate * stream.time_base)
        if min(wanted) > 0:
            container.seek(int(min(wanted) * step), stream=stream)
        for frame in container.decode(stream):
            number = round(frame.pts / step)
            if number in wanted:
                found[number] = reformatter.reformat(frame, format="rgb24", **options).to_ndarray()
            if number >= max(wanted):
                break
    return np.stack([found[number] for number in frames])


def read_torchcodec(path: Path, frames: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8 by torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(list(frames)).data.numpy()


VIDEO_READERS: dict[str, tuple[str, Read]] = {
    "decord": ("decord", read_decord),
    "PyAV": ("av", read_pyav),
    "torchcodec": ("torchcodec", read_torchcodec),
}


def read_pictures_pil(files: Sequence[Path]) -> list[np.ndarray]:
    """Pixels of pictures by PIL; JPEG as RGB, the others as they are."""
    found = []
    for file in files:
        with Image.open(file) as picture:
            found.append(np.array(picture.convert("RGB") if file.suffix == ".jpg" else picture))
    return found


def read_bytes_pil(pictures: Sequence[bytes]) -> list[np.ndarray]:
    """Pixels of encoded pictures by PIL, as they are stored."""
    found = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as picture:
            found.append(np.array(picture))
    return found


def read_pictures_cv2(files: Sequence[Path]) -> list[np.ndarray]:
    """Pixels of pictures by OpenCV; JPEG as BGR."""
    import cv2

    return [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]


PICTURE_READERS: dict[str, tuple[str, Callable[[Sequence[Path]], list[np.ndarray]]]] = {
    "PIL": ("PIL", read_pictures_pil),
    "cv2": ("cv2", read_pictures_cv2),
}


def installed(module: str) -> bool:
    """Whether a package is there; nothing is imported."""
    return importlib.util.find_spec(module) is not None

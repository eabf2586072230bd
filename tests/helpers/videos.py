"""Small videos made on the spot, whose frames say which number they are."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
SIZE = (64, 96)


def numbered_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: the number in black and white blocks over the upper half, colour below that changes slowly."""
    height, width = size
    frame = np.empty((height, width, 3), np.uint8)
    block = width // BITS
    frame[:] = (40, 40 + number % 160, 200)
    frame[: height // 2] = 0
    for bit in range(BITS):
        if number >> bit & 1:
            frame[: height // 2, bit * block : (bit + 1) * block] = 255
    return frame


def number_in(frame: np.ndarray) -> int:
    """The number that a decoded `numbered_frame` shows."""
    height, width = frame.shape[:2]
    block = width // BITS
    rows = frame[height // 8 : height // 2 - height // 8].astype(float)
    means = [rows[:, bit * block + block // 4 : (bit + 1) * block - block // 4].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 127)


def write_video(
    path: Path,
    num_frames: int,
    *,
    codec: str = "mpeg4",
    size: tuple[int, int] = SIZE,
    rate: int = 25,
    pts: Sequence[int] | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    frames: Any = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Encode `num_frames` numbered frames (or those given); `pts` in units of 1 / (4 * rate) seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 4 * rate)
        for number in range(num_frames):
            pixels = numbered_frame(number, size) if frames is None else frames[number]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = Fraction(1, rate) if pts is None else Fraction(1, 4 * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path) -> Path:
    """Have the header of an mp4 say that its picture is to be turned by a quarter, as telephones do."""
    whole = bytearray(path.read_bytes())
    matrix = whole.index(b"tkhd") + 44  # version, dates, number, duration and layers stand before it
    whole[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(whole)
    return path


def write_sound(path: Path, seconds: float = 0.5, cover: bool = False) -> Path:
    """A file with nothing but sound (.wav; .mp4 with a cover picture)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if cover else "pcm_s16le", rate=8000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = *SIZE, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic.value
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered_frame(0), format="rgb24")))
            container.mux(picture.encode())
        kind, code = (np.float32, "fltp") if cover else (np.int16, "s16")
        samples = np.zeros((1, int(8000 * seconds)), kind)
        frame = av.AudioFrame.from_ndarray(samples, format=code, layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# 50 frames at 10 fps, then 50 at 2.5, in units of 1/40 s: frame 50 begins at 5 s, the last one at 24.6 s.
UNEVEN_RATE = 10
UNEVEN_STAMPS = [4 * number for number in range(50)] + [200 + 16 * number for number in range(50)]


def write_uneven(path: Path, codec: str = "libx264", shift: int = 0) -> Path:
    """100 numbered frames of a variable rate, `UNEVEN_STAMPS` / 40 seconds after the first."""
    pts = [stamp + shift for stamp in UNEVEN_STAMPS]
    return write_video(path, len(pts), codec=codec, rate=UNEVEN_RATE, pts=pts)


def cut_short(path: Path, share: float = 0.6) -> Path:
    """A copy of the first part of a file beside it, as a copy or a recording that was broken off leaves it."""
    data = path.read_bytes()
    target = path.with_name(f"cut_{path.name}")
    target.write_bytes(data[: int(share * len(data))])
    return target

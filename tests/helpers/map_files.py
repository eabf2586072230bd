"""Pictures and maps written by other code than the package's, and read by other code: the judges of its readers."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (13, 18)


def metres(seed: int = 0) -> np.ndarray:
    """(H, W) float32."""
    return np.random.default_rng(seed).random(SIZE, np.float32) * 5


def millimetres(seed: int = 0) -> np.ndarray:
    """(H, W) uint16, all of whose bits are used."""
    return np.random.default_rng(seed).integers(0, 65536, SIZE, dtype=np.uint16)


def picture(seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8, smooth enough for lossy formats."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9, columns * 11, (rows + columns) * 7 + seed], axis=-1).astype(np.uint8)


def png(values: np.ndarray) -> bytes:
    """Chunks written by hand: grey of 8 or 16 bits, or RGB."""
    height, width = values.shape[:2]
    colour, bits = (2 if values.ndim == 3 else 0), 8 * values.dtype.itemsize
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0), b"IDAT": zlib.compress(body)}
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in {**chunks, b"IEND": b""}.items():
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


def pfm(values: np.ndarray, order: str = "<") -> bytes:
    """Rows from the bottom up."""
    height, width = values.shape
    scale = "-1.0" if order == "<" else "1.0"
    rows = [struct.pack(f"{order}{width}f", *row) for row in values.tolist()]
    return f"Pf\n{width} {height}\n{scale}\n".encode() + b"".join(reversed(rows))


def text_pgm(values: np.ndarray, maximum: int = 65535) -> bytes:
    """P2: every number in text."""
    height, width = values.shape
    lines = "\n".join(" ".join(map(str, row)) for row in values.tolist())
    return f"P2\n# by hand\n{width} {height}\n{maximum}\n{lines}\n".encode()


def binary_pgm(values: np.ndarray, maximum: int = 65535) -> bytes:
    """P5, most significant byte first."""
    height, width = values.shape
    body = b"".join(struct.pack(f">{width}H", *row) for row in values.tolist())
    return f"P5 {width} {height} {maximum}\n".encode() + body


def npy(values: np.ndarray) -> bytes:
    """As NumPy writes it."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npz(values: np.ndarray, name: str = "depth") -> bytes:
    """As zipfile packs it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", npy(values))
    return stream.getvalue()


def tiff(values: np.ndarray, order: str = "<", deflated: bool = False, strip_rows: int = 5) -> bytes:
    """A grey TIFF, strips of `strip_rows` rows, tags written by hand."""
    height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    stored = values.astype(values.dtype.newbyteorder(order))
    strips = [stored[top : top + strip_rows].tobytes() for top in range(0, height, strip_rows)]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    tables = 8 + len(body)
    lengths = [len(strip) for strip in strips]
    body += struct.pack(f"{order}{2 * len(strips)}I", *offsets, *lengths)
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8 * values.dtype.itemsize),
        (259, 3, 1, 8 if deflated else 1), (262, 3, 1, 1), (273, 4, len(strips), tables), (277, 3, 1, 1),
        (278, 3, 1, strip_rows), (279, 4, len(strips), tables + 4 * len(strips)), (339, 3, 1, kind),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    for tag, type_of, count, value in entries:
        packed = struct.pack(f"{order}H", value) + b"\0\0" if type_of == 3 else struct.pack(f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, type_of, count) + packed
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(body))
    return start + body + directory + struct.pack(f"{order}I", 0)


def by_pillow(name: str, image: Image.Image, **options: object) -> bytes:
    """The file that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    return stream.getvalue()


def maps() -> dict[str, tuple[str, bytes]]:
    """Map files by a name: (suffix, bytes)."""
    return {
        "png 16": (".png", png(millimetres())),
        "png 8": (".png", png((millimetres() % 40).astype(np.uint8))),
        "npy uint16": (".npy", npy(millimetres())),
        "npy float": (".npy", npy(metres())),
        "npz": (".npz", npz(metres())),
        "pgm text": (".pgm", text_pgm(millimetres())),
        "pgm": (".pgm", binary_pgm(millimetres())),
        "pfm": (".pfm", pfm(metres())),
        "pfm big-endian": (".pfm", pfm(metres(), ">")),
        "tiff 16": (".tif", tiff(millimetres())),
        "tiff float deflated": (".tiff", tiff(metres(), deflated=True)),
        "tiff big-endian": (".tif", tiff(metres(), ">", deflated=True)),
        "tiff lzw": (".tif", by_pillow("TIFF", Image.fromarray(millimetres()), compression="tiff_lzw")),
        **({} if (data := exr(metres())) is None else {"exr": (".exr", data)}),
    }


def exr(values: np.ndarray) -> bytes | None:
    """As the package OpenEXR writes it; None where it is not installed."""
    try:
        import OpenEXR
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
        OpenEXR.File(header, {"Z": values}).write(f"{folder}/a.exr")
        return Path(folder, "a.exr").read_bytes()


def pictures() -> dict[str, tuple[str, bytes]]:
    """Picture files by a name: (suffix, bytes)."""
    image = Image.fromarray(picture())
    return {
        "png": (".png", png(picture())),
        "jpeg": (".jpg", by_pillow("JPEG", image, quality=95)),
        "webp": (".webp", by_pillow("WEBP", image, lossless=True)),
        "bmp": (".bmp", by_pillow("BMP", image)),
        "tiff": (".tif", by_pillow("TIFF", image)),
        "tiff deflated": (".tif", by_pillow("TIFF", image, compression="tiff_adobe_deflate")),
        "ppm": (".ppm", by_pillow("PPM", image)),
    }


def other_reader(name: str) -> Callable[[Path], np.ndarray | None]:
    """Another library's reading of such a file; None where it refuses, or is not installed, or has no say."""
    if name.startswith("npy"):
        return lambda path: _tried(lambda: np.load(path, allow_pickle=False))
    if name == "npz":
        return lambda path: _tried(lambda: next(iter(np.load(path, allow_pickle=False).values())))
    if name.startswith("pfm"):
        return lambda path: _tried(lambda: np.array(Image.open(path)))
    if name.startswith("tiff"):
        return _by_tifffile
    if name == "exr":
        return lambda path: None  # there is one library
    return _by_opencv


def _tried(read: Callable[[], np.ndarray]) -> np.ndarray | None:
    try:
        return read()
    except Exception:  # its refusals are not what is tested
        return None


def _by_tifffile(path: Path) -> np.ndarray | None:
    try:
        import tifffile
    except ImportError:
        return None
    return _tried(lambda: tifffile.imread(path))


def _by_opencv(path: Path) -> np.ndarray | None:
    try:
        import cv2
    except ImportError:
        return None
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    values = _tried(lambda: cv2.imread(str(path), flags))
    return values[..., ::-1] if values is not None and values.ndim == 3 else values

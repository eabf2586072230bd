"""Pictures to PNG files, quickly: what is drawn for looking at need not be as small as possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from m33d_hf.data.files.atomic_writing import write_atomically

COMPRESSION = 3


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as PNG, atomically."""
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, compress_level=COMPRESSION))

"""Decoding of videos that tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from m33d_hf.modeling.video_reading_m33d import iterate_video


def watched_reading(module: ModuleType, monkeypatch: pytest.MonkeyPatch, number: int, met: Callable[[], None]) -> None:
    """`met` is called, where `module` decodes frames, once all before the frame `number` are."""

    def iterated(path: Path, **options: Any) -> Iterator[tuple[int, np.ndarray]]:
        for entry in iterate_video(path, **options):
            if entry[0] == number:
                met()
            yield entry

    monkeypatch.setattr(module, "iterate_video", iterated)

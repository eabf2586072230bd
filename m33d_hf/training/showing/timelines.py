"""Whole videos: frames spread over a video above its annotation, and above what the temporal model says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from m33d_hf.data.sample import read_sample
from m33d_hf.data.sources.frames.frames import spread_indices
from m33d_hf.training.showing.inputs import STRIP_INCHES
from m33d_hf.training.tasks.building import config_of
from m33d_hf.training.tasks.detection.feature_dataset import FeatureDataset, FeatureSample
from m33d_hf.training.tasks.detection.first_stage import known_phases
from m33d_hf.visualization.tiles import Tile, TileRow, strip, tiles_figure
from m33d_hf.visualization.timeline import time_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 6


def video_frames(dataset: FeatureDataset, index: int, count: int = FRAMES) -> dict[str, np.ndarray]:
    """Time of a frame -> (H, W, 3) uint8, evenly spread over a video.

    Raises:
        DataError, OSError: it cannot be read.
    """
    handle = dataset.phases.videos[dataset.indices[index]].handle
    places = spread_indices(handle.length, count)
    rgb = read_sample(handle, places, ("rgb",)).rgb
    if rgb is None:
        return {}
    images = rgb.permute(0, 2, 3, 1).numpy()
    rate = handle.fps
    long = bool(rate and handle.length / rate >= 3600)
    names = [f"frame {p}" if not rate else f"{time_label(p / rate, long)} (frame {p})" for p in places]
    step = max(1, max(images.shape[1:3]) // 256)  # of a recording in full HD a sixth is plenty
    return {name: image[::step, ::step] for name, image in zip(names, images, strict=True)}


def videos_figure(dataset: FeatureDataset, model: nn.Module, indices: list[int], title: str) -> Figure:
    """Frames of some videos, each under its name with the phase of every frame shown.

    Raises:
        DataError, OSError: a video cannot be read.
        MissingDependencyError: matplotlib is not installed.
    """
    names, rows = list(known_phases(config_of(model))), []
    for index in indices:
        sample = dataset[(0, index)]
        shown = video_frames(dataset, index)
        note = ""
        if isinstance(sample, FeatureSample) and sample.phases is not None:
            note = _phase_words(sample.phases, names, len(shown))
        tiles = {"frames spread over the video": Tile(strip(list(shown.values())))} if shown else {}
        rows.append(TileRow(str(getattr(sample, "key", index)), tiles, f"{'; '.join(shown)}\n{note}"))
    return tiles_figure(rows, title, width=STRIP_INCHES)


def _phase_words(phases: np.ndarray, names: list[str], count: int) -> str:
    found = [phases[place] for place in spread_indices(len(phases), count)]
    words = [names[number] if number < len(names) else "not annotated" for number in found]
    share = float((phases < len(names)).mean())
    return f"phases: {', '.join(words)}; {100 * share:.0f} % of the frames annotated"

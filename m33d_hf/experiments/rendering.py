"""The jobs that need no training: rendering all rooms, and what a model can reach that looks at nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources import build_source
from m33d_hf.evaluation.detection_metrics import mean_average_precision
from m33d_hf.evaluation.metrics import ConfusionMatrix, DepthMetrics
from m33d_hf.evaluation.position_floors import PositionMean, PositionMode

Row = dict[str, Any]
Counts = Mapping[str, int]
FLOOR_FRAMES = 1000
PLACES = 24


def render(
    seeds: Sequence[int],
    cache_dir: str | None,
    frames: Counts | None = None,
    clips: Counts | None = None,
    videos: Counts | None = None,
    options: Mapping[str, Any] | None = None,
) -> Row:
    """Render every split into the cache, once and before anybody reads it; digests tell what was used.

    Args:
        seeds: of the frames; the first is that of all measurements, others are disjoint sets to pre-train on.
        cache_dir: where; None = the user's cache.
        frames, clips, videos: split -> number; None = not used.
        options: size of the frames, where all is rendered, and the seed of clips and videos, as keyword arguments of
            the sources.

    Returns:
        Digests, names of the classes of frames, and the ceiling of any clip-wise classifier of phases.
    """
    from m33d_hf.data.sources.rooms.procedures import clipwise_ceiling

    started = time.perf_counter()
    sources = {f"frames/{seed}/{split}": _rooms(split, count, cache_dir, {**(options or {}), "seed": seed})
               for seed in seeds for split, count in (frames or {}).items()}  # fmt: skip
    sources |= {f"clips/{split}": _clips(split, count, cache_dir, options) for split, count in (clips or {}).items()}
    sources |= {f"videos/{split}": _videos(split, count, cache_dir, options) for split, count in (videos or {}).items()}
    seconds = time.perf_counter() - started
    classes = [list(source.class_names) for name, source in sources.items() if name.startswith("frames/")]
    parts = {"frames": frames, "clips": clips, "videos": videos}
    said = " and ".join(f"{sum(counts.values())} {name}" for name, counts in parts.items() if counts)
    return {
        "seconds": seconds,
        "digests": {name: source.digest() for name, source in sources.items()},
        "class_names": classes[0] if classes else [],
        "ceiling": clipwise_ceiling(sources["videos/test"]) if videos else None,
        "headline": f"{said} in {seconds:.0f} s",
    }


def _rooms(split: str, count: int, cache_dir: str | None, options: Mapping[str, Any] | None) -> Any:
    return build_source("rooms", split=split, num_frames=count, cache_dir=cache_dir, **(options or {}))


def _clips(split: str, count: int, cache_dir: str | None, options: Mapping[str, Any] | None) -> Any:
    return build_source("rooms", split=split, unit="clips", num_clips=count, cache_dir=cache_dir, **_but_size(options))


def _videos(split: str, count: int, cache_dir: str | None, options: Mapping[str, Any] | None) -> Any:
    return build_source("procedures", split=split, num_videos=count, cache_dir=cache_dir, **_but_size(options))


def _but_size(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Clips and videos have one size."""
    return {key: value for key, value in (options or {}).items() if key != "image_size"}


def floors(
    split: str,
    cache_dir: str | None,
    frames: Counts | None = None,
    clips: Counts | None = None,
    videos: Counts | None = None,
    options: Mapping[str, Any] | None = None,
) -> Row:
    """What a model that looks at nothing can reach on `split`, by metric."""
    used = ("train", split)
    found: dict[str, dict[str, Any]] = {}
    if frames:
        found |= _frame_floors(*(_rooms(name, frames[name], cache_dir, options) for name in used))
    if clips:
        found["top1"] = {"value": 0.1, "how": "chance among ten motions, which are equally frequent"}
    if videos:
        found |= _place_floors(*(_videos(name, videos[name], cache_dir, options) for name in used))
    told = {name: entry["value"] for name, entry in found.items() if name != "clip_accuracy"}
    text = ", ".join(f"{name} {100 * value:.1f} %" for name, value in told.items())
    return {"floors": found, "split": split, "headline": text}


def _frame_floors(train: Any, test: Any) -> dict[str, dict[str, Any]]:
    """Per pixel the commonest class and the mean depth of the training frames."""
    used, classes = min(FLOOR_FRAMES, len(train)), len(train.class_names)
    modes, means = PositionMode(classes), PositionMean()
    for index in range(used):
        sample = train[index].read([0])
        modes.update(sample.segmentation[0])
        means.update(sample.depth[0, 0])
    majority, mean_depth = modes.map(), means.map()
    confusion, metrics = ConfusionMatrix(classes), DepthMetrics()
    for index in range(len(test)):
        sample = test[index].read([0])
        confusion.update(majority[None], sample.segmentation[:1].long())
        metrics.update(mean_depth[None], sample.depth[:1, 0])
    return {
        "miou": {
            "value": confusion.compute()["mean_iou"],
            "how": f"the commonest class per position over {used} training frames",
        },
        "delta1": {
            "value": metrics.compute()["delta1"],
            "how": f"the mean depth per position over {used} training frames",
        },
    }


def _place_floors(train: Any, test: Any) -> dict[str, dict[str, Any]]:
    """What a clip's place in its video tells about its phase, without a look at a single frame.

    Shares of the phases at each of `PLACES` places of the training videos, as probabilities of the test clips.
    """
    shares = np.full((PLACES, len(train.action_names or [])), 1e-6)
    for place, label in _places(train):
        shares[place, label] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    found = list(_places(test))
    scores, labels = np.stack([shares[place] for place, _ in found]), np.array([label for _, label in found])
    mean, _ = mean_average_precision(scores, labels)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    how = "a clip's place in its video alone"
    return {"map": {"value": mean, "how": how}, "clip_accuracy": {"value": accuracy, "how": how}}


def _places(source: Any) -> Iterator[tuple[int, int]]:
    """(place from 0 to PLACES - 1, phase) of every annotated clip."""
    for number in range(len(source.videos)):
        spans = source.clips(number)
        for order, span in enumerate(spans):
            if span.label != IGNORE_INDEX:
                yield min(PLACES - 1, int(PLACES * (order + 0.5) / len(spans))), span.label

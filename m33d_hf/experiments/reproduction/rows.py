"""What the jobs of the reproduction do in their worker processes; every function returns a JSON dict, the row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from m33d_hf.data.sources import build_source
from m33d_hf.experiments import rows as image_rows
from m33d_hf.experiments import video_rows
from m33d_hf.training.recipe.parsing import parse_arguments

Row = dict[str, Any]
Counts = Mapping[str, int]
pretrain = image_rows.pretrain
dense = image_rows.finetune
actions = video_rows.actions
phases = video_rows.phases


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
        options: size of the frames and where all is rendered, as keyword arguments of the sources.
    """
    device = {key: value for key, value in (options or {}).items() if key == "device"}
    started = time.perf_counter()
    digests: dict[str, str] = {}
    for seed in seeds if frames else ():
        for split, count in (frames or {}).items():
            known = {"num_frames": count, "cache_dir": cache_dir, **(options or {})}
            source = build_source("rooms", split=split, seed=seed, **known)
            digests[f"frames/{seed}/{split}"] = source.digest()
    for split, count in (clips or {}).items():
        source = build_source("rooms", split=split, unit="clips", num_clips=count, cache_dir=cache_dir, **device)
        digests[f"clips/{split}"] = source.digest()
    for split, count in (videos or {}).items():
        source = build_source("procedures", split=split, num_videos=count, cache_dir=cache_dir, **device)
        digests[f"videos/{split}"] = source.digest()
    return {"seconds": time.perf_counter() - started, "digests": digests, "headline": f"{len(digests)} sets"}


def floors(
    split: str,
    cache_dir: str | None,
    frames: Counts | None = None,
    clips: Counts | None = None,
    videos: Counts | None = None,
    options: Mapping[str, Any] | None = None,
) -> Row:
    """What a model that looks at nothing can reach, by metric."""
    found: dict[str, dict[str, Any]] = {}
    if frames:
        known = image_rows.floors(_with_test(frames, split), cache_dir, options)["floors"]
        found = {row["metric"]: {"value": row["value"], "how": row["how"]} for row in known.values()}
    if clips:
        found["top1"] = {"value": 0.1, "how": "chance among ten motions, which are equally frequent"}
    if videos:
        row = video_rows.floor(_with_test(videos, split), cache_dir)
        found["map"] = {"value": row["metrics"]["map"], "how": "a clip's place in its video alone"}
    text = ", ".join(f"{name} {100 * entry['value']:.1f} %" for name, entry in found.items())
    return {"floors": found, "headline": text}


def _with_test(counts: Counts, split: str) -> dict[str, int]:
    return {**counts, "test": counts[split]}


def probe(argv: Sequence[str], output_dir: str) -> Row:
    """k-NN and linear probe on frozen features."""
    from m33d_hf.training.probes.clips import probe_run

    args = parse_arguments([*argv, "--output_dir", output_dir], "video_classification")
    started = time.perf_counter()
    metrics = probe_run(args)
    headline = f"k-NN {100 * metrics['knn/top1']:.1f} %, linear {100 * metrics['linear/top1']:.1f} %"
    return {"steps": 0, "seconds": time.perf_counter() - started, "metrics": metrics, "headline": headline}

"""What the jobs of the video experiment do in their worker processes; every function returns a JSON dict, the row."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources import build_source
from m33d_hf.errors import M33DError
from m33d_hf.evaluation.detection_metrics import mean_average_precision
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.evaluation_run import evaluate_run
from m33d_hf.training.run.loop import train
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.detection.task import ActionDetectionTask
from m33d_hf.training.tasks.video_classification import VideoClassificationTask

Row = dict[str, Any]
PLACES = 24


def render(clips: Mapping[str, int], videos: Mapping[str, int], cache_dir: str | None) -> Row:
    """Render all splits into the cache; returns digests, names and the ceiling of any clip-wise classifier."""
    from m33d_hf.data.sources.rooms.procedures import clipwise_ceiling

    started = time.perf_counter()
    digests: dict[str, str] = {}
    for split, count in clips.items():
        source = build_source("rooms", split=split, unit="clips", num_clips=count, cache_dir=cache_dir)
        digests[f"clips/{split}"] = source.digest()
    actions = list(source.action_names or [])
    for split, count in videos.items():
        source = build_source("procedures", split=split, num_videos=count, cache_dir=cache_dir)
        digests[f"videos/{split}"] = source.digest()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "digests": digests,
        "action_names": actions,
        "phase_names": list(source.action_names or []),
        "ceiling": clipwise_ceiling(source),  # type: ignore[arg-type]
        "headline": f"{sum(clips.values())} clips and {sum(videos.values())} videos in {seconds:.0f} s",
    }


def floor(videos: Mapping[str, int], cache_dir: str | None) -> Row:
    """What a clip's place in its video tells about its phase, without a look at a single frame.

    Shares of the phases at each of `PLACES` places of the training videos, as probabilities of the test clips.
    """
    train_set, test = (
        build_source("procedures", split=split, num_videos=videos[split], cache_dir=cache_dir)
        for split in ("train", "test")
    )
    count = len(train_set.action_names or [])
    shares = np.full((PLACES, count), 1e-6)
    for place, label in _places(train_set):
        shares[place, label] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    found = list(_places(test))
    scores, labels = np.stack([shares[place] for place, _ in found]), np.array([label for _, label in found])
    mean, _ = mean_average_precision(scores, labels)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    return {"metrics": {"map": mean, "clip_accuracy": accuracy}, "headline": f"mAP {100 * mean:.1f} %"}


def _places(source: Any) -> Iterator[tuple[int, int]]:
    """(place from 0 to PLACES - 1, phase) of every annotated clip."""
    for number in range(len(source.videos)):
        spans = source.clips(number)
        for order, span in enumerate(spans):
            if span.label != IGNORE_INDEX:
                yield min(PLACES - 1, int(PLACES * (order + 0.5) / len(spans))), span.label


def actions(argv: Sequence[str], test_argv: Sequence[str], output_dir: str, steps: int) -> Row:
    """One fine-tuning on motion classes, its last weights evaluated on the test clips."""
    seconds = _train(parse_arguments([*argv, "--output_dir", output_dir], "video_classification"))
    metrics = _test([*test_argv, "--init_from", output_dir], output_dir, "video_classification")
    return {
        "steps": steps,
        "seconds": seconds,
        "metrics": metrics,
        "folder": str(Path(output_dir) / "test"),
        "headline": f"test top-1 {100 * metrics['top1']:.1f} %",
    }


def phases(clip_argv: Sequence[str], temporal_argv: Sequence[str], output_dir: str, steps: int) -> Row:
    """Both stages of phase detection; the second evaluates on the test videos, clip by clip and over the video."""
    clip_dir, temporal_dir = str(Path(output_dir) / "clips"), str(Path(output_dir) / "temporal")
    first = _train(parse_arguments([*clip_argv, "--output_dir", clip_dir], "video_classification"))
    words = [*temporal_argv, "--init_from", clip_dir, "--output_dir", temporal_dir]
    args = parse_arguments(words, "action_detection")
    started = time.perf_counter()
    result = train(args, ActionDetectionTask())
    if result.interrupted_by is not None:
        raise M33DError(f"stopped by signal {result.interrupted_by}; run again to continue")
    metrics = {name.removeprefix("eval/"): value for name, value in result.metrics.items()}
    shutil.rmtree(Path(temporal_dir) / "features", ignore_errors=True)  # many rows: keep the disk small
    return {
        "steps": steps,
        "seconds": first + time.perf_counter() - started,
        "metrics": metrics,
        "folder": temporal_dir,
        "headline": f"test mAP {100 * metrics['clipwise/map']:.1f} % by clip, {100 * metrics['map']:.1f} % by video",
    }


def _train(args: RunArguments) -> float:
    started = time.perf_counter()
    result = train(args, _task(args.task))
    if result.interrupted_by is not None:
        raise M33DError(f"stopped by signal {result.interrupted_by} at step {result.step}; run again to continue")
    return time.perf_counter() - started


def _test(argv: Sequence[str], output_dir: str, task: str) -> dict[str, float]:
    """Metrics on the test split by the command a user would give."""
    words = [*argv, "--eval_only", "true", "--output_dir", str(Path(output_dir) / "test")]
    args = parse_arguments(words, task)
    return evaluate_run(args, _task(task))


def _task(name: str) -> Task:
    return {"video_classification": VideoClassificationTask, "action_detection": ActionDetectionTask}[name]()

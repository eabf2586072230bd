"""Several cameras of one case in detection: their clips beside those of the first one, and their features in one.

The features are their mean or, for a model with `temporal_cameras`, stand side by side (`joined_cameras`). A clip that
a camera does not show, or that cannot be read from it, counts for nothing: the mean is over those there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from m33d_hf.data.plural import plural
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseSource
from m33d_hf.data.sources.phases.synchrony import beside
from m33d_hf.errors import ConfigError, DataError
from m33d_hf.modeling.cameras_m33d import joined_cameras
from m33d_hf.training.tasks.detection.features import VideoFeatures


def first_cameras(source: PhaseSource) -> list[int]:
    """The videos that stand for their cases: all of them where no case has several cameras."""
    return [case[0] for case in source.cases]


def all_cameras(source: PhaseSource, rows: Sequence[int]) -> list[int]:
    """The videos of the cases that those of `rows` stand for."""
    together = {case[0]: case for case in source.cases}
    return [number for row in rows for number in together[row]]


def camera_clips(source: PhaseSource, number: int) -> list[ClipSpan]:
    """The clips of a video whose features are extracted; of a further camera those beside the clips of the first."""
    case = next(case for case in source.cases if number in case)
    if number == case[0]:
        return source.clips(number)
    return [clip for clip in _beside(source, case[0], number) if clip is not None]


def _beside(source: PhaseSource, first: int, number: int) -> list[ClipSpan | None]:
    return beside(source.videos[first], source.videos[number], source.clips(first), source.clip_span)


def check_cameras(source: PhaseSource, rows: Sequence[int], names: Sequence[str], train: bool) -> None:
    """Refuse cases whose cameras are not those that the model reads side by side; one may lack some of them.

    Args:
        source: the videos.
        rows: the first cameras of the cases in use.
        names: `temporal_cameras` of the model.
        train: training data, where each camera must occur.

    Raises:
        ConfigError: the data is not grouped by cameras.
        DataError: a camera that the model does not know, or one that no case has.
    """
    listed = ", ".join(names)
    found: set[str] = set()
    for number in all_cameras(source, rows):
        video = source.videos[number]
        if video.case is None:
            raise ConfigError(
                f"the model reads the cameras {listed} side by side (model.temporal_cameras), but the data does not "
                "say which video is by which camera: pass --data.options.cameras (docs/videos.md)"
            )
        if video.camera not in names:
            raise DataError(
                f"{video.key} is by camera {video.camera!r} of case {video.case}, but the model reads the cameras "
                f"{listed} (model.temporal_cameras): name cameras alike in all data, or leave out "
                "model.temporal_cameras to take the mean over the cameras of a case"
            )
        found.add(video.camera)
    absent = [name for name in names if name not in found]
    if train and absent:
        raise DataError(
            f"model.temporal_cameras names {listed}, but no training case has a camera {absent[0]!r}; those there are: "
            f"{', '.join(sorted(found))}"
        )


def fused_features(
    source: PhaseSource, first: int, read: Callable[[str], VideoFeatures], names: Sequence[str] | None = None
) -> VideoFeatures:
    """The features of a case, clip by clip of its first camera.

    Args:
        source: the videos.
        first: the first camera of the case.
        read: the features of a video, by its key.
        names: of the cameras whose features stand side by side, in this order; None takes their mean.
    """
    own = read(source.videos[first].key)
    others = [number for number in all_cameras(source, [first]) if number != first]
    if not others and names is None:
        return own
    features, logits, shown = [own.features], [own.clip_logits], [own.valid]
    problems = list(own.problems)
    for number in others:
        video = read(source.videos[number].key)
        there = torch.tensor([clip is not None for clip in _beside(source, first, number)])
        features.append(placed(video.features, there))
        logits.append(placed(video.clip_logits, there))
        shown.append(placed(video.valid, there))
        problems += video.problems
    cameras = [source.videos[number].camera for number in (first, *others)]
    seen = torch.stack(shown)
    fused, clipwise = fuse(torch.stack(features), torch.stack(logits), seen, cameras, names)
    return replace(own, features=fused, clip_logits=clipwise, valid=seen.any(0), problems=problems, cameras=seen.sum(0))


def fuse(
    features: Tensor, logits: Tensor, seen: Tensor, cameras: Sequence[str], names: Sequence[str] | None
) -> tuple[Tensor, Tensor]:
    """What the temporal model reads of each clip, and the mean of the clip-wise logits.

    Args:
        features: (C, S, D), zeros where not seen.
        logits: (C, S, L), likewise.
        seen: (C, S) bool, whether a camera showed a clip.
        cameras: the C names.
        names: of the cameras whose features stand side by side, in this order; None takes their mean.
    """
    if names is None:
        return _mean(features, seen), _mean(logits, seen)
    order = [names.index(camera) for camera in cameras]
    return _side_by_side(features, seen, order, len(names)), _mean(logits, seen)


def describe_cameras(
    source: PhaseSource, rows: Sequence[int], lacking: int, names: Sequence[str] | None = None
) -> list[str]:
    """A sentence on the cameras of the cases in use; none where each has one."""
    videos = len(all_cameras(source, rows))
    cases = f"{plural(len(rows), 'case')} by {plural(videos, 'camera')}"
    if names is not None:
        return [
            f"{cases}: their features side by side, clip by clip, in the order {', '.join(names)}; {lacking} clips are "
            "not seen by each of them, and have zeros for the others"
        ]
    if videos == len(rows):
        return []
    return [
        f"{cases}: the mean of their features, clip by clip; {lacking} clips are not seen by every camera of their "
        "case, and are the mean over the others"
    ]


def placed(rows: Tensor, there: Tensor) -> Tensor:
    """Rows of a camera at the clips that it shows; zeros elsewhere."""
    placed = rows.new_zeros((len(there), *rows.shape[1:]))
    placed[there] = rows
    return placed


def _side_by_side(rows: Tensor, seen: Tensor, order: Sequence[int], cameras: int) -> Tensor:
    """(S, cameras * (D + 1)) of (C, S, D), of which camera c has place order[c]."""
    placed = rows.new_zeros((rows.shape[1], cameras, rows.shape[2]))
    there = torch.zeros((rows.shape[1], cameras), dtype=torch.bool)
    for camera, place in enumerate(order):
        placed[:, place], there[:, place] = rows[camera], seen[camera]
    return joined_cameras(placed, there)


def _mean(rows: Tensor, seen: Tensor) -> Tensor:
    """(S, D) mean of (C, S, D) over the cameras that saw the clip; zeros where none did."""
    weights = seen[..., None].to(rows.dtype)
    return (rows * weights).sum(0) / weights.sum(0).clamp_min(1)

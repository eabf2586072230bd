"""Detection judged with several input sets: videos that have the depth that is asked for, and the same clips in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from m33d_hf.data.plural import plural
from m33d_hf.data.sample import read_sample
from m33d_hf.data.sources.phases.base import PhaseSource
from m33d_hf.errors import DataError
from m33d_hf.training.tasks.detection.cameras import camera_clips
from m33d_hf.training.tasks.detection.features import ClipRule, FeatureStore, VideoFeatures, VideoSummary

_MOST_NAMED = 5


class SharedClips(FeatureStore):
    """The features of one input set, of which only those clips count that could be read for every set.

    A clip whose depth is damaged can be read for RGB alone; a row of RGB that held it would be one of other clips than
    the row beside it.

    Args:
        store: the features.
        others: of the same videos, for the other input sets.
    """

    def __init__(self, store: FeatureStore, others: Sequence[FeatureStore]) -> None:
        super().__init__(store.folder, store.format)
        self.others = list(others)

    def read(self, key: str) -> VideoFeatures:
        """As `FeatureStore.read`, with zeros for the clips that do not count."""
        video = super().read(key)
        valid = self._of_all(super().summary(key)).valid
        left = ~valid[:, None]
        features, logits = video.features.masked_fill(left, 0.0), video.clip_logits.masked_fill(left, 0.0)
        return replace(video, features=features, clip_logits=logits, valid=valid)

    def summary(self, key: str) -> VideoSummary:
        """As `FeatureStore.summary`, of the clips that count."""
        return self._of_all(super().summary(key))

    def _of_all(self, own: VideoSummary) -> VideoSummary:
        valid, problems = own.valid, list(own.problems)
        for other in self.others:
            found = other.summary(own.key)
            valid = valid & found.valid
            problems += [problem for problem in found.problems if problem not in problems]
        return replace(own, valid=valid, problems=problems)


def check_depth_of_videos(source: PhaseSource, videos: Sequence[int], rule: ClipRule) -> None:
    """Refuse videos without depth where a row of results says that it was given; clips and frames may lack theirs.

    Of each video clips are read until one has a valid pixel, usually the first.

    Args:
        source: the videos.
        videos: the numbers of those in use.
        rule: how they are cut.

    Raises:
        DataError: videos without any depth, by their keys.
    """
    lacking = [source.videos[number].key for number in videos if not _has_depth(source, number, rule)]
    if not lacking:
        return
    named = ", ".join(lacking[:_MOST_NAMED]) + (", ..." if len(lacking) > _MOST_NAMED else "")
    raise DataError(
        f"evaluation.inputs has depth, but {plural(len(lacking), 'evaluation video')} of {len(videos)} "
        f"{'has' if len(lacking) == 1 else 'have'} none: {named}. What is measured there would be RGB alone under "
        "another name. Write their depth (scripts/extract_depth.py), take these videos out of the evaluation split, "
        "leave out what has no depth (--data.options.require_depth true, where the source has that option), or judge "
        "RGB alone: --evaluation.inputs '[[rgb]]'."
    )


def _has_depth(source: PhaseSource, number: int, rule: ClipRule) -> bool:
    """Whether some clip has a pixel with depth; True also where no frame can be read, which the extraction tells."""
    video = source.videos[number]
    if not video.may_have_depth:
        return False
    read = False
    for span in camera_clips(source, number):
        frames = [span.start + index for index in rule.frames(span.stop - span.start)]
        try:
            depth = read_sample(video.handle, frames, ("depth",)).depth
        except (DataError, OSError):
            continue
        read = True
        if depth is not None and bool(depth.isfinite().any()):
            return True
    return not read and not _has_rgb(source, number)


def _has_rgb(source: PhaseSource, number: int) -> bool:
    """Whether the first frame can be read, so that only depth is missing."""
    try:
        return read_sample(source.videos[number].handle, [0], ("rgb",)).rgb is not None
    except (DataError, OSError):
        return False

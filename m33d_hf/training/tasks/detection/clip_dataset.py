"""The clips of whole videos as a data set: clips of one video that are asked for together are read together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from m33d_hf.data.files.skips import SkippedFile, unreadable
from m33d_hf.data.loader.loading import Transform
from m33d_hf.data.sample import (
    HOLES,
    ForwardHandle,
    Hole,
    RGBDSample,
    VideoHandle,
    holes_of,
    read_sample,
    why_no_depth,
)
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseClip, PhaseSource
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError, LabelError
from m33d_hf.training.tasks.detection.features import ClipRule

# Frames that are held as they were decoded: of a video that is opened for them, and of one that stays open.
FRAMES_AT_ONCE, FRAMES_IN_PASSING = 64, 16


class ClipRow(NamedTuple):
    """One clip to read: number of the video, number of the clip in it, its frames."""

    video: int
    clip: int
    span: ClipSpan


class ClipDataset(Dataset[RGBDSample]):
    """Reads and transforms clips. One that cannot be read comes back without frames, with ``meta["skipped"]``.

    Clips of one video that are asked for together are read together, some frames at a time and each of them once, and
    the next ones go on where these ended: opening a video and finding a frame in it costs more than the frames of a
    clip. Where that fails they are read one by one. Whoever has asked for the last clip calls `close`.

    Args:
        source: the videos.
        rule: which frames of a clip are taken.
        transform: of the evaluation; the same for a frame alone and among others.
        maps: what the encoder takes, "rgb", "depth" or both.
    """

    def __init__(
        self, source: PhaseSource, rule: ClipRule, transform: Transform, maps: Sequence[str] = ("rgb",)
    ) -> None:
        self.source, self.rule, self.transform, self.maps = source, rule, transform, tuple(maps)
        self._opened: _Opened | None = None
        self._frames: dict[int, _Frame] = {}

    def close(self) -> None:
        """Close the video that is open; reading opens it again."""
        if self._opened is not None and self._opened.stays:
            cast(ForwardHandle, self._opened.handle).close()
        self._opened, self._frames = None, {}

    def __getitem__(self, row: ClipRow) -> RGBDSample:
        """Read one clip; errors that concern the whole data set are raised."""
        clip = PhaseClip(self.source.videos[row.video].handle, row.span)
        try:
            sample = self._with_what_is_seen(read_sample(clip, self.rule.frames(clip.length), self.maps))
        except (DepthUnitError, LabelError):
            raise
        except (DataError, OSError) as error:
            found = unreadable(error, clip.video.key)
            frames = f"frames {row.span.start} to {row.span.stop - 1}"
            skipped = SkippedFile(f"{found.path} ({frames})", found.reason, clip.key)
            return RGBDSample(clip.key, meta={"row": row, "skipped": skipped})
        seen, meta = self._prepared(sample), {"row": row, HOLES: holes_of(sample)}
        return RGBDSample(clip.key, rgb=seen.rgb, depth=seen.depth, meta=meta)

    def __getitems__(self, rows: Sequence[ClipRow]) -> list[RGBDSample]:
        """Read the clips of a batch, all of one video."""
        opened = self._open(rows[0].video)
        together = max((FRAMES_IN_PASSING if opened.stays else FRAMES_AT_ONCE) // self.rule.num_frames, 1)
        parts = [rows[i : i + together] for i in range(0, len(rows), together)]
        return [sample for part in parts for sample in self._read_together(opened.handle, part)]

    def _read_together(self, handle: VideoHandle, rows: Sequence[ClipRow]) -> list[RGBDSample]:
        clips = [[row.span.start + i for i in self.rule.frames(row.span.stop - row.span.start)] for row in rows]
        numbers = self._missing({number for clip in clips for number in clip})
        try:
            whole = read_sample(handle, numbers, self.maps) if numbers else None
        except (DataError, OSError):
            return [self[row] for row in rows]  # which says what is wrong with which of them
        if whole is not None:
            seen, holes = self._prepared(whole), {hole.place: hole for hole in holes_of(whole)}
            self._frames.update((number, _frame(seen, place, holes.get(place))) for place, number in enumerate(numbers))
        samples = [self._clip(row, clip) for row, clip in zip(rows, clips, strict=True)]
        if self.rule.clip_stride < self.rule.span:  # clips overlap; of those to come, none begins earlier
            first = rows[-1].span.start
            self._frames = {number: frame for number, frame in self._frames.items() if number > first}
        else:
            self._frames.clear()
        return samples

    def _missing(self, wanted: set[int]) -> list[int]:
        """Frames to read, in order: with those between them that clips to come take, so that none is passed by."""
        numbers = sorted(wanted.difference(self._frames))
        if not numbers or self.rule.clip_stride % self.rule.frame_stride == 0:
            return numbers
        between = range(numbers[0], numbers[-1] + 1)
        return [n for n in between if n not in self._frames and (n in wanted or self.rule.takes(n))]

    def _open(self, number: int) -> _Opened:
        """The video, open where it can stay so between reads."""
        if self._opened is None or self._opened.number != number:
            self.close()
            handle = self.source.videos[number].handle
            forwards = getattr(handle, "forwards", None)
            whole = handle if forwards is None else forwards()
            self._opened = _Opened(number, whole, forwards is not None)
        return self._opened

    def _clip(self, row: ClipRow, numbers: Sequence[int]) -> RGBDSample:
        frames = [self._frames[number] for number in numbers]
        holes = [frame.hole._replace(place=place) for place, frame in enumerate(frames) if frame.hole is not None]
        if len(holes) == len(frames) and ("rgb" not in self.maps or any(hole.damaged for hole in holes)):
            return self[row]  # which says what is wrong
        key = PhaseClip(self.source.videos[row.video].handle, row.span).key
        rgb = [frame.rgb for frame in frames if frame.rgb is not None]
        meta = {"row": row, HOLES: tuple(holes)}
        return RGBDSample(key, rgb=torch.stack(rgb) if rgb else None, depth=_stacked_depth(frames), meta=meta)

    def _with_what_is_seen(self, sample: RGBDSample) -> RGBDSample:
        """The sample, which has something that the model sees."""
        if sample.depth is None and "rgb" not in self.maps:
            path, reason = why_no_depth(sample)
            raise CorruptFileError(path, f"no frame of the clip has depth, and the model sees nothing else: {reason}")
        return sample

    def _prepared(self, sample: RGBDSample) -> RGBDSample:
        seen = self.transform(sample)
        if seen.rgb is None and "rgb" in self.maps:
            raise DataError(f"{sample.key}: the sample has no RGB, which the encoder takes")
        return seen


class _Opened(NamedTuple):
    """The video that is read, and whether it stays open."""

    number: int
    handle: VideoHandle
    stays: bool


class _Frame(NamedTuple):
    """RGB (3, H, W) and depth (1, H, W) at the model's size, None for what is not wanted or not there."""

    rgb: Tensor | None
    depth: Tensor | None
    hole: Hole | None


def _frame(sample: RGBDSample, place: int, hole: Hole | None) -> _Frame:
    rgb, depth = (None if maps is None else maps[place] for maps in (sample.rgb, sample.depth))
    return _Frame(rgb, depth, hole)


def _stacked_depth(frames: Sequence[_Frame]) -> Tensor | None:
    """(T, 1, H, W), NaN in frames that are holes; None for a clip that has no depth at all."""
    known = next((frame.depth for frame in frames if frame.depth is not None and frame.hole is None), None)
    if known is None:
        return None
    hole = torch.full_like(known, math.nan)
    return torch.stack([hole if frame.depth is None else frame.depth for frame in frames])

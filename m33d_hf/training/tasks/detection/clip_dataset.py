"""The clips of whole videos as a data set: clips of one video that are asked for together are read together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch.utils.data import Dataset

from m33d_hf.data.augmentation.views import take_frames
from m33d_hf.data.files.skips import SkippedFile, unreadable
from m33d_hf.data.loader.loading import Transform
from m33d_hf.data.sample import HOLES, RGBDSample, holes_of, read_sample
from m33d_hf.data.sources.phases.base import ClipSpan, PhaseClip, PhaseSource
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError, LabelError
from m33d_hf.training.tasks.detection.features import ClipRule

FRAMES_AT_ONCE = 64


class ClipRow(NamedTuple):
    """One clip to read: number of the video, number of the clip in it, its frames."""

    video: int
    clip: int
    span: ClipSpan


class ClipDataset(Dataset[RGBDSample]):
    """Reads and transforms clips. One that cannot be read comes back without frames, with ``meta["skipped"]``.

    Clips of one video that are asked for together are read together, FRAMES_AT_ONCE frames at most: opening a video and
    finding a frame in it costs more than the frames of a clip. Where that fails they are read one by one.

    Args:
        source: the videos.
        rule: which frames of a clip are taken.
        transform: of the evaluation.
        maps: what the encoder takes, "rgb", "depth" or both.
    """

    def __init__(
        self, source: PhaseSource, rule: ClipRule, transform: Transform, maps: Sequence[str] = ("rgb",)
    ) -> None:
        self.source, self.rule, self.transform, self.maps = source, rule, transform, tuple(maps)

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
        return self._prepared(sample, row)

    def __getitems__(self, rows: Sequence[ClipRow]) -> list[RGBDSample]:
        """Read the clips of a batch, all of one video."""
        together = max(FRAMES_AT_ONCE // self.rule.num_frames, 1)
        parts = [rows[i : i + together] for i in range(0, len(rows), together)]
        return [sample for part in parts for sample in self._read_together(part)]

    def _read_together(self, rows: Sequence[ClipRow]) -> list[RGBDSample]:
        clips = [[row.span.start + i for i in self.rule.frames(row.span.stop - row.span.start)] for row in rows]
        numbers = sorted({number for clip in clips for number in clip})
        try:
            whole = read_sample(self.source.videos[rows[0].video].handle, numbers, self.maps)
        except (DataError, OSError):
            return [self[row] for row in rows]  # which says what is wrong with which of them
        place = {number: i for i, number in enumerate(numbers)}
        samples = [take_frames(whole, [place[number] for number in clip]) for clip in clips]
        # A clip that lacks all of its depth is judged by itself: what is beside it must not count.
        return [
            self[row] if len(holes_of(sample)) == sample.num_frames else self._prepared(sample, row)
            for sample, row in zip(samples, rows, strict=True)
        ]

    def _with_what_is_seen(self, sample: RGBDSample) -> RGBDSample:
        """The sample, which has something that the model sees."""
        if sample.depth is None and "rgb" not in self.maps:
            holes = holes_of(sample)
            path, reason = (holes[0].path, holes[0].reason) if holes else (sample.key, "the recording has no depth")
            raise CorruptFileError(path, f"no frame of the clip has depth, and the model sees nothing else: {reason}")
        return sample

    def _prepared(self, sample: RGBDSample, row: ClipRow) -> RGBDSample:
        seen = self.transform(sample)
        if seen.rgb is None and "rgb" in self.maps:
            raise DataError(f"{sample.key}: the sample has no RGB, which the encoder takes")
        meta = {"row": row, HOLES: holes_of(sample)}
        return RGBDSample(seen.key, rgb=seen.rgb, depth=seen.depth, meta=meta)

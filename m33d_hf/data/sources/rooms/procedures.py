"""The source `procedures`: long rendered RGB-D videos of a workflow, with the phase of every frame."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from m33d_hf.data.sample import RGBDSample
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo
from m33d_hf.data.sources.rooms.cache import MappedArrays, default_cache_dir, prepare, verify
from m33d_hf.data.sources.rooms.constants import DEPTHS, SPLITS
from m33d_hf.data.sources.rooms.options import check_choice, check_device, check_int, check_size
from m33d_hf.data.sources.rooms.procedure_rendering import ProceduresSpec
from m33d_hf.data.sources.rooms.sensor import sensor_metres
from m33d_hf.data.sources.rooms.source import CLIP_FPS
from m33d_hf.data.sources.rooms.workflow import PHASE_NAMES, activities_of, clip_posterior

DEFAULT_COUNT = {"train": 48, "validation": 16, "test": 32}


class ProceduresSource(PhaseSource):
    """Procedures: in one room, a camera and a box go through nine phases in fixed order, 160 to 311 frames at 8 fps.

    ================  ===========  ==========  ======  =============================
    phase             motion       instrument  frames
    ================  ===========  ==========  ======  =============================
    enter             dolly_in     none         8..23
    inspect_before    orbit        green       32..47
    fetch             slide_left   blue         8..23  left out in 3 of 10 videos
    first_treatment   spin         red         32..47
    look_around       pan_right    yellow      16..31
    second_treatment  spin         red         32..47
    put_back          slide_right  blue         8..23  left out in 3 of 10 videos
    inspect_after     orbit        green       32..47
    leave             dolly_out    none         8..23
    ================  ===========  ==========  ======  =============================

    A motion is repeated in strokes of 8 frames, the last one of a phase cut short where it has to be, so that phases
    rarely begin where clips do. The instrument is a coloured ball above the box: a coarse cue that is quickly learnt;
    entering from leaving, and fetching from putting back, only the motion tells. Orbit and spin occur in two phases
    each, and nothing else in the frames tells where in the video they are: one clip is ambiguous by construction. A
    perfect classifier of the activity in every frame of a clip of 8 frames, without its context, names the phase of 73
    % of the clips on average (`clipwise_ceiling` has the figure of given videos); the rest needs their order.

    Args:
        split: "train", "validation" or "test"; splits are drawn from different seeds.
        num_videos: number of videos; None takes 48, 16 and 32. The first ones do not depend on the number.
        image_size: pixels, an int or [height, width].
        seed: any int.
        depth: "sensor" (Kinect-like noise, disparity steps and holes) or "clean" (exact everywhere).
        cache_dir: folder for the rendered arrays; None is $M33D_CACHE/rooms or ~/.cache/m33d_hf/rooms.
        device: where to render, "cpu" or "cuda"; reading never needs it.
        clip_span, clip_stride, unit, drop_unlabelled: as in `PhaseSource`.

    Rendering happens in the constructor, unless the cache has the same data already.

    Raises:
        ConfigError: an invalid option.
        DataError: the cache cannot be written.
    """

    name = "procedures"

    def __init__(
        self,
        split: str = "train",
        *,
        num_videos: int | None = None,
        image_size: int | Sequence[int] = 48,
        seed: int = 0,
        depth: str = "sensor",
        cache_dir: str | Path | None = None,
        device: str = "cpu",
        clip_span: int = 8,
        clip_stride: int | None = None,
        unit: str = "clips",
        drop_unlabelled: bool = False,
    ) -> None:
        from m33d_hf.modeling.depth_m33d import DepthSpec

        check_choice("split", split, SPLITS, self.name)
        check_choice("depth", depth, DEPTHS, self.name)
        height, width = check_size(image_size, self.name)
        self.spec = ProceduresSpec(
            split=split,
            seed=check_int("seed", seed, source=self.name),
            count=DEFAULT_COUNT[split] if num_videos is None else check_int("num_videos", num_videos, 1, self.name),
            height=height,
            width=width,
            device=check_device(device, self.name),
        )
        self.folder = prepare(self.spec, Path(cache_dir).expanduser() if cache_dir else default_cache_dir())
        self._digest = verify(self.folder, self.spec)
        recording = Recording(self.folder, self.spec, depth)
        super().__init__(
            _videos(recording),
            PHASE_NAMES,
            unit=unit,
            clip_span=clip_span,
            clip_stride=clip_stride,
            drop_unlabelled=drop_unlabelled,
            depth_spec=DepthSpec(unit="metre", kind="metric"),
        )

    def digest(self) -> str:
        """sha256 over the rendered arrays, the choice of depth, and the clip rules."""
        depth = self.videos[0].handle.recording.depth  # type: ignore[attr-defined]
        return hashlib.sha256(f"{self._digest} {depth} {super().digest()}".encode()).hexdigest()


@dataclass
class Recording(MappedArrays):
    """The rendered arrays of a split, as `ProceduresSpec.arrays` names them.

    Attributes:
        folder: in the cache.
        spec: what is in it.
        depth: "sensor" or "clean".
    """

    folder: Path
    spec: ProceduresSpec
    depth: str


@dataclass(frozen=True)
class ProcedureHandle:
    """One video; its frames begin at row `start` of the recording."""

    recording: Recording
    index: int
    start: int
    length: int

    @property
    def key(self) -> str:
        """For example "procedures/train/0/3": split, seed and number."""
        spec = self.recording.spec
        return f"procedures/{spec.split}/{spec.seed}/{self.index}"

    @property
    def fps(self) -> float | None:
        """Nominal rate."""
        return CLIP_FPS

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Frames `indices` as one sample: rgb, depth in metres with NaN for holes; a whole video has no label.

        Raises:
            IndexError: an index is not in [0, length).
            CorruptFileError: the cache is damaged.
        """
        chosen = [int(index) for index in indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= self.length:
            raise IndexError(f"{self.key} has {self.length} frames, cannot read {chosen}")
        arrays, rows = self.recording.arrays(), [self.start + index for index in chosen]
        depth = arrays["clean"][rows] if self.recording.depth == "clean" else sensor_metres(arrays["sensor"][rows])
        spec = self.recording.spec
        return RGBDSample(
            key=self.key,
            rgb=torch.from_numpy(arrays["rgb"][rows]),
            depth=torch.from_numpy(depth[:, None]),
            meta={"source": "procedures", "split": spec.split, "index": self.index, "frames": chosen},
        )


def _videos(recording: Recording) -> list[PhaseVideo]:
    arrays = recording.arrays()
    stops = arrays["length"].cumsum().tolist()
    starts = [0, *stops[:-1]]
    return [
        PhaseVideo(ProcedureHandle(recording, index, start, stop - start), phases=np.array(arrays["phase"][start:stop]))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]


def clipwise_oracle(source: PhaseSource) -> np.ndarray:
    """Chances of the phases (N, L) float64 for every item of `source`, by one who knows the motion of every frame of
    a clip, nothing around it, and the workflow: the best that a classifier of single clips can hope for.

    Args:
        source: procedures cut into clips.
    """
    rows = []
    for number in range(len(source.videos)):
        activities = activities_of(source.videos[number].phases)
        rows += [clip_posterior(activities[span.start : span.stop]) for span in source.clips(number)]
    return np.stack(rows)


def clipwise_ceiling(source: PhaseSource) -> float:
    """Accuracy, in 0..1, that no classifier of single clips exceeds on average over procedures with these motions.

    It is the mean chance of the likeliest phase, `clipwise_oracle` says which; 0.5 for a clip within a phase of
    `AMBIGUOUS_PAIRS`, 1 for any other clip whose motions are those of one place in the workflow.
    """
    return float(clipwise_oracle(source).max(1).mean())

"""From an annotation file to one phase id per video frame: names to ids, label rate to video rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m33d_hf.data.labels.class_table import ClassTable, number_of
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources.phases.annotations import Annotation
from m33d_hf.data.sources.phases.rates import best_rate, rate_hint, tolerate, unit_hint
from m33d_hf.errors import ConfigError, DataError, LabelError, nearest_name_hint
from m33d_hf.modeling.video_times_m33d import FrameTimes

CHOLEC80_PHASES = (
    "Preparation",
    "CalotTriangleDissection",
    "ClippingCutting",
    "GallbladderDissection",
    "GallbladderPackaging",
    "CleaningCoagulation",
    "GallbladderRetraction",
)
SEGMENT_ENDS = ("auto", "exclusive", "inclusive")
# Labels that reach less than this share of a video are taken for numbered at another rate, not for cut short.
_LEAST_SHARE = 2 / 3


@dataclass(frozen=True)
class PhaseNames:
    """Phases in id order, and how names in annotation files become ids.

    Attributes:
        names: phases in id order.
        numbers: stored number -> id, for annotations that hold numbers; None where no numbers are known.
        unknown: "error" for a phase that is not one of these, or "ignore" to leave its frames unannotated.
        ignored: names whose frames are left unannotated.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int] | None = None
    unknown: str = "error"
    ignored: Sequence[str] = ()

    def ids(self, annotation: Annotation) -> np.ndarray:
        """(n,) uint8 id of each line of the annotation, 255 where the phase is unknown and that is allowed.

        Raises:
            LabelError: a phase that is not in `names`; gives file, line, the nearest name and how to fix it.
        """
        table = [self._id_of(name, annotation) for name in annotation.names]
        return np.array(table, dtype=np.uint8)[annotation.codes]

    def _id_of(self, name: str, annotation: Annotation) -> int:
        if name in self.ignored:
            return IGNORE_INDEX
        if name in self.names:
            return self.names.index(name)
        number = number_of(name)
        if self.numbers is not None and number is not None and number in self.numbers:
            return self.numbers[number]
        if self.unknown == "ignore":
            return IGNORE_INDEX
        raise LabelError(self._unknown(name, annotation))

    def _unknown(self, name: str, annotation: Annotation) -> str:
        where = f"{annotation.place_of(name)}: phase {name!r}"
        ignore = "or leave its frames unannotated with --data.options.unknown_phase=ignore"
        if number_of(name) is None:
            return (
                f"{where} is not one of the {len(self.names)} phases {', '.join(self.names)}."
                f"{nearest_name_hint(name, self.names)} Correct the file, add the phase to "
                f"--data.options.phase_names, {ignore}"
            )
        if self.numbers is None:
            return (
                f"{where} is a number, but which of the {len(self.names)} phases {', '.join(self.names)} it stands for "
                "is unknown: set --data.options.phase_names to a file of lines 'number<TAB>name'"
            )
        table = ClassTable(self.names, self.numbers).spelled()
        return (
            f"{where} is not one of the {len(self.names)} phases {', '.join(self.names)} ({table}). If the numbers are "
            "assigned differently, set --data.options.phase_names to a file of lines 'number<TAB>name'; otherwise "
            f"correct the file, {ignore}"
        )


def holds_numbers(annotations: Sequence[Annotation]) -> bool:
    """Whether some annotation writes a number where others write the name of a phase."""
    return any(number_of(name) is not None for annotation in annotations for name in annotation.names)


def collect_names(annotations: Sequence[Annotation], ignored: Sequence[str] = ()) -> tuple[list[str], str]:
    """All phases of a data set but the ignored ones, in a fixed order, and a sentence about it.

    Cholec80's seven are in surgical order where they are exactly the set; any other set is in alphabetical order.

    Raises:
        LabelError: phases that are numbers, or two names that differ in case only.
    """
    places: dict[str, Annotation] = {}
    for annotation in annotations:
        for name in (name for name in annotation.names if name not in ignored):
            places.setdefault(name, annotation)
    folded: dict[str, str] = {}
    for name, annotation in places.items():
        where = annotation.place_of(name)
        if number_of(name) is not None:
            raise LabelError(
                f"{where}: the phase is the number {name}, and numbers are not standardised (two orders of Cholec80's "
                "phases are in use). Give the names in the order of their numbers from 0: "
                "--data.options.phase_names=FILE (one per line, or 'number<TAB>name')"
            )
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            first = places[other]
            raise LabelError(
                f"two phase names differ only in upper and lower case: {other!r} ({first.place_of(other)}) and "
                f"{name!r} ({where}). Write both the same way, or give them different names"
            )
    if set(places) == set(CHOLEC80_PHASES):
        return list(CHOLEC80_PHASES), "phases: the seven of Cholec80, in surgical order"
    names = sorted(places)
    return (
        names,
        f"phases: {plural(len(names), 'name')} found in the annotations, in alphabetical order: {', '.join(names)}",
    )


@dataclass(frozen=True)
class Timing:
    """The frames of a video and how annotations count them.

    Attributes:
        num_frames: frames of the video.
        fps: its frames per second, None when unknown.
        label_fps: frames per second that annotations number; None = those of the video, checked by length.
        tolerance: label steps by which an annotation may be longer than the video.
        inclusive: whether the last frame of a segment is the one that its end names.
        first: number that annotations give to the first frame, 0 or 1 (`phase_numbering.first_number`).
        times: presentation time of each frame, in seconds from the first one; None if frames are evenly spaced.
        lacking: what is missing of the video, in words, for messages.
        lost: frames missing after the last one, which may be annotated (`phase_losses`); infinite if unknown.
    """

    num_frames: int
    fps: float | None = None
    label_fps: float | None = None
    tolerance: float = 1.0
    inclusive: bool = False
    first: int = 0
    times: FrameTimes | None = None
    lacking: str = ""
    lost: float = 0.0

    @property
    def ratio(self) -> float:
        """Video frames per number of an annotation in frames."""
        return 1.0 if self.label_fps is None or self.fps is None else self.fps / self.label_fps

    @property
    def uneven(self) -> bool:
        """Whether frames have uneven presentation times."""
        return self.times is not None and self.times.starts is not None

    @property
    def duration(self) -> float:
        """Seconds of video; frames where the rate is unknown."""
        return self.times.duration if self.times is not None and self.uneven else self.num_frames / (self.fps or 1.0)

    @property
    def label_length(self) -> float:
        """Numbers of an annotation in frames that the video holds."""
        if self.label_fps is not None and self.uneven:
            return self.duration * self.label_fps
        return self.num_frames / self.ratio

    def numbers(self) -> np.ndarray:
        """(num_frames,) the number, with a fraction, that an annotation in frames gives to each frame of the video."""
        if self.label_fps is not None and self.times is not None and self.uneven:
            return self.times.at(np.arange(self.num_frames)) * self.label_fps
        return np.arange(self.num_frames) / self.ratio

    def middles(self) -> np.ndarray:
        """(num_frames,) seconds half-way from each frame to the next."""
        if self.times is not None and self.uneven:
            return self.times.middles()
        return (np.arange(self.num_frames) + 0.5) / (self.fps or 1.0)

    def covered(self, number: float) -> float:
        """How many frames of the video lie before a number of an annotation in frames."""
        if self.label_fps is not None and self.times is not None and self.uneven:
            return self.times.frames_until(number / self.label_fps)
        return number * self.ratio

    def describe(self) -> str:
        """`1500 frames at 25 fps`, and what is missing."""
        rate = f"{self.fps:g} fps{' on average' if self.uneven else ''}" if self.fps else "an unknown rate"
        return f"{plural(self.num_frames, 'frame')} at {rate}{f' ({self.lacking})' if self.lacking else ''}"


def ends_are_inclusive(annotations: Sequence[Annotation], how: str = "auto") -> tuple[bool, str | None]:
    """Whether segments in frames include the frame that their end names; seconds never do.

    "auto" looks at the segments of the whole data set: ends that always fall one frame before the next start (or on
    their own start) are inclusive. Returns the answer and, where it was inclusive by evidence, a sentence.

    Raises:
        ConfigError: `how` is unknown.
    """
    if how not in SEGMENT_ENDS:
        hint = nearest_name_hint(how, SEGMENT_ENDS)
        raise ConfigError(f"segment_end is {how!r}; it must be one of {', '.join(SEGMENT_ENDS)}.{hint}")
    if how != "auto":
        return how == "inclusive", None
    touching = adjoining = single = 0
    for annotation in annotations:
        if annotation.stops is not None and annotation.unit == "frames":
            gaps = annotation.starts[1:] - annotation.stops[:-1]
            touching += int((gaps == 0).sum())
            adjoining += int((gaps == 1).sum())
            single += int((annotation.starts == annotation.stops).sum())
    if touching or not adjoining + single:
        return False, None
    return True, "segments: every end names the last frame of its segment (the next one starts a frame later)"


def frame_phases(annotation: Annotation, ids: np.ndarray, timing: Timing, video: str) -> np.ndarray:
    """The phase of every frame of a video.

    Args:
        annotation: what its file says.
        ids: (n,) uint8 id of each line of it (`PhaseNames.ids`).
        timing: rates and length of the video.
        video: its key, for messages.

    Returns:
        (num_frames,) uint8, 255 where nothing is annotated: before the first line, between segments, after the last.

    Raises:
        ConfigError: a frame rate is required but unknown.
        DataError: an annotation longer than the video, frame numbers that fit another rate, segments that overlap;
            names both sides.
    """
    if annotation.unit == "seconds" and timing.fps is None:
        raise ConfigError(
            f"{annotation.path} is in seconds, but the frame rate of {video} is unknown: pass --data.options.fps"
        )
    if annotation.unit == "frames" and timing.label_fps is not None and timing.fps is None:
        raise ConfigError(
            f"label_fps is {timing.label_fps:g}, but the frame rate of {video} is unknown: pass --data.options.fps"
        )
    if not len(annotation.starts):
        return np.full(timing.num_frames, IGNORE_INDEX, dtype=np.uint8)  # every segment was left out as asked
    starts, stops, step = _spans(annotation, timing)
    positions: np.ndarray
    end = _end_of(starts, stops)
    if annotation.unit == "frames":
        _check_frames(annotation, end, step, timing, video)
        # The small number keeps frames on a border that rounding puts just below it.
        positions = timing.numbers() + 1e-6
    else:
        _check_seconds(annotation, end, step, timing, video)
        positions = timing.middles()  # a time means the nearest frame
    row = np.searchsorted(starts, positions, side="right") - 1
    inside = (row >= 0) & (positions < stops[row])
    return np.where(inside, ids[row], IGNORE_INDEX).astype(np.uint8)


def annotated_end(annotation: Annotation, timing: Timing) -> float:
    """Where an annotation ends, in its unit from the first frame; of a last phase that holds for good, its start."""
    starts, stops, _ = _spans(annotation, timing)
    return _end_of(starts, stops)


def _end_of(starts: np.ndarray, stops: np.ndarray) -> float:
    return float(stops[-1]) if math.isfinite(stops[-1]) else float(starts[-1])


def is_counted(annotation: Annotation) -> bool:
    """Whether an annotation counts frames or whole seconds one by one, so that its first may be called 0 or 1."""
    if annotation.unit == "frames":
        return annotation.kind != "rows"
    seconds = annotation.kind == "timestamps" and annotation.resolution == 1.0 and len(annotation.starts) > 2
    return seconds and bool((np.diff(annotation.starts) == 1.0).all())


def _spans(annotation: Annotation, timing: Timing) -> tuple[np.ndarray, np.ndarray, float]:
    """(starts, stops, label step) in the annotation's unit; the last stop is infinite where a phase holds for good."""
    counted = is_counted(annotation)
    starts: np.ndarray = annotation.starts - (timing.first if counted else 0)
    if annotation.stops is not None:
        stops = annotation.stops - (timing.first if counted else 0) + (1 if timing.inclusive and counted else 0)
        _refuse_overlap(annotation, stops)
        return starts, stops, annotation.resolution
    if annotation.kind in ("frames", "rows"):
        step = _common_step(annotation, np.diff(starts))
        return starts, starts + step, step
    # Stamps at a steady pace sample the phase, and the last one stands for one step; stamps of changes hold.
    steps = np.diff(np.unique(starts))
    steady = len(steps) > 1 and steps.max() <= 1.5 * np.median(steps) and (np.diff(annotation.codes) == 0).any()
    last = starts[-1] + float(np.median(steps)) if steady else math.inf
    step = float(np.median(steps)) if steady else 0.0
    return starts, np.append(starts[1:], last), max(step, annotation.resolution)


def _common_step(annotation: Annotation, steps: np.ndarray) -> float:
    if not len(steps):
        return 1.0
    values, counts = np.unique(steps, return_counts=True)
    best = int(np.argmax(counts))
    if len(steps) > 2 and counts[best] * 2 < len(steps):
        raise DataError(
            f"{annotation.path}: its frame numbers have no common step ({values[0]:g} to {values[-1]:g}), so the "
            "duration of a line is unknown. Write a line for every k-th frame, or segments: start_frame,end_frame,phase"
        )
    return float(values[best])


def _refuse_overlap(annotation: Annotation, stops: np.ndarray) -> None:
    starts, lines = annotation.starts, annotation.lines
    empty = stops <= starts
    if empty.any():
        at = int(np.argmax(empty))
        raise DataError(
            f"{annotation.path}, {annotation.entry} {lines[at]}: the segment {starts[at]:g} to {stops[at]:g} contains "
            "no frame. If the end is the last frame of a segment, pass --data.options.segment_end=inclusive"
        )
    overlap = starts[1:] < stops[:-1]
    if overlap.any():
        at = int(np.argmax(overlap))
        many = "entries" if annotation.entry == "entry" else f"{annotation.entry}s"
        raise DataError(
            f"{annotation.path}: the segments of {many} {lines[at]} ({starts[at]:g} to {stops[at]:g}) and "
            f"{lines[at + 1]} ({starts[at + 1]:g} to {stops[at + 1]:g} {annotation.unit}) overlap; a frame must have "
            "one phase"
        )


def _check_frames(annotation: Annotation, end: float, step: float, timing: Timing, video: str) -> None:
    covered, slack = timing.covered(end), timing.tolerance * max(step * timing.ratio, 1.0)
    rate = f"at label_fps={timing.label_fps:g}" if timing.label_fps else "at the video's own rate"
    both = (
        f"{annotation.path} annotates frames up to number {end - 1:g}, which {rate} are {covered:g} frames of video; "
        f"{video} has {timing.describe()}"
    )
    other_rate = math.isinf(timing.lost) and best_rate(annotation, end, step, timing) is not None
    announced = timing.num_frames + (0 if other_rate else timing.lost)
    if covered > announced + slack:
        raise DataError(
            f"{both}: the annotation is longer than the video."
            f"{unit_hint(annotation, end, timing) or rate_hint(annotation, end, step, timing)} If the "
            f"video is cut short, {tolerate((covered - announced) / max(step * timing.ratio, 1.0))}"
        )
    if timing.label_fps is not None or covered >= timing.num_frames - slack:
        return
    sparse = annotation.kind == "frames" and covered < _LEAST_SHARE * timing.num_frames
    missing = timing.num_frames - covered
    if sparse or (timing.fps and missing >= timing.fps and best_rate(annotation, end, step, timing) is not None):
        stated = f"{timing.fps:g}" if timing.fps else "that of the video, with --data.options.fps"
        raise DataError(
            f"{both}: the frame counts do not match, so the label rate and the video rate seem to "
            f"differ.{rate_hint(annotation, end, step, timing)} If the annotation really ends early, pass "
            f"--data.options.label_fps={stated}"
        )


def _check_seconds(annotation: Annotation, end: float, step: float, timing: Timing, video: str) -> None:
    duration, unit = timing.duration, max(step, 1.0 / (timing.fps or 1.0))
    announced = duration + timing.lost / (timing.fps or 1.0)
    if end > announced + timing.tolerance * unit:
        raise DataError(
            f"{annotation.path} annotates up to {end:g} s, {video} has {timing.describe()} = {duration:g} s: the "
            f"annotation is longer than the video.{unit_hint(annotation, end, timing)} Check --data.options.fps, or, "
            f"if the video is cut short, {tolerate((end - announced) / unit)}"
        )
    if annotation.kind == "segments" and _LEAST_SHARE <= 1000 * end / duration <= 1.01:
        raise DataError(
            f"{annotation.path} annotates up to {end:g} s, {video} has {timing.describe()} = {duration:g} s: the "
            "annotation covers a thousandth of the video, so seconds seem to have been read as milliseconds. Pass "
            "--data.options.segment_unit=seconds, and call the columns start_seconds and end_seconds"
        )

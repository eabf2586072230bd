"""The `phases` source: long videos or folders of frames, with annotations of which phase each moment belongs to."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.files.text_files import say_once
from m33d_hf.data.labels.class_table import ClassTable, read_class_table
from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sample import IGNORE_INDEX, frame_times, known_lacks
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.frames import FrameSequence, describe_missing_depth
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import missing_entries, select_split
from m33d_hf.data.sources.phases.alignment import (
    PhaseNames,
    Timing,
    collect_names,
    ends_are_inclusive,
    frame_phases,
    holds_numbers,
)
from m33d_hf.data.sources.phases.annotations import AnnotationOptions
from m33d_hf.data.sources.phases.base import PhaseSource, PhaseVideo
from m33d_hf.data.sources.phases.cameras import Camera, Cases, find_cases, table_of_cameras
from m33d_hf.data.sources.phases.files import (
    FileList,
    FoundAnnotations,
    FoundVideo,
    FoundVideos,
    VideoOptions,
    find_annotations,
    find_videos,
)
from m33d_hf.data.sources.phases.losses import lost_labels
from m33d_hf.data.sources.phases.numbering import first_number
from m33d_hf.data.sources.phases.reading import check_clock, describe_reading
from m33d_hf.data.sources.phases.synchrony import phases_of
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, MissingSplitError
from m33d_hf.modeling.video_times_m33d import frames_lost_at_the_end

logger = logging.getLogger(__name__)


class PhasesSource(PhaseSource):
    """Annotated long videos under one root, cut into clips with one phase each.

    Videos are files (`videos/video01.mp4`) or, where there is no video file, folders of frames as the `folder` source
    reads them (RGB, or RGB and depth). Annotations are paired with them by name, `phase_annotations/video01-phase.txt`
    with video01: a line per frame, a line per timestamp, segments in CSV, or JSON with levels of segments; of one
    video, or a table of all; see `phase_annotations`. Phases are told apart by name, never by number.

    Args:
        root: folder of the data set.
        split: `train`, `validation`, `test`, or None / `all`; whole videos, see `splits.select_split`.
        unit: `clips` (each stretch an item) or `videos` (each whole video an item without a label: pre-training).
        videos: folder of the videos, or `auto`: `videos/` where present, else the root.
        cameras: how videos that show one case at the same time are told: `folder` (those of a folder), a suffix with *
            for the camera (`_cam*`), or a CSV file with the columns case, camera, video and offset (seconds from the
            case's clock to the video's first frame). Null: every video is a case. Splits and shares of labels keep the
            cameras of a case together; its annotation bears the name of the case or of one of its videos.
        annotations: folder or file of the annotations, `none`, or `auto`: `phase_annotations/` and the like, or files
            beside the videos; not looked for when whole videos are the items, unless require_annotations is true. Runs
            of pre-training pass `none` where nothing else is stated, and require_annotations=false.
        annotation_format: `auto`, `frames`, `rows` (one phase a line, one line a frame), `timestamps`, `segments` or
            `levels` (JSON).
        annotation_level: `phases` or `steps` of JSON with several levels. Within one, segments may lie inside others:
            the inner ones count. In all other formats segments that overlap are an error.
        ignored_phases: names whose segments and lines count as if nothing had been written there.
        clock: what times of two parts are, `mm:ss`, `hh:mm`, or `auto` to tell by the column and the video's length.
        phase_names: names in id order, number -> name, or a file of either (one name a line, or number and name a
            line); needed where annotations hold numbers. Bare names are numbered from 0. None collects the names of all
            annotation files, whatever the split.
        unknown_phase: `error`, or `ignore` to leave frames of a phase that phase_names lacks unannotated.
        label_start: number that annotations give to the first frame (or second), 0 or 1; None = by evidence, and an
            error where there is none.
        label_fps: rate at which annotations number frames; None = the video's own, which frame counts must confirm.
        fps: frames per second of frame folders, and of videos whose file does not say or says it wrong. Without it the
            times of a file's frames count, whatever its rate: seconds from the first frame that decodes, also where
            the file lets its first frame begin later than at 0. Frames whose names are timestamps
            (1305031102.175304.png) need none either.
        segment_unit: `frames`, `seconds` or `milliseconds` of segments whose columns do not say it.
        segment_end: `exclusive`, `inclusive` (the end names the segment's last frame), or `auto` by evidence.
        length_tolerance: label steps by which an annotation may be longer than its video. Where a recording was cut
            short, the video's announced length counts; labels after the last readable frame are not used, and this is
            reported.
        rgb: `auto`, `none`, and for frames a folder or a pattern.
        depth: `auto`, `none`, and for frames a folder or a pattern; for video files a folder of depth sidecars (`auto`:
            `depth/` where it holds depth_spec.json).
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth, align, orientation, calibration: as
            in the `folder` source; of folders of frames alone: calibration, such as import_recording.py writes,
            orientation, and align=rgb_to_depth. Depth of video files is resized to the picture.
        require_depth: leave out (and list) what has no depth, after splits, which are those of runs without depth.
        require_annotations: leave out (and list) videos without annotation; None does so for clips only.
        on_unpaired: `list` videos without annotation and annotations without video in `unpaired`, or `error`.
        clip_span, clip_stride, drop_unlabelled: see `PhaseSource`.
        split_list, split_fractions: see `splits.select_split`.

    Attributes:
        unpaired: files that are not used, with the reason.
        incomplete: what is missing from a video, by its key: its end, frames in between, or their labels.
        notes: sentences about what was found and assumed.

    Raises:
        ConfigError: options that contradict each other, or a rate or unit that is needed and not stated.
        DataError: nothing to read, annotations that do not fit their video (see `frame_phases`), malformed files;
            LabelError for a phase that is unknown, a number without names, or two phases of one name.
    """

    name = "phases"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "clips",
        videos: str = "auto",
        cameras: str | None = None,
        annotations: str = "auto",
        annotation_format: str = "auto",
        annotation_level: str = "phases",
        ignored_phases: str | Sequence[str] | None = None,
        clock: str = "auto",
        phase_names: str | Sequence[str] | Mapping[int, str] | ClassTable | None = None,
        unknown_phase: str = "error",
        label_start: int | None = None,
        label_fps: float | None = None,
        fps: float | None = None,
        segment_unit: str | None = None,
        segment_end: str = "auto",
        length_tolerance: float = 1.0,
        rgb: str = "auto",
        depth: str | None = "auto",
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        align: str = "refuse",
        orientation: str = "refuse",
        calibration: str | None = None,
        require_depth: bool = False,
        require_annotations: bool | None = None,
        on_unpaired: str = "list",
        clip_span: int = 64,
        clip_stride: int | None = None,
        drop_unlabelled: bool = False,
        split_list: str | Mapping[str, str] | None = None,
        split_fractions: Mapping[str, float] | None = None,
    ) -> None:
        self.root: Path = Path(root).expanduser()
        choose("unknown_phase", unknown_phase, ("error", "ignore"))
        choose("on_unpaired", on_unpaired, ("list", "error"))
        _check_rates(length_tolerance, fps=fps, label_fps=label_fps)
        stated = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        options = VideoOptions(rgb, depth or "none", stated, align, require_depth, fps, orientation, calibration)
        found = find_videos(self.root, videos, options)
        if unit == "videos" and annotations == "auto" and not require_annotations:
            annotations = "none"  # pre-training: what is wrong with labels must not stop it
        ignored = (ignored_phases,) if isinstance(ignored_phases, str) else tuple(ignored_phases or ())
        reading = AnnotationOptions(annotation_format, segment_unit, annotation_level, ignored, clock)
        files = {key: found.names[key] for key in found.videos}
        cases, unlisted = find_cases(self.root, cameras, files)
        keys = dict.fromkeys([*found.videos, *cases])
        labels = find_annotations(self.root, list(keys), annotations, reading, table_of_cameras(self.root, cameras))
        self.notes: list[str] = list(found.notes)
        self.incomplete: dict[str, str] = {}
        self.unpaired: list[Unpaired] = [*found.unpaired, *labels.unpaired, *unlisted]
        if cameras is not None:
            cases = self._led(cases, labels, found.lacking)
        self._tell([*found.told, *describe_reading(labels.all, ignored)])
        rules = self._phase_names(labels, phase_names, unknown_phase, ignored)
        inclusive, how = ends_are_inclusive(labels.all, segment_end)
        timing = Timing(0, fps, label_fps, length_tolerance, inclusive)
        timing_of = partial(_timing_of, found.videos, timing)
        check_clock(labels.by_key, timing_of)
        start, counted = first_number(labels.by_key, timing_of, label_start)
        self._tell([sentence for sentence in (how, counted) if sentence])
        kept = self._select(found, cases, split, split_list, split_fractions)
        kept = self._with_depth(kept, found.lacking, labels, split)
        needed = (unit == "clips") if require_annotations is None else require_annotations
        # The first camera stands for its case.
        leaders = self._annotated({case[0].key: found.videos[case[0].key] for case in kept.values()}, labels, needed)
        kept = {name: case for name, case in kept.items() if case[0].key in leaders}
        kept = {name: _standing_in(case, found, labels) for name, case in kept.items()}
        chosen = {camera.key: found.videos[camera.key] for case in kept.values() for camera in case}
        laid = self._lay_out(chosen, labels, rules, replace(timing, first=start))
        if cameras is not None:
            laid = self._in_cases(laid, kept, found.lacking)
        self._tell_counts(laid)
        self._account_for_unpaired(on_unpaired)
        self._files = {key: found.videos[key].files for key in laid}
        specs = {key: getattr(getattr(found.videos[key].handle, "reader", None), "depth_spec", None) for key in laid}
        # Of recordings whose depth is read otherwise than that of most.
        self._own_specs = {key: spec for key, spec in specs.items() if spec not in (None, found.depth_spec)}
        names = None if rules is None else rules.names
        cut: dict[str, Any] = {"unit": unit, "clip_span": clip_span, "clip_stride": clip_stride}
        super().__init__(
            list(laid.values()), names, drop_unlabelled=drop_unlabelled, depth_spec=found.depth_spec, **cut
        )
        self.class_table = None if rules is None else ClassTable(rules.names, rules.numbers)

    def _phase_names(
        self,
        labels: FoundAnnotations,
        given: str | Sequence[str] | Mapping[int, str] | ClassTable | None,
        unknown: str,
        ignored: Sequence[str],
    ) -> PhaseNames | None:
        """Names as stated, else of all annotations; None without either."""
        table = None if given is None else read_class_table(given, self.root)
        if table is not None and not (table.assumed and not holds_numbers(labels.all)):
            self.notes.append(
                f"phases: {plural(len(table.names), 'name')} as {'assumed' if table.assumed else 'stated'}"
            )
            if holds_numbers(labels.all) and table.numbers:
                self._tell([f"numbers in the annotations mean {table.spelled()}"])
            return PhaseNames(table.names, table.numbers, unknown, ignored)
        if not labels.all:
            return None
        names, how = collect_names(labels.all, ignored)
        self.notes.append(how)
        return PhaseNames(tuple(names), None, unknown, ignored)

    def _tell(self, sentences: Sequence[str]) -> None:
        """What was judged by evidence or chosen by an option: in the notes, and in the log of every run."""
        self.notes += sentences
        for sentence in sentences:
            say_once(f"{self.root}: {sentence}")

    def _led(self, cases: Cases, labels: FoundAnnotations, lacking: Collection[str]) -> Cases:
        """The cases with the camera in front whose frames the annotation numbers, which is put under its key; of
        several annotated ones, one that is not left out for its depth."""
        led: Cases = {}
        for case, listed in cases.items():
            annotated = [camera for camera in listed if camera.key in labels.by_key]
            annotated.sort(key=lambda camera: camera.key in lacking)
            own = labels.by_key.pop(case, None) if all(camera.key != case for camera in listed) else None
            first = listed[0] if own is not None or not annotated else annotated[0]
            for camera in annotated:
                if own is not None or camera is not first:
                    unused = labels.by_key.pop(camera.key)
                    used = f"that of the case {case}" if own is not None else f"that of camera {first.name}"
                    self.unpaired.append(Unpaired(unused.path.name, f"{used} is used"))
            if own is not None:
                labels.by_key[first.key] = own
            led[case] = [first, *(camera for camera in listed if camera is not first)]
        numbers = Counter(map(len, led.values()))
        told = ", ".join(f"{count} of {number}" for number, count in sorted(numbers.items()))
        self.notes.append(f"{len(led)} cases by number of cameras: {told}")
        return led

    def _in_cases(self, laid: dict[str, PhaseVideo], cases: Cases, lacking: Collection[str]) -> dict[str, PhaseVideo]:
        """The videos with their cases; those of further cameras have the phases that the first one has meanwhile, also
        where that one is left out for its depth."""
        found: dict[str, PhaseVideo] = {}
        absent: list[str] = []
        for case, cameras in cases.items():
            needed = {camera.key for camera in cameras if camera.key not in lacking}
            absent += [f"{camera.name} of {case}" for camera in cameras if camera.key in needed - laid.keys()]
            first: PhaseVideo | None = None
            for camera in (camera for camera in cameras if camera.key in laid):
                video = replace(laid[camera.key], case=case, camera=camera.name, offset=camera.offset)
                if first is None:
                    first = video
                else:
                    video = replace(video, phases=phases_of(first, video))
                if camera.key in needed:
                    found[camera.key] = video
        if absent:
            are = agree(len(absent), "is", "are")
            told = plural(len(absent), "camera")
            self._tell([f"{told} cannot be read and {are} done without, the first: {absent[0]}"])
        if not found:
            last = self.unpaired[-1]
            raise DataError(f"{self.root}: no camera that has depth can be read; {last.path}: {last.reason}")
        return found

    def _select(
        self,
        found: FoundVideos,
        cases: Cases,
        split: str | None,
        split_list: str | Mapping[str, str] | None,
        fractions: Mapping[str, float] | None,
    ) -> Cases:
        sequences = {
            case: [Frame(camera.key, rgb=found.names[camera.key]) for camera in cameras]
            for case, cameras in cases.items()
        }
        kept, how = select_split(self.root, sequences, split, split_list, fractions, whole=True)
        for case, frames in kept.items():
            needed = [camera.key for camera in cases[case] if camera.key not in found.lacking]
            listed = {frame.key for frame in frames}
            if left := next((key for key in needed if key not in listed), None):
                raise DataError(
                    f"the list of the split {split} names {frames[0].key}, but not {left}, which shows the same case: "
                    f"a case is never cut. List the case, {case}, or all of its videos."
                )
        self.notes.append(how if split not in (None, "all") else "all videos, without splits")
        for entry in missing_entries(self.root, sequences, split, split_list):
            self.unpaired.append(Unpaired(entry, f"listed for the split {split}, but there is no such video"))
        return {case: cases[case] for case in kept}

    def _with_depth(self, kept: Cases, lacking: Collection[str], labels: FoundAnnotations, split: str | None) -> Cases:
        """The cases of a split without the videos that are left out for their depth, but for the annotated ones: what
        their annotations number are their frames, also for the other cameras of their cases."""
        if not lacking:
            return kept
        there = {name: case for name, case in kept.items() if any(camera.key not in lacking for camera in case)}
        there = {
            name: [camera for camera in case if camera.key not in lacking or camera.key in labels.by_key]
            for name, case in there.items()
        }
        if not there:
            raise MissingSplitError(
                f"{self.root}: require_depth is set, but the split {split} has no depth for its "
                f"{plural(len(kept), 'case')}, the first is {next(iter(kept))}. Extract it (scripts/extract_depth.py), "
                "or put others into that split by lists (--data.options.split_list)"
            )
        return there

    def _annotated(
        self, videos: dict[str, FoundVideo], labels: FoundAnnotations, needed: bool
    ) -> dict[str, FoundVideo]:
        """List the videos without annotation, and leave them out where one is needed."""
        bare = [key for key in videos if key not in labels.by_key]
        if not needed:
            told = f"{len(bare)} of {plural(len(videos), 'video')} {agree(len(bare), 'is', 'are')} not annotated"
            self.notes += [told] if bare else []
            return videos
        self.unpaired += [Unpaired(key, "it has no annotation") for key in bare]
        if len(bare) == len(videos):
            reasons = [f"  {entry.path}: {entry.reason}" for entry in self.unpaired[:5]]
            raise DataError(
                f"{self.root}: none of the {len(videos)} videos (first: {next(iter(videos))}) is annotated. "
                "Annotations must have the name of their video (phase_annotations/video01-phase.txt); give their "
                "folder or file with --data.options.annotations, or, for pre-training, pass require_annotations=false. "
                "Not used:\n" + "\n".join(reasons)
            )
        return {key: video for key, video in videos.items() if key in labels.by_key}

    def _lay_out(
        self,
        videos: dict[str, FoundVideo],
        labels: FoundAnnotations,
        rules: PhaseNames | None,
        timing: Timing,
    ) -> dict[str, PhaseVideo]:
        """Each video with the phase of each frame; a video that cannot be read is listed and left out."""
        laid: dict[str, PhaseVideo] = {}
        tails: list[str] = []
        uneven: list[str] = []
        for key, video in videos.items():
            try:
                length, rate = video.handle.length, video.handle.fps
                times = frame_times(video.handle)
                lacks = known_lacks(video.handle)
                lacking = "; ".join(lack.reason for lack in lacks)
            except CorruptFileError as error:
                self.unpaired.append(Unpaired(error.path, error.reason, damaged=True))
                continue
            phases = np.full(length, IGNORE_INDEX, dtype=np.uint8)
            uneven += [key] if times is not None and times.starts is not None else []
            if lacking:
                self.incomplete[key] = lacking
            annotation = labels.by_key.get(key)
            if annotation is not None and rules is not None:
                rate = timing.fps or rate or (times.fps if times is not None else None)
                lost = frames_lost_at_the_end(lacks, length)
                own = replace(timing, num_frames=length, fps=rate, times=times, lacking=lacking, lost=lost)
                phases = frame_phases(annotation, rules.ids(annotation), own, key)
                if behind := lost_labels(annotation, own):
                    self.incomplete[key] = f"{lacking}; {behind}"
                    say_once(f"{self.root}: {key}: {behind}")
                if (annotated := np.flatnonzero(phases != IGNORE_INDEX)).size and annotated[-1] < length - 1:
                    tails.append(f"{key} from frame {annotated[-1] + 1} of {length}")
            laid[key] = PhaseVideo(video.handle, phases)
        if not laid:
            last = self.unpaired[-1]
            raise DataError(f"{self.root}: none of {len(videos)} videos can be read; {last.path}: {last.reason}")
        if uneven:
            self.notes.append(
                f"{plural(len(uneven), 'video')} {agree(len(uneven), 'has', 'have')} a variable frame rate, such as "
                f"{uneven[0]}: presentation times are used"
            )
        self._tell_incomplete()
        if timing.label_fps is None:
            self._tell(_counted_otherwise(laid, labels))
        if tails:
            self.notes.append(f"the ends of {plural(len(tails), 'video')} are not annotated; the first: {tails[0]}")
        return laid

    def _tell_counts(self, videos: Mapping[str, PhaseVideo]) -> None:
        """Note how much there is of the videos that are used, and how much of it lacks phases or depth."""
        frames = sum(len(video.phases) for video in videos.values())
        labelled = sum(int((video.phases != IGNORE_INDEX).sum()) for video in videos.values())
        counts = f"{plural(len(videos), 'video')}, {plural(frames, 'frame')}"
        self.notes.append(f"{counts}, {labelled / max(frames, 1):.1%} annotated")
        self._tell(describe_missing_depth([video.handle for video in videos.values()]))

    def _tell_incomplete(self) -> None:
        """Note the recordings that are shorter than they should be; each is logged when it is opened."""
        if not self.incomplete:
            return
        key, reason = next(iter(self.incomplete.items()))
        what = agree(len(self.incomplete), "video is", "videos are")
        self.notes.append(f"{len(self.incomplete)} {what} incomplete; the first: {key}: {reason}")

    def _account_for_unpaired(self, how: str) -> None:
        """Log that files take no part, or refuse it.

        Raises:
            DataError: some do, and `how` is "error".
        """
        if not self.unpaired:
            return
        first, count = self.unpaired[0], len(self.unpaired)
        are = agree(count, "file is", "files are")
        what = f"{self.root}: {count} {are} not used; the first: {first.path} ({first.reason})"
        if how == "error":
            raise DataError(f"{what}. With --data.options.on_unpaired=list they are left out")
        logger.warning("%s", what)

    def files(self, video: int) -> FileList:
        """See the base class: the video or its frames, and its depth."""
        return self._files[self.videos[video].key]

    def digest(self) -> str:
        """Digest of names and sizes of all files, depth rules, phases and clip rules; the place of the root and times
        of change do not count."""
        return self._digest_of_files(labels=True)

    def unlabelled_digest(self) -> str:
        """As `digest`, without the phases."""
        return self._digest_of_files(labels=False)

    def _digest_of_files(self, labels: bool) -> str:
        state = hashlib.sha256(self._digest_of_videos(labels).encode())
        spec = self.depth_spec.to_dict() if self.depth_spec is not None else None
        state.update(json.dumps(spec, sort_keys=True).encode())
        for key, own in self._own_specs.items():
            state.update(f"\n{key} {json.dumps(own.to_dict(), sort_keys=True)}".encode("utf-8", "surrogatepass"))
        for key, files in self._files.items():
            state.update(f"\n{key}".encode("utf-8", "surrogatepass"))
            for name, path in files:
                size = path.stat().st_size if path.is_file() else -1
                state.update(f"\n {name} {size}".encode("utf-8", "surrogatepass"))
        return state.hexdigest()


def _standing_in(case: list[Camera], found: FoundVideos, labels: FoundAnnotations) -> list[Camera]:
    """The case, with another camera in front where the first cannot be read: one that began at the same moment."""
    first = case[0]
    if len(case) == 1 or _readable(found.videos[first.key]):
        return case
    for camera in case[1:]:
        if camera.offset == first.offset and _readable(found.videos[camera.key]):
            if first.key in labels.by_key:
                labels.by_key[camera.key] = labels.by_key.pop(first.key)
            return [camera, *(other for other in case if other is not camera)]
    return case


def _readable(video: FoundVideo) -> bool:
    try:
        return video.handle.length > 0
    except CorruptFileError:
        return False


def _counted_otherwise(videos: Mapping[str, PhaseVideo], labels: FoundAnnotations) -> list[str]:
    """A sentence on imported recordings that are annotated by frame and lack frames: numbers are places, not names."""
    first: dict[str, str] = {}
    for key, video in videos.items():
        annotation = labels.by_key.get(key)
        frames = video.handle.frames if isinstance(video.handle, FrameSequence) and video.handle.recorded else ()
        if annotation is not None and annotation.unit == "frames":
            stems = [PurePosixPath(frame.rgb or frame.depth or "").stem for frame in frames]
            otherwise = next((stem for number, stem in enumerate(stems) if stem != f"{number:06d}"), None)
            first |= {} if otherwise is None else {key: otherwise}
    if not first:
        return []
    named = next(iter(first))
    return [
        f"{plural(len(first), 'imported recording')} {agree(len(first), 'lacks', 'lack')} frames and "
        f"{agree(len(first), 'is', 'are')} annotated by frame, the first: {named}, from {first[named]}. Annotations "
        "count the frames that are there; if theirs are the numbers of the recording, annotate by time"
    ]


def _timing_of(videos: Mapping[str, FoundVideo], timing: Timing, key: str) -> Timing | None:
    """Frames and rates of a video; None where it cannot be read, which is listed elsewhere."""
    handle = videos[key].handle
    try:
        lost = frames_lost_at_the_end(known_lacks(handle), handle.length)
        rate = timing.fps or handle.fps
        return replace(timing, num_frames=handle.length, fps=rate, times=frame_times(handle), lost=lost)
    except CorruptFileError as error:
        logger.info("%s", error)
        return None


def _check_rates(length_tolerance: float, **rates: float | None) -> None:
    for option, rate in rates.items():
        if rate is not None and not rate > 0:
            raise ConfigError(f"{option} is {rate}; it must be above 0 frames per second")
    if length_tolerance < 0:
        raise ConfigError(f"length_tolerance is {length_tolerance}; it must be at least 0 label steps")

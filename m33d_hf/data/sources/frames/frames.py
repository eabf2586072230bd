"""Shared code of the file-based sources: a frame is a few files; a source lists frames or sequences of frames."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from m33d_hf.data.depth.calibration import Calibration
from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.depth.unit_guess import Detection, detect_depth
from m33d_hf.data.files.files import size_and_orientation
from m33d_hf.data.labels.census import LabelFiles
from m33d_hf.data.labels.labels import LabelRules, check_label_files
from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.remembering import remembered
from m33d_hf.data.sample import HOLES, RGBDSample
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.frames.calibrations import check_calibrated, check_calibrated_frame
from m33d_hf.data.sources.frames.orientation import ORIENTATIONS, as_the_picture_lies, describe_orientations
from m33d_hf.data.sources.frames.pairing import is_number
from m33d_hf.data.sources.frames.reading import ALIGNMENTS, Frame, FrameReader, refuse_sizes
from m33d_hf.data.sources.frames.spec_files import written_options
from m33d_hf.data.sources.frames.splits import InVain, Sequences, SplitChoice, list_of, missing_entries, select_split
from m33d_hf.data.sources.frames.validation import split_by_validation
from m33d_hf.data.sources.frames.windows import Window, cut_windows, leave_out_blind, thin_out
from m33d_hf.data.sources.videos.frames import is_video_frame, video_frame_size, video_of
from m33d_hf.data.sources.videos.recorded_times import recorded_table, recorded_times
from m33d_hf.errors import CorruptFileError, DataError
from m33d_hf.modeling.depth_m33d import DepthSpec
from m33d_hf.modeling.video_times_m33d import FrameTimes, times_of

logger = logging.getLogger(__name__)

_CHECKED_FRAMES = 6
_CHECKED_ORIENTATIONS = 24
_CHECKED_LABELS = 64
_STAMP_DIGITS = 9


@dataclass(frozen=True)
class FrameSequence:
    """A `VideoHandle` over frames on disk; one frame is an image.

    Attributes:
        key: stable name.
        frames: the files of each, in order.
        reader: of them.
        fps: frames per second, evenly; None where that is not known, or the times of frames are.
        recorded: the table of times of an imported recording, None without.
        sequence: what a clip is a window of, by name; None for a single frame.
    """

    key: str
    frames: tuple[Frame, ...]
    reader: FrameReader = field(repr=False)
    fps: float | None = None
    recorded: Path | None = None
    sequence: str | None = None

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def has_depth(self) -> bool:
        """Whether any frame has depth."""
        return any(frame.depth is not None for frame in self.frames)

    @property
    def times(self) -> FrameTimes | None:
        """When each frame was taken, if no frame rate is given: by the table of its recording, or by the names of all
        files where these are timestamps in seconds."""
        if self.fps is None and self.recorded is not None and self.length > 1:
            return recorded_times(self.recorded, [frame.rgb or frame.depth or "" for frame in self.frames])
        stems = [PurePosixPath(frame.rgb or frame.depth or "").stem for frame in self.frames]
        if self.fps is not None or not all("." in stem and is_number(stem) for stem in stems):
            return None
        stamps = [round(Decimal(stem).scaleb(_STAMP_DIGITS)) for stem in stems]
        ascending = all(before < after for before, after in pairwise(stamps))
        return times_of(stamps, Fraction(1, 10**_STAMP_DIGITS), None) if ascending and len(stamps) > 1 else None

    @property
    def reading_rules(self) -> dict[str, Any]:
        """How the files are read: plain values, for features that are stored."""
        reader = self.reader
        return {
            "align": reader.align,
            "orientation": reader.orientation,
            "depth": None if reader.depth_spec is None else reader.depth_spec.to_dict(),
            "calibration": None if reader.calibration is None else reader.calibration.to_dict(),
        }

    @property
    def missing_depth(self) -> list[int]:
        """Frames of a clip without depth, where others have it: they are holes."""
        return [i for i, frame in enumerate(self.frames) if frame.depth is None] if self._may_lack_depth else []

    @property
    def _may_lack_depth(self) -> bool:
        """Whether single frames may lack depth: a picture has it or has it not."""
        return self.length > 1 and self.reader.depth_spec is not None and self.has_depth

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames; see `FrameReader.read` for what it raises.

        A frame of several whose depth is missing or damaged is a hole, which meta tells (`holes_of`).
        """
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, without opening the files of maps that are not named; None for all.

        Problems of those files (damage, a different size, a missing file) then go unnoticed: an RGB-only run keeps a
        frame whose depth cannot be read.
        """
        for index in indices:
            if not 0 <= index < len(self.frames):
                raise IndexError(f"{self.key}: frame {index} of a sequence of {len(self.frames)}")
        chosen = [self.frames[index] for index in indices]
        numbers = ",".join(str(int(index)) for index in indices)
        key = self.key if self.length == 1 else f"{self.key}[{numbers}]"
        meta = {"frames": [frame.key for frame in chosen], "root": str(self.reader.root)}
        read = chosen if maps is None else self.reader.narrowed(chosen, maps)
        sample = self.reader.read(read, key, meta, self._may_lack_depth)
        if maps is not None and "depth" not in maps:
            sample.meta.pop(HOLES, None)  # depth was read for its size alone, or not at all
        return sample


class FrameSource(Source):
    """A `Source` over frames on disk. Subclasses find the files; everything else is done here.

    Attributes:
        root: the folder that every path is relative to.
        sequences: what `__getitem__` serves, in order.
        detection: what was assumed about depth; None without depth.
        unpaired: files that are not used, with the reason.
        calibrations: by sequence, where depth is registered into the colour picture.
        notes: sentences about the layout found and assumptions made, for logs and the dry run.
        split_note: the one on how the split was chosen.
        in_vain: what the list of the split names and is not there; None without a list.
    """

    name = "frames"
    group_word = "sequences"
    root: Path
    notes: list[str]
    unpaired: list[Unpaired]
    in_vain: InVain | None = None

    def __init__(
        self,
        root: Path,
        sequences: Sequences,
        *,
        unit: str,
        split: SplitChoice,
        every: int = 1,
        min_frames: int | None = None,
        depth_options: DepthOptions,
        label_rules: LabelRules | None,
        align: str,
        fps: float | None,
        unpaired: list[Unpaired],
        notes: list[str],
        orientation: str = "refuse",
        clip_length: int | None = None,
        windows: int | None = None,
        clip_stride: int | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
        require_depth: bool = False,
        reads_spec_files: bool = False,
        top: Path | None = None,
    ) -> None:
        all_depth = _depth_files(sequences)
        sequences, how = self._of_split(root, sequences, split)
        notes.append(how)
        self.split_note = how
        sequences = thin_out(sequences, unit, every, min_frames, unpaired, clip_length, notes)
        choose("align", align, ALIGNMENTS)
        choose("orientation", orientation, ORIENTATIONS)
        check_calibrated(calibrations, align, orientation)
        self.root = root
        self.calibrations = {key: each for key, each in (calibrations or {}).items() if key in sequences}
        self.unpaired = unpaired
        self.notes = notes
        self.align = align
        self.orientation = orientation
        self.label_rules = label_rules
        if unpaired:
            what = agree(len(unpaired), "file is", "files are")
            told = f"{root}: {len(unpaired)} {what} not used; the first: {unpaired[0].path} ({unpaired[0].reason})"
            remembered(f"said {told}", lambda: logger.warning("%s", told))  # by all splits at once
        frames = [frame for sequence in sequences.values() for frame in sequence]
        self.detection: Detection | None = None
        # Digests have always told what is stated by name, also where it is the same for all. A depth_spec.json that
        # says of some sequences what holds of the others changes nothing of how they are read, and no digest.
        self._is_stated_by_name = any(isinstance(each, Mapping) for each in (depth_options.unit, depth_options.scale))
        self._readers: dict[Any, FrameReader] = {}
        # The unit is judged over all splits: train and validation must never read the same files differently.
        if any(frame.depth for frame in frames):
            paths = {key: [root / file for file in files] for key, files in all_depth.items()}
            written = written_options(root, all_depth, depth_options, top) if reads_spec_files else {}
            self.detection = detect_depth(paths, depth_options, where=root, written=written)
            notes += self.detection.lines
        self.depth_spec: DepthSpec | None = self.detection.spec if self.detection else None
        self.class_names: list[str] | None = class_names_of(label_rules)
        self.action_names: list[str] | None = None
        self.sequences: list[FrameSequence] = []
        self._sequence_of: list[str] = []
        if unit == "clips":
            parts = cut_windows(sequences, clip_length, windows, notes, clip_stride)
            if require_depth:
                parts = leave_out_blind(parts, unpaired, notes)
            self._add_clips(parts, self._rate(sequences) if fps is None else fps)
        else:
            self._add_frames(sequences)
        notes += describe_missing_depth(self.sequences)
        if self.groups() is None:
            self.group_word = "clips" if unit == "clips" else "images"
        self._check_some(sequences)

    def _add_frames(self, sequences: Sequences) -> None:
        for sequence, frames in sequences.items():
            reader = self._reader_of(sequence)
            self.sequences += [FrameSequence(frame.key, (frame,), reader) for frame in frames]
            self._sequence_of += [sequence] * len(frames)

    def _add_clips(self, windows: Mapping[str, Window], rate: float | None) -> None:
        for key, window in windows.items():
            if not window.frames:
                continue
            sequence = window.sequence
            recorded = None if rate is not None else self._table_of(sequence)
            reader = self._reader_of(sequence)
            self.sequences.append(FrameSequence(key, window.frames, reader, rate, recorded, sequence))
            self._sequence_of.append(sequence)

    def groups(self) -> list[str] | None:
        """The sequence of every item; None where all are of one, so that each stands for itself."""
        return self._sequence_of if len(set(self._sequence_of)) > 1 else None

    def sequence_names(self) -> list[str]:
        """The sequence of every item, also where all are of one."""
        return list(self._sequence_of)

    def _of_split(self, root: Path, sequences: Sequences, wanted: SplitChoice) -> tuple[Sequences, str]:
        """The sequences of a split, and a sentence on how they were chosen; see `select_split`."""
        if wanted.validation is not None:
            return split_by_validation(root, sequences, wanted)
        kept, how = select_split(root, sequences, wanted.name, wanted.listed, wanted.fractions)
        if (file := list_of(root, wanted.name, wanted.listed)) is not None:
            self.in_vain = InVain(file, missing_entries(root, sequences, wanted.name, wanted.listed))
            how = "; ".join(filter(None, (how, self.in_vain.words)))
        return kept, how

    def _rate(self, sequences: Sequences) -> float | None:
        """Frames per second where none are stated."""
        return None

    def _table_of(self, sequence: str) -> Path | None:
        """Times of the frames of an imported recording, which may be the root itself."""
        folder = self.root / sequence
        return recorded_table(folder if folder.is_dir() else self.root)

    def _reader_of(self, sequence: str) -> FrameReader:
        found = None if self.detection is None else self.detection.of_sequence(sequence)
        spec, check = (None, None) if found is None else (found.spec, found.check)
        calibration = self.calibrations.get(sequence)
        reader = FrameReader(self.root, spec, self.label_rules, self.align, self.orientation, check, calibration)
        return self._readers.setdefault((spec, check, calibration), reader)  # one for all, which is pickled once

    def _check_some(self, sequences: Sequences) -> None:
        """Sizes and labels of some frames, spread from first to last, before anything is trained."""
        frames = [frame for sequence in sequences.values() for frame in sequence]
        for key, calibration in self.calibrations.items():
            for frame in [frame for frame in sequences[key] if frame.depth is not None][:1]:
                check_calibrated_frame(self.root, frame, self._sizes(frame), calibration, self.depth_spec)
        self._check_orientations([frames[i] for i in spread_indices(len(frames), _CHECKED_ORIENTATIONS)])
        chosen = [frames[i] for i in spread_indices(len(frames), _CHECKED_FRAMES)]
        for frame in chosen:
            if (found := self._sizes(frame)) is not None:
                sizes = {file: (size[0], size[1]) for file, size in found.items()}
                if self.calibrations and frame.depth is not None:
                    del sizes[frame.depth]  # which gets the picture's size
                if self.orientation != "as_rgb" or all(size[2] == 1 for size in found.values()):
                    refuse_sizes(self.root, dict(sizes), self.align)
        if self.label_rules is not None:
            labelled = [self.root / frame.labels for frame in frames if frame.labels is not None]
            paths = [labelled[i] for i in spread_indices(len(labelled), _CHECKED_LABELS)]
            check_label_files(paths, self.label_rules)

    def _sizes(self, frame: Frame) -> dict[str, tuple[int, int, int]] | None:
        """(height, width, orientation) of the files of a frame; None where one cannot be read."""
        try:
            return {
                file: video_frame_size(self.root, file)
                if is_video_frame(file)
                else size_and_orientation(self.root / file)
                for file in frame.files.values()
            }
        except CorruptFileError:
            return None  # counted and listed where samples are read

    def _check_orientations(self, frames: list[Frame]) -> None:
        """Say what is turned, and refuse what nobody can know, before anything is trained."""
        seen: list[int] = []
        for frame in frames:
            sizes = self._sizes(frame)
            if sizes is None or frame.rgb is None:
                continue
            height, width, lies = sizes.pop(frame.rgb)
            seen.append(lies)
            for file, (own_height, own_width, own) in sizes.items():
                if own == 1:
                    blank = np.broadcast_to(np.uint8(0), (own_height, own_width))
                    as_the_picture_lies(blank, self.root / file, lies, (height, width), self.orientation)
        if note := describe_orientations(seen, self.orientation):
            self.notes.append(note)

    def label_maps(self, rows: Sequence[int]) -> LabelFiles | None:
        """The label maps of some items; None without any."""
        return None if self.label_rules is None else LabelFiles(self.label_files(rows), self.label_rules)

    def label_files(self, rows: Sequence[int]) -> list[Path]:
        """The files of the label maps of some items, in order."""
        chosen = [frame for row in rows for frame in self.sequences[row].frames]
        return list(dict.fromkeys(self.root / frame.labels for frame in chosen if frame.labels is not None))

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> FrameSequence:
        if not -len(self.sequences) <= index < len(self.sequences):
            raise IndexError(f"item {index} of a source of {len(self.sequences)}")
        return self.sequences[index]

    def digest(self) -> str:
        """Digest of names, sizes in bytes and reading rules; modification times and the location of the root do not
        count."""
        return self._digest(labels=True)

    def unlabelled_digest(self) -> str:
        """As `digest`, without the label maps and their rules."""
        return self._digest(labels=False)

    def _digest(self, labels: bool) -> str:
        state = hashlib.sha256()
        rules: dict[str, Any] = {
            "source": self.name,
            "align": self.align,
            "depth": self.depth_spec.to_dict() if self.depth_spec else None,
            "labels": self.label_rules.to_dict() if self.label_rules and labels else None,
        }
        if self.orientation != "refuse":
            rules["orientation"] = self.orientation
        if self.calibrations:
            rules["calibration"] = {key: each.to_dict() for key, each in self.calibrations.items()}
        if self.detection is not None and self.detection.by_sequence:
            others = {
                key: found.spec.to_dict() for key, found in self.detection.by_sequence.items()
                if self._is_stated_by_name or found.spec != self.detection.spec
            }  # fmt: skip
            rules |= {"depth_by_sequence": others} if others else {}
        if self.sequences and (further := self.sequences[0].frames[0].others):
            rules["modalities"] = [name for name, _ in further]
        state.update(json.dumps(rules, sort_keys=True).encode())
        for sequence in self.sequences:
            state.update(f"\n{sequence.key}".encode("utf-8", "surrogatepass"))
            for frame in sequence.frames:
                for name, file in frame.files.items():
                    if name == "labels" and not labels:
                        continue
                    path = self.root / video_of(file)
                    size = path.stat().st_size if path.is_file() else -1
                    state.update(f"\n {file} {size}".encode("utf-8", "surrogatepass"))
        return state.hexdigest()


def describe_missing_depth(videos: Sequence[Any]) -> list[str]:
    """A sentence on the frames of clips and videos whose depth is known to be missing; none without any.

    Args:
        videos: handles with `missing_depth`, and others, which do not know.
    """
    missing: dict[str, list[int]] = {}
    frames = 0
    for video in videos:
        try:
            found = getattr(video, "missing_depth", ())
            if video.length > 1 and getattr(video, "has_depth", False):
                frames += video.length
        except DataError:
            continue  # told where it is read
        if found:
            missing[video.key] = found
    if not missing:
        return []
    count, first = sum(map(len, missing.values())), next(iter(missing))
    return [
        f"the depth of {count} of {plural(frames, 'frame')} is missing, and counts as a hole: in "
        f"{plural(len(missing), 'sequence')}, the first: {first}, frame {missing[first][0]}"
    ]


def _depth_files(sequences: Sequences) -> dict[str, list[str]]:
    """Sequence -> its depth files, in order; the unit of depth is judged by them."""
    return {key: [frame.depth for frame in part if frame.depth is not None] for key, part in sequences.items()}


def spread_indices(length: int, count: int) -> list[int]:
    """At most `count` indices below `length`, from first to last."""
    return evenly_spaced(range(length), count)


def class_names_of(rules: LabelRules | None) -> list[str] | None:
    """The given names, or `class 0` .. when only their number is known; None without labels."""
    if rules is None:
        return None
    return rules.names or [f"class {i}" for i in range(rules.num_classes)]

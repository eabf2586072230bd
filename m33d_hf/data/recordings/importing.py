"""Writes a recording as a folder of frames that the source `folder` reads, and reads every file back.

    OUTPUT/color/000000.jpg      as the camera stored it, else PNG
    OUTPUT/depth/000000.png      16 bits, as depth_spec.json says
    OUTPUT/calibration.json      where the recording holds one
    OUTPUT/depth_spec.json, frames.csv (number, seconds), skipped_files.csv (what could not be used), import.json

Depth is written last, and every file under another name first: a frame whose depth is there is complete. The same
command continues where an interrupted one stopped, and takes what was repaired or added since. Memory holds a frame or
two, and the times of all.
"""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from m33d_hf.data.clock import clock
from m33d_hf.data.depth.calibration import CALIBRATION_FILE, write_calibration
from m33d_hf.data.depth.writing import Quantizer, encode_png
from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically
from m33d_hf.data.files.files import decode_map, load_rgb
from m33d_hf.data.files.json_objects import read_json_object
from m33d_hf.data.files.skips import FILE_NAME, SkippedList, unreadable
from m33d_hf.data.plural import plural
from m33d_hf.data.recordings.formats import open_recording
from m33d_hf.data.recordings.recording import Content, ImportOptions, PendingFrame, Recording, picture_suffix
from m33d_hf.data.recordings.same_recording import refuse_another, stored_depth
from m33d_hf.errors import ConfigError, CorruptFileError, DataError

RECORD, FRAMES, SPEC = "import.json", "frames.csv", "depth_spec.json"  # the first two: also `videos.recorded_times`
_RULES = ("every", "min_confidence", "color_topic", "depth_topic", "max_difference")
_PICTURES = (".jpg", ".png")


@dataclass
class ImportSummary:
    """What was done.

    Attributes:
        kind: of recording.
        announced: frames that the recording itself counts.
        found: frames that are in it.
        written, already_there, skipped: of those that were wanted.
        counts: pixels of depth, as `Quantizer` counts them (of recordings whose depth is floating point).
        notes: of the recording.
        flags: that the source `folder` needs.
        seconds: taken.
    """

    kind: str
    announced: int
    found: int = 0
    written: int = 0
    already_there: int = 0
    skipped: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    flags: str = ""
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """Frames that the recording counts and does not hold."""
        return max(0, self.announced - self.found)

    def describe(self) -> str:
        """The closing lines."""
        lines = [
            f"{self.kind}: {self.written} frames written in {clock(self.seconds)}, {self.already_there} were there, "
            f"{self.skipped} skipped; {self.found} of the {self.announced} frames that it counts were found",
            *self.notes,
        ]
        if self.missing:
            lines.append(f"{plural(self.missing, 'frame')} that the recording counts are missing from it")
        if count := self.counts["too_far"]:
            lines.append(f"{plural(count, 'pixel')} beyond 65.534 m are stored as invalid")
        if self.skipped:
            lines.append(f"what was skipped is listed in {FILE_NAME}")
        return "\n".join([*lines, f"read it with: {self.flags}"])


def import_recording(
    source: Path, output: Path, options: ImportOptions | None = None, say: Callable[[str], None] = print
) -> ImportSummary:
    """Write the frames of a recording; those that are there are kept.

    Args:
        source: the recording: a file, or a folder.
        output: folder of one sequence; made where it is missing.
        options: what is read.
        say: receives lines of progress.

    Raises:
        ConfigError: options that contradict the recording, or an output of another recording or other settings.
        CorruptFileError: no recording of a known kind. MissingDependencyError: its reader is not installed.
        DataError: too many frames are damaged or missing; those that could be read are written.
    """
    options = options or ImportOptions()
    recording = open_recording(source, options)
    _claim(source, output, options)
    refuse_another(recording, source, output)
    return _Import(recording, source, output, options, say).all()


def _claim(source: Path, output: Path, options: ImportOptions) -> None:
    """Write import.json, or check that the one that is there is of this name and these settings."""
    path = output / RECORD
    settings = asdict(options)
    own = {"recording": source.name} | {name: settings[name] for name in _RULES}
    if not path.exists():
        if output.is_dir() and any(entry.name[0] != "." for entry in output.iterdir()):
            raise ConfigError(f"--output {output} holds files, and no {RECORD} of an import; choose an empty folder.")
        write_text_atomically(path, json.dumps(own | {"complete": False}, indent=1) + "\n")
        return
    try:
        before = read_json_object(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); choose another --output, or remove this one.") from error
    differing = [f"{name}: {before.get(name)} there, {own[name]} now" for name in own if before.get(name) != own[name]]
    if differing:
        raise ConfigError(
            f"{output} holds another import ({'; '.join(differing)}). Choose another --output for it, or repeat the "
            "earlier command to continue."
        )


class _Import:
    """One pass over a recording."""

    def __init__(
        self, recording: Recording, source: Path, output: Path, options: ImportOptions, say: Callable[[str], None]
    ) -> None:
        self.recording, self.source, self.output, self.options, self.say = recording, source, output, options, say
        about = recording.about
        self.summary = ImportSummary(about.kind, about.announced, notes=about.notes)
        self.wanted = max(1, min(-(-about.announced // options.every), options.limit or about.announced))
        self.quantizer = Quantizer("metric")
        self.listed = SkippedList(output / FILE_NAME)
        self.sizes: tuple[tuple[int, int], tuple[int, ...]] | None = None
        self.timed = True
        self.started = self.reported = time.monotonic()

    def all(self) -> ImportSummary:
        """Everything that is not there yet."""
        about = self.recording.about
        for folder in ("color", "depth"):
            (self.output / folder).mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.output / SPEC, json.dumps(about.depth_spec.to_dict(), indent=1) + "\n")
        if about.calibration is not None:
            write_calibration(self.output / CALIBRATION_FILE, about.calibration)
        write_atomically(self.output / FRAMES, self._frames)
        self.summary.flags = self._flags()
        summary = self.summary
        summary.counts.update(self.quantizer.counts)
        summary.seconds = time.monotonic() - self.started
        self._judge()
        self._finish()
        return summary

    def _flags(self) -> str:
        about = self.recording.about
        scale = f"--data.options.depth_scale {about.depth_spec.scale:g}"
        words = [f"--data.source folder --data.root {shlex.quote(str(self.output))}", scale]
        if about.calibration is not None:
            words.append(f"--data.options.calibration {CALIBRATION_FILE}")
        if about.fps is not None and not self.timed:  # else the times of the frames count
            words.append(f"--data.options.fps {about.fps / self.options.every:g}")
        return " ".join(words)

    def _frames(self, table: Path) -> None:
        """Write the frames, and the table of them."""
        with table.open("w", encoding="utf-8", newline="") as file:
            file.write("number,seconds\n")
            for frame in self._wanted():
                self._one(frame, file)
                self._report()

    def _wanted(self) -> Iterator[PendingFrame]:
        def counted() -> Iterator[PendingFrame]:
            for frame in self.recording.frames():
                self.summary.found += 1
                yield frame

        frames, every, limit = counted(), self.options.every, self.options.limit
        yield from islice(frames, 0, None if limit is None else limit * every, every)
        deque(frames, 0)  # the rest is counted and not read

    def _one(self, frame: PendingFrame, table: IO[str]) -> None:
        name = f"{frame.number:06d}"
        if (self.output / "depth" / f"{name}.png").is_file():
            self.summary.already_there += 1
        else:
            try:
                self._write(name, frame.load())
                self.summary.written += 1
            except DataError as error:
                self.summary.skipped += 1
                entry = unreadable(error, name)
                self.say(f"skipped frame {frame.number}: {entry.reason}")
                self.listed.append([entry])
                return
        self.timed = self.timed and frame.seconds is not None
        table.write(f"{frame.number},{'' if frame.seconds is None else f'{frame.seconds:.9f}'}\n")

    def _write(self, name: str, content: Content) -> None:
        """One frame's files, read back.

        Raises:
            CorruptFileError: sizes that are not those of the calibration or of earlier frames, or a file that does not
                read back as it was written.
        """
        about = self.recording.about
        sizes = (content.size, content.depth.shape)
        calibrated = None if about.calibration is None else (about.calibration.color.size, about.calibration.depth.size)
        expected = calibrated or self.sizes
        if expected is not None and sizes != expected:
            words = f"colour and depth are {sizes} (height, width); expected {expected}"
            raise CorruptFileError(Path(f"{self.source}#{name}"), words)
        self.sizes = sizes
        color = self.output / "color" / f"{name}{picture_suffix(content.color)}"
        write_atomically(color, lambda path: _save_picture(path, content.color))
        if isinstance(content.color, np.ndarray) and not np.array_equal(load_rgb(color).values, content.color):
            raise CorruptFileError(color, "does not read back as it was written")
        if isinstance(content.color, bytes) and color.read_bytes() != content.color:
            raise CorruptFileError(color, "does not read back as it was written")
        stored, scale = stored_depth(content.depth, about, self.quantizer)
        depth = self.output / "depth" / f"{name}.png"
        data = encode_png(stored, scale)
        if not np.array_equal(decode_map(depth, data)[0], stored):
            raise CorruptFileError(depth, "does not read back as it was written")
        write_atomically(depth, lambda path: path.write_bytes(data))

    def _judge(self) -> None:
        """Refuse a recording of which too much is missing.

        Raises:
            DataError: with the figures; what was written stays.
        """
        summary, most = self.summary, self.options.max_bad_fraction
        if not summary.found:
            notes = "; ".join(summary.notes)
            raise DataError(f"{self.source}: holds no frame of colour and depth: {notes}. See --max_difference.")
        if not summary.written + summary.already_there:
            raise DataError(f"{self.source}: not one frame could be written; see {self.output / FILE_NAME}")
        seen = summary.written + summary.already_there + summary.skipped
        for count, of, what in (
            (summary.skipped, seen, f"frames are damaged; they are listed in {self.output / FILE_NAME}"),
            (summary.missing, summary.announced, "frames that the recording counts are missing: was it cut short?"),
        ):
            if count > most * of:
                raise DataError(
                    f"{self.source}: {count} of {of} {what} At most {most:g} of them may be (--max_bad_fraction). The "
                    f"{seen - summary.skipped} good ones are in {self.output}."
                )

    def _finish(self) -> None:
        path = self.output / RECORD
        record: dict[str, Any] = read_json_object(path)
        summary = self.summary
        frames = summary.written + summary.already_there
        record |= {"complete": True, "kind": summary.kind, "frames": frames, "skipped": summary.skipped}
        record |= {"bytes": self.source.stat().st_size if self.source.is_file() else None}
        record |= {"announced": summary.announced, "found": summary.found, "flags": summary.flags}
        write_text_atomically(path, json.dumps(record, indent=1) + "\n")

    def _report(self) -> None:
        now, summary = time.monotonic(), self.summary
        if now - self.reported < self.options.report_seconds:
            return
        self.reported = now
        done = summary.written + summary.already_there + summary.skipped
        took, fresh = now - self.started, summary.written + summary.skipped
        left = took * (self.wanted - done) / fresh if fresh else float("nan")
        self.say(f"{done} of {self.wanted} frames, {clock(took)} so far, about {clock(max(0.0, left))} left")


def _save_picture(path: Path, color: bytes | np.ndarray) -> None:
    if isinstance(color, bytes):
        path.write_bytes(color)
    else:
        Image.fromarray(color).save(path, compress_level=3)

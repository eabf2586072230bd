"""Following a feed from the command line: a line on the screen and a row of a table for each clip, as it ends."""

from __future__ import annotations

import csv
import io
import re
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TextIO

from m33d_hf.data.csv_text import csv_text
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.plural import plural
from m33d_hf.errors import ConfigError, CorruptFileError
from m33d_hf.inference.detection_files import CLIP_COLUMNS, seconds_text
from m33d_hf.inference.live.arrivals import is_address, shown_address
from m33d_hf.inference.live.case import WAIT
from m33d_hf.inference.live.clips import ClipPrediction, Gap
from m33d_hf.inference.live.following import Ended, Following
from m33d_hf.inference.timeline import ActionDetector
from m33d_hf.training.processes.guards import SIGNALS, handled

LIVE_COLUMNS = (*CLIP_COLUMNS, "latency", "note")
# A model that is slower than its feed is told once the answers are so much later than at the beginning (seconds).
_LATE = 5.0


@dataclass(frozen=True)
class FollowOptions:
    """What to follow, and how; see `ActionDetector.follow`.

    Attributes:
        source: an address, a file that grows, a pipe, or a device (with `stream_format`); of several cameras each by
            the name of its camera.
        folder: for the table and the state.
        timeout: seconds without a frame that count as stalled.
        resume: go on with the table and the state that are there.
        stream_options, stream_format: of FFmpeg.
        offsets: of several cameras: camera -> seconds; None where none is stated.
        wait: seconds that several cameras wait for one of them.
    """

    source: str | Mapping[str, str]
    folder: Path
    timeout: float = 10.0
    resume: bool = False
    stream_options: Mapping[str, str] | None = None
    stream_format: str | None = None
    offsets: Mapping[str, float] | None = None
    wait: float = WAIT

    @property
    def name(self) -> str:
        """Of the files: that of the source, or of its cameras, without what a file name cannot hold."""
        if not isinstance(self.source, str):
            return "_".join(self.source)
        shown = re.sub(r"^[a-z0-9+.-]+://", "", shown_address(self.source), flags=re.IGNORECASE)
        bare = shown if is_address(self.source) else PurePosixPath(shown).stem
        return re.sub(r"[^\w.-]+", "_", bare).strip("_.") or "feed"

    @property
    def told(self) -> str:
        """The source for people, without a password."""
        if isinstance(self.source, str):
            return shown_address(self.source)
        return ", ".join(f"{name} ({shown_address(each)})" for name, each in self.source.items())

    @property
    def growing(self) -> bool:
        """Whether a source is a file, or may be one: with a format, which devices need as a rule, only one that is
        there."""
        sources = [self.source] if isinstance(self.source, str) else list(self.source.values())
        files = [each for each in sources if not is_address(each)]
        return bool(files) and (self.stream_format is None or any(Path(each).is_file() for each in files))

    @property
    def table(self) -> Path:
        """Rows of clips."""
        return self.folder / f"{self.name}_live.csv"

    @property
    def state(self) -> Path:
        """What to go on from."""
        return self.folder / f"{self.name}_live.safetensors"


def follow_to_files(detector: ActionDetector, options: FollowOptions) -> Ended:
    """Follow a source until it ends, or Ctrl-C does; the table and the state are up to date after every clip.

    Raises:
        ConfigError: a table that is there already, or one that is not there to go on with.
        whatever `ActionDetector.follow` raises.
    """
    kept = _rows_so_far(detector, options)
    clips = detector.follow(
        options.source,
        growing=options.growing,
        timeout=options.timeout,
        resume=options.resume,
        stream_options=options.stream_options,
        stream_format=options.stream_format,
        offsets=options.offsets,
        wait=options.wait,
    )
    number, pace = detector.followed.completed, _Pace()
    print(f"following {options.told}, into {options.table}; Ctrl-C ends it", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        stack.enter_context(_stopped_by_signals(clips))
        first = next(clips, None)  # a feed that never began leaves no table in the way of the next try
        write_text_atomically(options.table, kept)
        file = stack.enter_context(options.table.open("a", encoding="utf-8", newline=""))
        for clip in chain([] if first is None else [first], clips):
            _write(file, clip_row(number, clip, detector.names, case=not isinstance(options.source, str)))
            print(clip_line(clip, detector.names), flush=True)
            number += 1
            detector.save_live(options.state)
            if (late := pace.late(clip)) is not None:
                print(late, file=sys.stderr, flush=True)
        detector.save_live(options.state)
        if (ended := clips.ended) is None:
            raise ConfigError(f"{options.told}: the feed ended without saying how")
        _write(file, _end_row(ended, len(detector.names) + int(bool(ended.cameras))))
    where = f"{seconds_text(ended.seconds)}, {plural(ended.frames, 'frame')}"
    again = "" if ended.kind == "finished" else "; go on with --resume"
    print(f"{ended.kind} after {where}: {ended.reason}{again}", file=sys.stderr, flush=True)
    return ended


def _rows_so_far(detector: ActionDetector, options: FollowOptions) -> str:
    """What the table begins with: its header, and where a feed is taken up again the rows of its whole clips."""
    case = not isinstance(options.source, str)
    table, header = options.table, [*LIVE_COLUMNS, *(["cameras"] if case else []), *detector.names]
    if not options.resume:
        if table.exists():
            raise ConfigError(
                f"{table} is there already, and a feed cannot be recorded twice: pass --resume to go on with it, or "
                "another --output"
            )
        return csv_text(header, ())
    if not table.is_file():
        raise ConfigError(f"--resume: {table} does not exist; leave --resume out to begin")
    followed = detector.load_case(options.state) if case else detector.load_live(options.state)
    text = table.read_bytes().decode("utf-8", errors="replace")
    found, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if found != header:
        raise CorruptFileError(table, "is not the table of such a feed; its first line differs")
    if rows and not text.endswith("\n"):
        rows.pop()  # torn by a full disk or a kill, perhaps inside its last number; the state has not seen it
    # Clips that the end cut short come again, whole.
    first, place = followed.first_open, header.index("start_frame")
    rows = [row for row in rows if len(row) == len(header)]
    kept = [row for row in rows if not row[place] or int(row[place]) < first]
    return csv_text(header, kept)


def clip_row(number: int, clip: ClipPrediction, names: list[str], case: bool = False) -> list[object]:
    """The values of `LIVE_COLUMNS`, of a case the cameras that showed it, and of the phases, for one clip."""
    told = [names[int(row.argmax())] for row in (clip.probabilities, clip.clipwise)] if clip.readable else ["", ""]
    times = (seconds_text(clip.start_time), seconds_text(clip.stop_time))
    latency = "" if clip.latency is None else f"{clip.latency:.3f}"
    by = [";".join(clip.cameras)] if case else []
    shares = [f"{value:.6f}" for value in clip.probabilities]
    return [
        number,
        clip.start,
        clip.stop - 1,
        *times,
        int(clip.readable),
        *told,
        latency,
        clip_note(clip),
        *by,
        *shares,
    ]


def clip_note(clip: ClipPrediction) -> str:
    """What is to be said of a clip besides its phase; empty where nothing is."""
    parts = [gap_text(gap) for gap in clip.gaps]
    return "; ".join([*parts, *(["cut short by the end of the feed"] if clip.cut else [])])


def gap_text(gap: Gap) -> str:
    """A gap in words."""
    more = f" ({plural(gap.frames, 'such frame')})" if gap.frames > 1 else ""
    return f"{gap.reason}{more}"


def clip_line(clip: ClipPrediction, names: list[str]) -> str:
    """A clip on one line of the screen."""
    best = int(clip.probabilities.argmax())
    phase = f"{names[best]} {clip.probabilities[best]:.0%}" if clip.readable else "cannot be read"
    parts = [f"{seconds_text(clip.start_time)} to {seconds_text(clip.stop_time)}", phase]
    parts += [] if clip.latency is None else [f"{clip.latency:.2f} s after its last frame"]
    return "  ".join([*parts, *([f"[{note}]"] if (note := clip_note(clip)) else [])])


def _end_row(ended: Ended, more: int) -> list[object]:
    """The row that says why there are no more; like those of what is missing, without a number and a phase.

    Args:
        ended: how it ended.
        more: columns behind the note.
    """
    note = f"{ended.kind}: {ended.reason}"
    return ["", "", "", "", seconds_text(ended.seconds), 0, "", "", "", note, *[""] * more]


class _Pace:
    """Compares the clock on the wall with that of the feed."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._told = False

    def late(self, clip: ClipPrediction) -> str | None:
        """A sentence, once, where the answers come ever later."""
        if clip.stop_time is None or clip.cut or self._told:
            return None
        now = time.monotonic()
        if self._first is None:
            self._first = now, clip.stop_time
        behind = now - self._first[0] - (clip.stop_time - self._first[1])
        if behind < _LATE:
            return None
        self._told = True
        return (
            f"by the feed's own clock the answers are {behind:.1f} s later than at the beginning: the model is slower "
            "than the feed (--device, --precision), or the feed pauses"
        )


def _stopped_by_signals(clips: Following) -> AbstractContextManager[None]:
    """Ctrl-C and SIGTERM end the feed; what was seen is written. A second one ends the process."""
    former = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, former[signal.Signals(number)])
        clips.stop()

    return handled(stop)


def _write(file: TextIO, row: list[object]) -> None:
    file.write(csv_text(row, ()))
    file.flush()

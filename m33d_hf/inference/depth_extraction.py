"""Runs a depth model over images or videos and writes sidecars that `m33d_hf.data.depth.maps` reads.

Every process of a launcher works on its share of the list independently. Complete outputs are not computed again; an
interrupted video is continued after the last recorded batch. `depth_spec.json` stores the model and the settings of a
folder; a different model, or different settings, cannot add to it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.clock import clock
from m33d_hf.data.depth.maps import SPEC_FILE, read_spec_file
from m33d_hf.data.depth.writing import (
    FORMATS,
    DepthVideoWriter,
    depth_is_written,
    lost_pixels,
    write_depth_image,
    written_spec,
)
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.files import read_rgb
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, SkippedFile, incomplete_entry
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.progress import Progress
from m33d_hf.errors import ConfigError, CorruptFileError, DataError, MissingDependencyError
from m33d_hf.inference.depth_items import DepthItem, list_items
from m33d_hf.inference.depth_models import DepthPredictor, load_depth_predictor
from m33d_hf.inference.folder_lock import shared_folder
from m33d_hf.inference.output_folders.recorded_inputs import claim_names
from m33d_hf.inference.overlapping import Overlapped, written_behind
from m33d_hf.inference.sharding import Place, launched_place, rank_share
from m33d_hf.modeling.video_reading_m33d import iterate_video, probe_video

# What must be alike for two runs to write into one folder.
_RULES = ("model_digest", "kind", "format", "items", "short_side")

_THREADS = 2  # that read pictures, and that write depth


@dataclass(frozen=True)
class DepthExtractionOptions:
    """Options of the extraction; the fields are the command-line flags.

    Attributes:
        model: folder or Hub id of a depth estimation model of transformers.
        input: a tree of images, of video files or of folders of frames, or one file.
        output: sidecar root; it may lie inside the input.
        format: of videos: `png` (16 bits, a folder per video) or `parquet`; single images are always PNG.
        kind: `metric`, `inverse`, `relative`, or `auto` = as the model's configuration says.
        items: `images`, `videos` (a folder of pictures is a video), or `auto` where it is clear.
        batch_size: pictures that go through the model together.
        device: of torch, or `auto`.
        short_side: depth is stored with at most this many pixels on its short side; None keeps the pictures' size.
        limit: stop after so many inputs (of all ranks together).
        max_bad_fraction: share of unreadable inputs, 0 to 1, past which the run stops.
        report_seconds: time between two lines of progress.
        trust_remote_code: run the code that the model's repository brings along; never asked for on the terminal.
    """

    model: str
    input: Path
    output: Path
    format: str = "png"
    kind: str = "auto"
    items: str = "auto"
    batch_size: int = 8
    device: str = "auto"
    short_side: int | None = None
    limit: int | None = None
    max_bad_fraction: float = 0.01
    report_seconds: float = 10.0
    trust_remote_code: bool = False

    def check(self) -> None:
        """Raise a ConfigError for an invalid value, a MissingDependencyError for Parquet without pyarrow."""
        if self.format not in FORMATS:
            raise ConfigError(f"--format {self.format!r} must be one of {', '.join(FORMATS)}.")
        if self.format == "parquet" and find_spec("pyarrow") is None:
            raise MissingDependencyError("--format parquet requires pyarrow, which comes with `pip install datasets`.")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"--max_bad_fraction {self.max_bad_fraction} must be a share between 0 and 1.")
        for name in ("batch_size", "short_side", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value} must be at least 1.")
        if self.output.resolve() == self.input.resolve():
            raise ConfigError(f"--output is the input itself ({self.input}); choose a separate folder for depth.")


@dataclass
class DepthExtractionSummary:
    """What this process did; `counts` of pixels as in `Quantizer`, over what was written."""

    items: int
    written: int = 0
    already_there: int = 0
    frames: int = 0
    skipped: list[SkippedFile] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def describe(self) -> str:
        """The closing lines."""
        lines = [
            f"{self.written} of {self.items} inputs written ({plural(self.frames, 'frame')} in {clock(self.seconds)}), "
            f"{self.already_there} already existed, {len(self.skipped)} skipped."
        ]
        lines += lost_pixels(self.counts)
        lines += [f"skipped {file.path}: {file.reason}" for file in self.skipped[:5]]
        if len(self.skipped) > 5:
            lines.append(f".. and {len(self.skipped) - 5} more, listed in {FILE_NAME} of the output.")
        return "\n".join(lines)


def extract_depth(
    options: DepthExtractionOptions,
    place: Place | None = None,
    predictor: DepthPredictor | None = None,
    say: Callable[[str], None] = print,
) -> DepthExtractionSummary:
    """Write the depth of this rank's share of the inputs; complete outputs are kept.

    Args:
        options: what to do.
        place: rank and world size; None takes the launcher's.
        predictor: a loaded model; None loads `options.model`.
        say: receives lines of progress.

    Raises:
        ConfigError: invalid options, an output folder made by another model, with other settings or of other inputs, or
            one that another extraction is writing to.
        CheckpointError: no usable model. DataError: no input, or too many unreadable ones.
    """
    options.check()
    place = place or launched_place()
    predictor = predictor or load_depth_predictor(
        options.model, options.kind, options.device, place.local_rank, options.trust_remote_code
    )
    metric = predictor.kind == "metric"
    found = list_items(options.input, options.items, options.output, metric)[: options.limit]
    with shared_folder(options.output, place):
        claim_output(options, predictor, "videos" if found[0].is_video else "images")
        share = rank_share(found, place.rank, place.world_size)
        claim_names(options.output, {item.rel: item.path for item in found}, {item.rel: item.path for item in share})
        name = f"[rank {place.rank} of {place.world_size}] " if place.world_size > 1 else ""
        say(
            f"{name}{predictor.kind} depth by {predictor.name} ({predictor.model_type}) on {predictor.device}: "
            f"{len(share)} of {len(found)} inputs below {options.input}, to {options.output}"
        )
        run = _Run(options, predictor, share, lambda line: say(f"{name}{line}"))
        return run.all()


def claim_output(options: DepthExtractionOptions, predictor: DepthPredictor, items: str) -> None:
    """Write depth_spec.json, or check that the one that is there was written for the same model and rules.

    Raises:
        ConfigError: it was not; the message names every difference.
    """
    from m33d_hf import __version__

    path = options.output / SPEC_FILE
    provenance: dict[str, Any] = {
        "made_by": f"m33d-hf {__version__} extract_depth",
        "model": predictor.name,
        "model_type": predictor.model_type,
        "model_digest": predictor.digest,
        "kind": predictor.kind,
        "format": options.format,
        "items": items,
        "short_side": options.short_side,
        "upright": True,  # as pictures are read, whatever their EXIF says
    }
    if read_spec_file(options.output) is None:
        content = {**written_spec(predictor.kind).to_dict(), "provenance": provenance}
        write_text_atomically(path, json.dumps(content, indent=1) + "\n")
    # Read back: another rank, or another run, may have been faster.
    before = (read_spec_file(options.output) or {}).get("provenance")
    if not isinstance(before, dict):
        raise ConfigError(f"{path} was not written by depth extraction; choose another --output.")
    differing = [name for name in _RULES if before.get(name) != provenance[name]]
    if differing:
        listed = "; ".join(f"{name}: {before.get(name)} there, {provenance[name]} now" for name in differing)
        raise ConfigError(
            f"{options.output} holds depth by {before.get('model')} made with other settings ({listed}). All depth in "
            "a folder must be made in the same way: choose another --output, or repeat the earlier command."
        )


class _Run:
    """One rank's pass over its share."""

    def __init__(
        self,
        options: DepthExtractionOptions,
        predictor: DepthPredictor,
        share: list[DepthItem],
        say: Callable[[str], None],
    ) -> None:
        self.options, self.predictor, self.share, self.say = options, predictor, share, say
        self.ledger = SkipLedger(options.output / FILE_NAME, options.max_bad_fraction, len(share))
        self.summary = DepthExtractionSummary(len(share))
        self.progress = Progress(len(share), options.report_seconds, say)
        self.lock = threading.Lock()

    def all(self) -> DepthExtractionSummary:
        """Everything that is not there yet."""
        waiting: list[tuple[int, DepthItem]] = []
        for index, item in enumerate(self.share):
            format = self.options.format if item.is_video else "image"
            if depth_is_written(self.options.output, item.rel, format):
                self.summary.already_there += 1
                self.progress.already()
            else:
                waiting.append((index, item))
        images = [entry for entry in waiting if not entry[1].is_video]
        self._pictures(images)
        for index, item in waiting:
            if item.is_video:
                self._guarded_video(index, item)
        self.summary.seconds = self.progress.elapsed
        return self.summary

    def _note(self, index: int, item: DepthItem, error: DataError | None = None) -> None:
        """Take note of an input that is dealt with; an unreadable one goes to the list of skipped ones.

        Raises:
            DataError: the budget of unreadable inputs is used up.
        """
        skipped = []
        if error is not None:
            reason = error.reason if isinstance(error, CorruptFileError) else str(error)
            skipped = [SkippedFile(str(item.path), reason, item.rel)]
            self.say(f"skipped {item.path}: {reason}")
        self.ledger.record({"indices": [index], "skipped": skipped})
        self.summary.skipped += skipped
        if self.ledger.over_budget():
            raise DataError(
                f"{plural(self.ledger.bad, 'unreadable input')} among {self.ledger.seen} "
                f"{agree(self.ledger.bad, 'is', 'are')} more than --max_bad_fraction "
                f"{self.options.max_bad_fraction:g} allows; {agree(self.ledger.bad, 'it is', 'they are')} listed in "
                f"{self.ledger.path}. Repair or remove {agree(self.ledger.bad, 'it', 'them')}, or increase "
                f"--max_bad_fraction. The last: {item.path}"
            )

    def _pictures(self, entries: Sequence[tuple[int, DepthItem]]) -> None:
        """Read and write pictures while others are predicted."""

        def dealt_with(entry: tuple[int, DepthItem], error: DataError | None = None) -> None:
            self.progress.done += 1
            self._note(*entry, error)
            self.progress.report()

        passing: Overlapped[tuple[int, DepthItem], np.ndarray, np.ndarray] = Overlapped(
            lambda entry: read_rgb(entry[1].path),
            self._depths,
            lambda entry, _, depth: self._write(entry[1], depth),
            batch_size=self.options.batch_size,
            workers=_THREADS,
            failed=dealt_with,
            done=dealt_with,
        )
        passing.run(entries)

    def _depths(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict together those of one size."""
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, pixels in enumerate(pictures):
            by_size[pixels.shape].append(number)
        found: dict[int, np.ndarray] = {}
        for numbers in by_size.values():
            found.update(zip(numbers, self._predict([pictures[number] for number in numbers]), strict=True))
        return [found[number] for number in range(len(pictures))]

    def _write(self, item: DepthItem, depth: np.ndarray) -> None:
        record = write_depth_image(self.options.output, item.rel, self.predictor.kind, depth)
        with self.lock:
            self._count(record["counts"])

    def _guarded_video(self, index: int, item: DepthItem) -> None:
        before, problem = self.progress.done, None
        try:
            self._video(item)
        except DataError as error:
            problem = error
        self.progress.done = before + 1
        self._note(index, item, problem)

    def _video(self, item: DepthItem) -> None:
        """Predict a video batch by batch, from where an earlier run stopped; frames are read, and depth is written,
        while another batch is predicted.

        Raises:
            CorruptFileError: it cannot be read to its end; nothing of it is kept.
        """
        try:
            info = probe_video(item.path)
        except FileNotFoundError as error:
            raise CorruptFileError(item.path, "does not exist") from error
        writer = DepthVideoWriter(self.options.output, item.rel, self.predictor.kind, self.options.format)
        if info.incomplete:
            self.say(f"{item.path} is incomplete: {info.incomplete}; the depth of the existing frames is written")
            self.ledger.record({"incomplete": [incomplete_entry(str(item.path), info.incomplete, item.rel)]})
        start, base = writer.next_frame, self.progress.done
        if start:
            self.say(f"{item.rel}: continuing at frame {start} of {info.num_frames}")
            self.progress.resumed += start / info.num_frames
        try:
            if start < info.num_frames:
                decoded = iterate_video(item.path, start=start, info=info)
                with read_ahead(decoded, self.options.batch_size) as ahead, written_behind(writer.append) as write:
                    for batch in _in_chunks((frame for _, frame in ahead), self.options.batch_size):
                        write(self._predict(batch))
                        self.progress.done = base + writer.next_frame / info.num_frames
                        self.progress.report()
            if writer.next_frame != info.num_frames:
                reason = f"{writer.next_frame} frames were decoded, but the file announces {info.num_frames}"
                raise CorruptFileError(item.path, reason)
        except DataError:
            writer.discard()
            raise
        record = writer.finish()
        self.summary.frames -= start
        self._count(record["counts"], record["num_frames"])

    def _predict(self, images: list[np.ndarray]) -> np.ndarray:
        return self.predictor.predict(images, stored_size(images[0].shape[:2], self.options.short_side))

    def _count(self, counts: dict[str, int], frames: int = 1) -> None:
        self.summary.written += 1
        self.summary.frames += frames
        self.summary.counts.update(counts)


def stored_size(size: tuple[int, ...], short_side: int | None) -> tuple[int, int]:
    """(height, width) of the stored depth of a picture of that size."""
    height, width = size
    if short_side is None or min(height, width) <= short_side:
        return height, width
    factor = short_side / min(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _in_chunks(items: Any, size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk

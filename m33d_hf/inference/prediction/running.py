"""One pass of a model over pictures and videos: batched, at constant memory, resumable, broken files listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m33d_hf.data.clock import clock
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, SkippedFile, incomplete_entry
from m33d_hf.data.loader.reading_ahead import read_ahead
from m33d_hf.data.plural import plural
from m33d_hf.data.progress import Progress
from m33d_hf.errors import ConfigError, CorruptFileError, DataError
from m33d_hf.inference.folder_lock import shared_folder
from m33d_hf.inference.output_folders.claiming import claim_output
from m33d_hf.inference.output_folders.recorded_inputs import claim_names
from m33d_hf.inference.overlapping import Overlapped
from m33d_hf.inference.prediction.base import FrameSink, PredictionTask
from m33d_hf.inference.prediction.building import build_prediction_task
from m33d_hf.inference.prediction.inputs import (
    Inputs,
    Item,
    counted,
    find_inputs,
    refuse_kinds_over_inputs,
    refuse_output_over_input,
)
from m33d_hf.inference.prediction.options import PredictionOptions
from m33d_hf.inference.sharding import Place, launched_place, rank_share
from m33d_hf.inference.skipped_words import skipped_lines
from m33d_hf.modeling.video_reading_m33d import VideoInfo, iterate_video, probe_video


@dataclass
class PredictionSummary:
    """What this process did.

    Attributes:
        inputs: how many there were for it.
        predicted: pictures, and videos, that it wrote.
        frames: of those videos.
        already_there: inputs that an earlier call had finished.
        skipped: inputs that cannot be read.
        seconds: that it took, without loading the model.
        lines: which files are where, and what the user should know of them.
        good: files of the inputs that are predicted, now or earlier.
    """

    inputs: int
    predicted: int = 0
    frames: int = 0
    already_there: int = 0
    skipped: list[SkippedFile] = field(default_factory=list)
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    good: list[Path] = field(default_factory=list)

    def describe(self) -> str:
        """The closing lines."""
        frames = f", {plural(self.frames, 'frame')} of videos" if self.frames else ""
        first = (
            f"{self.predicted} of {self.inputs} inputs predicted{frames} in {clock(self.seconds)}; "
            f"{self.already_there} were there already, {len(self.skipped)} skipped."
        )
        return "\n".join([first, *self.lines, *skipped_lines(self.skipped, self.good)])

    @property
    def exit_code(self) -> int:
        """0; 1 where some inputs were skipped; 2 where nothing is left."""
        if not self.skipped:
            return 0
        return 1 if self.predicted or self.already_there else 2


def predict(
    options: PredictionOptions,
    place: Place | None = None,
    task: PredictionTask | None = None,
    say: Callable[[str], None] = print,
) -> PredictionSummary:
    """Write the predictions of this rank's share of the inputs; complete outputs are kept.

    Args:
        options: what to do.
        place: rank and world size; None takes the launcher's.
        task: the model of `options`, loaded; None loads it.
        say: receives lines of progress.

    Raises:
        ConfigError: invalid options, or an output that was made in another way or of other inputs, or that another call
            is writing to.
        CheckpointError: no usable model. DataError: nothing to predict on. OSError: the disk is full.
    """
    options.check()
    place = place or launched_place()
    output = Path(options.output)
    inputs = find_inputs(options.input, output)  # before the model is loaded, which takes longer
    refuse_output_over_input(output, inputs)
    task = task or build_prediction_task(options, place.local_rank)
    if task.reads_clips:
        inputs = find_inputs(options.input, output, frames_are_videos=True)
    items = inputs.items[: options.limit]
    if not all(task.kinds_of(item) for item in items):
        raise ConfigError(f"--save {' '.join(options.save)} makes nothing of pictures; add another kind of output.")
    refuse_kinds_over_inputs(output, {kind for item in items for kind in task.kinds_of(item)}, items)
    with shared_folder(output, place):
        sources, share = _sources(items), rank_share(items, place.rank, place.world_size)
        rules = {"task": task.task, **_rules(options, inputs, task), **task.rules()}
        claim_output(output, options.model, rules, sources)
        claim_names(output, sources, _sources(share), task.known)
        name = f"[rank {place.rank} of {place.world_size}] " if place.world_size > 1 else ""
        aside = f" (left aside: {inputs.ignored})" if inputs.ignored else ""
        say(f"{name}{task.describe()}: {counted(share)} of {inputs.roots}{aside}, to {output}")
        run = _Run(options, task, share, lambda line: say(f"{name}{line}"))
        task.begin(share)
        run.all()
        task.finish(items)
        run.summary.good = [item.path for item in run.good]
        run.summary.lines = [*_places(task, run.good), *task.closing()]
        return run.summary


def _rules(options: PredictionOptions, inputs: Inputs, task: PredictionTask) -> dict[str, object]:
    """What two calls that write into one folder must have in common.

    Options that a task does not read are none of them: folders of earlier versions, which took them, are continued.
    """
    rules: dict[str, object] = {"input": inputs.roots.rule(), "precision": options.precision}
    if "flip" in task.reads_options:
        rules["flip"] = options.flip
    if "tiles" in task.reads_options:
        rules["tile_overlap"] = options.tile_overlap if options.tiles else None
    return rules


def _sources(items: Sequence[Item]) -> dict[str, Path]:
    return {item.name: item.path for item in items}


def _places(task: PredictionTask, items: Sequence[Item]) -> list[str]:
    """Lines that say which files are where."""
    kinds = {kind for item in items for kind in task.kinds_of(item)}
    width = max((len(kind) for kind in kinds), default=0)
    return [f"  {kind + '/':{width + 2}} {task.known[kind]}" for kind in task.known if kind in kinds]


class _Run:
    """One rank's pass over its share."""

    def __init__(
        self, options: PredictionOptions, task: PredictionTask, share: Sequence[Item], say: Callable[[str], None]
    ) -> None:
        self.options, self.task, self.share, self.say = options, task, share, say
        # Broken files are listed, however many there are: one good picture is worth predicting.
        self.ledger = SkipLedger(Path(options.output) / FILE_NAME, 1.0, len(share))
        self.summary = PredictionSummary(len(share))
        self.good: list[Item] = []
        self.progress = Progress(len(share), options.report_seconds, say)

    def all(self) -> None:
        """Everything that is not there yet: pictures (and clips) first, then videos frame by frame."""
        waiting = []
        for item in self.share:
            if self.task.is_done(item):
                self.good.append(item)
                self.summary.already_there += 1
                self.progress.already()
            else:
                waiting.append(item)
        by_frames: dict[bool, list[Item]] = {True: [], False: []}
        for item in waiting:
            by_frames[item.is_video and not self.task.reads_clips].append(item)
        streamed, units = by_frames[True], by_frames[False]
        if units:
            self._units(units)
        for item in streamed:
            self._video(item)
        self.summary.seconds = self.progress.elapsed

    def _units(self, items: Sequence[Item]) -> None:
        passing = Overlapped(
            self.task.prepare,
            self.task.compute,
            self.task.write,
            batch_size=self.task.together or self.options.batch_size,
            workers=self.task.threads or self.options.threads,
            failed=self._skip,
            done=self._done,
        )
        passing.run(items)

    def _done(self, item: Item) -> None:
        self.good.append(item)
        self.summary.predicted += 1
        self.progress.done += 1
        self.progress.report()

    def _skip(self, item: Item, error: DataError) -> None:
        reason = error.reason if isinstance(error, CorruptFileError) else str(error)
        entry = SkippedFile(str(item.path), reason, item.name)
        self.ledger.record({"skipped": [entry]})
        self.summary.skipped.append(entry)
        self.progress.done += 1

    def _video(self, item: Item) -> None:
        """Predict a video frame by frame from where an earlier call stopped, then what needs all of its frames."""
        before, done = self.progress.done, self.progress.resumed
        try:
            info = self._probed(item)
            frames = self._frames(item, info)
            self.task.render(item, info, lambda: self._step(0.0))
        except DataError as error:
            self.progress.done, self.progress.resumed = before, done
            self._skip(item, error)
            return
        self.good.append(item)
        self.summary.predicted += 1
        self.summary.frames += frames
        self.progress.done = before + 1

    def _probed(self, item: Item) -> VideoInfo:
        """What a video holds; says, and lists, what is missing of it."""
        try:
            info = probe_video(item.path)
        except FileNotFoundError as error:
            raise CorruptFileError(item.path, "does not exist") from error
        if info.incomplete:
            self.say(f"{item.path} is incomplete: {info.incomplete}; the existing frames are predicted")
            self.ledger.record({"incomplete": [incomplete_entry(str(item.path), info.incomplete, item.name)]})
        return info

    def _frames(self, item: Item, info: VideoInfo) -> int:
        """Predict the frames that are not there yet; returns their number."""
        sink = self.task.frames(item)
        start = sink.next_frame
        if start:
            self.say(f"{item.name}: continuing at frame {start} of {info.num_frames}")
            self.progress.already(start / info.num_frames)
        try:
            if start < info.num_frames:
                # A pass draws its items in the thread that computes; a frame is decoded by then.
                with read_ahead(iterate_video(item.path, start=start, info=info), self.options.batch_size) as frames:
                    self._overlapped(sink, info).run(frames)
            if sink.next_frame != info.num_frames:
                reason = f"{sink.next_frame} frames were decoded, but the file announces {info.num_frames}"
                raise CorruptFileError(item.path, reason)
        except DataError:
            sink.discard()
            raise
        sink.finish()
        return info.num_frames - start

    def _overlapped(self, sink: FrameSink, info: VideoInfo) -> Overlapped[tuple[int, np.ndarray], Any, Any]:
        def unusable(_: object, error: DataError) -> None:
            raise error

        return Overlapped(
            lambda frame: self.task.look(frame[1]),
            self.task.compute,
            lambda _, looked, result: sink.append(looked, result),
            batch_size=self.options.batch_size,
            workers=self.options.threads,
            failed=unusable,
            done=lambda _: self._step(1 / info.num_frames),
            in_order=True,
        )

    def _step(self, amount: float) -> None:
        self.progress.done += amount
        self.progress.report()

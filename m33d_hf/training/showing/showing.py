"""The pictures and the page of a run, on its main process only; what fails here is said once and ends nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from accelerate import Accelerator
from torch import nn

from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.plural import agree, plural
from m33d_hf.errors import type_and_text
from m33d_hf.evaluation.classification_metrics import CONFUSION_FIGURE
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.showing.inputs import inputs_figure
from m33d_hf.training.showing.predictions import drawing_of, predictions_figure
from m33d_hf.training.showing.report import REPORT, RunStory, write_report
from m33d_hf.training.showing.samples import Chosen, choose, first_rows, spread_rows, undisturbed
from m33d_hf.training.showing.stale import CURVES, FIRST_BATCH, PICTURES
from m33d_hf.training.showing.story import run_curves
from m33d_hf.training.showing.timelines import videos_figure
from m33d_hf.training.tasks.base import Task
from m33d_hf.training.tasks.detection.feature_dataset import FeatureDataset
from m33d_hf.training.tasks.detection.task import EVALUATION, ActionDetectionTask
from m33d_hf.visualization.canvas import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A picture is left out of an evaluation while those before took more than this: seconds, and a share of the run.
FREE_SECONDS, MOST_SHARE = 60.0, 0.05
RUNNING = "running"
PAGE_SECONDS = 15.0  # between two pages of a run that goes on: curves cost as much as a picture
_EVALUATION = "evaluation_step_{:08d}.png"
_TIMELINES = 2  # per evaluation
_CONFUSION = "Confusion of the last evaluation: rows are the truth."


class Showing:
    """Draws the first batch, the same samples at every evaluation, curves, and writes report.html.

    Nothing that decides the run is touched: samples are read by their own draws, generators are restored, and the model
    runs in evaluation mode without gradients.

    Args:
        args: of the run; `logging.pictures` switches all of this off.
        task: what is trained.
        model: the bare model.
        accelerator: knows the main process, the device and the trackers.
        train_set: the training data.
        eval_set: the evaluation data; without it, predictions on training samples are drawn at the end.
        started: of the run, by the clock of `time.perf_counter`; None: now.
    """

    def __init__(
        self,
        args: RunArguments,
        task: Task,
        model: nn.Module,
        accelerator: Accelerator,
        train_set: SampleDataset,
        eval_set: SampleDataset | None,
        started: float | None = None,
    ) -> None:
        self.args, self.task, self.model, self.accelerator = args, task, model, accelerator
        self.train_set, self.eval_set = train_set, eval_set
        self.active = args.logging.pictures and accelerator.is_main_process
        self.folder = Path(args.output_dir) / PICTURES
        self.seconds = 0.0
        self.warning: str | None = None
        self.left_out = 0
        self._started = time.perf_counter() if started is None else started
        self._fixed: Chosen | None = None
        self._next_page = 0.0

    def first_batch(self) -> None:
        """Draw samples of the first batch, unless an earlier start of the run has."""
        path = self.folder / FIRST_BATCH
        if self.active and not path.is_file():
            with self._forgiven():
                save_figure(self._inputs(), path)
                self._track("first_batch", path, 0)

    def evaluated(self, model: nn.Module, step: int, last: bool) -> None:
        """Draw what the model, in evaluation mode, says about the fixed samples.

        Args:
            model: plain, whole, with averaged weights if the run keeps an average.
            step: optimizer steps done.
            last: whether the run ends here; then the picture is drawn whatever the others took.
        """
        if not self.active:
            return
        if not last and self.seconds > FREE_SECONDS + MOST_SHARE * (time.perf_counter() - self._started):
            self.left_out += 1
            return
        with self._forgiven():
            for name, path in self._predictions(model, step):
                self._track(name, path, step)

    @property
    def lacks_predictions(self) -> bool:
        """Whether predictions are to be drawn at the end, as the run has no evaluation data; the same on every rank."""
        return self.args.logging.pictures and self.eval_set is None and drawing_of(self.task) is not None

    def report(self, story: RunStory) -> None:
        """Draw the curves and write report.html; while the run goes on, no more than once in `PAGE_SECONDS`.

        Args:
            story: of the run; its pictures, warnings and times are filled in here.
        """
        if not self.active or (story.state == RUNNING and time.perf_counter() < self._next_page):
            return
        self._next_page = time.perf_counter() + PAGE_SECONDS
        with self._forgiven():
            rows = sum(row["kind"] == "train" for row in story.history)
            if rows > 1 or (rows and story.state != "running"):  # after the first step there is one point to draw
                name = Path(self.args.output_dir).resolve().name
                metric = story.chosen_by[0] if story.chosen_by else None
                save_figure(run_curves({name: story.history}, metric), self.folder / CURVES)
        story.pictures = self._listed()
        story.warnings = [*story.warnings, *([self.warning] if self.warning else [])]
        if self.left_out:
            told = f"{plural(self.left_out, 'evaluation')} {agree(self.left_out, 'has', 'have')} no picture"
            words = f"{told}, because pictures took {MOST_SHARE:.0%} of the time."
            story.warnings = [*story.warnings, words]
        story.seconds, story.drawing_seconds = time.perf_counter() - self._started, self.seconds
        with self._forgiven():
            write_report(story)

    def cost(self) -> str:
        """A line about where to look, and the time that all of this took."""
        share = self.seconds / max(time.perf_counter() - self._started, 1e-9)
        took = f"pictures took {self.seconds:.1f} s, {share:.1%} of this run; --logging.pictures false leaves them out"
        return f"look at {Path(self.args.output_dir) / REPORT} ({took})"

    def _inputs(self) -> Figure:
        title = "First batch of the training"
        if isinstance(self.train_set, FeatureDataset):
            indices = [index for _, index in spread_rows(self.train_set, 3)]
            return videos_figure(self.train_set, self.model, indices, "Training videos")
        rows = first_rows(self.args, self.task, self.train_set, self.accelerator.num_processes)
        chosen = choose(self.args, self.task, self.model, self.train_set, rows, train=True)
        return inputs_figure(chosen, self.model, self.train_set, title)

    def _predictions(self, model: nn.Module, step: int) -> Iterator[tuple[str, Path]]:
        """(name, file) of every picture of an evaluation."""
        path = self.folder / _EVALUATION.format(step)
        if isinstance(self.task, ActionDetectionTask):
            paths = self.task.draw_last(self.folder, path.stem, _TIMELINES)
            yield from ((f"timeline_{number}", each) for number, each in enumerate(paths))
            return
        if drawing_of(self.task) is None:
            return
        title = f"After {step} steps, samples of the evaluation data"
        if self.args.eval_only:
            title = f"Predictions of {self.args.init_from}, samples of the evaluation data"
        elif self.eval_set is None:
            title = f"After {step} steps, training samples (the run has no evaluation data)"
        figure = predictions_figure(self.task, model, self._fixed_samples(), self.accelerator, title)
        yield "predictions", save_figure(figure, path)

    def _fixed_samples(self) -> Chosen:
        """The same samples at every evaluation, read once."""
        if self._fixed is None:
            dataset, train = (self.train_set, True) if self.eval_set is None else (self.eval_set, False)
            rows = spread_rows(dataset)
            self._fixed = choose(self.args, self.task, self.model, dataset, rows, train=train)
        return self._fixed

    def _listed(self) -> list[tuple[Path, str]]:
        """Pictures of the report: curves, first batch, the last evaluation with the first and a middle one."""
        output = Path(self.args.output_dir)
        evaluation = output / EVALUATION
        confusions = [(folder / CONFUSION_FIGURE, _CONFUSION) for folder in (output, evaluation)]
        if self.args.eval_only:
            drawn = [(path, f"Predictions of {self.args.init_from}.") for path in sorted(self.folder.glob("*.png"))]
            return [*confusions, *drawn]
        found = sorted(self.folder.glob("evaluation_step_*.png"))
        steps = sorted({path.stem.split("_")[2] for path in found})
        shown = [steps[place] for place in sorted({0, len(steps) // 2, len(steps) - 1})] if steps else []
        listed = [(self.folder / CURVES, "Curves over optimizer steps.")]
        listed += [(path, f"After {int(step)} steps.") for step in reversed(shown)
                   for path in found if path.stem.split("_")[2] == step]  # fmt: skip
        listed += confusions
        if not found:
            timelines = sorted(evaluation.glob("timeline_*.png"))
            listed += [(path, "Timeline of the last evaluation.") for path in timelines]
        first = "What the model is trained on: samples of the first batch."
        return [*listed, (self.folder / FIRST_BATCH, first)]

    def _track(self, name: str, path: Path, step: int) -> None:
        """Show a picture in TensorBoard, where that tracker is on."""
        from PIL import Image

        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                tracker.log_images({f"pictures/{name}": pixels[None]}, step=step, dataformats="NHWC")

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """Count the time of the block, and warn once of what fails in it."""
        started = time.perf_counter()
        try:
            with undisturbed(self.accelerator.device):
                yield
        except Exception as error:
            if self.warning is None:
                self.warning = f"a picture could not be made: {type_and_text(error)}"
                print(f"WARNING: {self.warning} (the run is not affected)", file=sys.stderr, flush=True)
        finally:
            self.seconds += time.perf_counter() - started

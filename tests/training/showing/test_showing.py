"""Pictures and the page of a run: they show what was trained on and predicted, change nothing, and never end a run."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from helpers.rooms_runs import words
from m33d_hf.errors import DataError
from m33d_hf.modeling.masking_m33d import complement
from m33d_hf.scripts._main import main
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.run.loop import TrainResult, train
from m33d_hf.training.showing import inputs, predictions, showing
from m33d_hf.training.showing.report import RunStory
from m33d_hf.training.tasks.base import build_task
from m33d_hf.training.tasks.depth_estimation import DepthEstimationTask
from m33d_hf.visualization.canvas import new_figure
from m33d_hf.visualization.tiles import TileRow

TIMES = {"samples_per_second", "data_wait", "seconds"}
DEPTH = {"logging__pictures": "true", "evaluation__every_steps": "2", "logging__every_steps": "1"}


def run(recipe: str, folder: Path, task: Any = None, **changes: str | None) -> TrainResult:
    name = {"rooms/depth": "depth_estimation", "rooms/semseg": "semantic_segmentation",
            "rooms/actions": "video_classification"}.get(recipe, "pretraining")  # fmt: skip
    args = parse_arguments(words(recipe, folder, **changes), name)
    return train(args, task or build_task(name))


def numbers(result: TrainResult) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in result.history]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "pictures").iterdir())


class Stopping(DepthEstimationTask):
    """Sends its own process SIGTERM in the second update."""

    countdown = 2

    def prepare_step(self, model: Any, batches: Any) -> dict[str, Any]:
        self.countdown -= 1
        if self.countdown == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().prepare_step(model, batches)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("plain") / "depth"
    off = {**DEPTH, "logging__pictures": "false", "train__max_steps": "3"}
    return folder, run("rooms/depth", folder, **off)


def test_pictures_change_neither_losses_nor_weights_nor_a_resumed_run(plain, tmp_path, capsys):
    folder, untouched = plain
    assert not (folder / "pictures").exists() and not (folder / "report.html").exists()
    mine = tmp_path / "depth"
    shown = {**DEPTH, "train__max_steps": "3", "logging__trackers": "[tensorboard]", "logging__progress": "true"}
    stopped = run("rooms/depth", mine, Stopping(), **shown)
    assert stopped.interrupted_by == signal.SIGTERM and stopped.step == 2
    page = (mine / "report.html").read_text(encoding="utf-8")
    assert "Stopped by signal 15" in page and "2 of 3 steps" in page
    again = re.findall(r"<pre>(.*?)</pre>", page)[0]
    assert again.startswith("python scripts/run_depth_estimation.py --recipe rooms/depth") and str(mine) in again
    assert "continue where it stopped" in capsys.readouterr().err
    finished = run("rooms/depth", mine, **shown)
    assert numbers(finished) == numbers(untouched)
    mine_weights, others = weights(mine), weights(folder)
    assert mine_weights.keys() == others.keys()
    assert all(torch.equal(mine_weights[name], others[name]) for name in others)
    assert pictures(mine) == [
        "curves.png", *(f"evaluation_step_0000000{step}.png" for step in (2, 3)), "first_batch.png"
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert f"look at {mine / 'report.html'} (pictures took " in told
    assert "next:\n" in told and "--eval_only true" in told
    _check_tensorboard(mine)
    _check_page((mine / "report.html").read_text(encoding="utf-8"))


def _check_tensorboard(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    for path in (folder / "tensorboard").rglob("events*"):
        events = EventAccumulator(str(path))
        events.Reload()
        if "pictures/predictions" in events.Tags()["images"]:
            steps += [event.step for event in events.Images("pictures/predictions")]
    assert sorted(steps) == [2, 3]


def _check_page(page: str) -> None:
    """Everything is inside: no link, script or picture from elsewhere."""
    assert re.findall(r'src="(?!data:image/png;base64,)', page) == []
    assert not re.search(r"<script|<link|href=|@import|url\(", page)
    for heading in ("Pictures", "Metrics", "What to type next", "Settings", "Skipped files", "Environment"):
        assert f"<h2>{heading}</h2>" in page
    assert "<strong>Finished</strong>: 3 of 3 steps" in page and "depth_loss: &quot;berhu&quot;" not in page
    assert 'model.depth_loss: "berhu"' in page and "rmse [m]" in page and "% of the run" in page
    assert page.count("data:image/png;base64,") == 4  # curves, two evaluations, the first batch


def test_a_failing_picture_is_told_once_and_ends_nothing(plain, tmp_path, capsys, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(showing, "inputs_figure", broken)
    monkeypatch.setattr(showing, "predictions_figure", broken)
    monkeypatch.setattr(showing, "run_curves", broken)
    result = run("rooms/depth", tmp_path / "depth", **DEPTH, train__max_steps="3")
    assert numbers(result) == numbers(plain[1])
    assert capsys.readouterr().err.count("WARNING: a picture could not be made: RuntimeError: no ink") == 1
    assert "no ink" in (tmp_path / "depth" / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def drawn(monkeypatch) -> list[list[TileRow]]:
    """Rows that would be drawn, instead of pictures."""
    found: list[list[TileRow]] = []

    def note(rows: list[TileRow], *_: Any, **__: Any) -> Any:
        found.append(list(rows))
        raise RuntimeError("noted")

    monkeypatch.setattr(inputs, "tiles_figure", note)
    monkeypatch.setattr(predictions, "tiles_figure", note)
    monkeypatch.setattr(showing, "run_curves", note)
    return found


def test_depth_is_shown_in_metres_with_its_own_errors(tmp_path, drawn):
    seen: list[list[str]] = []

    class Listening(DepthEstimationTask):
        def build_collator(self, args: Any, model: Any, train: bool) -> Any:
            collator = super().build_collator(args, model, train)
            if not train:
                return collator

            class Noting(type(collator)):  # type: ignore[misc]
                defers = False

                def __call__(self, samples: Any) -> Any:
                    seen.append([sample.key for sample in samples])
                    return super().__call__(samples)

            return Noting(collator.config)

    run("rooms/depth", tmp_path / "depth", Listening(), **DEPTH, train__max_steps="1")
    first, last = drawn[0], drawn[1]
    assert [row.title for row in first] == seen[0]  # the batch of the first step, which came first
    assert {tuple(row.tiles) for row in first} == {("RGB", "depth", "depth over RGB")}
    assert all(row.tiles["depth"].unit == "m" for row in first)
    assert len({row.title for row in last}) == 4 and all("validation" in row.title for row in last)
    for row in last:
        truth, guess = row.tiles["depth"].image, row.tiles["predicted depth"].image
        assert np.nanmin(truth) > 0.3 and np.nanmax(truth) < 12  # rooms are metres wide
        error = torch.nn.functional.mse_loss(
            torch.from_numpy(guess)[~torch.from_numpy(truth).isnan()],
            torch.from_numpy(truth)[~torch.from_numpy(truth).isnan()],
        ).sqrt()
        assert f"RMSE {float(error):.3g} m" in row.note
        assert row.tiles["depth"].limits == row.tiles["predicted depth"].limits


def test_masks_are_shown_as_drawn_and_reconstructions_in_metres(tmp_path, drawn):
    changes = {"method": "m33d", "logging__pictures": "true", "train__max_steps": "1"}
    run("rooms/pretrain_stage2", tmp_path / "pre", **changes)
    first, last = drawn[0], drawn[1]
    args = parse_arguments(words("rooms/pretrain_stage2", tmp_path / "again", **changes), "pretraining")
    task = build_task("pretraining")
    model = task.build_model(args)
    dataset = task.build_datasets(args, model)[0]
    collator = task.build_collator(args, model, True)
    place = {dataset[(0, index)].key: index for index in range(len(dataset))}
    for row in first:
        batch = collator([dataset[(0, place[row.title])]])
        hidden = complement(batch["keep"]["rgb"], 36)[0]
        column = next(name for name in row.tiles if name.startswith("rgb: "))
        image, picture = row.tiles[column].image, row.tiles["RGB"].image / 255
        assert column == f"rgb: {36 - len(hidden)} of 36 tokens visible"
        for token in range(36):
            patch = (slice(8 * (token // 6), 8 * (token // 6) + 8), slice(8 * (token % 6), 8 * (token % 6) + 8))
            assert np.allclose(image[patch], picture[patch]) == (token not in hidden)
    evaluation = task.build_eval_dataset(args, model)
    metres = {evaluation[(0, i)].key: evaluation[(0, i)].depth[0, 0].numpy() for i in range(len(evaluation))}
    for row in last:
        shown, truth = row.tiles["depth: input"], metres[row.title]
        valid = np.isfinite(truth)
        assert shown.unit == "m" and np.allclose(shown.image[valid], truth[valid], atol=2e-3)
        assert not np.isfinite(shown.image[~valid]).any()


def test_labels_and_classes_have_names(tmp_path, drawn):
    shown = {"logging__pictures": "true", "train__max_steps": "1"}
    run("rooms/semseg", tmp_path / "semseg", **shown)
    first, last = drawn[0], drawn[1]
    assert list(first[0].tiles) == ["RGB", "labels over RGB"]
    for row in last:
        wrong = (row.tiles["labels"].image != row.tiles["predicted labels"].image).any(-1)
        assert f"{100 * (1 - wrong.mean()):.1f} % of 2304 annotated pixels right" in row.note
    drawn.clear()
    clips = {"data__options": "{num_clips: 20}", "evaluation__num_segments": "2"}
    run("rooms/actions", tmp_path / "actions", **shown, **clips)
    first, last = drawn[0], drawn[1]
    assert all(re.match(r"label: [a-z_]+$", row.note) for row in first)
    assert all(re.match(r"label: [a-z_]+ \((right|wrong)\); predicted: ([a-z_]+ \d+ %(, )?){5}\nmean of 2 views",
                        row.note) for row in last)  # fmt: skip


@pytest.fixture
def blank(monkeypatch) -> None:
    """Empty pictures, which take no time."""
    for name in ("inputs_figure", "predictions_figure", "run_curves"):
        monkeypatch.setattr(showing, name, lambda *_, **__: new_figure(1, 1)[0])


def test_without_evaluation_data_training_samples_are_predicted_at_the_end(tmp_path, blank):
    changes = {"logging__pictures": "true", "train__max_steps": "1", "data__eval_split": "null"}
    run("rooms/depth", tmp_path / "depth", **changes)
    assert pictures(tmp_path / "depth") == ["curves.png", "evaluation_step_00000001.png", "first_batch.png"]


def test_pictures_are_left_out_where_they_take_too_long_but_for_the_last(tmp_path, monkeypatch, blank):
    monkeypatch.setattr(showing, "FREE_SECONDS", 0.0)
    monkeypatch.setattr(showing, "MOST_SHARE", 0.0)
    run("rooms/depth", tmp_path / "depth", **{**DEPTH, "evaluation__every_steps": "1", "train__max_steps": "3"})
    assert pictures(tmp_path / "depth") == ["curves.png", "evaluation_step_00000003.png", "first_batch.png"]
    assert "2 evaluations have no picture" in (tmp_path / "depth" / "report.html").read_text(encoding="utf-8")


def test_a_run_that_ends_by_an_error_leaves_its_page(tmp_path, blank):
    class Failing(DepthEstimationTask):
        def evaluate(self, model: Any, loader: Any, accelerator: Any) -> dict[str, float]:
            raise DataError("the disk of the camera is gone")

    with pytest.raises(DataError):
        run("rooms/depth", tmp_path / "depth", Failing(), **DEPTH, train__max_steps="3")
    page = (tmp_path / "depth" / "report.html").read_text(encoding="utf-8")
    assert "Ended by DataError: the disk of the camera is gone" in page and "2 of 3 steps" in page


def test_an_evaluation_alone_leaves_pictures_too(plain, tmp_path, capsys):
    folder, _ = plain
    out = tmp_path / "judged"
    argv = words("rooms/depth", out, init_from=str(folder), eval_only="true", logging__pictures="true")
    assert main("depth_estimation", argv) == 0
    assert pictures(out) == ["evaluation_step_00000000.png"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<strong>Evaluated</strong>" in page and "<td>step" not in page and f"Predictions of {folder}" in page
    assert "scripts/predict.py --model" in capsys.readouterr().out


def test_pages_of_a_run_that_goes_on_come_no_faster_than_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three evaluations in a moment the first page is written, and the last of the finished run."""
    written: list[str] = []
    monkeypatch.setattr(showing, "write_report", lambda story: written.append(story.state))
    args = RunArguments(task="depth_estimation", output_dir=str(tmp_path), cpu=True)
    parts: tuple[Any, ...] = (args, build_task(args.task), torch.nn.Linear(1, 1), Accelerator(cpu=True), None, None)
    mine = showing.Showing(*parts)
    for state in ("running", "running", "running", "finished"):
        mine.report(RunStory(args, state, 1, 3, []))
    assert written == ["running", "finished"] and mine.warning is None
    monkeypatch.setattr(showing, "PAGE_SECONDS", 0.0)
    other = showing.Showing(*parts)
    for _ in range(2):
        other.report(RunStory(args, "running", 1, 3, []))
    assert written[2:] == ["running", "running"]

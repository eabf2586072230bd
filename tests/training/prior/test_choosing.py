"""training/prior: `model.depth_prior_weight: auto` by a trial run on a part of the training data, and the run after."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.ranks import ForkedRanks
from helpers.rooms_on_disk import write_rooms
from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.evaluation.metrics import DepthMetrics
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation
from m33d_hf.scripts._main import main
from m33d_hf.training.prior import choosing
from m33d_hf.training.prior.choosing import RECORD, best_weight, with_prior_weight
from m33d_hf.training.prior.trial_task import WEIGHTS, PriorTrialTask
from m33d_hf.training.recipe.parsing import resolve
from m33d_hf.training.run.feeding import BatchFeed
from m33d_hf.training.run.preparation import build_model
from m33d_hf.training.run.stepping import StepEngine
from m33d_hf.training.settling.settle import Settled, settle

TINY = ["--model.image_size", "24x32", "--model.hidden_size", "32", "--model.num_hidden_layers", "4", "--cpu", "true",
        "--data.num_workers", "0", "--train.batch_size", "4", "--train.max_steps", "4", "--cpu_threads", "1",
        "--logging.pictures", "false"]  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rooms(tmp_path_factory.mktemp("recordings"), rooms=8, frames=6)


def _words(root: Path, output: Path, *more: str) -> list[str]:
    trackers = [] if "--logging.trackers" in more else ["--logging.trackers", "[]"]
    return ["--recipe", "own/depth", "--data.root", str(root), "--output_dir", str(output), *TINY, *trackers, *more]


def _settled(words: list[str]) -> Settled:
    return settle(resolve(words, "depth_estimation"))


@pytest.fixture(scope="module")
def finished(rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the script, its share chosen by it."""
    output = tmp_path_factory.mktemp("run") / "depth"
    assert main("depth_estimation", _words(rooms, output)) == 0
    return output


def _by_hand(root: Path, sequences: list[str], size: tuple[int, int]) -> np.ndarray:
    """Mean depth per position in metres, with numpy and PIL alone."""
    total, count = np.zeros(size), np.zeros(size)
    for path in sorted(file for name in sequences for file in (root / name / "depth").iterdir()):
        stored = Image.open(path).resize(size[::-1], Image.Resampling.NEAREST)
        metres = np.array(stored, dtype=np.float64) / 1000
        total, count = total + metres, count + (metres > 0)
    return total / count


def test_the_run_keeps_the_mean_of_all_its_training_frames(finished: Path, rooms: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    record = read_sealed_json(finished / RECORD)
    assert config["depth_prior_weight"] == record["weight"] == best_weight(record["delta1"])
    assert [float(each) for each in record["delta1"]] == list(WEIGHTS) and record["steps"] == 2
    assert record["frames"] < record["of"] == 36 and record["kept_back"] == "1 of 6 recordings"
    trained = read_sealed_json(finished / "train_config.json")
    assert trained["args"]["model"]["depth_prior_weight"] == record["weight"]
    assert trained["decided_by"]["model.depth_prior_weight"] == "a trial on training frames kept back"
    assert sorted(path.name for path in finished.iterdir() if path.is_dir()) == ["checkpoints"], "no trial is left"
    metres = load_file(finished / "model.safetensors")["depth_prior.metres"]
    held_out = [path.name for path in rooms.iterdir() if path.name not in _training(rooms)]
    assert len(held_out) == 2
    np.testing.assert_allclose(metres.numpy(), _by_hand(rooms, _training(rooms), (24, 32)), rtol=0, atol=1e-3)


def _training(root: Path) -> list[str]:
    from m33d_hf.data.sources import build_source

    source = build_source("folder", root=str(root), split="train")
    return sorted({source[row].key.split("/")[0] for row in range(len(source))})


def test_evaluation_and_the_saved_model_agree(finished: Path, rooms: Path, tmp_path: Path, capsys: Any) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    words = _words(rooms, tmp_path / "again", "--eval_only", "--init_from", str(finished))
    capsys.readouterr()
    assert main("depth_estimation", words) == 0
    found = read_sealed_json(tmp_path / "again" / "eval_results.json")["metrics"]
    for name in ("delta1", "rmse", "floor/delta1"):
        assert found[name] == pytest.approx(last[f"eval/{name}"], abs=1e-6)
    weight = json.loads((finished / "config.json").read_text())["depth_prior_weight"]
    said = "of this model's prediction is the mean depth per position of its training frames"
    assert (f"{weight:.0%} {said}" in capsys.readouterr().out) == (weight > 0)


def test_resuming_keeps_the_share_and_chooses_nothing(
    finished: Path, rooms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_try_out", lambda args: pytest.fail("a second trial"))
    found = with_prior_weight(_settled(_words(rooms, finished)))
    record = read_sealed_json(finished / RECORD)
    assert found.args.model["depth_prior_weight"] == record["weight"] and not found.left


def test_a_stated_share_and_an_evaluation_need_no_trial(rooms: Path, finished: Path, tmp_path: Path) -> None:
    stated = _settled(_words(rooms, tmp_path, "--model.depth_prior_weight", "0.25"))
    assert not stated.left and with_prior_weight(stated) is stated
    judged = _settled(_words(rooms, tmp_path, "--eval_only", "--init_from", str(finished)))
    assert not judged.left and with_prior_weight(judged) is judged


def test_a_dry_run_says_that_there_will_be_a_trial(rooms: Path, tmp_path: Path, capsys: Any) -> None:
    assert main("depth_estimation", _words(rooms, tmp_path / "dry", "--dry_run")) == 0
    said = capsys.readouterr()
    assert "a trial of 2 steps on four fifths of the training frames" in said.err + said.out
    assert "  model.depth_prior_weight: auto   (chosen by a trial before the run)\n" in said.out
    (row,) = (line.split() for line in said.out.splitlines() if line.startswith("  trial steps "))
    assert row[4] == "2"
    assert not (tmp_path / "dry").exists()


def test_too_few_frames_leave_the_model_alone(tmp_path: Path, capsys: Any) -> None:
    write_rooms(tmp_path / "few", rooms=1, frames=12)
    found = with_prior_weight(_settled(_words(tmp_path / "few", tmp_path / "out")))
    assert found.args.model["depth_prior_weight"] == 0.0
    assert "are too few to keep 4 back" in capsys.readouterr().err


def test_trials_see_no_evaluation_data_and_judge_every_share(rooms: Path, tmp_path: Path) -> None:
    args = choosing._trial_arguments(_settled(_words(rooms, tmp_path / "out")).args)
    assert args.data.eval_split is None and args.data.eval_root is None
    task = PriorTrialTask()
    model = build_model(args, task)
    trained, judged = task.build_datasets(args, model)
    assert judged is not None and {*trained.indices}.isdisjoint(judged.indices)
    names = {str(trained.source[row].key).split("/")[0] for row in (*trained.indices, *judged.indices)}
    assert names == {*_training(rooms)}
    for frame in (judged[(0, 0)], judged[(7, 0)]):
        assert torch.equal(frame.rgb, judged[(0, 0)].rgb), "frames are judged as an evaluation sees them"  # type: ignore[union-attr]
    # The mean alone, by another way: the floor of the frames that are trained on.
    from accelerate import Accelerator

    collator = task.build_collator(args, model, False)
    batches = [collator([judged[(0, row)]]) for row in range(len(judged))]  # type: ignore[list-item]
    with torch.no_grad():
        found = task.evaluate(model.eval(), batches, Accelerator(cpu=True))
    sequences = sorted({str(trained.source[row].key).split("/")[0] for row in trained.indices})
    mean = torch.from_numpy(_by_hand(rooms, sequences, (24, 32))).float()
    alone, model_alone = DepthMetrics(), DepthMetrics()
    for batch in batches:
        alone.update(mean[None], batch["labels"])
        with torch.no_grad():
            model_alone.update(model(pixel_values=batch["pixel_values"]).predicted_depth, batch["labels"])
    assert found["1"] == pytest.approx(alone.compute()["delta1"], abs=2e-3)
    assert found["0"] == pytest.approx(model_alone.compute()["delta1"], abs=1e-9)
    assert isinstance(model, M33DForDepthEstimation) and model.depth_prior is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--resume", "none"), "holds checkpoints of an earlier run"),
        (("--evaluation.metric", "miou"), "'miou' is not one of"),
        (("--data.eval_root", "nowhere"), "nowhere"),
        (("--data.options.validation", "room99"), "validation names 'room99'"),
        (("--logging.trackers", "[aim]"), "aim"),
    ],
)
def test_what_stops_the_run_stops_it_before_the_trial(
    finished: Path, rooms: Path, tmp_path: Path, capsys: Any, more: tuple[str, ...], told: str
) -> None:
    """Every refusal of the run itself comes before a single step of the trial."""
    output = finished if more[0] == "--resume" else tmp_path / "out"
    before = sorted(path.name for path in finished.iterdir())
    assert main("depth_estimation", _words(rooms, output, *more)) == 2
    said = capsys.readouterr().err
    assert told in said and "kept back" not in said and "trial step" not in said
    assert sorted(path.name for path in finished.iterdir()) == before


def test_half_is_left_only_for_a_difference_that_counts() -> None:
    flat = {f"{weight:g}": 0.5 + 0.02 * weight for weight in WEIGHTS}
    assert best_weight(flat) == 0.5 == best_weight({name: 1 - value for name, value in flat.items()})
    assert best_weight({f"{weight:g}": 0.8 - 0.1 * weight for weight in WEIGHTS}) == 0.2, "the nearest that is good"
    assert best_weight({f"{weight:g}": 0.8 - weight for weight in WEIGHTS}) == 0.0, "a good model stands alone"
    assert best_weight({f"{weight:g}": weight for weight in WEIGHTS}) == 0.7, "the picture keeps a part"


@pytest.mark.parametrize(
    ("number", "code", "judging"),
    [(signal.SIGTERM, 143, False), (signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)],
)
def test_a_signal_in_the_trial_leaves_nothing_of_it(
    rooms: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, number: int, code: int, judging: bool
) -> None:
    draw, evaluate = BatchFeed.draw, PriorTrialTask.evaluate

    def drawn(feed: BatchFeed, step: int) -> Any:
        if step == 1 and not judging:
            os.kill(os.getpid(), number)
        return draw(feed, step)

    def evaluated(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return evaluate(*given)

    monkeypatch.setattr(BatchFeed, "draw", drawn)
    monkeypatch.setattr(PriorTrialTask, "evaluate", evaluated)
    with pytest.raises(SystemExit) as stopped:
        main("depth_estimation", _words(rooms, tmp_path / "out"))
    assert stopped.value.code == code
    assert "interrupted in the trial; run the same command again" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == []


def _one_rank_is_told(when: str, argv: list[str]) -> int:
    """The script in one of two processes; the second one alone gets a SIGTERM, where no batch follows."""
    if os.environ["RANK"] == "1":
        update, evaluate = StepEngine.update, PriorTrialTask.evaluate

        def updated(engine: StepEngine, step: int, *given: Any) -> Any:
            update(engine, step, *given)
            if step == 1:  # the last of the trial
                os.kill(os.getpid(), signal.SIGTERM)

        def evaluated(*given: Any) -> Any:
            found = evaluate(*given)
            os.kill(os.getpid(), signal.SIGTERM)
            return found

        if when == "last update":
            StepEngine.update = updated  # type: ignore[method-assign, assignment]
        else:
            PriorTrialTask.evaluate = evaluated  # type: ignore[method-assign]
    return main("depth_estimation", argv)


@pytest.mark.parametrize("when", ["last update", "end of the evaluation"])
def test_a_signal_that_one_process_has_first_ends_the_trial_of_both(rooms: Path, tmp_path: Path, when: str) -> None:
    argv = _words(rooms, tmp_path / "out")
    ranks = ForkedRanks(_one_rank_is_told, when, argv, log=tmp_path / "output.txt", processes=2)
    assert ranks.wait(120) == [143, 143], ranks.output()
    assert "interrupted in the trial; run the same command again" in ranks.output()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == []

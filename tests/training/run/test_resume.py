import json
import multiprocessing
import re
import resource
import shutil
import signal

import pytest

from helpers.launching import ALONE, assert_same_weights, finish, start, without_timing
from helpers.tiny_task import StoppingInEvaluation, StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import mark_complete
from m33d_hf.errors import CheckpointError, ConfigError, ResumeError
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.loop import train

# Six steps are an epoch: every stop below is in the middle of one, and in the middle of a log window of four.
HARD = {"model": {"dropout": 0.3}, "data__num_workers": 1, "train__ema_decay": 0.9, "optim__layer_decay": 0.8}


def run(output_dir, task=None, **changes):
    return train(tiny_arguments(output_dir, **{**HARD, **changes}), task or TinyTask())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, run(folder, evaluation__every_steps=5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_saves_and_the_continuation_is_exact(tmp_path, uninterrupted, workers):
    whole, expected = uninterrupted
    changes = {"evaluation__every_steps": 5, "data__num_workers": workers}
    stopped = run(tmp_path, StoppingTask(7), **changes)
    assert stopped.interrupted_by == signal.SIGTERM and stopped.exit_code == 143 and stopped.step == 7
    assert not (tmp_path / "model.safetensors").exists()
    continued = run(tmp_path, **changes)
    assert without_timing(continued.history) == without_timing(expected.history)
    assert continued.metrics == expected.metrics
    assert_same_weights(whole, tmp_path)


@pytest.mark.parametrize(("batch", "step"), [(2, 5), (9, 10), (18, 12)], ids=["first", "second", "last"])
def test_a_signal_in_an_evaluation_saves_and_the_continuation_is_exact(tmp_path, uninterrupted, batch, step):
    whole, _ = uninterrupted
    changes = {"evaluation__every_steps": 5, "evaluation__batch_size": 1}  # seven of them
    stopped = run(tmp_path, StoppingInEvaluation(batch), **changes)
    assert (stopped.interrupted_by, stopped.exit_code, stopped.step) == (signal.SIGTERM, 143, step)
    rows = [row["step"] for row in stopped.history if row["kind"] == "eval"]
    assert rows == [other for other in (5, 10) if other < step], "the evaluation was left"
    assert CheckpointStore(tmp_path).latest().name == f"step_{step:08d}"
    continued = run(tmp_path, **changes)
    assert [row["step"] for row in continued.history if row["kind"] == "eval"] == [5, 10, 12]
    assert_same_weights(whole, tmp_path)


def test_after_a_crash_the_steps_since_the_checkpoint_are_done_again(tmp_path, uninterrupted):
    whole, expected = uninterrupted
    changes = {"evaluation__every_steps": 5, "checkpoint__every_steps": 3}
    others = set(multiprocessing.active_children())  # of tests before, which nobody has collected yet
    with pytest.raises(KeyboardInterrupt) as _caught:  # holds the traceback, and with it the loader
        run(tmp_path, StoppingTask(9, "crash"), **changes)
    left = set(multiprocessing.active_children()) - others
    assert not left, "workers outlive the error, and Python would wait for them at exit"
    assert CheckpointStore(tmp_path).latest().name == "step_00000006"
    assert max(row["step"] for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())) == 8
    continued = run(tmp_path, **changes)
    assert without_timing(continued.history) == without_timing(expected.history)
    assert_same_weights(whole, tmp_path)


def test_sigkill_mid_epoch_with_workers(tmp_path, uninterrupted):
    """A real process, really killed, then continued here."""
    whole, expected = uninterrupted
    changes = {**HARD, "evaluation__every_steps": 5, "checkpoint__every_steps": 4, "cpu_threads": 1}
    job = {"name": "killed", "changes": {"output_dir": str(tmp_path / "run"), **changes}, "signal": [10, 9, 0]}
    code, output = finish(start(ALONE, [job], tmp_path))
    assert code == -signal.SIGKILL, output
    (tmp_path / "run" / "checkpoints" / ".tmp-step_00000009").mkdir()  # as if it had been writing
    continued = run(tmp_path / "run", evaluation__every_steps=5, checkpoint__every_steps=4)
    assert without_timing(continued.history) == without_timing(expected.history)
    assert_same_weights(whole, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(tmp_path, uninterrupted):
    class DiskFillsUp(StoppingTask):
        def prepare_step(self, model, batches):
            self.countdown -= 1
            if self.countdown == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            return TinyTask.prepare_step(self, model, batches)

    whole, expected = uninterrupted
    changes = {"evaluation__every_steps": 5, "checkpoint__every_steps": 3}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CheckpointError, match="intact"):
            run(tmp_path, DiskFillsUp(8), **changes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    continued = run(tmp_path, **changes)
    assert without_timing(continued.history) == without_timing(expected.history)
    assert_same_weights(whole, tmp_path)


def test_an_evaluation_cut_short_is_made_up_for(tmp_path, uninterrupted):
    class DiesInEvaluation(TinyTask):
        def evaluate(self, model, loader, accelerator):
            raise KeyboardInterrupt

    whole, expected = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, DiesInEvaluation(), evaluation__every_steps=5, checkpoint__every_steps=5)
    continued = run(tmp_path, evaluation__every_steps=5, checkpoint__every_steps=5)
    assert without_timing(continued.history) == without_timing(expected.history)
    assert_same_weights(whole, tmp_path)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = run(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    second = run(tmp_path)
    assert second.history == first.history and second.metrics == first.metrics
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_finished_run_with_other_evaluation_data_says_that_it_evaluates_nothing(tmp_path, capfd):
    first = run(tmp_path, logging__pictures=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    second = run(tmp_path, logging__pictures=True, data__max_eval_samples=3)
    said = capfd.readouterr().err
    assert re.search(r"data\.max_eval_samples: \S+ -> 3\n", said) and f"--eval_only true --init_from {tmp_path}" in said
    assert {path: path.read_bytes() for path in before} == before  # train_config.json and report.html as well
    assert (second.metrics, second.history, second.exit_code) == (first.metrics, first.history, 0)
    run(tmp_path, evaluation__batch_size=2)  # other settings free to change are recorded
    assert json.loads((tmp_path / "train_config.json").read_text())["args"]["evaluation"]["batch_size"] == 2
    assert "--eval_only" not in capfd.readouterr().err


class OtherImages(TinyTask):
    """Judged by images of another content."""

    def build_datasets(self, args, model):
        train_set, held_out = super().build_datasets(args, model)
        held_out.source.digest = lambda: "other"
        return train_set, held_out


def test_a_finished_run_knows_its_evaluation_data_wherever_they_lie(tmp_path, capfd):
    run(tmp_path)
    run(tmp_path, data__eval_root="moved")  # the same content, which tiny images have anywhere
    assert "nothing is trained or evaluated" not in capfd.readouterr().err
    run(tmp_path, OtherImages(), data__eval_root="moved")
    said = capfd.readouterr().err
    assert "eval_digest: tiny-7 -> other\n" in said and "data.eval_root" not in said


def test_a_finished_run_of_an_earlier_version_is_compared_by_path(tmp_path, capfd):
    run(tmp_path)
    folder = CheckpointStore(tmp_path).latest()
    state = json.loads((folder / "state.json").read_text())
    del state["eval_digest"]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "COMPLETE").unlink()
    mark_complete(folder)
    run(tmp_path, data__eval_root="moved")
    assert re.search(r"data\.eval_root: \S+ -> moved\n", capfd.readouterr().err)


def test_a_finished_run_that_was_never_evaluated_is(tmp_path):
    run(tmp_path, evaluation__at_end=False)
    assert run(tmp_path, data__max_eval_samples=3).metrics


def test_continuing_in_another_folder(tmp_path, uninterrupted):
    whole, _ = uninterrupted
    run(tmp_path / "a", StoppingTask(7))
    result = run(tmp_path / "b", resume=str(tmp_path / "a"))
    assert result.step == 12
    assert_same_weights(whole, tmp_path / "b")


def test_starting_anew_does_not_overwrite(tmp_path):
    run(tmp_path, StoppingTask(7))
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        run(tmp_path, resume="none")


def test_a_changed_recipe_is_refused_with_its_differences(tmp_path):
    run(tmp_path, StoppingTask(7))
    with pytest.raises(ResumeError) as caught:
        run(
            tmp_path,
            optim__learning_rate=0.5,
            model={"dropout": 0.0},
            data__options={"size": 30},
            logging__every_steps=2,
        )
    message = str(caught.value)
    assert "optim.learning_rate: 0.02 -> 0.5" in message
    assert "model.dropout: 0.3 -> 0.0" in message
    assert "data_digest: tiny-24 -> tiny-30" in message
    assert "logging" not in message
    with pytest.raises(ResumeError, match="effective_batch: 4 -> 8"):
        run(tmp_path, train__accumulation=2)


class WithoutLabels(TinyTask):
    """Whose digest was that of the source, labels and all, in earlier versions."""

    def data_digest(self, dataset):
        return f"{dataset.source.digest()} without labels"

    def former_digest(self, dataset):
        return dataset.source.digest()

    eval_digest = data_digest


def test_a_run_of_an_earlier_version_whose_digest_had_labels_is_resumed(tmp_path, uninterrupted):
    whole, _ = uninterrupted
    run(tmp_path / "a", StoppingTask(7))
    with pytest.raises(ResumeError, match="data_digest: tiny-24 -> tiny-30 without labels"):
        run(tmp_path / "a", WithoutLabels(), data__options={"size": 30})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert run(tmp_path / "b", WithoutLabels()).step == 12
    assert_same_weights(whole, tmp_path / "b")
    state = json.loads((CheckpointStore(tmp_path / "b").latest() / "state.json").read_text())
    assert state["data_digest"] == "tiny-24 without labels"
    # The same command twice, as a job that was preempted: the folder is known for that of the run it went on from.
    for _ in range(2):
        assert run(tmp_path / "c", WithoutLabels(), resume=str(tmp_path / "a")).step == 12
    assert_same_weights(whole, tmp_path / "c")


@pytest.mark.parametrize("size", [24, 30])
def test_a_finished_run_of_an_earlier_version_was_judged_by_the_same_data(tmp_path, capfd, size):
    """Also where the digest of the evaluation data had their labels; not where the pictures are others."""

    class Judged(WithoutLabels):
        def build_datasets(self, args, model):
            train_set, held_out = super().build_datasets(args, model)
            held_out.source.size += size - 24
            return train_set, held_out

    run(tmp_path)
    run(tmp_path, Judged())
    told = "eval_digest: tiny-7 -> tiny-13 without labels\n" in capfd.readouterr().err
    assert told is (size == 30)


def test_batch_and_accumulation_may_be_traded(tmp_path):
    run(tmp_path, StoppingTask(7))
    assert run(tmp_path, train__batch_size=2, train__accumulation=2).step == 12


def test_damaged_optimizer_state_is_a_clear_error(tmp_path):
    run(tmp_path, StoppingTask(7))
    path = CheckpointStore(tmp_path).latest()
    size = (path / "optimizer.pt").stat().st_size
    (path / "optimizer.pt").write_bytes(b"x" * size)
    with pytest.raises(CheckpointError, match=r"step_00000007: optimizer\.pt is damaged"):
        run(tmp_path)

import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from helpers.frames_on_disk import write_frames
from helpers.launching import weights_of, without_timing
from helpers.tiny_task import TinyModel, TinyTask, tiny_arguments, valid_pixels
from m33d_hf.data.files.skips import read_skipped
from m33d_hf.data.loader.loading import SampleDataset
from m33d_hf.data.loader.sampling import StepSampler
from m33d_hf.data.sources.frames.folder import FolderSource
from m33d_hf.errors import ConfigError, DataError, MissingDependencyError, NonFiniteLossError
from m33d_hf.training.processes.checkpoint_files import read_state
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.loaders import list_left_out
from m33d_hf.training.run.loop import train
from m33d_hf.training.run.plan import plan_run
from m33d_hf.training.run.replay import replay


def run(output_dir, task=None, **changes):
    return train(tiny_arguments(output_dir, **changes), task or TinyTask())


def rows(result, kind):
    return [row for row in result.history if row["kind"] == kind]


def test_it_learns_and_leaves_everything_where_it_belongs(tmp_path):
    result = run(tmp_path, train__max_steps=60, evaluation__every_steps=30, checkpoint__every_steps=25)
    losses = [row["loss"] for row in rows(result, "train")]
    assert losses[-1] < 0.1 * losses[0]
    assert result.step == 60 and result.exit_code == 0 and result.interrupted_by is None
    assert [row["step"] for row in rows(result, "eval")] == [30, 60]
    assert result.metrics == {k: v for k, v in rows(result, "eval")[-1].items() if k.startswith("eval/")}
    assert result.metrics["eval/count"] == valid_pixels(range(7))  # of every held-out image, once
    assert [p.name for p in CheckpointStore(tmp_path).steps()] == ["step_00000050", "step_00000060"]
    on_disk = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert on_disk == result.history
    config = json.loads((tmp_path / "train_config.json").read_text())
    assert config["args"]["train"]["max_steps"] == 60
    assert config["plan"]["effective_batch"] == 4 and config["plan"]["learning_rate"]["peak"] == 0.02
    assert config["data_digest"] == "tiny-24" and config["versions"]["torch"] and "commit" in config


def test_the_total_is_the_weighted_sum_of_the_terms(tmp_path):
    result = run(tmp_path)
    weights = TinyModel().loss_weights
    for row in rows(result, "train"):
        assert row["loss"] == pytest.approx(sum(w * row[f"loss/{name}"] for name, w in weights.items()))


@pytest.mark.parametrize(
    "changes", [{"train__batch_size": 2, "train__accumulation": 2}, {"optim__clip_grad_norm": 0.3}]
)
def test_the_first_update_follows_an_independent_reckoning(tmp_path, changes):
    """One step of plain PyTorch on the same four samples in one batch."""
    task, args = TinyTask(), tiny_arguments(tmp_path, train__max_steps=1, logging__every_steps=1, **changes)
    args.optim.warmup_steps = 0
    torch.manual_seed(0)
    start = TinyModel()
    task.build_model = lambda _args: start
    reference = TinyModel()
    reference.load_state_dict(start.state_dict())
    result = train(args, task)

    dataset, _ = task.build_datasets(args, start)
    rows_of_step = next(iter(StepSampler(len(dataset), 4, seed=args.seed)))
    batch = task.build_collator(args, start, True)([dataset[row] for row in rows_of_step])
    batch.pop("meta")
    out = reference(**batch, **task.prepare_step(reference, [batch]))
    loss = sum(w * out.loss_sums[k] / out.loss_counts[k] for k, w in reference.loss_weights.items())
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in reference.parameters()))
    row = rows(result, "train")[0]
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)
    # Adam's first update is -lr * sign(gradient) beside the weight decay, whatever the clipping.
    trained, parameter = weights_of(tmp_path)["head.weight"], reference.head.weight
    expected = parameter.detach() * (1 - 0.02 * 0.05) - 0.02 * parameter.grad.sign()
    assert torch.allclose(trained, expected, atol=1e-5)


@pytest.mark.parametrize("split", [(2, 2), (1, 4)])
def test_accumulation_equals_the_big_batch(tmp_path, split):
    whole = run(tmp_path / "whole")
    batch, parts = split
    cut = run(tmp_path / "cut", train__batch_size=batch, train__accumulation=parts)
    for a, b in zip(rows(whole, "train"), rows(cut, "train"), strict=True):
        assert a["learning_rate"] == b["learning_rate"]
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-3)
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.allclose(weight, weights_of(tmp_path / "cut")[name], atol=2e-4), name


def test_workers_evaluations_and_logging_do_not_change_the_training(tmp_path):
    plain = run(tmp_path / "a", model={"dropout": 0.3}, evaluation__at_end=False)
    other = run(
        tmp_path / "b",
        model={"dropout": 0.3},
        evaluation__every_steps=1,
        data__num_workers=1,
        logging__every_steps=4,
        checkpoint__every_steps=3,
    )
    assert without_timing(rows(plain, "train")) == without_timing(rows(other, "train"))
    assert plain.history != other.history


def test_many_runs_in_one_process_leave_nothing_behind(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    environment, threads = dict(os.environ), torch.get_num_threads()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = run(tmp_path / "a")
    mixed = run(tmp_path / "b", train__precision="bf16", cpu_threads=2)
    again = run(tmp_path / "c")
    assert without_timing(first.history) == without_timing(again.history)
    assert without_timing(first.history) != without_timing(mixed.history)
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads() and environment == dict(os.environ)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_average_is_what_is_evaluated_and_published(tmp_path):
    result = run(tmp_path, train__ema_decay=0.5, checkpoint__every_steps=11, checkpoint__keep_last=99)
    store = CheckpointStore(tmp_path)
    before, after = store.steps()
    trained, average = load_file(after / "model.safetensors"), load_file(after / "ema.safetensors")
    earlier = load_file(before / "ema.safetensors")
    final = weights_of(tmp_path)
    for name in average:
        assert torch.allclose(average[name], 0.5 * earlier[name] + 0.5 * trained[name], atol=1e-6)
        assert torch.equal(final[name], average[name])
    plain = run(tmp_path / "plain")
    assert plain.metrics != result.metrics


def test_best_keeps_the_smallest_error(tmp_path):
    result = run(tmp_path, evaluation__every_steps=3, optim__schedule="constant", optim__learning_rate=0.2)
    best = read_state(CheckpointStore(tmp_path).best())
    smallest = min(rows(result, "eval"), key=lambda row: row["eval/rmse"])
    assert best["step"] == smallest["step"] and best["metrics"]["eval/rmse"] == smallest["eval/rmse"]


def test_an_unknown_metric_for_the_best_gets_a_hint(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'eval/rmse'"):
        run(tmp_path, evaluation__metric="rsme")


def test_precision_that_the_device_lacks(tmp_path):
    with pytest.raises(ConfigError, match="fp16"):
        run(tmp_path, train__precision="fp16")


def test_a_world_that_the_launcher_did_not_start(tmp_path):
    """`accelerate launch --cpu --num_processes 2` starts one process; the error says what to do instead."""
    with pytest.raises(ConfigError, match="torchrun --nproc_per_node 2"):
        run(tmp_path, num_processes=2)


def test_trackers(tmp_path):
    run(tmp_path, logging__trackers=["tensorboard"])
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))
    with pytest.raises(ConfigError, match="nosuch"):
        run(tmp_path / "b", logging__trackers=["nosuch"])
    with pytest.raises((MissingDependencyError, ConfigError), match="aim"):
        run(tmp_path / "c", logging__trackers=["aim"])


def test_progress_tells_the_plan_and_the_time_left(tmp_path, capsys):
    run(tmp_path, logging__progress=True, optim__scale_lr=True)
    told = capsys.readouterr().err
    assert "effective batch 4 = 4 per process x 1 process x 1 micro-batch" in told
    assert "= 0.02 x 4 / 256" in told and "warm-up 3 steps" in told
    assert "step 12/12" in told and "ETA" in told and "data wait" in told
    run(tmp_path / "quiet")
    # The source of this test has one split, of which a run warns whether it tells its progress or not.
    lines = capsys.readouterr().err.splitlines()
    assert all("evaluation videos are also training videos of this run" in line for line in lines), lines


def test_unreadable_files_are_replaced_listed_and_budgeted(tmp_path):
    fine = run(tmp_path / "fine", data__options={"bad": [3, 5]}, data__max_bad_fraction=0.2)
    assert fine.step == 12
    assert {file.path for file in read_skipped(tmp_path / "fine" / "skipped_files.csv")} == {
        "/nowhere/tiny/3",
        "/nowhere/tiny/5",
    }
    with pytest.raises(DataError, match=r"max_bad_fraction = 0\.05"):
        run(tmp_path / "bad", data__options={"bad": [3, 5]}, data__max_bad_fraction=0.05)


def test_files_left_out_from_the_start_are_listed_too(tmp_path):
    write_frames(tmp_path / "data", 5)
    (tmp_path / "data/depth/2.png").unlink()
    args = tiny_arguments(tmp_path / "out")
    dataset = SampleDataset(FolderSource(tmp_path / "data"))
    for _ in range(2):  # a run that continues does not list them twice
        list_left_out(args, [dataset, dataset, None])
    (entry,) = read_skipped(tmp_path / "out" / "skipped_files.csv")
    assert entry.path == str(tmp_path / "data/color/2.png") and "depth" in entry.reason


def test_unreadable_evaluation_files_are_dropped_listed_and_budgeted(tmp_path):
    options = {"bad": [4, 5, 6]}
    fine = run(tmp_path / "fine", data__eval_options=options, data__max_bad_fraction=0.5)
    assert fine.metrics["eval/count"] == valid_pixels(range(4))
    assert len(read_skipped(tmp_path / "fine" / "skipped_files.csv")) == 3
    with pytest.raises(DataError, match=r"max_bad_fraction = 0\.05"):
        run(tmp_path / "bad", data__eval_options=options, data__max_bad_fraction=0.05)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_non_finite_loss_is_captured_and_replayed(tmp_path, workers):
    options = {"explosive": [9]}
    with pytest.raises(NonFiniteLossError, match="--replay"):
        run(tmp_path, data__options=options, logging__every_steps=7, data__num_workers=workers)
    (folder,) = (tmp_path / "nonfinite").iterdir()
    state = read_state(folder)
    assert "tiny/9" in state["keys"][0][0]
    result = replay(folder, TinyTask())
    assert result.reproduced and result.step == state["step"]
    assert math.isinf(result.losses["near"]) and result.captured == result.losses
    assert result.culprits[0][:2] == (0, 0) and "head.weight" in result.bad_gradients
    assert "reproduced" in result.describe()[0]
    assert not CheckpointStore(tmp_path).steps(), "nothing may be saved from after the accident"


def test_no_update_is_applied_from_the_bad_step_on(tmp_path):
    """The captured weights are those of a run that stops just before the accident."""
    (_, index), *_ = StepSampler(24, 4, seed=3).step_rows(2)
    with pytest.raises(NonFiniteLossError):
        run(tmp_path / "bad", data__options={"explosive": [index]}, logging__every_steps=12)
    (folder,) = (tmp_path / "bad" / "nonfinite").iterdir()
    assert read_state(folder)["step"] == 2
    run(tmp_path / "good", logging__every_steps=12, checkpoint__every_steps=2, checkpoint__keep_last=99)
    before = CheckpointStore(tmp_path / "good").folder / "step_00000002"
    kept, captured = load_file(before / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(kept[name], captured[name]) for name in kept)


def test_after_a_non_finite_loss_the_weights_before_it_are_named(tmp_path):
    """A resumed run may change none of what would help."""
    (_, index), *_ = StepSampler(24, 4, seed=3).step_rows(2)
    options = {"explosive": [index]}
    with pytest.raises(NonFiniteLossError) as caught:
        run(tmp_path, data__options=options, logging__every_steps=12, checkpoint__every_steps=2)
    kept = CheckpointStore(tmp_path).latest()
    assert kept.name == "step_00000002" and f"--init_from {kept}." in str(caught.value)
    assert "another --output_dir" in str(caught.value) and "--resume auto" not in str(caught.value)


def test_a_non_finite_gradient_under_a_finite_loss_is_caught_too(tmp_path):
    class RootTask(TinyTask):
        def prepare_step(self, model, batches):
            for parameter in model.head.parameters():
                if not parameter._backward_hooks:
                    parameter.register_hook(lambda grad: grad / 0.0)
            return super().prepare_step(model, batches)

    with pytest.raises(NonFiniteLossError):
        run(tmp_path, RootTask(), logging__every_steps=3)
    (folder,) = (tmp_path / "nonfinite").iterdir()
    assert read_state(folder)["step"] == 0
    result = replay(folder, RootTask())
    assert result.reproduced and not result.culprits and result.bad_gradients


def test_epochs_become_steps(tmp_path):
    result = run(tmp_path, train__max_steps=None, train__epochs=1.5)
    assert result.step == 9 and rows(result, "train")[-1]["epoch"] == 1.5


def test_a_batch_larger_than_the_data_is_said() -> None:
    args = tiny_arguments("unused")
    args.train.batch_size = 64
    assert "a step repeats samples" in " ".join(plan_run(args, 24, 1).describe(args, 1))
    assert "repeats" not in " ".join(plan_run(args, 64, 1).describe(args, 1))

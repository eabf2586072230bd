"""Checkpoints whose marker fits and whose content no run can have written: refused by name, before torch meets it."""

import json
import logging
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.launching import assert_same_weights
from helpers.tiny_task import StoppingTask, TinyTask, tiny_arguments
from m33d_hf.data.files.markers import MARKER, file_digest, mark_complete
from m33d_hf.errors import ResumeError
from m33d_hf.training.processes.checkpoint_files import read_optimizer
from m33d_hf.training.processes.checkpoints import CheckpointStore
from m33d_hf.training.run.loop import train

CHANGES = {"train__ema_decay": 0.9, "checkpoint__every_steps": 4, "evaluation__every_steps": 6}


def run(folder, **changes):
    return train(tiny_arguments(folder, **{**CHANGES, **changes}), TinyTask())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


@pytest.fixture
def killed(tmp_path):
    """A run that ended in step 10, with checkpoints of steps 4 and 8."""
    with pytest.raises(KeyboardInterrupt):
        train(tiny_arguments(tmp_path, **CHANGES), StoppingTask(10, "crash"))
    assert [path.name for path in CheckpointStore(tmp_path).steps()] == ["step_00000004", "step_00000008"]
    return tmp_path


def again(folder):
    """Mark the folder as whole, with what lies there now, as if all of it had been written together."""

    def renew(content):
        if isinstance(content, dict) and isinstance(content.get("files"), dict):
            content["files"] = {name: file_digest(folder / name) for name in content["files"]}

    with suppress(ValueError, RecursionError):  # where the state is what was changed
        state(folder, renew)
    (folder / MARKER).unlink()
    mark_complete(folder)


def optimizer(folder, change):
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    change(saved)
    torch.save(saved, folder / "optimizer.pt")


def state(folder, change):
    content = json.loads((folder / "state.json").read_text())
    change(content)
    (folder / "state.json").write_text(json.dumps(content))


def tensors(name, change):
    def apply(folder):
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, metadata={"format": "pt"})

    return apply


def moments(saved):
    return saved["optimizer"]["state"][0]


def first(found):
    return sorted(found)[0]


def replaced(name, value):
    return lambda folder: state(folder, lambda content: content.update({name: value}))


def share_memory(saved):
    """All first moments in one memory, where an update of one would change the others."""
    entries = saved["optimizer"]["state"].values()
    for entry in entries:
        entry["exp_avg"] = torch.zeros(1).expand(entry["exp_avg"].shape)


FOREIGN = {
    "moments that are sparse": lambda f: optimizer(f, lambda s: moments(s).update(exp_avg=torch.zeros(3).to_sparse())),
    "moments without numbers": lambda f: optimizer(
        f, lambda s: moments(s).update(exp_avg=moments(s)["exp_avg"].to("meta"))
    ),
    "a count without a number": lambda f: optimizer(f, lambda s: moments(s).update(step=moments(s)["step"].to("meta"))),
    "a sparse count": lambda f: optimizer(f, lambda s: moments(s).update(step=torch.ones(1).to_sparse())),
    "a group without betas": lambda f: optimizer(f, lambda s: s["optimizer"]["param_groups"][0].pop("betas")),
    "betas that are a tensor": lambda f: optimizer(
        f, lambda s: s["optimizer"]["param_groups"][0].update(betas=torch.tensor([0.9, 0.95]))
    ),
    "parameters that are a tensor": lambda f: optimizer(
        f, lambda s: s["optimizer"]["param_groups"][0].update(params=torch.arange(3))
    ),
    "windows beyond single precision": replaced("windows", [[1e300, 0.0]]),
    "files that are text": replaced("files", "x"),
    "no files": replaced("files", {}),
    "moments of another shape": lambda f: optimizer(f, lambda s: moments(s).update(exp_avg=torch.zeros(3))),
    "moments of another type": lambda f: optimizer(
        f, lambda s: moments(s).update(exp_avg=moments(s)["exp_avg"].half())
    ),
    "a moment too many": lambda f: optimizer(f, lambda s: moments(s).update(max_exp_avg_sq=torch.zeros(3))),
    "a moment that is missing": lambda f: optimizer(f, lambda s: moments(s).pop("exp_avg_sq")),
    "a moment that is not a tensor": lambda f: optimizer(f, lambda s: moments(s).update(exp_avg=[0.0])),
    "moments that are not finite": lambda f: optimizer(f, lambda s: moments(s)["exp_avg"].fill_(torch.nan)),
    "negative squares": lambda f: optimizer(f, lambda s: moments(s)["exp_avg_sq"].fill_(-1.0)),
    "a step of the future": lambda f: optimizer(f, lambda s: moments(s)["step"].fill_(1e9)),
    "no moments": lambda f: optimizer(f, lambda s: s["optimizer"]["state"].clear()),
    "moments of one parameter less": lambda f: optimizer(f, lambda s: s["optimizer"]["state"].pop(0)),
    "moments of a stranger": lambda f: optimizer(f, lambda s: s["optimizer"]["state"].update({99: moments(s)})),
    "no groups": lambda f: optimizer(f, lambda s: s["optimizer"]["param_groups"].clear()),
    "another weight decay": lambda f: optimizer(
        f, lambda s: s["optimizer"]["param_groups"][0].update(weight_decay=9.0)
    ),
    "other betas": lambda f: optimizer(f, lambda s: s["optimizer"]["param_groups"][0].update(betas=(0.1, 0.2))),
    "exchanged parameters": lambda f: optimizer(f, lambda s: s["optimizer"]["param_groups"][0]["params"].reverse()),
    "a scaler that nobody had": lambda f: optimizer(f, lambda s: s.update(scaler={"scale": 1.0})),
    "no optimizer": lambda f: optimizer(f, lambda s: s.clear()),
    "an optimizer that is a list": lambda f: torch.save([1, 2], f / "optimizer.pt"),
    "an optimizer that is text": lambda f: (f / "optimizer.pt").write_text("<html>"),
    "an empty optimizer": lambda f: (f / "optimizer.pt").write_bytes(b""),
    "a state that is a list": lambda f: (f / "state.json").write_text("[1]"),
    "a state that is empty": lambda f: (f / "state.json").write_text("{}"),
    "a state that is deep": lambda f: (f / "state.json").write_text("[" * 100_000),
    "a state that is not JSON": lambda f: (f / "state.json").write_bytes(b"\xff\x00"),
    "another step": replaced("step", 7),
    "a step that is text": replaced("step", "8"),
    "a step that is true": replaced("step", True),
    "a negative window": replaced("window_steps", -1),
    "windows of another length": replaced("windows", [[0.0]]),
    "windows that are numbers": replaced("windows", [0.0, 1.0]),
    "windows of nobody": replaced("windows", []),
    "windows that are not finite": replaced("windows", [[float("nan"), 0.0]]),
    "arguments that are text": replaced("args", "x"),
    "arguments with strange modalities": replaced("args", {"model": {"modalities": [1]}}),
    "a digest that is a number": replaced("data_digest", 3),
    "an effective batch that is text": replaced("effective_batch", "x"),
    "an average of other names": tensors("ema.safetensors", lambda t: t.update(more=torch.zeros(2))),
    "an average that is missing one": tensors("ema.safetensors", lambda t: t.pop(first(t))),
    "an average of another shape": tensors("ema.safetensors", lambda t: t.update({first(t): torch.zeros(99)})),
    "an average that is not finite": tensors("ema.safetensors", lambda t: t[first(t)].fill_(torch.inf)),
    "weights of another shape": tensors("model.safetensors", lambda t: t.update({first(t): torch.zeros(99)})),
    "weights of another type": tensors("model.safetensors", lambda t: t.update({first(t): t[first(t)].half()})),
    "weights that are not finite": tensors("model.safetensors", lambda t: t[first(t)].fill_(torch.nan)),
    "weights that are missing one": tensors("model.safetensors", lambda t: t.pop(first(t))),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_content_is_passed_over_and_the_end_is_the_same(killed, whole, caplog, what):
    newest = killed / "checkpoints" / "step_00000008"
    FOREIGN[what](newest)
    again(newest)
    with caplog.at_level(logging.WARNING):
        result = run(killed)
    (said,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert "step_00000008" in said and "step_00000004" in said and "computed again" in said
    assert result.step == 12
    assert_same_weights(whole, killed)


def test_moments_that_share_their_memory_are_taken_apart(killed):
    """Updated in place they crashed the process."""
    newest = killed / "checkpoints" / "step_00000008"
    optimizer(newest, share_memory)
    again(newest)
    values = read_optimizer(newest)["optimizer"]["state"].values()
    places = {entry[name].untyped_storage().data_ptr() for entry in values for name in ("exp_avg", "exp_avg_sq")}
    assert len(places) == 2 * len(values)
    assert all(entry["exp_avg"].is_contiguous() for entry in values)
    assert run(killed).step == 12


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.pt"])
def test_a_file_of_another_step_is_passed_over(killed, whole, caplog, name):
    """It fits the model, and the marker was written anew: only what lies beside it tells."""
    newest = killed / "checkpoints" / "step_00000008"
    (newest / name).write_bytes((newest.parent / "step_00000004" / name).read_bytes())
    (newest / MARKER).unlink()
    mark_complete(newest)
    with caplog.at_level(logging.WARNING):
        assert run(killed).step == 12
    assert "step_00000008 was skipped" in caplog.text and f"{name} was not written with it" in caplog.text
    assert_same_weights(whole, killed)


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json", MARKER])
def test_a_flipped_bit_costs_the_steps_since_the_checkpoint_before(killed, whole, caplog, name):
    path = killed / "checkpoints" / "step_00000008" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert run(killed).step == 12
    assert f"step_00000008 was skipped: {name}" in caplog.text
    assert_same_weights(whole, killed)
    assert CheckpointStore(killed).latest().name == "step_00000012"


def test_without_a_whole_checkpoint_nothing_starts_anew_in_silence(killed):
    for folder in CheckpointStore(killed).steps():
        (folder / "model.safetensors").write_bytes(bytes((folder / "model.safetensors").stat().st_size))
    with pytest.raises(ResumeError) as caught:
        run(killed)
    message = str(caught.value)
    assert "step_00000008: model.safetensors is damaged" in message and "step_00000004: model" in message
    assert "start anew: remove" in message


def test_a_checkpoint_that_is_asked_for_by_name_is_not_replaced_by_another(killed, tmp_path):
    folder = killed / "checkpoints" / "step_00000008"
    (folder / "optimizer.pt").write_bytes(bytes((folder / "optimizer.pt").stat().st_size))
    with pytest.raises(ResumeError, match=r"step_00000008: optimizer\.pt is damaged"):
        run(killed, resume=str(folder))


def test_a_checkpoint_of_an_earlier_version_continues_with_a_word(killed, whole, caplog):
    for folder in CheckpointStore(killed).steps():
        files = json.loads((folder / MARKER).read_text())["files"]
        (folder / MARKER).write_text(json.dumps({name: entry["size"] for name, entry in files.items()}, indent=2))
        state(folder, lambda content: [content.pop(name) for name in ("optimizer_entries", "files")])
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != MARKER}
        (folder / MARKER).write_text(json.dumps(sizes, indent=2))
    with caplog.at_level(logging.WARNING):
        run(killed)
    assert "earlier version without digests" in caplog.text
    assert_same_weights(whole, killed)


def test_a_damaged_best_is_told_and_replaced(killed, caplog):
    best = killed / "checkpoints" / "best"
    weights = best / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    with caplog.at_level(logging.WARNING):
        run(killed)
    assert "model.safetensors" in caplog.text and "damaged: its content is not what was written" in caplog.text
    assert "the best evaluation from step 8 on replaces it" in caplog.text
    assert CheckpointStore(killed).check_best() is None


def test_what_a_kill_kept_from_being_dropped_goes_at_the_next_start(killed):
    kept = tiny_arguments(killed).checkpoint.keep_last
    store = CheckpointStore(killed)
    third = store.folder / "step_00000002"
    third.mkdir()
    for path in (store.folder / "step_00000004").iterdir():
        if path.name != MARKER:
            (third / path.name).write_bytes(path.read_bytes())
    mark_complete(third)
    assert len(store.steps()) == kept + 1 == 3
    run(killed, checkpoint__every_steps=100)
    assert [path.name for path in store.steps()] == ["step_00000008", "step_00000012"]

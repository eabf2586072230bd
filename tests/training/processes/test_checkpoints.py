import errno
import json
import math
import os
import resource

import pytest
import torch

from helpers.tiny_task import TinyModel
from m33d_hf.data.files.markers import damage, is_complete
from m33d_hf.errors import CheckpointError
from m33d_hf.training.processes import checkpoint_files
from m33d_hf.training.processes.checkpoint_files import read_state, read_weights
from m33d_hf.training.processes.checkpoints import CheckpointStore, find_checkpoints


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyModel()


def save(store, model, step, **extra):
    return store.save(model, {"optimizer": {"step": torch.tensor(step)}, "scaler": None}, {"step": step, **extra})


def test_what_is_saved_comes_back(tmp_path, model):
    store = CheckpointStore(tmp_path)
    path = store.save(model, {"optimizer": {"x": torch.ones(2)}}, {"step": 5}, average={"a": torch.ones(3)})
    assert path.name == "step_00000005" and is_complete(path) and store.latest() == path
    other = TinyModel()
    read_weights(other, path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert torch.equal(checkpoint_files.read_optimizer(path)["optimizer"]["x"], torch.ones(2))
    assert torch.equal(checkpoint_files.read_average(path)["a"], torch.ones(3))
    assert read_state(path)["step"] == 5


def test_retention_keeps_the_last_ones_and_the_best(tmp_path, model):
    store = CheckpointStore(tmp_path, keep_last=2)
    store.save_best(model, {"step": 1})
    for step in (1, 2, 3, 100_000_000):
        save(store, model, step)
    assert [path.name for path in store.steps()] == ["step_00000003", "step_100000000"]
    assert store.best() is not None and read_state(store.best())["step"] == 1


def test_retention_finishes_what_a_kill_interrupted(tmp_path, model):
    store = CheckpointStore(tmp_path, keep_last=1)
    half_removed = save(store, model, 1)
    (half_removed / "COMPLETE").unlink()
    save(store, model, 2)
    assert [path.name for path in store.folder.iterdir()] == ["step_00000002"]


def test_best_is_replaced_whole(tmp_path, model):
    store = CheckpointStore(tmp_path)
    store.save_best(model, {"step": 1})
    store.save_best(model, {"step": 2})
    assert read_state(store.best())["step"] == 2
    assert [path.name for path in store.folder.iterdir()] == ["best"]


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("greater", [True, False])
def test_a_best_that_is_no_number_is_replaced_by_any(tmp_path, model, first, greater):
    """Every comparison with NaN is false, so that it would stay the best."""
    store = CheckpointStore(tmp_path)

    def found(step, value):
        return store.save_if_best(model, {"step": step, "metrics": {"loss": value}}, "loss", greater)

    assert found(1, first) and found(2, 0.5)
    assert not found(3, math.nan) and not found(4, 0.5)
    assert read_state(store.best())["step"] == 2


@pytest.mark.parametrize("how", ["no marker", "truncated", "file missing", "marker torn"])
def test_a_half_written_checkpoint_is_never_picked_up(tmp_path, model, how):
    store = CheckpointStore(tmp_path)
    good, bad = save(store, model, 1), save(store, model, 2)
    if how == "no marker":
        (bad / "COMPLETE").unlink()
    elif how == "truncated":
        os.truncate(bad / "model.safetensors", 100)
    elif how == "file missing":
        (bad / "optimizer.pt").unlink()
    else:
        (bad / "COMPLETE").write_text('{"model.safe')
    assert store.latest() == good
    tried = find_checkpoints("auto", tmp_path)
    assert tried == [bad, good] and damage(bad) and damage(good) is None
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        find_checkpoints(str(bad), tmp_path)


def test_remains_of_a_killed_run_are_cleaned_and_a_torn_replacement_is_undone(tmp_path, model):
    store = CheckpointStore(tmp_path)
    path = store.save_best(model, {"step": 7})
    path.rename(store.folder / ".old-best")
    (store.folder / ".tmp-step_00000009").mkdir()
    (store.folder / ".tmp-step_00000009" / "model.safetensors").write_bytes(b"half")
    store.clean()
    assert [p.name for p in store.folder.iterdir()] == ["best"]
    assert read_state(store.best())["step"] == 7


def test_a_full_disk_leaves_the_previous_checkpoint_intact(tmp_path, model, monkeypatch):
    store = CheckpointStore(tmp_path, keep_last=1)
    first = save(store, model, 1)
    before = {p.name: p.read_bytes() for p in first.iterdir()}

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*previous checkpoint is intact.*step_00000001"):
        save(store, model, 2)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == before
    assert [p.name for p in store.folder.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("limit", [200, 5000])
def test_a_write_that_really_fails_is_a_checkpoint_error(tmp_path, limit):
    """The kernel refuses to write beyond `limit` bytes: within safetensors' file, or within torch.save's."""
    store = CheckpointStore(tmp_path)
    first = save(store, TinyModel(), 1)
    big = {"optimizer": {"x": torch.ones(10_000)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError, match="intact"):
            store.save(TinyModel(), big, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.latest() == first and is_complete(first)
    save(store, TinyModel(), 3)  # and the store still works
    assert store.latest().name == "step_00000003"


def test_resume_words(tmp_path, model):
    assert find_checkpoints("auto", tmp_path) == []
    assert find_checkpoints(None, tmp_path) == [] and find_checkpoints("none", tmp_path) == []
    path = save(CheckpointStore(tmp_path / "other"), model, 4)
    assert find_checkpoints(str(tmp_path / "other"), tmp_path) == [path]
    assert find_checkpoints(str(path), tmp_path) == [path]
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        find_checkpoints(str(tmp_path / "nowhere"), tmp_path)


def test_the_best_weights_alone_cannot_be_resumed_and_are_not_called_incomplete(tmp_path, model):
    store = CheckpointStore(tmp_path)
    save(store, model, 4)
    store.save_best(model, {"step": 4})
    best = str(store.best())
    with pytest.raises(
        CheckpointError, match=r"holds weights alone.*--init_from .*checkpoints/best\), or .* step_\*"
    ) as told:
        find_checkpoints(best, tmp_path)
    assert "None" not in str(told.value) and "not written completely" not in str(told.value)
    os.truncate(store.best() / "model.safetensors", 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 100 bytes"):
        find_checkpoints(best, tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path, model):
    path = save(CheckpointStore(tmp_path), model, 1)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not match"):
        read_weights(TinyModel(width=4), path)
    with pytest.raises(CheckpointError, match="does not match"):
        read_weights(TinyModel(depth=3), path)


def test_the_marker_lists_every_file_with_its_size(tmp_path, model):
    path = save(CheckpointStore(tmp_path), model, 1)
    files = json.loads((path / "COMPLETE").read_text())["files"]
    sizes = {name: entry["size"] for name, entry in files.items()}
    assert sizes == {p.name: p.stat().st_size for p in path.iterdir() if p.name != "COMPLETE"}


def test_optimizer_files_that_need_arbitrary_code_are_refused(tmp_path, model):
    path = save(CheckpointStore(tmp_path), model, 1)
    torch.save({"optimizer": os.system}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt cannot be read"):
        checkpoint_files.read_optimizer(path)


def test_newer_checkpoints_are_tried_first_whatever_is_in_them(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (100, 200):
        (folder / f"step_{step:08d}").mkdir(parents=True)
    assert CheckpointStore(tmp_path).latest() is None
    assert [path.name for path in find_checkpoints("auto", tmp_path)] == ["step_00000200", "step_00000100"]
    assert all("cut short" in damage(path) for path in find_checkpoints("auto", tmp_path))


def test_retention_keeps_what_the_run_stands_on(tmp_path, model):
    """A checkpoint that is damaged, or of an attempt that the run went back behind, takes nobody's place."""
    store = CheckpointStore(tmp_path, keep_last=2)
    for step in (2, 4):
        save(store, model, step)
    old = CheckpointStore(tmp_path, keep_last=9)
    for step in (6, 8):
        save(old, model, step)
    store.damaged.add(store.folder / "step_00000004")
    save(store, model, 5)
    assert [path.name for path in store.steps()] == [f"step_0000000{step}" for step in (2, 5, 6, 8)]
    save(store, model, 6)
    assert [path.name for path in store.step_folders()] == [f"step_0000000{step}" for step in (5, 6, 8)]


def test_a_full_disk_is_named_with_the_file(tmp_path, model, monkeypatch):
    """torch.save would tell of positions in an archive only."""
    store = CheckpointStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"optimizer\.pt: .*File too large"):
            store.save(model, {"optimizer": {"x": torch.ones(10_000)}}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

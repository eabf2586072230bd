"""A disk that is full at any moment: an error of ours that names the file, and the same weights once there is space."""

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import nn

from helpers.launching import assert_same_weights
from helpers.tiny_task import TinyTask, tiny_arguments
from m33d_hf.errors import CheckpointError, M33DError, WorkerLostError
from m33d_hf.training.processes import checkpoints
from m33d_hf.training.processes.guards import full_disk_named
from m33d_hf.training.run import reporting
from m33d_hf.training.run.loop import train

CHANGES = {
    "train__max_steps": 6,
    "train__ema_decay": 0.9,
    "checkpoint__every_steps": 2,
    "evaluation__every_steps": 3,
    "logging__every_steps": 1,
}


def run(folder, **changes):
    return train(tiny_arguments(folder, **{**CHANGES, **changes}), TinyTask())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few pages; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_whatever_write_finds_the_disk_full(small_disk, whole):
    """Each size leaves space for some more writes; what the run before came to is continued."""
    refused, folder = [], small_disk / "run"
    for size in (*range(4, 80, 12), *range(80, 400, 40)):
        subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
        try:
            run(folder)
        except M33DError as error:
            refused.append(str(error))
        else:
            break
    assert len(refused) > 4, refused
    assert all("No space left" in message for message in refused), refused
    assert_same_weights(whole, folder)


@pytest.mark.parametrize(("limit", "name"), [(300, "model.safetensors"), (2000, "state.json")])
def test_a_capture_that_does_not_fit_is_an_error_that_tells_why_it_was_made(tmp_path, limit, name):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(TinyTask):
        """The disk fills up while the run goes on."""

        def prepare_step(self, model, batches):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            return super().prepare_step(model, batches)

    args = tiny_arguments(tmp_path, data__options={"explosive": range(24)}, model={"width": 4, "depth": 0})
    try:
        with pytest.raises(CheckpointError, match=rf"NaN or infinite in step 0, but .*{name}: .*arge"):
            train(args, Filling())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("gone", ["", "metrics.jsonl", "checkpoints", "checkpoints/step_00000004/model.safetensors"])
def test_what_is_removed_while_the_run_goes_on_is_an_error_or_no_matter(tmp_path, whole, gone):
    class Removing(TinyTask):
        """Somebody cleans up behind the fourth step."""

        def __init__(self):
            self.step = 0

        def prepare_step(self, model, batches):
            self.step += 1
            if self.step == 5:
                path = tmp_path / "run" / gone
                path.unlink() if path.is_file() else shutil.rmtree(path)
            return super().prepare_step(model, batches)

    args = tiny_arguments(tmp_path / "run", **{**CHANGES, "checkpoint__keep_last": 1, "evaluation__every_steps": None})
    if gone.startswith("checkpoints"):
        train(args, Removing())
    else:
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl was removed .*another program changes"):
            train(args, Removing())
        train(args, TinyTask())
    assert_same_weights(whole, tmp_path / "run")


def test_a_folder_that_vanishes_is_told_by_its_name(tmp_path):
    folder = tmp_path / "run" / "features"
    told = pytest.raises(CheckpointError, match=f"{folder}.* No such file .*Another program changes")
    with told, full_disk_named(tmp_path / "run"):
        os.listdir(folder)
    with pytest.raises(FileNotFoundError), full_disk_named(tmp_path / "run"):
        os.listdir(tmp_path / "data")


def test_a_reading_process_killed_while_a_checkpoint_is_written_is_no_full_disk(tmp_path, monkeypatch):
    """Torch raises in the main thread, wherever that is."""

    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(checkpoints.torch, "save", killed)
    with pytest.raises(WorkerLostError, match="A worker process was killed"):
        run(tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid 7\)"):
        checkpoints.CheckpointStore(tmp_path).save(nn.Linear(1, 1), {}, {"step": 1})


@pytest.mark.parametrize("limit", [0, 30, 300, 1000, 3000])
def test_whatever_file_grows_too_large(tmp_path, whole, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(M33DError, match="File too large"):
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run(tmp_path)
    assert_same_weights(whole, tmp_path)


def test_the_error_under_way_is_not_replaced_when_the_report_cannot_be_closed(tmp_path, monkeypatch):
    """A checkpoint that could not be written is what the user must hear of, not the metrics after it."""

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, text):
            return self.file.write(text)

        def flush(self):
            self.file.flush()

        def fileno(self):
            return self.file.fileno()

        def close(self):
            self.file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    enter = reporting.Reporter.__enter__

    def entering(self):
        enter(self)
        self._file = Full(self._file)
        return self

    monkeypatch.setattr(reporting.Reporter, "__enter__", entering)

    class Failing(TinyTask):
        def prepare_step(self, model, batches):
            raise CheckpointError("the good one")

    with pytest.raises(CheckpointError, match="the good one"):
        train(tiny_arguments(tmp_path / "a", **CHANGES), Failing())
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl.*No space left"):
        run(tmp_path / "b")


def test_only_failed_writes_are_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), full_disk_named(tmp_path / "out"):
        Path(tmp_path / "nowhere").read_text()
    with pytest.raises(CheckpointError, match="Another program changes"), full_disk_named(tmp_path):
        Path(tmp_path / "nowhere").read_text()
    with pytest.raises(CheckpointError, match="then continue the run"), full_disk_named(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "/some/file")

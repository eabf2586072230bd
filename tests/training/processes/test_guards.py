import multiprocessing
import os
import signal
import threading

import pytest

from m33d_hf.errors import ConfigError, WorkerLostError
from m33d_hf.training.processes import launcher
from m33d_hf.training.processes.guards import StopSignals, check_world_size, exit_code, lost_process_named, output_lock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_former_handler_comes_back(number):
    former = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.requested() is None
        os.kill(os.getpid(), number)
        assert stop.requested() == number
        assert signal.getsignal(number) == former  # a second one acts as if we were not here
    assert signal.getsignal(number) == former


def test_handlers_come_back_without_a_signal_too():
    former = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != former
    assert signal.getsignal(signal.SIGTERM) == former


def test_outside_the_main_thread_nothing_is_installed():
    seen = []

    def body():
        with StopSignals() as stop:
            seen.append(stop.requested())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [None]


def test_exit_codes_follow_the_shell():
    assert (exit_code(None), exit_code(signal.SIGTERM), exit_code(signal.SIGINT)) == (0, 143, 130)


def test_a_changed_parent_counts_only_under_a_launcher(monkeypatch):
    for mark in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", "M33D_WATCH_PARENT"):
        monkeypatch.delenv(mark, raising=False)
    with StopSignals() as plain:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        with StopSignals() as launched:
            assert launched.requested() is None
            monkeypatch.setattr(os, "getppid", lambda: 1)
            assert launched.requested() == signal.SIGTERM
            assert plain.requested() is None


def test_world_size_other_than_asked_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_world_size(None, 1)
    check_world_size(1, 1)
    with pytest.raises(ConfigError, match=r"num_processes is 2, but 1 .*torchrun --nproc_per_node 2"):
        check_world_size(2, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2.*would train separately"):
        check_world_size(None, 1)


def hold_lock(folder, taken, release):
    with output_lock(folder):
        taken.set()
        release.wait(30)


def test_two_runs_cannot_write_one_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    taken, release = context.Event(), context.Event()
    other = context.Process(target=hold_lock, args=(tmp_path, taken, release))
    other.start()
    try:
        assert taken.wait(30)
        with pytest.raises(ConfigError, match=rf"being written by process {other.pid}"), output_lock(tmp_path):
            pass
    finally:
        release.set()
        other.join()
    with output_lock(tmp_path):  # free again
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")
    taken, release = context.Event(), context.Event()
    other = context.Process(target=hold_lock, args=(tmp_path, taken, release))
    other.start()
    assert taken.wait(30)
    other.kill()
    other.join()
    with output_lock(tmp_path):
        pass


def test_an_output_dir_that_is_a_file_is_refused_by_name(tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine")
    for folder in (file, file / "below"):
        with pytest.raises(ConfigError, match=r"cannot be used.*--output_dir"), output_lock(folder):
            pass
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed.", "worker process was killed"),
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1", "Another process of this run"),
    ],
)
def test_processes_that_were_killed_are_named(message, said):
    with pytest.raises(WorkerLostError, match=said), lost_process_named():
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), lost_process_named():
        raise RuntimeError("shapes differ")


def test_a_launcher_is_watched_once_and_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(launcher, "_watching", None)
    for mark in launcher.MARKS:
        monkeypatch.delenv(mark, raising=False)
    launcher.watch_launcher()
    assert launcher._watching is None
    monkeypatch.setenv("M33D_WATCH_PARENT", "1")
    launcher.watch_launcher()
    first = launcher._watching
    launcher.watch_launcher()
    assert first is not None and first.daemon and launcher._watching is first


def test_patience_is_given_for_a_block():
    before = launcher._patience.seconds
    with launcher.patience(launcher.SAVING):
        assert launcher._patience.seconds == launcher.SAVING
        with launcher.patience(launcher.STEPPING):
            assert launcher._patience.seconds == launcher.STEPPING
        assert launcher._patience.seconds == launcher.SAVING
    assert launcher._patience.seconds == before == launcher.ANYWHERE

import time

import torch
from torch.utils.data import DataLoader, Dataset

from m33d_hf.data.loader.workers import start_worker, stop_workers


class Slow(Dataset):
    """A file system that hangs from the second sample on."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index > 0:
            time.sleep(120)
        return torch.zeros(1)


def test_a_worker_that_hangs_in_a_read_is_ended_all_the_same():
    """Workers ignore SIGTERM, which is all that the loader itself would send; a slow machine is enough for this."""
    loader = DataLoader(
        Slow(), num_workers=1, persistent_workers=True, multiprocessing_context="fork", worker_init_fn=start_worker
    )
    iterator = iter(loader)
    next(iterator)
    workers = list(iterator._workers)
    assert all(worker.is_alive() for worker in workers)
    started = time.monotonic()
    stop_workers(loader)
    assert not any(worker.is_alive() for worker in workers) and time.monotonic() - started < 60


def test_a_loader_without_workers_has_nothing_to_stop():
    loader = DataLoader(torch.zeros(2))
    list(loader)
    stop_workers(loader)
    assert len(list(loader)) == 2, "it goes on serving"
    stop_workers([])

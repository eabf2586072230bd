"""Two processes with half a batch each give the loss and gradients of one process with the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from helpers.ranks import free_port
from helpers.tiny import VARIANTS, random_batch, tiny_config
from m33d_hf.modeling.losses_m33d import weighted_total
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining

# Matching draws its mismatches inside a rank, so it is exempt.
CASES = ["stage2_literal", "stage1_literal", "batch_negatives", "video_tube", "mae", "mask3d", "multimae"]


def case(name):
    config = tiny_config(**VARIANTS[name])
    torch.manual_seed(0)
    model = M33DForPreTraining(config)
    batch = random_batch(config, batch_size=4)
    batch["keep"] = model(**batch).keep
    return model, batch


def part(value, rank):
    if isinstance(value, dict):
        return {key: part(entry, rank) for key, entry in value.items()}
    return value[2 * rank : 2 * rank + 2]


def run_rank(rank, port, names, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name in names:
        model, batch = case(name)
        half = part(batch, rank)
        wrapped = DistributedDataParallel(model, find_unused_parameters=False)
        counts = model.loss_counts(**half)
        for count in counts.values():
            dist.all_reduce(count)
        output = wrapped(**half)
        loss = weighted_total(output.loss_sums, counts, model.loss_weights)
        (loss * 2).backward()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if rank == 0:
            gradients = {n: p.grad for n, p in model.named_parameters()}
            torch.save({"loss": total, "gradients": gradients}, os.path.join(folder, f"{name}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(run_rank, args=(free_port(), CASES, str(folder)), nprocs=2, start_method="forkserver")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_halves_equal_the_whole(name, two_processes):
    model, batch = case(name)
    output = model(**batch)
    output.loss.backward()
    halves = torch.load(two_processes / f"{name}.pt", weights_only=True)
    torch.testing.assert_close(halves["loss"], output.loss.detach(), atol=1e-6, rtol=1e-5)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(halves["gradients"][key], parameter.grad, atol=2e-6, rtol=1e-4, msg=key)

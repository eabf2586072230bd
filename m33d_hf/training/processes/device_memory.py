"""A device without enough memory, as an error of ours that says what takes less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from m33d_hf.errors import DeviceMemoryError, M33DError, first_line
from m33d_hf.training.recipe.arguments import RunArguments

# Allocators beside CUDA's caching one have no class of error of their own.
_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


@contextmanager
def memory_named(args: RunArguments) -> Iterator[None]:
    """Turn what torch says of memory that a device does not have into an error that names the keys to change.

    Raises:
        DeviceMemoryError: the block needed more memory than the device has free.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, M33DError) or not _tells_of_memory(error):
            raise
        raise DeviceMemoryError(_advice(error, args)) from error


def _tells_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def _advice(error: RuntimeError, args: RunArguments) -> str:
    # What torch says goes on for a paragraph about its allocator; the first sentences have the numbers.
    said = ". ".join(first_line(error).split(". ")[:3]).rstrip(".")
    batch, accumulation = args.train.batch_size, args.train.accumulation
    if args.eval_only:
        judged = args.evaluation.batch_size or batch
        return (
            f"The evaluation needs more memory than the device has free ({said}). Pass a smaller "
            f"--evaluation.batch_size (it was {judged}), or --cpu true; end other programs that use the device."
        )
    keys = "a smaller --train.batch_size with a larger --train.accumulation"
    if batch % 2 == 0:
        keys = f"--train.batch_size {batch // 2} --train.accumulation {accumulation * 2} (the same effective batch)"
    return (
        f"The run needs more memory than the device has free ({said}), with --train.batch_size {batch} on each "
        f"process. Pass {keys}, --train.grad_checkpointing true, or a smaller model; where it happened in an "
        "evaluation, a smaller --evaluation.batch_size. End other programs that use the device. A run with checkpoints "
        "continues with --resume auto."
    )

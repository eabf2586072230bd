"""The data of a run on its way to the loop: order, collator, share of each rank, and account of what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from m33d_hf.data.files.skips import (
    FILE_NAME,
    SkipLedger,
    SkippedFile,
    append_skipped,
    incomplete_entry,
    incomplete_file,
)
from m33d_hf.data.loader.collation import deferring
from m33d_hf.data.loader.loading import SampleDataset, build_loader
from m33d_hf.data.loader.sampling import EvaluationSampler, StepSampler
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.progress import tell
from m33d_hf.training.processes.guards import StopSignals
from m33d_hf.training.processes.launch import Ranks
from m33d_hf.training.recipe.arguments import RunArguments
from m33d_hf.training.run.feeding import EvaluationFeed, Interruption
from m33d_hf.training.run.seen_videos import seen_again, shared_videos
from m33d_hf.training.tasks.base import Collator, Task


def build_eval_feed(
    args: RunArguments,
    task: Task,
    model: nn.Module,
    dataset: SampleDataset,
    ranks: Ranks,
    stop: StopSignals | None = None,
) -> EvaluationFeed:
    """This rank's share of the evaluation data, every sample once over all ranks; with `stop`, signals end an
    evaluation between two batches."""
    size = task.evaluation_batch(args)
    sampler = EvaluationSampler(len(dataset), size, ranks.rank, ranks.size, task.compares_samples)
    loader = build_loader(
        dataset,
        run_collator(args, task, model, ranks, train=False),
        sampler,
        num_workers=args.data.num_workers,
        prefetch_factor=args.data.prefetch_factor,
    )
    say = tell if args.logging.progress and ranks.rank == 0 else None
    most = len(EvaluationSampler(len(dataset), size, 0, ranks.size, task.compares_samples))  # nobody has more
    interruption = None if stop is None else Interruption(stop, ranks, most)
    return EvaluationFeed(loader, skip_ledger(args, dataset), len(sampler), say, interruption)


def run_collator(args: RunArguments, task: Task, model: nn.Module, ranks: Ranks, train: bool) -> Collator:
    """The task's collator; on an accelerator, or without workers, it leaves finishing to `to_device`.

    Workers on a CPU run finish the batches that they collate, because there the training process is the bottleneck.
    """
    collator = task.build_collator(args, model, train=train)
    return deferring(collator) if ranks.device.type != "cpu" or args.data.num_workers == 0 else collator


def overlap_lines(args: RunArguments, train_set: SampleDataset, eval_set: SampleDataset | None) -> list[str]:
    """Warnings about evaluation videos that the run, or a training run behind `init_from`, trains on.

    Raises:
        DataError: two splits of one root share videos.
    """
    again = [] if eval_set is None else seen_again(args.init_from, eval_set)
    return shared_videos(args, train_set, eval_set) + again


def skip_ledger(args: RunArguments, dataset: SampleDataset) -> SkipLedger:
    """The ledger of a data set's unusable files, in the output folder."""
    return SkipLedger(Path(args.output_dir) / FILE_NAME, args.data.max_bad_fraction, len(dataset))


def list_left_out(args: RunArguments, datasets: Sequence[SampleDataset | None]) -> None:
    """Add to the list in the output folder what sources know from the start: files that they left out (no partner,
    unreadable) and long videos with a missing part.

    They do not count towards the budget: a file without a partner need not be broken. Nor does what `data.skip_list`
    names, which is listed again.
    """
    found = [] if args.data.skip_list is None else list(SkipList(args.data.skip_list).entries)
    for dataset in datasets:
        if dataset is None:
            continue
        source = dataset.source
        root = source.root or Path()
        found += [SkippedFile(str(root / file.path), file.reason, "") for file in source.unpaired]
        videos = [video.handle for video in source.videos or ()]  # long ones, opened when they were laid out
        reasons = source.incomplete  # with the labels that are lost with a part
        files = [file for file in map(incomplete_file, videos) if file is not None]
        found += [
            incomplete_entry(file.path, reasons[file.key], file.key) if file.key in reasons else file for file in files
        ]
    append_skipped(Path(args.output_dir) / FILE_NAME, found)


def step_sampler(
    args: RunArguments, task: Task, dataset: SampleDataset, rank: int, world_size: int, start: int, total_steps: int
) -> StepSampler:
    """The order of the training data for one rank, from optimizer step `start` on."""
    return StepSampler(
        len(dataset),
        args.train.batch_size,
        rank,
        world_size,
        args.seed,
        start,
        total_steps,
        accumulation=args.train.accumulation,
        weights=task.sample_weights(args, dataset),
    )

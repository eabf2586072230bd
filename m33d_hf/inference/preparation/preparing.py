"""Turns any source into Parquet files or tar shards of resized frames: parallel, also over machines, and resumable.

A plan cuts the items of the source into parts; what a part holds depends on nothing but the plan. Complete parts are
kept, everything else of a part that was interrupted is written anew. What could not be read of a complete part counts
again, and is looked at again: repaired files are taken. Every rank of a launch takes every n-th part.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from m33d_hf.data.clock import clock
from m33d_hf.data.depth.holes import HoleCount
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.files.atomic_writing import write_text_atomically
from m33d_hf.data.files.markers import damage, is_complete
from m33d_hf.data.files.sealed_json import read_sealed_json, write_sealed_json
from m33d_hf.data.files.skips import FILE_NAME, SkipLedger, SkippedFile
from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.loader.workers import lost_worker, start_worker, worker_context
from m33d_hf.data.options import choose
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.prepared.encoding import Encoder, encoder_of
from m33d_hf.data.prepared.layout import FORMATS, TAR, Manifest, part_name, part_of
from m33d_hf.data.prepared.shards import PartResult, part_ranges, write_part
from m33d_hf.data.prepared.unread import Unread
from m33d_hf.data.prepared.writing import row_bytes
from m33d_hf.data.source import Source
from m33d_hf.errors import ConfigError, DataError, DepthUnitError, LabelError
from m33d_hf.inference.folder_lock import shared_folder
from m33d_hf.inference.preparation.options import PreparationOptions
from m33d_hf.inference.sharding import Place, launched_place, rank_share
from m33d_hf.training.processes.guards import LOCK_FILE

PLAN_FILE = "preparation.json"
CARD_FILE = "README.md"
_PROBED = 8
_MIB = 1 << 20
_CARD = """---
configs:
- config_name: default
  data_files: "part-*/*{suffix}"
---
Frames prepared by m33d-hf from the source `{source}` ({sizes} sizes), {parts} parts. {reading}
"""
_READING = {
    "parquet": """Read them with
`--data.source hub --data.root FOLDER`, or with `datasets.load_dataset(FOLDER)`: `depth` divided by `depth_scale` is
metres for metric depth (0: nothing measured); without a scale it is float32 as it stands.""",
    "shards": """Read them with
`--data.source shards --data.root FOLDER` (the index files belong to it), or the tar files alone with `webdataset`:
`depth.png` divided by `depth_scale` of the JSON beside it is metres for metric depth (0: nothing measured);
`depth.tiff` is float32 as it stands.""",
}


@dataclass
class PreparationSummary:
    """What this process did."""

    items: int
    parts: int
    written: int = 0
    kept: int = 0
    rows: int = 0
    size: int = 0
    skipped: list[SkippedFile] = field(default_factory=list)
    holes: HoleCount = field(default_factory=HoleCount)
    seconds: float = 0.0

    def describe(self) -> str:
        """The closing lines."""
        lines = [
            f"{self.written} parts written ({self.rows} frames, {self.size / _MIB:.1f} MiB, {clock(self.seconds)}), "
            f"{self.kept} were there already, of {self.parts}; {plural(len(self.skipped), 'item')} skipped."
        ]
        lines += [f"skipped {file.path}: {file.reason}" for file in self.skipped[:5]]
        if len(self.skipped) > 5:
            lines.append(f".. and {len(self.skipped) - 5} more, listed in {FILE_NAME} of the output.")
        if words := self.holes.words():
            lines.append(f"of clips, {words}")
        return "\n".join(lines)


def prepare_data(
    options: PreparationOptions,
    source: Source,
    place: Place | None = None,
    say: Callable[[str], None] = print,
) -> PreparationSummary:
    """Write this rank's share of the parts; complete ones are kept.

    Args:
        options: what to do.
        source: what `options.data` says, built.
        place: rank and world size; None takes the launcher's.
        say: receives lines of progress.

    Raises:
        ConfigError: invalid options, or an output that holds something else, or that another launch is writing.
        DataError: too many unreadable items. WorkerLostError: a worker was killed. OSError: the disk is full.
    """
    if not options.output:
        raise ConfigError("--output is missing: the folder to write to.")
    place = place or launched_place()
    output = Path(options.output).expanduser()
    choose("--format", options.format, FORMATS)
    encoder = encoder_of(source, options.size, options.rgb_format, options.quality)
    with shared_folder(output, place):
        plan = claim_output(output, options, source, encoder)
        parts = part_ranges(len(source), int(plan["items_per_part"]))
        manifest = _manifest(source, len(parts), options)
        share = rank_share(range(len(parts)), place.rank, place.world_size)
        name = f"[rank {place.rank} of {place.world_size}] " if place.world_size > 1 else ""
        folders = {number: output / part_name(number, len(parts)) for number in share}
        complete = {number: folder for number, folder in folders.items() if is_complete(folder)}
        if complete:
            looks = "digests, and " if options.verify else ""
            say(f"{name}{plural(len(complete), 'complete part')}: comparing {looks}what could not be read")
        kept: dict[int, Unread] = {}
        for number, folder in complete.items():
            unread = _kept(folder, options.verify, source, encoder, say)
            if unread is not None:
                kept[number] = unread
        say(
            f"{name}{plural(len(source), 'item')} of {source.name} in {plural(len(parts), 'part')}, "
            f"{len(share)} of this process, "
            f"{len(kept)} there already; to {output}"
        )
        work = partial(
            write_part,
            output,
            source=source,
            encoder=encoder,
            manifest=manifest,
            most_bytes=int(options.shard_mb * _MIB),
            groups=source.groups(),
            form=options.format,
        )
        jobs = {number: parts[number] for number in share if number not in kept}
        run = _Run(options, output, len(source), jobs, lambda line: say(f"{name}{line}"))
        run.summary.parts = len(parts)
        run.keep({number: (parts[number], unread) for number, unread in kept.items()})
        return run.all(work)


def claim_output(output: Path, options: PreparationOptions, source: Source, encoder: Encoder) -> dict[str, Any]:
    """The plan of a folder: written if there is none, else compared with what is asked for now.

    Raises:
        ConfigError: it was made from other data, or in another way; the message names every difference.
        DataError: none of the items that are looked at can be read. CorruptFileError: the plan is damaged.
    """
    from m33d_hf import __version__

    path = output / PLAN_FILE
    asked = {
        "source": source.name,
        "digest": source.digest(),
        "items": len(source),
        "format": options.format,
        "size": options.size,
        "rgb_format": options.rgb_format,
        "quality": options.quality if options.rgb_format == "jpeg" else None,
        "shard_mb": options.shard_mb,
    }
    if not path.is_file():
        foreign = sorted(entry.name for entry in output.iterdir() if not _is_ours(entry))
        if foreign and not path.is_file():  # another rank may have begun, and listed a broken file, since
            raise ConfigError(f"--output {output} holds {foreign[0]}, but no {PLAN_FILE}; choose an empty folder.")
        size = options.shard_mb * _MIB
        per_part = max(1, int(size / _mean_bytes(source, encoder)))
        plan = {**asked, "items_per_part": per_part, "made_by": f"m33d-hf {__version__} prepare_data"}
        write_sealed_json(path, plan)
        card = _CARD.format(
            source=source.name,
            sizes=options.size or "original",
            parts=len(part_ranges(len(source), per_part)),
            suffix=TAR if options.format == "shards" else ".parquet",
            reading=_READING[options.format],
        )
        write_text_atomically(output / CARD_FILE, card)
    found = {"format": "parquet", **read_sealed_json(path)}  # another rank may have been faster
    differing = [name for name in asked if found.get(name) != asked[name]]
    if differing:
        listed = "; ".join(f"{name}: {found.get(name)} there, {asked[name]} now" for name in differing)
        raise ConfigError(
            f"{output} was begun from other data or in another way ({listed}). Choose another --output, or repeat the "
            "earlier command."
        )
    return found


def _is_ours(entry: Path) -> bool:
    """Whether another rank may have put this into a new output just now."""
    return entry.name.startswith((".", LOCK_FILE)) or entry.name in (PLAN_FILE, CARD_FILE) or part_of(entry) is not None


def _mean_bytes(source: Source, encoder: Encoder) -> float:
    """Stored bytes of an item, by a frame of some of them."""
    found: list[float] = []
    error: Exception | None = None
    for index in evenly_spaced(range(len(source)), _PROBED):
        try:
            handle = source[index]
            (row,) = encoder.rows(handle, "", [handle.length // 2])
            found.append(row_bytes(row) * handle.length)
        except (DepthUnitError, LabelError):
            raise
        except (DataError, OSError) as problem:
            error = problem
    if not found:
        raise DataError(f"none of the items looked at can be read; the last: {error}") from error
    return max(1.0, sum(found) / len(found))


def _manifest(source: Source, parts: int, options: PreparationOptions) -> Manifest:
    table = source.class_table
    return Manifest(
        source=source.name,
        digest=source.digest(),
        parts=parts,
        depth_spec=None if source.depth_spec is None else source.depth_spec.to_dict(),
        class_names=source.class_names,
        action_names=source.action_names,
        class_table=table.to_dict() if isinstance(table, ClassTable) else None,
        sizes=options.size or "original",
    )


def _kept(part: Path, verify: bool, source: Source, encoder: Encoder, say: Callable[[str], None]) -> Unread | None:
    """What could not be read of a complete part, if it is kept; None of one that is to be written anew."""
    wrong = damage(part) if verify else None
    unread = Unread.of_part(part, source)
    if wrong is None and unread.is_outdated(source, encoder):
        wrong = "files that could not be read have changed"
    if wrong is not None:
        say(f"{part.name}: {wrong}; it is written anew")
    return unread if wrong is None else None


class _Run:
    """One rank's pass over its parts."""

    def __init__(
        self,
        options: PreparationOptions,
        output: Path,
        items: int,
        jobs: Mapping[int, Sequence[int]],
        say: Callable[[str], None],
    ) -> None:
        self.options, self.output, self.jobs, self.say = options, output, jobs, say
        self.ledger = SkipLedger(output / FILE_NAME, options.max_bad_fraction, items)
        self.summary = PreparationSummary(items, len(jobs))
        self.total = sum(len(items) for items in jobs.values())
        self.started = self.reported = time.monotonic()

    def all(self, work: Callable[..., PartResult]) -> PreparationSummary:
        """Every part that is not there yet."""
        if self.options.workers == 1 or len(self.jobs) < 2:
            self._alone(work)
        else:
            self._parallel(work)
        self.summary.seconds = time.monotonic() - self.started
        return self.summary

    def _alone(self, work: Callable[..., PartResult]) -> None:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            self._report(done)

        for number, items in self.jobs.items():
            self._note(work(number, items, step=step))

    def _parallel(self, work: Callable[..., PartResult]) -> None:
        context = worker_context(None)
        done = context.Value("q", 0)
        workers = min(self.options.workers, len(self.jobs))
        with _killing_children():
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(work, done))
            try:
                left: set[Future[PartResult]] = {pool.submit(_work, *job) for job in self.jobs.items()}
                while left:
                    finished, left = wait(left, timeout=self.options.report_seconds, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._note(future.result())
                    self._report(done.value)
            except BrokenProcessPool as error:
                raise lost_worker(error) from error
            pool.shutdown()

    def keep(self, parts: Mapping[int, tuple[Sequence[int], Unread]]) -> None:
        """Count the parts that were there already, of each its items and what of them could not be read.

        Raises:
            DataError: the budget of unreadable items is used up.
        """
        self.summary.kept = len(parts)
        for items, unread in parts.values():
            self._count(items, unread.files)
        self._require_budget()

    def _note(self, result: PartResult) -> None:
        """Count a part that was written.

        Raises:
            DataError: the budget of unreadable items is used up.
        """
        self.summary.written += 1
        self.summary.rows += result.rows
        self.summary.size += result.size
        self.summary.holes.merge(result.holes)
        self._count(self.jobs[result.number], result.skipped)
        self._require_budget()

    def _count(self, items: Sequence[int], skipped: list[SkippedFile]) -> None:
        self.summary.skipped += skipped
        self.ledger.record({"indices": items, "skipped": skipped})

    def _require_budget(self) -> None:
        if self.ledger.over_budget():
            raise DataError(
                f"{plural(self.ledger.bad, 'unreadable item')} among {self.ledger.seen} "
                f"{agree(self.ledger.bad, 'is', 'are')} more than --max_bad_fraction "
                f"{self.options.max_bad_fraction:g} allows; {agree(self.ledger.bad, 'it is', 'they are')} listed in "
                f"{self.ledger.path}. Repair or remove {agree(self.ledger.bad, 'it', 'them')}, or increase "
                f"--max_bad_fraction. The last: {self.summary.skipped[-1].path}"
            )

    def _report(self, done: int) -> None:
        now = time.monotonic()
        if now - self.reported < self.options.report_seconds or not done:
            return
        self.reported = now
        rate = done / (now - self.started)
        left = (self.total - done) / rate
        self.say(f"{done} of {self.total} items ({done / self.total:.0%}), {rate:.1f} per second, {clock(left)} left")


@contextmanager
def _killing_children() -> Iterator[None]:
    """After an error the processes started here are killed: they ignore signals, and would finish their part."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise


# Of a worker: what it writes parts with, and the count of items that all workers share.
_worker: tuple[Callable[..., PartResult], Any] | None = None


def _start(work: Callable[..., PartResult], done: Any) -> None:
    global _worker
    start_worker(0)
    _worker = work, done


def _work(number: int, items: Sequence[int]) -> PartResult:
    assert _worker is not None
    work, done = _worker

    def step() -> None:
        with done.get_lock():
            done.value += 1

    return work(number, items, step=step)

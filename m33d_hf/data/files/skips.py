"""The list of unusable files, each counted once, and the share of them beyond which the run must stop."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m33d_hf.data.plural import plural
from m33d_hf.data.sample import VideoHandle, known_lacks
from m33d_hf.errors import ConfigError, DataError

FILE_NAME = "skipped_files.csv"
HEADER = ("path", "reason", "key")
# A fraction of the first few samples says little: on larger data sets the budget is that of this many
# samples.
MINIMUM_SEEN = 1000
_INCOMPLETE = "incomplete, used up to where it ends: "


class SkippedFile(NamedTuple):
    """One file that is unusable, or lacks a part: its path, what is wrong, and the key of the sample that needed it."""

    path: str
    reason: str
    key: str

    @property
    def is_used(self) -> bool:
        """Whether the file is used up to where it ends and listed only for what is missing (`incomplete_file`)."""
        return self.reason.startswith(_INCOMPLETE)


def unreadable(error: Exception, key: str) -> SkippedFile:
    """The entry of a file that raised while the sample `key` was read."""
    path = getattr(error, "path", None) or getattr(error, "filename", None) or key  # ours, and those of the system
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return SkippedFile(str(path), str(reason), key)


def incomplete_file(handle: VideoHandle) -> SkippedFile | None:
    """What is known to be missing from a video, as an entry of the list; None if nothing is.

    Raises:
        CorruptFileError: it cannot be opened.
    """
    reasons = "; ".join(lack.reason for lack in known_lacks(handle))
    return incomplete_entry(str(getattr(handle, "file", handle.key)), reasons, handle.key) if reasons else None


def incomplete_entry(path: str, reason: str, key: str) -> SkippedFile:
    """An entry of the list for a file that is used up to where it ends; `reason` says what is missing."""
    return SkippedFile(path, _INCOMPLETE + reason, key)


class SkipLedger:
    """Collects the skipped files of the batches that one process consumed.

    Every rank keeps one; all may append to the same CSV (one write call per flush, existing paths are not
    repeated). The budget counts only what this process has seen since it started, so that a resumed run is
    not judged by its predecessor's list over a handful of new samples.

    Args:
        path: the CSV, or None to keep the list in memory only. It is created with the first skipped file.
        max_bad_fraction: share of unusable samples that a run tolerates, in [0, 1].
        data_size: number of samples in the data set.
    """

    def __init__(self, path: str | Path | None, max_bad_fraction: float, data_size: int) -> None:
        if not 0.0 <= max_bad_fraction <= 1.0:
            raise ConfigError(f"data.max_bad_fraction is {max_bad_fraction}; it must be a share between 0 and 1")
        self.path = None if path is None else Path(path)
        self.max_bad_fraction = max_bad_fraction
        self.data_size = data_size
        self.files: dict[str, SkippedFile] = {}
        self._seen: set[int] = set()
        self._incomplete: set[str] = set()
        self._unwritten: list[SkippedFile] = []

    def record(self, meta: Mapping[str, Any]) -> None:
        """Take note of a batch's ``meta`` ("indices", "skipped", "incomplete") and append new files to the CSV.

        Incomplete files are listed and do not count: they are used.
        """
        self._seen.update(meta.get("indices", ()))
        for file in meta.get("incomplete", ()):
            if file.path not in self._incomplete:
                self._incomplete.add(file.path)
                self._unwritten.append(file)
        for file in meta.get("skipped", ()):
            if file.path not in self.files:
                self.files[file.path] = file
                self._unwritten.append(file)
        if self._unwritten and self.path is not None:
            append_skipped(self.path, self._unwritten)
        self._unwritten.clear()

    @property
    def bad(self) -> int:
        """Number of distinct unusable files met so far by this process."""
        return len(self.files)

    @property
    def seen(self) -> int:
        """Number of distinct samples used so far by this process, the unusable ones included."""
        return max(len(self._seen), self.bad)

    @property
    def bad_fraction(self) -> float:
        """`bad` / `seen`; 0 before the first batch."""
        return self.bad / self.seen if self.seen else 0.0

    def over_budget(self, bad: int | None = None, seen: int | None = None) -> bool:
        """Tell whether `bad` of `seen` samples (sums over ranks; default: this process) exceed the budget.

        Below `MINIMUM_SEEN` samples the fraction is taken of `MINIMUM_SEEN` or of the whole data set,
        whichever is smaller: one bad file in the first batch of a million is no reason to stop. One bad file
        never is, however small the data set, unless the fraction is 0.
        """
        bad = self.bad if bad is None else bad
        seen = self.seen if seen is None else seen
        allowed = self.max_bad_fraction * max(seen, min(self.data_size, MINIMUM_SEEN), 1)
        return bad > (max(allowed, 1.0) if self.max_bad_fraction > 0 else 0.0)

    def check(self, bad: int | None = None, seen: int | None = None) -> None:
        """Raise on every rank alike when the (reduced) counts are over the budget.

        Raises:
            DataError: too many unusable files; names the CSV and the first of them.
        """
        if not self.over_budget(bad, seen):
            return
        bad = self.bad if bad is None else bad
        seen = self.seen if seen is None else seen
        examples = "".join(f"\n  {file.path}: {file.reason}" for file in list(self.files.values())[:3])
        listed = f"They are listed in {self.path}. " if self.path is not None else ""
        raise DataError(
            f"{bad} unusable files among the {seen} samples used so far (data set of {self.data_size}) are more than "
            f"data.max_bad_fraction = {self.max_bad_fraction:g} allows. {listed}Repair or remove them, or increase "
            f"--data.max_bad_fraction.{examples}"
        )


def read_skipped(path: str | Path) -> list[SkippedFile]:
    """Read a skipped-files CSV; an absent file is an empty list."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    return [SkippedFile(*row) for row in rows if row != HEADER and len(row) == len(HEADER)]


def count_skipped(folder: str | Path) -> str:
    """A sentence about the list in a folder; empty if there is no list."""
    files = read_skipped(Path(folder) / FILE_NAME)
    used = sum(file.is_used for file in files)
    counts = [f"{plural(len(files) - used, 'file')} left out"] if len(files) > used else []
    counts += [f"{used} incomplete and used up to where they end"] if used else []
    return f"{', '.join(counts)}, see {FILE_NAME} there" if counts else ""


def append_skipped(path: Path, files: Iterable[SkippedFile]) -> None:
    """Append the files not listed yet, as one write, so that ranks do not tear each other's lines."""
    known = {(file.path, file.is_used) for file in read_skipped(path)}
    fresh: dict[tuple[str, bool], SkippedFile] = {}
    for file in files:
        if (file.path, file.is_used) not in known:
            fresh.setdefault((file.path, file.is_used), file)
    if not fresh:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if os.fstat(descriptor).st_size == 0:
            writer.writerow(HEADER)
        writer.writerows(fresh.values())
        os.write(descriptor, text.getvalue().encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)

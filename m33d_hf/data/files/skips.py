"""The list of unusable files, each counted once, and the share of them beyond which the run must stop."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m33d_hf.data.plural import plural
from m33d_hf.data.sample import Hole, VideoHandle, known_lacks
from m33d_hf.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

FILE_NAME = "skipped_files.csv"
HEADER = ("path", "reason", "key")
# A fraction of the first few samples says little: on larger data sets the budget is that of this many
# samples.
MINIMUM_SEEN = 1000
_INCOMPLETE = "incomplete, used up to where it ends: "
_HOLE = "depth is missing, a hole in its clips: "


class SkippedFile(NamedTuple):
    """One file that is unusable, or lacks a part: its path, what is wrong, and the key of the sample that needed it.

    Without a key, no sample did: a source had no use for the file.
    """

    path: str
    reason: str
    key: str

    @property
    def is_incomplete(self) -> bool:
        """Whether the file is used up to where it ends (`incomplete_file`)."""
        return self.reason.startswith(_INCOMPLETE)

    @property
    def is_hole(self) -> bool:
        """Whether only depth of frames is missing, which clips have as holes (`hole_entry`)."""
        return self.reason.startswith(_HOLE)

    @property
    def bare_reason(self) -> str:
        """The reason without the words for what it means."""
        return self.reason.removeprefix(_INCOMPLETE).removeprefix(_HOLE)

    @property
    def is_used(self) -> bool:
        """Whether what it belongs to is used, and it is listed only for what is missing."""
        return self.is_incomplete or self.is_hole

    @property
    def listed_as(self) -> tuple[str, bool, bool, bool]:
        """What no list holds twice; a file that had no use may turn out to be unreadable where it has one."""
        return self.path, self.is_incomplete, self.is_hole, bool(self.key)


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


def hole_entry(path: str, reason: str, key: str) -> SkippedFile:
    """An entry of the list for frames of clips that lack their depth; `reason` says what is wrong with the first."""
    return SkippedFile(path, _HOLE + reason, key)


def hole_entries(holes: Iterable[Hole], key: str) -> list[SkippedFile]:
    """Entries of the list for the frames without depth of the sample `key`."""
    return [hole_entry(hole.path, hole.reason, key) for hole in holes]


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
        self._list = None if self.path is None else SkippedList(self.path)
        self.max_bad_fraction = max_bad_fraction
        self.data_size = data_size
        self.files: dict[str, SkippedFile] = {}
        self._seen: set[int] = set()
        self._incomplete: set[str] = set()
        self._holes: set[str] = set()
        self._unwritten: list[SkippedFile] = []

    def record(self, meta: Mapping[str, Any]) -> None:
        """Take note of a batch's ``meta``, and append new files to the CSV.

        It may hold "indices", "skipped", "incomplete" and "holes". Incomplete files, and frames of clips without depth,
        are listed and do not count: they are used. The first such frame is logged.
        """
        self._seen.update(meta.get("indices", ()))
        for file in meta.get("holes", ()):
            if not self._holes:
                reason = file.reason.rstrip(".")
                logger.warning("%s: %s. Such frames are counted, and listed in %s", file.path, reason, FILE_NAME)
            if file.path not in self._holes:
                self._holes.add(file.path)
                self._unwritten.append(file)
        for file in meta.get("incomplete", ()):
            if file.path not in self._incomplete:
                self._incomplete.add(file.path)
                self._unwritten.append(file)
        for file in meta.get("skipped", ()):
            if file.path not in self.files:
                self.files[file.path] = file
                self._unwritten.append(file)
        if self._unwritten and self._list is not None:
            self._list.append(self._unwritten)
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
        return _rows(stream.read())


def count_skipped(folder: str | Path) -> str:
    """A sentence about the list in a folder; empty if there is no list."""
    files = read_skipped(Path(folder) / FILE_NAME)
    left_out = sum(not file.is_used for file in files)
    incomplete, holes = sum(file.is_incomplete for file in files), sum(file.is_hole for file in files)
    counts = [f"{plural(left_out, 'file')} left out"] if left_out else []
    counts += [f"{incomplete} incomplete and used up to where they end"] if incomplete else []
    counts += [f"depth missing or damaged at {plural(holes, 'place')}, holes in its clips"] if holes else []
    return f"{', '.join(counts)}, see {FILE_NAME} there" if counts else ""


def append_skipped(path: Path, files: Iterable[SkippedFile]) -> None:
    """Append the files not listed yet, once; for many calls see `SkippedList`."""
    SkippedList(path).append(files)


class SkippedList:
    """The CSV of skipped files, to which several ranks append; what was read of it is not read again.

    Args:
        path: the CSV; it is created with the first file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[tuple[str, bool, bool, bool]] = set()
        self._read = 0  # bytes

    def append(self, files: Iterable[SkippedFile]) -> None:
        """Append the files not listed yet, as one write, so that ranks do not tear each other's lines."""
        self._look()
        fresh: dict[tuple[str, bool, bool, bool], SkippedFile] = {}
        for file in files:
            if file.listed_as not in self._known:
                fresh.setdefault(file.listed_as, file)
        if not fresh:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            if os.fstat(descriptor).st_size == 0:
                writer.writerow(HEADER)
            writer.writerows(fresh.values())
            os.write(descriptor, text.getvalue().encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)

    def _look(self) -> None:
        """Read what was appended, here or by other ranks, since the last time."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._read:  # removed, or begun anew
            self._known, self._read = set(), 0
        if size == self._read:
            return
        with self.path.open("rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        self._known |= {file.listed_as for file in _rows(data.decode("utf-8", "surrogateescape"))}
        self._read += len(data)


def _rows(text: str) -> list[SkippedFile]:
    rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))]
    return [SkippedFile(*row) for row in rows if row != HEADER and len(row) == len(HEADER)]

"""Checks the data of a run: measures its splits, judges what was found, and writes the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m33d_hf.data.files.atomic_writing import write_atomically, write_text_atomically
from m33d_hf.data.files.skips import FILE_NAME, HEADER, SkippedFile, append_skipped
from m33d_hf.data.loader.skip_list import SkipList
from m33d_hf.data.measuring.duplicates import Pair, beside_cuts, near_duplicates
from m33d_hf.data.measuring.findings import Finding, judge_duplicates, judge_split, said_once
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.measuring.wording import describe_findings, describe_split
from m33d_hf.data.progress import Say
from m33d_hf.data.source import Source
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.roots import RootsSource
from m33d_hf.errors import DataError, MissingDependencyError, MissingSplitError
from m33d_hf.inspection.next_step import next_step, were_videos
from m33d_hf.inspection.report import report_dict
from m33d_hf.inspection.request import Request
from m33d_hf.inspection.running import forget_partial, measure_split
from m33d_hf.inspection.sheet import write_sheet
from m33d_hf.inspection.splits import Split, open_split
from m33d_hf.inspection.unread_labels import find_unread_labels

REPORT, SHEET, DUPLICATES = "report.json", "contact_sheet.png", "duplicates.csv"
FINE, PROBLEMS = 0, 1
_MOST_PAIRS = 10_000


def check_data(request: Request, say: Say) -> int:
    """Check the splits of a run and write `report.json`, `skipped_files.csv`, `duplicates.csv` and a contact sheet.

    Args:
        request: what to check.
        say: takes lines for people.

    Returns:
        0 if nothing was found, 1 if something was that stops or spoils a run.

    Raises:
        ConfigError: options that contradict each other.
        WorkerLostError: a worker was killed; the same command continues.
    """
    known = [] if request.args.data.skip_list is None else list(SkipList(request.args.data.skip_list).entries)
    request.output.mkdir(parents=True, exist_ok=True)
    unread = find_unread_labels(request)
    args = request.args if unread is None else unread.args
    measured, findings, instead = _measured(replace(request, args=args), say)
    if not measured and were_videos(request):  # how frames are named is no advice for who has videos
        findings = [
            Finding("train and evaluation", "these are videos, and were checked as frames, of which there are none")
        ]
    findings += [] if unread is None else [unread.finding]
    findings += [finding for split, tally in measured for finding in judge_split(split, tally)]
    findings = said_once(findings)
    pairs = _duplicates(measured)
    hashed = [len(tally.hashes) for _, tally in measured]
    if len(measured) > 1:
        findings += judge_duplicates(pairs, (hashed[0], hashed[-1]), _beside_cuts(measured) if pairs else None)
    _write_skipped(request.output / FILE_NAME, known, measured)
    _write_pairs(request.output / DUPLICATES, pairs)
    _write_report(request.output / REPORT, measured, findings)
    sheet = _sheet(request.output / SHEET, measured)
    forget_partial(request.output)
    told: set[str] = set()
    for split, tally in measured:
        lines = [line for line in describe_split(split, tally) if not (line.startswith("note: ") and line in told)]
        told.update(lines)
        say("== " + "\n".join(lines))
    say("== findings")
    say("\n".join(describe_findings(findings)) or "nothing was found that stops or spoils a run")
    say(f"== report: {', '.join([REPORT, FILE_NAME, *([DUPLICATES] if pairs else []), sheet])} in {request.output}")
    listed = any(tally.unusable for _, tally in measured) or request.args.data.skip_list is not None
    skip_list = str(request.output / FILE_NAME) if listed else None
    trained = next((tally for split, tally in measured if split.name == "train"), None)
    labels = {} if unread is None else unread.options
    say(next_step(request, trained, findings, skip_list, instead, labels))
    return PROBLEMS if any(finding.is_problem for finding in findings) else FINE


def _measured(request: Request, say: Say) -> tuple[list[tuple[Split, SplitTally]], list[Finding], str | None]:
    """The splits that can be opened with their figures, what is to be said of those that cannot, and what a run takes
    for evaluation where the recipe's split is one that the data does not have."""
    found: list[tuple[Split, SplitTally]] = []
    findings: list[Finding] = []
    instead: str | None = None
    for train in (True, False):
        name = "train" if train else "evaluation"
        try:
            split = open_split(request.args, train, request.max_samples, request.frames)
        except DataError as error:
            if isinstance(error, MissingSplitError) and found and not request.eval_split_given:
                instead = error.instead or "null"
                findings.append(Finding(name, f"the training split alone is checked: {_told(error)}", False))
            else:
                findings = _with_unopened(findings, name, _told(error))
            continue
        if split is not None:
            found.append((split, measure_split(split, request.output, request.workers, say)))
    return found, findings, instead


def _told(error: DataError) -> str:
    return str(error).removeprefix("Evaluation data: ")


def _with_unopened(findings: Sequence[Finding], name: str, reason: str) -> list[Finding]:
    """The findings and that a split cannot be opened; said once where both fail for the same reason."""
    text = f"cannot be opened: {reason}"
    if findings and text.startswith(findings[-1].text.rstrip(".")):
        return [*findings[:-1], Finding("train and evaluation", findings[-1].text)]
    return [*findings, Finding(name, text)]


def _duplicates(measured: Sequence[tuple[Split, SplitTally]]) -> list[Pair]:
    if len(measured) < 2:
        return []
    pairs = []
    for pair in near_duplicates(measured[0][1].hashes, measured[1][1].hashes):
        pairs.append(pair)
        if len(pairs) == _MOST_PAIRS:
            break
    return pairs


def _beside_cuts(measured: Sequence[tuple[Split, SplitTally]]) -> dict[str, str]:
    """The samples beside a cut through a sequence that look like its other side; none of other sources than frames."""
    (one, first), (other, second) = measured
    return beside_cuts(first.hashes, second.hashes, {**_sequences(one.source), **_sequences(other.source)})


def _sequences(source: Source) -> dict[str, str]:
    """Key -> sequence of the items of a source of frames, of each of several folders too."""
    if isinstance(source, FrameSource):
        return dict(zip((item.key for item in source.sequences), source.sequence_names(), strict=True))
    if isinstance(source, RootsSource):
        members = {name: _sequences(member) for name, member in source.members.items()}
        return {f"{name}/{key}": f"{name}/{own}" for name, found in members.items() for key, own in found.items()}
    return {}


def _write_skipped(path: Path, known: list[SkippedFile], measured: Sequence[tuple[Split, SplitTally]]) -> None:
    """The list that a run takes as `--data.skip_list`: what it was given itself, and what was found now."""
    write_text_atomically(path, ",".join(HEADER) + "\n")
    entries = list(known)
    for split, tally in measured:
        root = split.source.root or Path()
        entries += [*tally.unusable, *tally.incomplete, *tally.holes, *tally.damaged_holes]
        entries += [SkippedFile(str(root / entry.path), entry.reason, "") for entry in split.source.unpaired]
    append_skipped(path, entries)


def _write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    if not pairs:
        path.unlink(missing_ok=True)
        return

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("train", "evaluation", "bits_of_256"), *pairs])

    write_atomically(path, write)


def _write_report(path: Path, measured: Sequence[tuple[Split, SplitTally]], findings: Sequence[Finding]) -> None:
    report: dict[str, Any] = {
        "version": 1,
        "findings": [vars(finding) for finding in findings],
        "splits": {split.name: report_dict(split, tally) for split, tally in measured},
    }
    write_text_atomically(path, json.dumps(report, indent=1) + "\n")


def _sheet(path: Path, measured: Sequence[tuple[Split, SplitTally]]) -> str:
    """The name of the contact sheet, or why there is none."""
    path.unlink(missing_ok=True)
    try:
        written = write_sheet([split for split, _ in measured], path)
    except MissingDependencyError as error:
        return f"no contact sheet ({error})"
    return "no contact sheet (nothing could be read)" if written is None else written.name

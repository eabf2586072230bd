"""The dry run's look at a data set: a few frames and files, measured and judged as the doctor does with all of them."""

from __future__ import annotations

from m33d_hf.data.measuring.findings import judge_split
from m33d_hf.data.measuring.samples import Looks, measure, open_sample, spread
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.measuring.wording import describe_findings, describe_split

FRAMES = 16
FILES = 200  # of clips and videos, to see whether they are whole and long enough: some three seconds


def first_look(subject: Subject, frames: int = FRAMES, files: int = FILES) -> SplitTally:
    """Read some frames, evenly spread over a source; what cannot be read is listed and raises no error.

    Args:
        subject: the split.
        frames: number of frames to read; if there are fewer samples, so many frames of each that they suffice.
        files: number of clips and videos to open for their lengths.
    """
    source, tally = subject.source, SplitTally()
    read = spread(len(source), frames)
    looks = Looks(-(-frames // max(1, len(read))), edges=False, hashes=False)
    for row in read:
        measure(source, row, looks, tally)
    if max(tally.lengths, default=1) > 1 or tally.unusable:
        for row in sorted(set(spread(len(source), files)) - set(read)):
            open_sample(source, row, tally)
    return tally


def describe_look(subject: Subject, tally: SplitTally) -> list[str]:
    """Lines on what was seen, problems and notes last."""
    findings = judge_split(subject, tally)
    return [*describe_split(subject, tally), *describe_findings(findings)]

"""What the figures of a split mean for a run: problems that stop or spoil it, and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from m33d_hf.data.depth.checks import DepthCheck
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.sources.frames.windows import TOO_SHORT
from m33d_hf.inspection.duplicates import MOST_DIFFERENT, Pair
from m33d_hf.inspection.measuring import BLANK
from m33d_hf.inspection.misalignment import LEAST_FRAMES, suspected_shift, working_factor
from m33d_hf.inspection.splits import Split
from m33d_hf.inspection.tallies import EXAMPLES, SceneTally, SplitTally

_SHORT_SHARE = 0.1  # of the clips; fewer are padded or left out without harm
_MOSTLY_INVALID = 0.5
_COPY = 3  # bits by which copies differ at most, re-encoded or not
_ALIKE_SHARE = 0.1  # of the evaluation samples that may look like training samples without being copies
_LEAST_FOR_SCENES = 3


@dataclass(frozen=True)
class Finding:
    """One sentence on a split; `is_problem` if it stops or spoils a run."""

    split: str
    text: str
    is_problem: bool = True


def judge_split(split: Split, tally: SplitTally) -> list[Finding]:
    """All findings of one split, the gravest first."""
    problems = [
        *_stopping(tally),
        *_unreadable(tally),
        *_depth(split, tally),
        *_misaligned(tally),
        *_lengths(split, tally, True),
        *_labels(split, tally, True),
        *_sizes(split, tally),
    ]
    notes = [*_lengths(split, tally, False), *_labels(split, tally, False), *_left_out(split, tally)]
    return [Finding(split.name, text) for text in problems] + [Finding(split.name, text, False) for text in notes]


def judge_duplicates(pairs: Sequence[Pair], compared: tuple[int, int]) -> list[Finding]:
    """The finding on pictures that both splits hold; none without any."""
    if not pairs:
        return []
    # Where a sequence is cut into splits, the frames on both sides of the cut look alike; that is no fault.
    copies = sum(pair.distance <= _COPY for pair in pairs)
    evaluated = len({pair.second for pair in pairs})
    shown = "; ".join(f"{first} = {second} ({distance} bits)" for first, second, distance in pairs[:EXAMPLES])
    return [
        Finding(
            "train and evaluation",
            f"{evaluated} of {compared[1]} evaluation samples look like training samples ({len(pairs)} pairs, at most "
            f"{MOST_DIFFERENT} of 256 bits apart, among {compared[0]} x {compared[1]} compared; see duplicates.csv): "
            f"{shown}. An evaluation on training data proves nothing; correct the split.",
            copies > 0 or evaluated > _ALIKE_SHARE * compared[1],
        )
    ]


def _stopping(tally: SplitTally) -> Iterator[str]:
    for kind, count in tally.stopping.items():
        yield f"{count} samples or frames stop a run ({kind}), the first: {tally.stopping_examples[kind]}"


def _unreadable(tally: SplitTally) -> Iterator[str]:
    broken = [entry for entry in tally.unusable if entry.reason != BLANK]
    if broken:
        yield f"{len(broken)} files or frames cannot be read, the first: {broken[0].path}: {broken[0].reason}"


def _depth(split: Split, tally: SplitTally) -> Iterator[str]:
    total = tally.depth
    if tally.blank:
        yield f"{tally.blank} of {tally.samples} samples have no valid depth at all (all holes)"
    if total.frames and total.invalid_share > _MOSTLY_INVALID:
        yield f"{total.invalid_share:.0%} of the depth pixels are invalid; check invalid_values, and the unit"
    if total.looks_rotated and (split.source.depth_spec is None or split.source.depth_spec.unit != "sunrgbd"):
        yield (
            f"{total.eighths / total.stored:.0%} of the stored depth values are multiples of 8, as in SUN RGB-D, which "
            "rotates the bits of its millimetres by three: read like this, depth is eight times too large. Use "
            "--data.source sunrgbd, or --data.options.depth_unit sunrgbd."
        )
    yield from _foreign_scenes(split, tally)


def _foreign_scenes(split: Split, tally: SplitTally) -> Iterator[str]:
    """Scenes whose median depth another unit would bring near that of the middle scene (`DepthCheck`)."""
    spec = split.source.depth_spec
    if spec is None or spec.kind != "metric" or spec.scale is None:
        return
    medians = {name: scene.depth.quantile(0.5) for name, scene in tally.scenes.items()}
    known = {name: value for name, value in medians.items() if value}
    if len(known) < _LEAST_FOR_SCENES:
        return
    middle = median(known.values())
    check = DepthCheck(spec, spec.scale > 1, middle, middle, middle)
    objections = {name: check.objection(value, value * spec.scale) for name, value in known.items()}
    foreign = [(name, reason) for name, reason in objections.items() if reason is not None]
    yield from (f"scene {name}: {reason.replace('other files', 'middle scene')}" for name, reason in foreign[:EXAMPLES])
    if len(foreign) > EXAMPLES:
        yield f"{len(foreign) - EXAMPLES} further scenes differ as much; see report.json"


def _misaligned(tally: SplitTally) -> Iterator[str]:
    """Scenes by themselves where they have enough frames, and all together, which says it once where all are."""
    whole = SceneTally()
    for scene in tally.scenes.values():
        if scene.edges:
            whole.add_edges(scene.edges, scene.edge_frames)
    size = tally.sizes.most_common(1)[0][0] if tally.sizes else "1x1"
    factor = working_factor(*map(int, size.split("x")))
    found = {"all scenes together": whole} if whole.edges else {}
    overall = suspected_shift(whole.edges, whole.edge_frames) if whole.edges else None
    if overall is None:
        found = {f"scene {name}": scene for name, scene in tally.scenes.items() if scene.edge_frames >= LEAST_FRAMES}
    shifts = {name: suspected_shift(scene.edges, scene.edge_frames) for name, scene in found.items()}
    shifted = {name: shift for name, shift in shifts.items() if shift is not None}
    for name, shift in list(shifted.items())[:EXAMPLES]:
        yield (
            f"{name}: depth seems to lie {_side(shift.right * factor, 'to the right', 'to the left')} and "
            f"{_side(shift.down * factor, 'down', 'up')} of where RGB shows it (within {factor} pixels; edges of "
            f"{found[name].edge_frames} frames agree {min(shift.gain, 99):.1f} times better there). Register depth to "
            "the colour camera; resizing does not."
        )
    if len(shifted) > EXAMPLES:
        yield f"{len(shifted) - EXAMPLES} further scenes seem to be misaligned; see report.json"


def _side(pixels: int, positive: str, negative: str) -> str:
    return f"{abs(pixels)} pixels {positive if pixels >= 0 else negative}"


def _lengths(split: Split, tally: SplitTally, problems: bool) -> Iterator[str]:
    """Clips that are padded, and sequences that are left out, because they are too short."""
    padded = sum(count for length, count in tally.lengths.items() if length < split.clip_frames)
    dropped = [entry for entry in split.source.unpaired if entry.reason.startswith(TOO_SHORT)]
    for count, total, what in (
        (padded, tally.samples, f"clips or videos are shorter (from {min(tally.lengths, default=0)} frames) than the "
         f"{split.clip_frames} source frames of a clip: their last frame is repeated"),
        (len(dropped), len(dropped) + split.total, "sequences are left out because they are too short, the first: "
         + "".join(f"{entry.path} ({entry.reason})" for entry in dropped[:1])),
    ):  # fmt: skip
        if count and (count > _SHORT_SHARE * total) == problems:
            yield f"{count} of {total} {what}"


def _labels(split: Split, tally: SplitTally, problems: bool) -> Iterator[str]:
    labelled = sum(count for number, count in tally.label_pixels.items() if number != IGNORE_INDEX)
    names = split.source.class_names
    if tally.with_labels and not labelled:
        if problems:
            yield "every label pixel is ignored"
        return
    for given, found in ((names, tally.label_pixels), (split.source.action_names, tally.action_samples)):
        missing = [name for number, name in enumerate(given or ()) if number not in found]
        if given and found and missing and not problems:
            more = f" and {len(missing) - EXAMPLES} more" if len(missing) > EXAMPLES else ""
            yield f"{len(missing)} of {len(given)} classes never occur: {', '.join(missing[:EXAMPLES])}{more}"


def _sizes(split: Split, tally: SplitTally) -> Iterator[str]:
    small = [size for size in tally.sizes if min(map(int, size.split("x"))) < split.least_side]
    if small:
        yield f"frames of {', '.join(small[:EXAMPLES])} are smaller than the model's patch of {split.least_side} pixels"


def _left_out(split: Split, tally: SplitTally) -> Iterator[str]:
    others = [entry for entry in split.source.unpaired if not entry.reason.startswith(TOO_SHORT)]
    if others:
        yield f"{len(others)} files are not used by the source, the first: {others[0].path} ({others[0].reason})"
    if tally.incomplete:
        first = tally.incomplete[0]
        yield f"{len(tally.incomplete)} videos are used up to where they end, the first: {first.path}: {first.reason}"

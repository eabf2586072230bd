"""What the figures of a split mean for a run: problems that stop or spoil it, and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from m33d_hf.data.depth.checks import SCENES, DepthCheck
from m33d_hf.data.files.skips import SkippedFile
from m33d_hf.data.measuring.duplicates import MOST_DIFFERENT, Pair
from m33d_hf.data.measuring.misalignment import LEAST_FRAMES, EdgeTally, Misplacement, suspected_misplacement
from m33d_hf.data.measuring.samples import BLANK
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.measuring.tallies import EXAMPLES, SplitTally
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.source import Source
from m33d_hf.data.sources.frames.windows import TOO_SHORT

_SHORT_SHARE = 0.1  # of the clips; fewer are padded or left out without harm
_MOSTLY_INVALID = 0.5
_COPY = 3  # bits by which copies differ at most, re-encoded or not
_ALIKE_SHARE = 0.1  # of the evaluation samples that may look like training samples without being copies
_MOSTLY_ALIKE = 0.5  # of them that may look like training samples at all, beside a cut through one recording, too
_LEAST_FOR_SCENES = 3
_FEW = 3  # files that are named in one finding


@dataclass(frozen=True)
class Finding:
    """One sentence on a split; `is_problem` if it stops or spoils a run."""

    split: str
    text: str
    is_problem: bool = True


def judge_split(subject: Subject, tally: SplitTally) -> list[Finding]:
    """All findings of one split, the gravest first."""
    problems = [
        *_stopping(tally),
        *_unreadable(subject, tally),
        *_depth(subject, tally),
        *_misaligned(tally),
        *_lengths(subject, tally, True),
        *_labels(subject, tally, True),
        *_sizes(subject, tally),
    ]
    notes = [
        *_near(subject, tally),
        *_foreign_scenes(subject, tally, False),
        *_lengths(subject, tally, False),
        *_labels(subject, tally, False),
        *_left_out(subject, tally),
    ]
    return [Finding(subject.name, text) for text in problems] + [Finding(subject.name, text, False) for text in notes]


def said_once(findings: Sequence[Finding]) -> list[Finding]:
    """What holds for both splits word by word becomes one finding on both."""
    splits: dict[tuple[str, bool], list[str]] = {}
    for each in findings:
        splits.setdefault((each.text, each.is_problem), []).append(each.split)
    return [Finding(" and ".join(names), text, is_problem) for (text, is_problem), names in splits.items()]


def judge_duplicates(
    pairs: Sequence[Pair], compared: tuple[int, int], beside: Mapping[str, str] | None = None
) -> list[Finding]:
    """The finding on pictures that both splits hold; none without any.

    Args:
        pairs: of samples that look alike.
        compared: samples of each split.
        beside: those beside a cut through a sequence that look like its other side (`beside_cuts`). They are no fault,
            unless they are most of the evaluation split.
    """
    if not pairs:
        return []
    of_cut = beside or {}
    elsewhere = [pair for pair in pairs if (cut := of_cut.get(pair.first)) is None or cut != of_cut.get(pair.second)]
    copies = sum(pair.distance <= _COPY for pair in elsewhere)
    alike = len({pair.second for pair in elsewhere})
    evaluated = len({pair.second for pair in pairs})
    is_problem = copies > 0 or alike > _ALIKE_SHARE * compared[1] or evaluated > _MOSTLY_ALIKE * compared[1]
    advice = "An evaluation on training data proves nothing; correct the split."
    if not elsewhere and not is_problem:
        advice = (
            "All of them lie beside a cut through one recording, where its camera hardly moves; figures of these "
            "samples say little. Recordings of their own for evaluation say more."
        )
    shown = "; ".join(f"{first} = {second} ({distance} bits)" for first, second, distance in pairs[:EXAMPLES])
    return [
        Finding(
            "train and evaluation",
            f"{evaluated} of {plural(compared[1], 'evaluation sample')} {agree(evaluated, 'looks', 'look')} like "
            f"training samples ({plural(len(pairs), 'pair')}, at most {MOST_DIFFERENT} of 256 bits apart, among "
            f"{compared[0]} x {compared[1]} compared; see duplicates.csv): "
            f"{shown}. {advice}",
            is_problem,
        )
    ]


def _stopping(tally: SplitTally) -> Iterator[str]:
    for kind, count in tally.stopping.items():
        what = agree(count, "sample or frame stops", "samples or frames stop")
        yield f"{count} {what} a run ({kind}), the first: {tally.stopping_examples[kind]}"


def _unreadable(subject: Subject, tally: SplitTally) -> Iterator[str]:
    broken = [entry for entry in tally.unusable if entry.reason != BLANK]
    if broken:
        shown = "; ".join(f"{entry.path}: {entry.reason}" for entry in broken[:_FEW])
        what = agree(len(broken), "file or frame", "files or frames")
        yield f"{len(broken)} {what} cannot be read: {shown}{'; ...' if len(broken) > _FEW else ''}"
    damaged = [entry for entry in subject.source.unpaired if entry.damaged]
    if damaged:
        what = agree(len(damaged), "file is", "files are")
        yield f"{len(damaged)} {what} damaged, the first: {damaged[0].path}: {damaged[0].reason}"
    if tally.damaged_holes:
        yield _holes("damaged", tally.damaged_depth, tally, tally.damaged_holes[0])


def _holes(what: str, count: int, tally: SplitTally, first: SkippedFile) -> str:
    return (
        f"the depth of {count} of {plural(tally.frames, 'frame')} read is {what}: clips have holes there, the first: "
        f"{first.path}: {first.bare_reason}"
    )


def _depth(subject: Subject, tally: SplitTally) -> Iterator[str]:
    total = tally.depth
    if tally.blank:
        have = agree(tally.blank, "has", "have")
        yield f"{tally.blank} of {tally.samples} samples {have} no valid depth at all (all holes)"
    if total.frames and total.invalid_share > _MOSTLY_INVALID:
        yield f"{total.invalid_share:.0%} of the depth pixels are invalid; check invalid_values, and the unit"
    if total.looks_rotated and (subject.source.depth_spec is None or subject.source.depth_spec.unit != "sunrgbd"):
        yield (
            f"{total.eighths / total.stored:.0%} of the stored depth values are multiples of 8, as in SUN RGB-D, which "
            "rotates the bits of its millimetres by three: read like this, depth is eight times too large. Use "
            "--data.source sunrgbd, or --data.options.depth_unit sunrgbd."
        )
    if total.saturated:
        yield (
            f"{total.saturated / total.stored:.1%} of the depth values are stored as 65535, the largest of 16 bits, "
            "and taken for distances; most cameras write it where nothing was measured. Add it to the invalid values: "
            "--data.options.invalid_values '[0, 65535]'."
        )
    if total.eight_bits and _may_store_eight_bits(subject.source):
        yield (
            f"no stored depth value exceeds {total.largest}: files of 8 bits show depth rather than measure it. If "
            "they are pictures of depth, convert the originals instead."
        )
    yield from _foreign_scenes(subject, tally)


def _may_store_eight_bits(source: Source) -> bool:
    """Whether the files of any folder are of 8 bits, or nobody has looked."""
    members = getattr(source, "members", None)
    if isinstance(members, Mapping):
        return any(_may_store_eight_bits(member) for member in members.values())
    if getattr(getattr(source, "rows", None), "manifest", None) is not None:
        return False  # prepared here, in 16 bits or floats
    detection = getattr(source, "detection", None)
    return detection is None or any(each.eight_bits for each in (detection, *detection.by_sequence.values()))


def _near(subject: Subject, tally: SplitTally) -> Iterator[str]:
    """Small values in files that could hold larger ones: millimetres before an endoscope, or a picture of depth."""
    if tally.depth.eight_bits and not _may_store_eight_bits(subject.source):
        yield (
            f"no stored depth value exceeds {tally.depth.largest}: either everything is that near, as before an "
            "endoscope, or these were pictures of depth with 8 bits, which show depth rather than measure it."
        )


def _foreign_scenes(subject: Subject, tally: SplitTally, problems: bool = True) -> Iterator[str]:
    """Scenes whose median depth another unit would bring near that of the middle scene (`DepthCheck`); else, as notes,
    those whose median is only far from it."""
    spec = subject.source.depth_spec
    if spec is None or spec.kind != "metric" or spec.scale is None:
        return
    medians = {name: scene.depth.quantile(0.5) for name, scene in tally.scenes.items()}
    known = {name: value for name, value in medians.items() if value}
    if len(known) < _LEAST_FOR_SCENES:
        return
    middle = median(known.values())
    check = DepthCheck(spec, spec.scale > 1, middle, middle, middle)
    objections = {name: check.objection(value, value * spec.scale) for name, value in known.items()}
    if problems:
        told = [f"{name}: {text.replace('other files', 'middle scene')}" for name, text in objections.items() if text]
    else:
        told = [
            f"{name}: its median is {value:.3g} m, that of the middle scene {middle:.3g} m; is it that near or far, or "
            "stored in another unit (--data.options.depth_unit)?"
            for name, value in known.items()
            if objections[name] is None and not 1 / SCENES < value / middle < SCENES
        ]
    yield from (f"scene {text}" for text in told[:EXAMPLES])
    if len(told) > EXAMPLES:
        yield f"{len(told) - EXAMPLES} further scenes differ as much; see report.json"


def _misaligned(tally: SplitTally) -> Iterator[str]:
    """Scenes by themselves where they have enough frames, and all together, which says it once where all are."""
    whole = EdgeTally()
    for scene in tally.scenes.values():
        whole.merge(scene.edges)
    size = tally.common_size
    overall = suspected_misplacement(whole, *size)
    if overall is not None:
        yield ("in all scenes together, " if len(tally.scenes) > 1 else "") + _misplaced(overall, whole.frames)
        return
    single = {name: scene.edges for name, scene in tally.scenes.items() if scene.edges.frames >= LEAST_FRAMES}
    found = {name: suspected_misplacement(edges, *size) for name, edges in single.items()}
    named = [(name, place) for name, place in found.items() if place is not None]
    yield from (f"scene {name}: {_misplaced(place, single[name].frames)}" for name, place in named[:EXAMPLES])
    if len(named) > EXAMPLES:
        yield f"{len(named) - EXAMPLES} further scenes seem to be misaligned; see report.json"


def _misplaced(place: Misplacement, frames: int) -> str:
    """How depth seems to lie, on what that rests, and what to do."""
    size = ""
    if place.zoom != 1:
        size = (
            f"depth shows things about {abs(place.zoom - 1):.0%} {'larger' if place.zoom > 1 else 'smaller'} than RGB, "
            "as that of a second camera with another focal length does; in the middle of the picture "
        )
    moves = [
        f"{_pixels(pixels)} {positive if pixels > 0 else negative}"
        for pixels, positive, negative in ((place.right, "to the right", "to the left"), (place.down, "down", "up"))
        if pixels
    ]
    where = f"{' and '.join(moves)} of where" if moves else "where"
    better = f"{place.gain:.1f} times" if place.gain < 10 else "many times"
    return (
        f"{size}depth seems to lie {where} RGB shows it (within {_pixels(place.within)}; the edges of {frames} frames "
        f"agree {better} better there than as they are). Register depth to the colour camera "
        "(--data.options.calibration, or scripts/import_recording.py); resizing does not."
    )


def _pixels(count: int) -> str:
    return plural(abs(count), "pixel")


def _lengths(subject: Subject, tally: SplitTally, problems: bool) -> Iterator[str]:
    """Clips that are padded, and sequences that are left out, because they are too short."""
    padded = sum(count for length, count in tally.lengths.items() if length < subject.clip_frames)
    dropped = [entry for entry in subject.source.unpaired if entry.reason.startswith(TOO_SHORT)]
    for count, total, what in (
        (padded, tally.samples, f"clips or videos {agree(padded, 'is', 'are')} shorter (from "
         f"{plural(min(tally.lengths, default=0), 'frame')}) than the {subject.clip_frames} source frames of a clip: "
         f"{agree(padded, 'its', 'their')} last frame is repeated"),
        (len(dropped), len(dropped) + subject.total, f"sequences {agree(len(dropped), 'is', 'are')} left out because "
         f"{agree(len(dropped), 'it is', 'they are')} too short, the first: "
         + "".join(f"{entry.path} ({entry.reason})" for entry in dropped[:1])),
    ):  # fmt: skip
        if count and (count > _SHORT_SHARE * total) == problems:
            yield f"{count} of {total} {what}"


def _labels(subject: Subject, tally: SplitTally, problems: bool) -> Iterator[str]:
    labelled = sum(count for number, count in tally.label_pixels.items() if number != IGNORE_INDEX)
    names = subject.source.class_names
    if tally.with_labels and not labelled:
        if problems:
            yield "every label pixel is ignored"
        return
    for given, found in ((names, tally.label_pixels), (subject.source.action_names, tally.action_samples)):
        missing = [name for number, name in enumerate(given or ()) if number not in found]
        if given and found and missing and not problems:
            more = f" and {len(missing) - EXAMPLES} more" if len(missing) > EXAMPLES else ""
            part = "" if tally.samples >= subject.total else f" in the {tally.samples} samples looked at"
            yield f"{len(missing)} of {len(given)} classes never occur{part}: {', '.join(missing[:EXAMPLES])}{more}"


def _sizes(subject: Subject, tally: SplitTally) -> Iterator[str]:
    small = [size for size in tally.sizes if min(map(int, size.split("x"))) < subject.least_side]
    if small:
        sizes = ", ".join(small[:EXAMPLES])
        yield f"frames of {sizes} are smaller than the model's patch of {subject.least_side} pixels"


def _left_out(subject: Subject, tally: SplitTally) -> Iterator[str]:
    others = [each for each in subject.source.unpaired if not (each.damaged or each.reason.startswith(TOO_SHORT))]
    if others:
        first = others[0]
        what = agree(len(others), "file is", "files are")
        yield f"{len(others)} {what} not used by the source, the first: {first.path} ({first.reason})"
    if tally.holes:
        yield _holes("missing", tally.missing_depth, tally, tally.holes[0])
    if tally.incomplete:
        video = tally.incomplete[0]
        what = agree(len(tally.incomplete), "video is used up to where it ends", "videos are used up to where they end")
        yield f"{len(tally.incomplete)} {what}, the first: {video.path}: {video.reason}"

"""The figures of a split as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from m33d_hf.data.measuring.depth_tally import DepthTally
from m33d_hf.data.measuring.findings import Finding
from m33d_hf.data.measuring.subject import Subject
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.plural import plural
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.source import Source
from m33d_hf.data.sources.mixture import MixtureSource

_MOST_LINES = 40  # of scenes and classes in the text; the JSON has all


def describe_split(subject: Subject, tally: SplitTally) -> list[str]:
    """Lines on one split: counts, sizes, depth of every scene, labels."""
    source = subject.source
    there = sum(length * count for length, count in tally.lengths.items())
    lines = [
        f"{subject.name}: source {source.name}, {plural(subject.total, 'sample')}; looked at {tally.samples}, read "
        f"{plural(there, 'frame') if there <= tally.frames else f'{tally.frames} of their {there} frames'}",
        f"with RGB {tally.with_rgb}, depth {tally.with_depth}, labels {tally.with_labels}; cannot be read or used: "
        f"{len(tally.unusable)}",
        "sizes: " + (", ".join(f"{size} ({count})" for size, count in tally.sizes.most_common(8)) or "none"),
    ]
    if set(tally.lengths) - {1}:
        least, most = min(tally.lengths), max(tally.lengths)
        lines.append(f"frames per sample: {least}" + (f" to {most}" if most > least else ""))
    if source.depth_spec is not None:
        lines += [*_of_units(source), *_scene_lines(tally, _unit(subject))]
    lines += _histogram("labels", tally.label_pixels, source.class_names, "pixel")
    lines += _histogram("clip labels", tally.action_samples, source.action_names, "sample")
    return lines + [f"note: {note}" for note in source.notes]


def describe_findings(findings: Sequence[Finding]) -> list[str]:
    """A line per finding, problems first."""
    ordered = sorted(findings, key=lambda finding: not finding.is_problem)
    return [f"{'PROBLEM' if each.is_problem else 'note'} ({each.split}): {each.text}" for each in ordered]


def _of_units(source: Source) -> list[str]:
    """How stored depth is read; where folders or members differ, of each."""
    members = source.members if isinstance(source, MixtureSource) else {}
    specs = {name: member.depth_spec.describe() for name, member in members.items() if member.depth_spec is not None}
    if len(set(specs.values())) > 1:
        return [f"depth of {name}: {said}" for name, said in specs.items()]
    return [] if source.depth_spec is None else [f"depth: {source.depth_spec.describe()}"]


def _unit(subject: Subject) -> str:
    spec = subject.source.depth_spec
    return " m" if spec is not None and spec.kind == "metric" else ""


def _scene_lines(tally: SplitTally, unit: str) -> list[str]:
    lines = [f"  all: {_depth_line(tally.depth, unit)}"] if tally.with_depth else []
    named = [(name, scene) for name, scene in sorted(tally.scenes.items()) if scene.depth.frames]
    if len(named) < 2:
        return lines
    lines += [f"  {name}: {_depth_line(scene.depth, unit)}" for name, scene in named[:_MOST_LINES]]
    return lines + ([f"  and {len(named) - _MOST_LINES} more scenes"] if len(named) > _MOST_LINES else [])


def _depth_line(depth: DepthTally, unit: str) -> str:
    low, middle, high = (depth.quantile(share) for share in (0.01, 0.5, 0.99))
    if middle is None:
        return f"{plural(depth.frames, 'frame')} without any valid pixel"
    blank = f", {depth.blank} frames all holes" if depth.blank else ""
    return (
        f"{plural(depth.frames, 'frame')}, median {middle:.3g}{unit}, 98 % between {low:.3g} and {high:.3g}{unit}, "
        f"{depth.invalid_share:.1%} invalid{blank}"
    )


def _histogram(title: str, counts: Counter[int], names: Sequence[str] | None, what: str) -> list[str]:
    if not counts:
        return []
    total = sum(counts.values())
    named = sorted(counts.items(), key=lambda entry: (entry[0] == IGNORE_INDEX, -entry[1], entry[0]))
    lines = [
        f"  {class_label(number, names)}: {count / total:.2%} ({plural(count, what)})"
        for number, count in named[:_MOST_LINES]
    ]
    return [f"{title}:", *lines, *([f"  and {len(named) - _MOST_LINES} more"] if len(named) > _MOST_LINES else [])]


def class_label(number: int, names: Sequence[str] | None) -> str:
    if number == IGNORE_INDEX:
        return "ignored"
    return f"{number} {names[number]}" if names and number < len(names) else str(number)

"""The figures of a check as text for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.inspection.depth_tally import DepthTally
from m33d_hf.inspection.findings import Finding
from m33d_hf.inspection.misalignment import suspected_shift
from m33d_hf.inspection.splits import Split
from m33d_hf.inspection.tallies import SplitTally

_MOST_LINES = 40  # of scenes and classes in the text; the JSON has all


def describe_split(split: Split, tally: SplitTally) -> list[str]:
    """Lines on one split: counts, sizes, depth of every scene, labels."""
    source = split.source
    whole = split.frames < 1 or max(tally.lengths, default=1) <= split.frames
    lines = [
        f"== {split.name}: source {source.name}, {split.total} samples; looked at {tally.samples}, read {tally.frames} "
        f"frames{'' if whole else f' ({split.frames} of each clip or video)'}",
        f"with RGB {tally.with_rgb}, depth {tally.with_depth}, labels {tally.with_labels}; cannot be read or used: "
        f"{len(tally.unusable)}",
        "sizes: " + (", ".join(f"{size} ({count})" for size, count in tally.sizes.most_common(8)) or "none"),
    ]
    if set(tally.lengths) - {1}:
        lines.append(f"frames per sample: {min(tally.lengths)} to {max(tally.lengths)}")
    if source.depth_spec is not None:
        lines += [f"depth: {source.depth_spec.describe()}", *_scene_lines(tally, _unit(split))]
    lines += _histogram("labels", tally.label_pixels, source.class_names, "pixels")
    lines += _histogram("clip labels", tally.action_samples, source.action_names, "samples")
    return lines + [f"note: {note}" for note in source.notes]


def describe_findings(findings: Sequence[Finding]) -> list[str]:
    """A line per finding, problems first."""
    ordered = sorted(findings, key=lambda finding: not finding.is_problem)
    return [f"{'PROBLEM' if each.is_problem else 'note'} ({each.split}): {each.text}" for each in ordered]


def report_dict(split: Split, tally: SplitTally) -> dict[str, Any]:
    """JSON-ready figures of one split, every scene included."""
    spec = split.source.depth_spec
    scenes = {}
    for name, scene in tally.scenes.items():
        shift = suspected_shift(scene.edges, scene.edge_frames) if scene.edges else None
        scenes[name] = {
            "samples": scene.samples,
            "frames": scene.frames,
            "depth": _figures(scene.depth),
            "suspected_shift": None if shift is None else {"down": shift.down, "right": shift.right},
        }
    return {
        "source": split.source.name,
        "samples": split.total,
        "looked_at": tally.samples,
        "frames": tally.frames,
        "with_rgb": tally.with_rgb,
        "with_depth": tally.with_depth,
        "with_labels": tally.with_labels,
        "sizes": dict(tally.sizes.most_common()),
        "lengths": {str(length): count for length, count in sorted(tally.lengths.items())},
        "depth_spec": None if spec is None else spec.to_dict(),
        "depth": _figures(tally.depth),
        "scenes": scenes,
        "label_pixels": _named(tally.label_pixels, split.source.class_names),
        "clip_labels": _named(tally.action_samples, split.source.action_names),
        "unusable": len(tally.unusable),
        "notes": list(split.source.notes),
    }


def _unit(split: Split) -> str:
    spec = split.source.depth_spec
    return " m" if spec is not None and spec.kind == "metric" else ""


def _figures(depth: DepthTally) -> dict[str, Any] | None:
    if not depth.frames:
        return None
    low, middle, high = (depth.quantile(share) for share in (0.01, 0.5, 0.99))
    figures = {"median": middle, "low": low, "high": high, "invalid_share": depth.invalid_share}
    return {"frames": depth.frames, "blank": depth.blank, **figures}


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
        return f"{depth.frames} frames without any valid pixel"
    blank = f", {depth.blank} frames all holes" if depth.blank else ""
    return (
        f"{depth.frames} frames, median {middle:.3g}{unit}, 98 % between {low:.3g} and {high:.3g}{unit}, "
        f"{depth.invalid_share:.1%} invalid{blank}"
    )


def _histogram(title: str, counts: Counter[int], names: Sequence[str] | None, what: str) -> list[str]:
    if not counts:
        return []
    total = sum(counts.values())
    named = sorted(counts.items(), key=lambda entry: (entry[0] == IGNORE_INDEX, -entry[1], entry[0]))
    lines = [f"  {_name(number, names)}: {count / total:.2%} ({count} {what})" for number, count in named[:_MOST_LINES]]
    return [f"{title}:", *lines, *([f"  and {len(named) - _MOST_LINES} more"] if len(named) > _MOST_LINES else [])]


def _name(number: int, names: Sequence[str] | None) -> str:
    if number == IGNORE_INDEX:
        return "ignored"
    return f"{number} {names[number]}" if names and number < len(names) else str(number)


def _named(counts: Counter[int], names: Sequence[str] | None) -> dict[str, int]:
    return {_name(number, names): count for number, count in sorted(counts.items())}

"""The figures of a check as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from m33d_hf.data.measuring.depth_tally import DepthTally
from m33d_hf.data.measuring.misalignment import suspected_misplacement
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.measuring.wording import class_label
from m33d_hf.inspection.splits import Split


def report_dict(split: Split, tally: SplitTally) -> dict[str, Any]:
    """JSON-ready figures of one split, every scene included."""
    spec = split.source.depth_spec
    scenes = {}
    for name, scene in tally.scenes.items():
        place = suspected_misplacement(scene.edges, *tally.common_size)
        scenes[name] = {
            "samples": scene.samples,
            "frames": scene.frames,
            "depth": _figures(scene.depth),
            "suspected_misplacement": None if place is None else place._asdict(),
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


def _figures(depth: DepthTally) -> dict[str, Any] | None:
    if not depth.frames:
        return None
    low, middle, high = (depth.quantile(share) for share in (0.01, 0.5, 0.99))
    figures = {"median": middle, "low": low, "high": high, "invalid_share": depth.invalid_share}
    return {"frames": depth.frames, "blank": depth.blank, **figures}


<<<<<<< HEAD
=======
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


>>>>>>> cameras
def _named(counts: Counter[int], names: Sequence[str] | None) -> dict[str, int]:
    return {class_label(number, names): count for number, count in sorted(counts.items())}

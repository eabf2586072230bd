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


def _named(counts: Counter[int], names: Sequence[str] | None) -> dict[str, int]:
    return {class_label(number, names): count for number, count in sorted(counts.items())}

"""Checks a data set before training: its content, the assumptions made, and which files cannot be used and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from m33d_hf.data.files.skips import SkippedFile, incomplete_file
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample, VideoHandle
from m33d_hf.data.source import Source
from m33d_hf.data.sources.videos.files import VideoFile
from m33d_hf.errors import DataError

_VALUES_PER_FRAME = 4096


@dataclass
class Report:
    """What `check_source` found. Depth figures are metres, or unitless for inverse and relative depth.

    Attributes:
        items, frames: size of the source; `frames` counts those of all items, None where not all videos were opened.
        checked: frames that were read, the unreadable ones included.
        sizes: (height, width) -> number of frames.
        depth_median, depth_low, depth_high: median, 1 % and 99 % quantile of valid depth; None without any.
        depth_invalid: share of pixels without depth over the frames that have depth.
        blank_depth: keys of frames whose depth is invalid everywhere.
        label_pixels: class id -> pixels (255 = ignored); empty without labels.
        clip_labels: action id -> items.
        unreadable: files that failed; loading would skip them.
        unpaired: files that the source leaves out from the start.
        incomplete: opened videos with missing frames; they are used.
        warnings: sentences about likely problems.
        notes: how the source was read.
    """

    source: str
    items: int
    frames: int | None
    checked: int = 0
    with_rgb: int = 0
    with_depth: int = 0
    with_labels: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    depth_spec: str | None = None
    depth_median: float | None = None
    depth_low: float | None = None
    depth_high: float | None = None
    depth_invalid: float | None = None
    blank_depth: list[str] = field(default_factory=list)
    label_pixels: Counter[int] = field(default_factory=Counter)
    class_names: list[str] | None = None
    clip_labels: Counter[int] = field(default_factory=Counter)
    unreadable: list[SkippedFile] = field(default_factory=list)
    unpaired: list[SkippedFile] = field(default_factory=list)
    incomplete: list[SkippedFile] = field(default_factory=list)
    opened: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bad_fraction(self) -> float:
        """Share of the checked frames that cannot be read."""
        return len(self.unreadable) / self.checked if self.checked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Counter)}
        plain["sizes"] = {f"{height}x{width}": count for (height, width), count in self.sizes.items()}
        plain["label_pixels"] = {str(key): count for key, count in sorted(self.label_pixels.items())}
        plain["clip_labels"] = {str(key): count for key, count in sorted(self.clip_labels.items())}
        plain["unreadable"] = [entry._asdict() for entry in self.unreadable]
        plain["unpaired"] = [entry._asdict() for entry in self.unpaired]
        plain["incomplete"] = [entry._asdict() for entry in self.incomplete]
        plain["bad_fraction"] = self.bad_fraction
        return plain

    def summary(self) -> str:
        """The report as lines of text."""
        lines = [
            f"source {self.source}: {self.items} items, {'?' if self.frames is None else self.frames} frames; "
            f"checked {self.checked} "
            f"(RGB {self.with_rgb}, depth {self.with_depth}, labels {self.with_labels})",
            "sizes: " + (", ".join(f"{h}x{w} ({n})" for (h, w), n in self.sizes.most_common(5)) or "none"),
        ]
        if self.depth_spec is not None:
            lines.append(f"depth: {self.depth_spec}")
        if self.depth_median is not None:
            lines.append(
                f"depth median {self.depth_median:.3g}, 98 % between {self.depth_low:.3g} and {self.depth_high:.3g}, "
                f"{self.depth_invalid:.1%} invalid, {len(self.blank_depth)} frames without any valid pixel"
            )
        if self.label_pixels:
            lines.append(f"labels: {self._label_shares()}")
        lines.append(f"unreadable: {len(self.unreadable)} ({self.bad_fraction:.1%}); left out: {len(self.unpaired)}")
        lines += [f"  {entry.path}: {entry.reason}" for entry in (self.unreadable + self.unpaired)[:5]]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _label_shares(self) -> str:
        total = sum(self.label_pixels.values())
        names = self.class_names or []
        return ", ".join(
            f"{'ignored' if i == IGNORE_INDEX else names[i] if i < len(names) else i} {count / total:.1%}"
            for i, count in self.label_pixels.most_common(12)
        )


def check_source(
    source: Source,
    limit: int | None = None,
    min_size: int | None = None,
    files: int | None = None,
    clip_frames: int = 1,
) -> Report:
    """Read frames of a source one by one and report on them; unreadable files are listed and raise no error.

    Args:
        source: any source.
        limit: read at most that many frames, spread evenly over the source; None = all of them. Of more video files
            than that, only as many are opened, or `files`.
        min_size: warn about frames with a side below this many pixels (a model's patch size).
        files: number of video files to open to check whether they are complete, if more than `limit`.
        clip_frames: note how many of the opened videos or sequences are shorter than a clip of this many frames.
    """
    items = [source[i] for i in range(len(source))]
    spec = source.depth_spec
    report = Report(
        source=source.name,
        items=len(items),
        frames=None,
        depth_spec=spec.describe() if spec is not None else None,
        class_names=source.class_names,
        notes=list(source.notes),
        unpaired=[SkippedFile(entry.path, entry.reason, "") for entry in source.unpaired],
    )
    values: list[np.ndarray] = []
    pixels = [0, 0]
    opened = _rows_to_open(items, limit if limit is None else max(limit, files or 0))
    lengths = _lengths(items, opened, report)
    report.opened = len(opened)
    if len(opened) == len(items):
        report.frames = sum(lengths)
    _note_short([lengths[row] for row in opened], clip_frames, report)
    for item_index, frame_index in _spread(lengths, limit):
        item = items[item_index]
        report.checked += 1
        try:
            sample = item.read([frame_index])
        except (DataError, OSError) as error:
            report.unreadable.append(_skipped(item, error))
            continue
        _take_note(report, sample, values, pixels)
    _finish_depth(report, values, pixels)
    _warn(report, min_size)
    return report


def _note_short(lengths: Sequence[int], clip_frames: int, report: Report) -> None:
    """Videos that lack frames for one clip are padded as VideoMAE does, down to a still picture; 0 is unreadable."""
    short = [length for length in lengths if 0 < length < clip_frames]
    if short:
        report.notes.append(
            f"{len(short)} of {len(lengths)} opened videos are shorter (from {min(short)} frames) than the "
            f"{clip_frames} source frames of a clip; their clips repeat the last frame"
        )


def _rows_to_open(items: Sequence[VideoHandle], limit: int | None) -> Sequence[int]:
    """Rows whose length is asked for: all, but only `limit` of video files, which must be opened to be counted."""
    count = len(items)
    if limit is None or count <= limit or not any(isinstance(item, VideoFile) for item in items):
        return range(count)
    return [row * count // limit for row in range(limit)]


def _lengths(items: Sequence[VideoHandle], rows: Sequence[int], report: Report) -> list[int]:
    """Frames of every item, 0 for those not in `rows` and for those that cannot be opened, which are reported."""
    lengths = [0] * len(items)
    for row in rows:
        item = items[row]
        try:
            lengths[row] = item.length
            found = incomplete_file(item)
            report.incomplete += [] if found is None else [found]
        except (DataError, OSError) as error:
            report.checked += 1
            report.unreadable.append(_skipped(item, error))
    return lengths


def _skipped(item: VideoHandle, error: Exception) -> SkippedFile:
    path = getattr(error, "path", None) or getattr(error, "filename", None) or item.key
    return SkippedFile(str(path), str(getattr(error, "reason", None) or error), item.key)


def _spread(lengths: Sequence[int], limit: int | None) -> list[tuple[int, int]]:
    """(item, frame) pairs, all of them or `limit` evenly spaced ones."""
    pairs = [(i, frame) for i, length in enumerate(lengths) for frame in range(length)]
    if limit is None or limit >= len(pairs):
        return pairs
    return [pairs[k * len(pairs) // limit] for k in range(limit)]


def _take_note(report: Report, sample: RGBDSample, values: list[np.ndarray], pixels: list[int]) -> None:
    report.sizes[(sample.height, sample.width)] += 1
    report.with_rgb += sample.rgb is not None
    if sample.depth is not None:
        report.with_depth += 1
        valid = sample.depth[torch.isfinite(sample.depth)].numpy()
        pixels[0] += sample.depth.numel() - valid.size
        pixels[1] += sample.depth.numel()
        if not valid.size:
            report.blank_depth.append(sample.key)
        values.append(valid[:: max(1, valid.size // _VALUES_PER_FRAME)])
    if sample.segmentation is not None:
        report.with_labels += 1
        classes, counts = torch.unique(sample.segmentation, return_counts=True)
        report.label_pixels.update(dict(zip(classes.tolist(), counts.tolist())))
    if sample.label is not None:
        report.clip_labels[sample.label] += 1


def _finish_depth(report: Report, values: list[np.ndarray], pixels: list[int]) -> None:
    if pixels[1]:
        report.depth_invalid = pixels[0] / pixels[1]
    pooled = np.concatenate(values) if values else np.empty(0)
    if pooled.size:
        low, median, high = np.percentile(pooled, [1, 50, 99])
        report.depth_low, report.depth_median, report.depth_high = float(low), float(median), float(high)


def _warn(report: Report, min_size: int | None) -> None:
    if report.unreadable:
        first = report.unreadable[0]
        report.warnings.append(
            f"{len(report.unreadable)} of {report.checked} frames cannot be read, the first: "
            f"{first.path}: {first.reason}"
        )
    if report.incomplete:
        first = report.incomplete[0]
        report.warnings.append(
            f"{len(report.incomplete)} of {report.opened} opened videos are incomplete, the first: {first.path}: "
            f"{first.reason}"
        )
    if report.with_depth and report.depth_median is None:
        report.warnings.append("no frame has any valid depth pixel")
    elif report.blank_depth:
        report.warnings.append(
            f"{len(report.blank_depth)} frames have no valid depth, the first: {report.blank_depth[0]}"
        )
    if report.depth_invalid is not None and report.depth_invalid > 0.5:
        report.warnings.append(f"{report.depth_invalid:.0%} of the depth is invalid")
    if min_size is not None:
        small = [size for size in report.sizes if min(size) < min_size]
        if small:
            height, width = small[0]
            report.warnings.append(f"frames of {height}x{width} are smaller than {min_size} pixels")
    labelled = sum(count for class_id, count in report.label_pixels.items() if class_id != IGNORE_INDEX)
    if report.with_labels and not labelled:
        report.warnings.append("every label pixel is ignored")

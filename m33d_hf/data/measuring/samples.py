"""Measures one sample of a source: everything that is known of a data set is found here, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from m33d_hf.data.files.skips import SkippedFile, hole_entries, incomplete_file, unreadable
from m33d_hf.data.measuring.duplicates import perceptual_hash
from m33d_hf.data.measuring.misalignment import edge_agreement
from m33d_hf.data.measuring.tallies import SplitTally
from m33d_hf.data.sample import Hole, RGBDSample, VideoHandle, holes_of, read_sample
from m33d_hf.data.source import Source
from m33d_hf.errors import CorruptFileError, DataError, DepthUnitError, LabelError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec

ALL_FRAMES = "all frames"  # the scene of samples whose names have no folder
BLANK = "depth has no valid pixel"


@dataclass(frozen=True)
class Looks:
    """How closely one sample is looked at.

    Attributes:
        frames: frames of a clip or video that are read, spread over it; 0 = all.
        edges: compare the edges of RGB and depth in one of its frames.
        hashes: keep the perceptual hash of one of its frames.
    """

    frames: int = 8
    edges: bool = True
    hashes: bool = True


def measure(source: Source, row: int, looks: Looks, tally: SplitTally) -> None:
    """Add sample `row` of a source to a tally. Files that cannot be read are listed there and raise no error."""
    handle = open_sample(source, row, tally)
    if handle is None:
        return
    key = handle.key
    maps = valid_maps = 0
    numbers = spread(handle.length, looks.frames)
    middle = numbers[len(numbers) // 2]
    for number in numbers:
        try:
            sample = read_frame(handle, number, tally)
        except (DataError, OSError) as error:
            _take_note_of(error, key, tally)
            continue
        has_depth, is_valid = _count(handle, sample, depth_spec_of(source, handle), tally)
        maps, valid_maps = maps + has_depth, valid_maps + is_valid
        if number == middle:
            _compare_and_hash(handle, sample, looks, tally)
            if sample.label is not None:
                tally.action_samples[int(sample.label)] += 1
    if maps and not valid_maps:
        tally.blank += 1
        tally.unusable.append(SkippedFile(_depth_file(handle), BLANK, key))


def read_frame(handle: VideoHandle, number: int, tally: SplitTally) -> RGBDSample:
    """One frame; of a clip or video without its depth where that is missing or damaged, which is counted.

    Raises:
        DataError, OSError: it cannot be read, of a clip without its depth either.
    """
    try:
        sample = handle.read([number])
        holes = list(holes_of(sample))
    except CorruptFileError as error:
        if handle.length == 1:
            raise
        sample = read_sample(handle, [number], ("rgb", "segmentation"))
        if sample.rgb is None:
            raise
        holes = [Hole(0, error.path, error.reason, True)]
    for hole in holes:
        tally.damaged_depth += hole.damaged
        tally.missing_depth += not hole.damaged
        entries = tally.damaged_holes if hole.damaged else tally.holes
        if not entries or entries[-1].path != hole.path:
            entries += hole_entries([hole], handle.key)
    return sample


def open_sample(source: Source, row: int, tally: SplitTally) -> VideoHandle | None:
    """Add what is known of a sample without decoding a frame, its length above all; None if it cannot be opened."""
    tally.samples += 1
    key = f"sample {row}"
    try:
        handle = source[row]
        key = handle.key
        length = handle.length
        if length < 1:
            raise DataError(f"{key}: the video has no frames")
        lacking = incomplete_file(handle)
    except (DataError, OSError) as error:
        _take_note_of(error, key, tally)
        return None
    tally.incomplete += [] if lacking is None else [lacking]
    tally.lengths[length] += 1
    tally.scene(scene_of(handle)).samples += 1
    return handle


def spread(length: int, count: int) -> list[int]:
    """`count` of `length` numbers, evenly spread; all of them for 0 or where there are not as many."""
    if count < 1 or count >= length:
        return list(range(length))
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]


def scene_of(handle: VideoHandle) -> str:
    """The scene or sequence of a sample, by its name: the folder of a still, or the sequence of a clip."""
    if handle.length == 1:
        name = PurePosixPath(handle.key).parent.as_posix()
    else:
        name = getattr(handle, "sequence", None) or _sequence_by_name(handle.key)
    return ALL_FRAMES if name in ("", ".") else name


def _sequence_by_name(key: str) -> str:
    """The sequence that a window was cut from, where only its name tells: in prepared data."""
    sequence, mark, first = key.rpartition("@")
    return sequence if mark and first.isdecimal() else key


def depth_spec_of(source: Source, handle: VideoHandle) -> DepthSpec | None:
    """What stored depth means in this sample's sequence."""
    own: DepthSpec | None = getattr(getattr(handle, "reader", None), "depth_spec", None)
    return source.depth_spec if own is None else own


def _take_note_of(error: Exception, key: str, tally: SplitTally) -> None:
    if isinstance(error, (DepthUnitError, LabelError)):  # training stops at these, file by file or not
        kind = type(error).__name__
        tally.stopping[kind] += 1
        tally.stopping_examples.setdefault(kind, str(error))
    else:
        tally.unusable.append(unreadable(error, key))


def _count(handle: VideoHandle, sample: RGBDSample, spec: DepthSpec | None, tally: SplitTally) -> tuple[bool, bool]:
    """Take one frame into account; returns whether it has depth, and whether any of that is valid."""
    scene = tally.scene(scene_of(handle))
    tally.frames += 1
    scene.frames += 1
    tally.sizes[f"{sample.height}x{sample.width}"] += 1
    tally.with_rgb += sample.rgb is not None
    if sample.segmentation is not None:
        tally.with_labels += 1
        classes, counts = torch.unique(sample.segmentation, return_counts=True)
        tally.label_pixels.update(dict(zip(classes.tolist(), counts.tolist())))
    if sample.depth is None:
        return False, False
    tally.with_depth += 1
    return True, scene.depth.add(sample.depth[0, 0].numpy(), spec)


def _compare_and_hash(handle: VideoHandle, sample: RGBDSample, looks: Looks, tally: SplitTally) -> None:
    if sample.rgb is None:
        return
    picture = sample.rgb[0].numpy()
    if looks.hashes and (digest := perceptual_hash(picture)) is not None:
        tally.hashes.append((handle.key, digest))
    if looks.edges and sample.depth is not None:
        depth = sample.align().depth
        agreement = None if depth is None else edge_agreement(picture, depth[0, 0].numpy().astype(np.float64))
        if agreement is not None:
            tally.scene(scene_of(handle)).edges.merge(agreement)


def _depth_file(handle: Any) -> str:
    """The first depth file of a sample, where it is known; else its name."""
    frames = getattr(handle, "frames", None)
    name = getattr(frames[0], "depth", None) if frames else None
    root = getattr(getattr(handle, "reader", None), "root", None)
    return handle.key if name is None or root is None else str(root / name)

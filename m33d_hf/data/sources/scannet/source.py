"""The `scannet` source: scans as recordings (`.sens`), as exported pictures, or as `scannet_frames_25k`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.files.data_set_tables import file_near
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.stored_values import look_at_labels
from m33d_hf.data.options import choose
from m33d_hf.data.plural import plural
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.reading import ALIGNMENTS
from m33d_hf.data.sources.frames.splits import (
    SPLIT_NAMES,
    Sequences,
    SplitChoice,
    canonical_split,
)
from m33d_hf.data.sources.scannet.calibrations import REGISTER, scene_calibrations
from m33d_hf.data.sources.scannet.label_ids import (
    LABEL_IDS,
    TABLE_NAME,
    check_label_ids,
    label_rules,
    read_label_table,
    settle_label_ids,
)
from m33d_hf.data.sources.scannet.scenes import Scene, SceneOptions, find_scenes
from m33d_hf.errors import DataError

EXPORT_SCALE = 1000.0
CAMERA_FPS = 30.0
_LOOKED_AT = 64
_LIST_NAMES = {"train": "scannetv2_train.txt", "validation": "scannetv2_val.txt", "test": "scannetv2_test.txt"}
_SCAN = re.compile(r"(?<=scene\d{4})_\d{2}$")  # the number of the scan of a scene
# Usual places of the lists and the table of labels, relative to the root.
_PLACES = (".", "..", "splits", "meta_data", "Tasks/Benchmark")


class ScanNetSource(FrameSource):
    """ScanNet as it is downloaded or exported; a recording is read directly and never unpacked to disk.

    Scenes are folders `scene0000_00` at the root or below (`scans/`), with `scene0000_00.sens`, or with `color/N.jpg`
    and `depth/N.png` in millimetres; label maps lie in `label-filt/` or `label/`. Colour and labels are resized to
    the depth (640 x 480) unless `align` says otherwise.

    Args:
        root: folder of the data, or of one scene.
        split: `train`, `validation` (`val`), `test`, or None / `all`. The official lists (`scannetv2_train.txt`,
            `scannetv2_val.txt`, `scannetv2_test.txt`) are searched in the root, the folder above it, and in
            `splits/`, `meta_data/` or `Tasks/Benchmark/` below the root.
        unit: `frames` (each frame an item) or `clips` (each scan an item).
        layout: `auto`, `sens`, `exported` or `frames_25k`; `auto` reads pictures if a scene has any.
        every: frames whose number is a multiple of it are kept: 25 for pre-training, 100 for fine-tuning.
        labels: `none`, `auto` (`label-filt`, else `label`) or the name of a folder.
        label_ids: kind of ids in the label maps: `raw`, `nyu40` or `auto`: nyu40 in `scannet_frames_25k`, raw
            otherwise, checked against the values.
        label_table: the data set's table of raw ids, `scannetv2-labels.combined.tsv`; None searches as for lists.
        num_classes: 20 (the benchmark's) or 40 (NYU's).
        max_unknown: share of labelled pixels with ids outside the table that is ignored before it is an error.
        require_labels: leave out (and list) frames without labels, where labels are read.
        align: `rgb_to_depth`, `depth_to_rgb` or `refuse`, as in the `folder` source: pictures are resized, not
            registered, since both cameras see nearly the same. `register` registers depth into the colour picture, by
            the recording's header or the exported `intrinsic/` folder; labels then come at the size of the colour.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source; the
            default is the depth shift of a recording, and millimetres for pictures.
        min_frames, clip_length, windows, split_list, split_fractions: as in the `folder` source.

    Raises:
        ConfigError: options that contradict each other.
        DataError: no scene, no list of the split, or no frame left; LabelError: ids of another kind.
    """

    name = "scannet"
    group_word = "scenes"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "frames",
        layout: str = "auto",
        every: int = 1,
        labels: str = "none",
        label_ids: str = "auto",
        label_table: str | None = None,
        num_classes: int = 20,
        max_unknown: float = 0.01,
        require_labels: bool = True,
        align: str = "rgb_to_depth",
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        min_frames: int | None = None,
        clip_length: int | None = None,
        windows: int | None = None,
        split_list: str | Mapping[str, str] | None = None,
        split_fractions: Mapping[str, float] | None = None,
    ) -> None:
        root = Path(root).expanduser()
        choose("label_ids", label_ids, LABEL_IDS)
        choose("align", align, (*ALIGNMENTS, REGISTER))
        scenes = find_scenes(root, SceneOptions(layout, labels, every, require_labels and labels != "none"))
        unpaired = [entry for scene in scenes for entry in scene.unpaired]
        notes = [describe_scenes(scenes, every)]
        sequences = {scene.name: scene.frames for scene in scenes if scene.frames}
        if not sequences:
            reasons = Counter(entry.reason for entry in unpaired).most_common(3)
            told = "; ".join(f"{reason} ({count} times)" for reason, count in reasons)
            raise DataError(f"the {len(scenes)} scenes under {root} have no usable frame: {told or notes[0]}")
        rules = (
            None if labels == "none" else _rules(root, scenes, label_ids, label_table, num_classes, max_unknown, notes)
        )
        stated = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        if not stated.states_meaning:
            stated = DepthOptions(
                scale=_scales(scenes), invalid_values=invalid_values, min_depth=min_depth, max_depth=max_depth
            )
        super().__init__(
            root,
            sequences,
            unit=unit,
            split=SplitChoice(split, split_list, split_fractions),
            min_frames=min_frames,
            depth_options=stated,
            label_rules=rules,
            align="depth_to_rgb" if align == REGISTER else align,
            fps=CAMERA_FPS / every,
            unpaired=unpaired,
            notes=notes,
            clip_length=clip_length,
            windows=windows,
            calibrations=scene_calibrations(root, scenes, notes) if align == REGISTER else None,
        )

    def _of_split(self, root: Path, sequences: Sequences, wanted: SplitChoice) -> tuple[Sequences, str]:
        """The scenes of a split, by the official lists unless other lists or fractions are set.

        Raises:
            DataError: the official list is missing. Scenes of one room must not be in both training and test, so no
                split is drawn.
        """
        split, split_list = wanted.name, wanted.listed
        if split is not None and split != "all" and split_list is None and wanted.fractions is None:
            known = {name: found for name, file in _LIST_NAMES.items() if (found := file_near(root, file, _PLACES))}
            name = canonical_split(split)
            if name not in known:
                raise DataError(
                    f"the official list of ScanNet's split {name}, {_LIST_NAMES[name]}, is not in {root} nor in "
                    f"{', '.join(_PLACES[1:])} relative to it. Put it there, pass your own with "
                    "--data.options.split_list, or "
                    f"read everything with split 'all' ({', '.join(SPLIT_NAMES)} are drawn only by "
                    "--data.options.split_fractions)."
                )
            split_list = {name: str(path) for name, path in known.items()}
        return super()._of_split(root, sequences, replace(wanted, listed=split_list))

    def groups(self) -> list[str] | None:
        """The scene of every item, of which there may be several scans: `scene0000` of `scene0000_01`."""
        found = super().groups()
        return None if found is None else [_SCAN.sub("", name) for name in found]


def describe_scenes(scenes: Sequence[Scene], every: int) -> str:
    """The number of scenes of each layout, and how many of their frames are kept."""
    layouts = Counter(scene.layout for scene in scenes if scene.frames)
    kinds = ", ".join(f"{count} {layout}" for layout, count in layouts.items())
    kept, found = sum(len(scene.frames) for scene in scenes), sum(scene.found for scene in scenes)
    which = "" if every == 1 else f" whose number is a multiple of {every}"
    return f"{plural(len(scenes), 'scene')} ({kinds or 'none usable'}): {kept} of {found} frames{which}"


def _scales(scenes: Sequence[Scene]) -> float | dict[str, float]:
    """Units per metre: one number, or by scene where they differ."""
    each = {
        scene.name: EXPORT_SCALE if scene.header is None else scene.header.depth_shift
        for scene in scenes
        if scene.frames
    }
    first = next(iter(each.values()))
    return first if all(scale == first for scale in each.values()) else each


def _rules(
    root: Path,
    scenes: Sequence[Scene],
    stated: str,
    label_table: str | None,
    num_classes: int,
    max_unknown: float,
    notes: list[str],
) -> LabelRules:
    """How the label maps are read, based on a sample of them.

    Raises:
        DataError: no label maps, or no table of raw ids; LabelError: ids that do not fit.
    """
    files = [root / frame.labels for scene in scenes for frame in scene.frames if frame.labels is not None]
    if not files:
        raise DataError(
            f"no scene under {root} has label maps; expected folders label-filt/ or label/ with PNG files N.png"
        )
    sample = look_at_labels(evenly_spaced(files, _LOOKED_AT))
    layouts = {scene.layout for scene in scenes if scene.frames}
    ids, how = settle_label_ids(stated, "nyu40" if layouts == {"frames_25k"} else "raw", sample)
    table = read_label_table(_table_file(root, label_table)) if ids == "raw" else None
    rules = label_rules(num_classes, table)
    notes.append(f"{how}; {check_label_ids(rules, sample, max_unknown)}")
    return rules


def _table_file(root: Path, stated: str | None) -> Path:
    found = file_near(root, TABLE_NAME, _PLACES, stated)
    if found is None:
        raise DataError(
            f"raw label ids require ScanNet's table of them, {stated or TABLE_NAME}, which is not in {root} or near "
            "it. "
            "Pass it with --data.options.label_table, or pass label_ids=nyu40 if the label maps hold NYU40 ids."
        )
    return found

"""The `folder` source: your own frames, paired by name or by an association file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.labels.labels import build_label_rules, without_classes
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.remembering import remembered
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.calibrations import find_calibrations
from m33d_hf.data.sources.frames.deep_files import naming_by_bits
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.layouts import (
    Listing,
    find_associations,
    list_files,
    readable_suffixes,
    rows_of_association,
)
from m33d_hf.data.sources.frames.pairing import pair_by_name, pair_by_stamp
from m33d_hf.data.sources.frames.reading import Frame
from m33d_hf.data.sources.frames.splits import Sequences, SplitChoice
from m33d_hf.data.sources.frames.video_layouts import with_video_frames
from m33d_hf.errors import ConfigError, DataError

HOW_TO_FIX = (
    "Expected, for example, color/7.jpg + depth/7.png (+ label/7.png), at the root or in a folder per sequence, or "
    "frame-000007.color.jpg + frame-000007.depth.png. Otherwise name them with --data.options: rgb=FOLDER "
    "depth=FOLDER, patterns such as rgb='*_left.png' depth='*_disp.png' (in one folder or in a folder per modality; "
    "with a folder, rgb='left/*.png'), or association=FILE with two names per line. To keep frames without depth: "
    "require_depth=false; for RGB only: depth=none; for depth only: rgb=none."
)


_OWN_OPTIONS = ("rgb", "depth", "labels")


class FolderSource(FrameSource):
    """RGB, depth and labels in files under one root.

    RGB may be a video, `rgb.mp4` beside a folder `depth` whose files have the numbers of its frames (Stray Scanner).
    Names that end in timestamps a millisecond apart belong together (ARKitScenes); files called confidence are
    ignored.

    Args:
        root: folder of the data; every subfolder with frames is a sequence.
        split: `train`, `validation` (`val`), `test`, or None / `all`; see `splits.select_split`.
        unit: `frames` (each frame an item) or `clips` (each sequence an item).
        rgb, depth, labels: `auto`, `none`, the name of a folder (every sequence may have one), or a pattern with `*`
            (`*_left.png`, `left/*.png`), in which the star stands for the frame's name. Patterns without a folder pair
            files within one folder, and across folders that hold one modality each.
        modalities: further ones by name, each a folder or a pattern as above: `{normals: normals/*.png}`. Every frame
            needs all of them. `--modalities.NAME` tells the model; see `reading.as_modality` for their values.
        association: `auto` (rgb.match, associations.txt and the like where present), `none`, or a file's name.
        depth_unit: unit of the stored depth: `mm`, `cm`, `m`, `tum` (1/5000 m), `tenth_millimetre`, `l515` (1/4000 m),
            `kitti` (1/256 m) or `sunrgbd`. Left out, it is what the nearest depth_spec.json says, from the folder of
            the depth up to the root; without one it is guessed, and the guess is logged. A mapping from a sequence's
            name, or a pattern with `*`, where sequences differ: `{scene1: tum, "*": mm}`.
        depth_scale: stored units per metre, instead of the unit; a mapping as above where sequences differ.
        depth_kind: `metric`, `inverse` (disparity) or `relative`; left out, as depth_spec.json says, or else metric.
        invalid_values: stored values without a measurement; default 0 and the type's maximum.
        min_depth, max_depth: range in metres; depth outside it counts as invalid.
        align: `refuse`, `depth_to_rgb` or `rgb_to_depth` for sizes that differ.
        calibration: file with the calibration of the two cameras, by which depth is registered into the colour picture
            instead of resized over it; see `m33d_hf.data.depth.calibration`. It is looked for in the sequence's folder,
            the folders above it up to the root, then as a path of its own.
        orientation: `refuse`, `as_rgb` or `upright` for depth and labels beside pictures that EXIF says to turn; see
            `orientation.ORIENTATIONS`. The pictures themselves are always turned upright.
        num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped: see `labels.LabelRules`;
            class_names is a list or a file. Labels found by themselves are only read when these, or `palette`, say how
            many classes there are.
        ignore_classes: names or ids of classes that are not learnt: their pixels become unlabelled, and the other
            classes are numbered anew.
        palette: which colour is which class in colour-coded labels: a file or its content, see
            `palettes.read_palette`; its order is that of the classes.
        require_depth: drop (and list) frames without depth; false keeps them as RGB-only samples. In clips of a
            sequence where at least half of the frames have depth, the others stay, and are holes; a window none of
            whose frames has depth is left out (and listed).
        require_labels: drop (and list) frames without labels, where labels are read.
        every: keep every k-th frame of a sequence.
        min_frames: with `clips`, drop (and list) shorter sequences; None takes `clip_length`.
        clip_length: with `clips`, frames that a clip covers (a run offers num_frames x frame_stride); None = unknown.
        windows: with `clips`, parts into which a sequence is cut; None takes as many as whole clips fit.
        clip_stride: with `clips`, frames from one window's start to the next, instead of `windows`: windows of a clip
            that may overlap.
        split_list, split_fractions: see `splits.select_split`.
        validation: splits in one line: the sequences of the validation split, `scene7,scene9` (patterns with `*` and
            folders above sequences, too), or a share of whole sequences, 0.2; all others are for training.
        seed: of the draw of a share.
        fps: frames per second of the sequences, if known.

    Raises:
        ConfigError: options that contradict each other or a depth_spec.json, or have unknown values.
        DataError: nothing to pair, ambiguous names, sizes that differ; DepthUnitError and LabelError as found.
    """

    name = "folder"
    # Up to which a calibration and depth_spec.json are looked for, where that is a folder above the root: that of a
    # source which reads a part of its own root as frames. No argument, since those are the options of users.
    top: Path | None = None

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "frames",
        rgb: str | None = "auto",
        depth: str | None = "auto",
        labels: str | None = "auto",
        association: str | None = "auto",
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        align: str = "refuse",
        orientation: str = "refuse",
        num_classes: int | None = None,
        class_names: str | Sequence[str] | None = None,
        label_offset: int = 0,
        label_ignore: Iterable[int] | int = (),
        label_map: Mapping[Any, Any] | Sequence[int] | str | None = None,
        label_unmapped: str = "refuse",
        palette: str | Mapping[str, Any] | Sequence[Any] | None = None,
        require_depth: bool = True,
        require_labels: bool = True,
        every: int = 1,
        min_frames: int | None = None,
        clip_length: int | None = None,
        windows: int | None = None,
        split_list: str | Mapping[str, str] | None = None,
        split_fractions: Mapping[str, float] | None = None,
        fps: float | None = None,
        modalities: Mapping[str, str] | None = None,
        calibration: str | None = None,
        clip_stride: int | None = None,
        validation: str | float | Sequence[str] | None = None,
        seed: int = 0,
        ignore_classes: str | Sequence[str | int] | None = None,
    ) -> None:
        root = Path(root).expanduser()
        listing = list_files(root)
        rules = build_label_rules(
            root, num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped, palette
        )
        rules = without_classes(rules, ignore_classes)
        if rules is None and labels not in (None, "none", "auto"):
            raise ConfigError(f"labels={labels!r} also needs one of num_classes, class_names, label_map and palette")
        wanted = {"rgb": rgb, "depth": depth, "labels": labels if rules is not None else None}
        chosen = {name: how for name, how in wanted.items() if how is not None and how != "none"}
        others = check_modalities(modalities)
        chosen |= others if chosen else {}
        required = {name for name in chosen if name == "rgb" or name in others}
        required |= {"depth"} if require_depth and "depth" in chosen else set()
        required |= {"labels"} if require_labels and "labels" in chosen else set()
        asked = json.dumps([str(root.absolute()), chosen, sorted(required), association])
        found = remembered(f"frames {asked}", lambda: find_frames(listing, chosen, required, association or "none"))
        sequences, unpaired, notes = found[0], list(found[1]), list(found[2])  # which this split adds to
        if unit == "clips" and "depth" in required and unpaired:
            wider = f"frames of clips {asked}"
            spare = required - {"depth"}
            whole = remembered(wider, lambda: find_frames(listing, chosen, spare, association or "none")[0])
            sequences, unpaired = with_holes(sequences, whole, unpaired)
        super().__init__(
            root,
            sequences,
            unit=unit,
            split=SplitChoice(split, split_list, split_fractions, validation, seed),
            every=every,
            min_frames=min_frames,
            depth_options=DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth),
            label_rules=rules if "labels" in chosen else None,
            align=align,
            fps=fps,
            unpaired=unpaired,
            notes=notes,
            orientation=orientation,
            clip_length=clip_length,
            windows=windows,
            clip_stride=clip_stride,
            calibrations=find_calibrations(root, sequences, calibration, notes, self.top),
            require_depth="depth" in required,
            reads_spec_files=True,
            top=self.top,
        )


def check_modalities(modalities: Mapping[str, str] | None) -> dict[str, str]:
    """Name -> folder or pattern of further modalities; refuses those that have their own option.

    Raises:
        ConfigError: an invalid name, or `auto` or `none`, which have no meaning here.
    """
    for name, how in (modalities or {}).items():
        if name in _OWN_OPTIONS:
            raise ConfigError(f"modalities contains {name!r}, which has its own option (--data.options.{name})")
        if not name.isidentifier() or name == "segmentation":
            raise ConfigError(
                f"modalities: {name!r} is not a valid name of a modality; use letters only, such as normals"
            )
        if how in ("auto", "none", ""):
            raise ConfigError(f"modalities.{name} is {how!r}; give a folder or a pattern, such as {name}/*.png")
    return dict(modalities or {})


def find_frames(
    listing: Listing, chosen: dict[str, str], required: set[str], association: str
) -> tuple[Sequences, list[Unpaired], list[str]]:
    """Frames by sequence, the files left over, and notes on how they were found.

    Raises:
        DataError: no frame has all of `required`; the message lists what was found and how to name it.
    """
    if not chosen:
        raise ConfigError("rgb and depth are both 'none', so there is nothing to read; set at least one of them")
    rows: dict[str, dict[str, str]] = {}
    unpaired: list[Unpaired] = []
    notes: list[str] = []
    associations = find_associations(listing, association)
    covered = []
    for file in associations:
        found, missing = rows_of_association(listing, file, list(chosen), required)
        rows.update(found)
        unpaired += missing
        covered.append(PurePosixPath(file).parent)
        absent = f", {len(missing)} missing" if missing else ""
        notes.append(f"{plural(len(found), 'frame')} paired by {file}{absent}")
    rest = list(listing.files)
    for folder in covered:
        prefix = "" if not folder.parts else f"{folder}/"
        rest = [file for file in rest if not file.startswith(prefix)]
    if rest:
        columns, said = with_video_frames(Listing(listing.root, tuple(rest)), chosen)
        notes += said
        found, leftovers = pair_by_name(columns)
        found, leftovers, stamped = pair_by_stamp(found, leftovers)
        counts = ", ".join(f"{len(entries)} {name}" for name, entries in columns.items())
        notes.append(f"{plural(len(found), 'frame')} by name from {counts} files")
        if stamped:
            notes.append(f"{stamped} of them by timestamps in their names, at most a millisecond apart")
        rows.update(found)
        # A file without all partners still belongs to a frame that has what is required.
        kept = {file for row in found.values() if required <= set(row) for file in row.values()}
        unpaired += [entry for entry in leftovers if entry.path not in kept]
    complete = {name: row for name, row in rows.items() if required <= set(row)}
    if not complete:
        fix = _naming(listing, chosen, required) or f"{readable_suffixes(chosen)}\n{HOW_TO_FIX}"
        raise DataError(
            f"no frame under {listing.root} has {' and '.join(sorted(required)) or 'RGB or depth'}. "
            f"{''.join(f'{note}. ' for note in notes)}{_unlike(unpaired)}Found:\n{listing.summary()}\n{fix}"
        )
    return _in_sequences(complete), unpaired, notes


def with_holes(
    sequences: Sequences, every: Sequences, unpaired: Sequence[Unpaired]
) -> tuple[Sequences, list[Unpaired]]:
    """Sequences of clips with the frames that lack depth, which are holes; and the files that are still not used.

    Where most frames lack it, depth was recorded at another rate: those that have it stay alone.

    Args:
        sequences: frames that have depth.
        every: all frames, of these sequences and others.
        unpaired: files that `sequences` do not use.
    """
    found = {key: every[key] if 2 * len(frames) >= len(every[key]) else frames for key, frames in sequences.items()}
    used = {file for frames in found.values() for frame in frames for file in frame.files.values()}
    return found, [entry for entry in unpaired if entry.path not in used]


def _naming(listing: Listing, chosen: dict[str, str], required: set[str]) -> str:
    """The options that name pictures and depth, where the files themselves tell them apart and then pair up."""
    if chosen != {"rgb": "auto", "depth": "auto"} or (found := naming_by_bits(listing)) is None:
        return ""
    try:
        sequences, _, _ = find_frames(listing, {"rgb": found.rgb, "depth": found.depth}, required, "none")
    except DataError:
        return ""
    pairs = sum(map(len, sequences.values()))
    return (
        f"{plural(found.count, 'file')} such as {found.example} {agree(found.count, 'has', 'have')} 16 bits, as "
        "depth has, but no names that "
        "pair them with "
        f"pictures. With these options {pairs} of them are:\n"
        f"  --data.options.rgb {shlex.quote(found.rgb)} --data.options.depth {shlex.quote(found.depth)}\n"
        "No option is needed for color/NAME.jpg beside depth/NAME.png, or NAME.jpg beside NAME_depth.png. "
        "For RGB only: depth=none."
    )


def _unlike(unpaired: Sequence[Unpaired]) -> str:
    """A sentence on files that are there, in several folders, and match none of another."""
    firsts = {PurePosixPath(entry.path).parent: entry.path for entry in reversed(unpaired)}
    if len(firsts) < 2:
        return ""
    shown = ", ".join(sorted(firsts.values())[:3])
    return f"Names are compared without their suffixes, and these match none: {shown}. "


# Frames that lie in no sequence's folder. A fixed word: the root's own name must not change keys and draws.
ROOT_SEQUENCE = "frames"


def _in_sequences(rows: dict[str, dict[str, str]]) -> Sequences:
    sequences: Sequences = {}
    for name, row in rows.items():
        folder = PurePosixPath(name).parent.as_posix()
        folder = ROOT_SEQUENCE if folder == "." else folder
        others = tuple((key, file) for key, file in row.items() if key not in _OWN_OPTIONS)
        frame = Frame(name, row.get("rgb"), row.get("depth"), row.get("labels"), others)
        sequences.setdefault(folder, []).append(frame)
    return sequences

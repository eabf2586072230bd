"""The `nyuv2` source: the labelled frames of NYU Depth v2, in the published file or exported as pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.depth.sampling import evenly_spaced
from m33d_hf.data.files.files import MAP_SUFFIXES
from m33d_hf.data.files.packed import packed_name
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.labels.stored_values import look_at_labels
from m33d_hf.data.options import choose
from m33d_hf.data.packed_formats.nyu_mat import num_frames
from m33d_hf.data.plural import agree, plural
from m33d_hf.data.source import Unpaired
from m33d_hf.data.sources.frames.folder import find_frames
from m33d_hf.data.sources.frames.frames import FrameSource
from m33d_hf.data.sources.frames.layouts import list_files
from m33d_hf.data.sources.frames.reading import Frame, FrameReader
from m33d_hf.data.sources.frames.splits import SPLIT_NAMES, Sequences, SplitChoice, canonical_split
from m33d_hf.data.sources.nyuv2.masks import MaskedFrameReader
from m33d_hf.data.sources.nyuv2.tables import (
    CLASSES_NAME,
    LABEL_IDS,
    SPLITS_NAME,
    find_table,
    label_rules,
    read_class_map,
    read_split,
    settle_label_ids,
)
from m33d_hf.data.walking import files_ending
from m33d_hf.errors import ConfigError, DataError, MissingSplitError

FILE_NAME = "nyu_depth_v2_labeled.mat"
DEPTH_TARGETS = ("depths", "rawDepths")
_LOOKED_AT = 64
_NUMBER = re.compile(r"\d+")
_SEQUENCE = "nyuv2"


class NYUv2Source(FrameSource):
    """The 1,449 labelled frames (640 x 480): 795 for training, 654 for test. There is no validation split.

    Args:
        root: the folder of `nyu_depth_v2_labeled.mat`, that file itself, or a folder of exported pictures.
        split: `train`, `test`, or None / `all`.
        depth_target: of the file, `depths` (holes filled in by colour) or `rawDepths` (as measured).
        valid: valid pixels of the depth: `raw`, where the sensor measured (`rawDepths` above 0), `all`, or the
            name of a folder of masks, one per frame, above 0 where valid (`mask_valid`). For pictures, `raw` means
            all that have a value.
        labels: `none` or `auto`; for pictures also a folder or a pattern, as in the `folder` source.
        rgb, depth: for pictures, as in the `folder` source.
        label_ids: kind of ids in the label maps: `raw` (the 894 of the data set), `nyu40` (1 to 40, 0 for none),
            `nyu40_zero_based` (0 to 39, 255 for none), or `auto`: raw in the file, by the values in pictures.
        splits: the official `splits.mat`; None searches the root, the folder above it, and `meta/`, `meta_data/` and
            `splits/` below it. Not required if pictures are in folders train and test.
        class_map: `classMapping40.mat` (894 ids to 40 classes), searched in the same places.
        first_number: number in the name of the first exported picture; None means 0 if a picture has it, otherwise 1.
        align, orientation: as in the `folder` source.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source; the
            file's depth is in metres.

    Raises:
        ConfigError: options that contradict each other.
        DataError: nothing to read, a missing table, or frames that are in no split; LabelError: ambiguous ids.
    """

    name = "nyuv2"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        depth_target: str = "depths",
        valid: str = "raw",
        labels: str = "none",
        rgb: str = "auto",
        depth: str = "auto",
        label_ids: str = "auto",
        splits: str | None = None,
        class_map: str | None = None,
        first_number: int | None = None,
        align: str = "refuse",
        orientation: str = "refuse",
        depth_unit: str | Mapping[str, str] | None = None,
        depth_scale: float | Mapping[str, float] | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
    ) -> None:
        root = Path(root).expanduser()
        choose("depth_target", depth_target, DEPTH_TARGETS)
        choose("label_ids", label_ids, LABEL_IDS)
        file, root = _published_file(root)
        notes: list[str] = []
        unpaired: list[Unpaired] = []
        stated = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        if file is not None:
            frames = _frames_of_file(root / file, file, depth_target, valid, labels)
            notes.append(f"{plural(len(frames), 'frame')} in {file}; depth is {depth_target}, {_validity(valid)}")
            if not stated.states_meaning:
                stated = replace(stated, unit="metre")
        else:
            wanted = {"rgb": rgb, "depth": depth, "labels": labels}
            frames, unpaired = _frames_of_pictures(root, wanted, first_number, notes)
            if "depth" in wanted and depth != "none":
                notes.append(f"depth comes from the pictures, {_validity('all' if valid == 'raw' else valid)}")
        self._numbers = {frame.key: number for number, frame in frames.items()}
        self._splits = splits
        rules = None
        if labels != "none":
            ids = "raw" if file is not None and label_ids == "auto" else label_ids
            rules = _rules(root, frames, ids, class_map, notes)
        self._masks_in = None if valid in ("raw", "all") else valid
        self._masks: dict[str, str] = {}
        super().__init__(
            root,
            {_SEQUENCE: list(frames.values())},
            unit="frames",
            split=SplitChoice(split),
            depth_options=stated,
            label_rules=rules,
            align=align,
            fps=None,
            unpaired=unpaired,
            notes=notes,
            orientation=orientation,
        )

    def _of_split(self, root: Path, sequences: Sequences, wanted: SplitChoice) -> tuple[Sequences, str]:
        """The frames of a split: by folders with its name, otherwise by the official numbers.

        Raises:
            ConfigError: a split that NYUv2 does not have.
            DataError: no table, frames of neither split, or none of this one.
        """
        chosen, how = self._frames_of(root, sequences[_SEQUENCE], wanted.name)
        if self._masks_in is not None:
            self._masks = _masks(root, self._masks_in, chosen)
        return {_SEQUENCE: chosen}, how

    def _frames_of(self, root: Path, found: list[Frame], split: str | None) -> tuple[list[Frame], str]:
        if split is None or split == "all":
            return found, "all frames, not split"
        name = canonical_split(split)
        if name == "validation":
            raise MissingSplitError(
                "NYUv2 has the splits train and test, but no validation split; evaluate on test (--data.eval_split "
                "test)",
                instead="test",
            )
        frames = {self._numbers[frame.key]: frame for frame in found}
        by_folder = {number: _folder_split(frame) for number, frame in frames.items()}
        if self._splits is None and all(by_folder.values()):
            chosen = [frame for number, frame in frames.items() if by_folder[number] == name]
            how = f"split {name} from the folder of that name: {plural(len(chosen), 'frame')}"
        else:
            table = find_table(root, SPLITS_NAME, self._splits, "splits")
            official = read_split(table)
            listed = {number for numbers in official.values() for number in numbers}
            if unknown := sorted(frames.keys() - listed):
                raise DataError(
                    f"{plural(len(unknown), 'frame')} {agree(len(unknown), 'is', 'are')} in neither split of "
                    f"{table}, the first is number {unknown[0]}. Check "
                    f"that these are the {len(listed)} labelled frames and that --data.options.first_number is right."
                )
            chosen = [frames[number] for number in official[name] if number in frames]
            how = f"split {name} of {table.name}: {len(chosen)} of {len(official[name])} frames"
        if not chosen:
            raise DataError(f"{root} has no frame of split {name}")
        return chosen, how

    def _reader_of(self, sequence: str) -> FrameReader:
        reader = super()._reader_of(sequence)
        if not self._masks:
            return reader
        plain = (reader.root, reader.depth_spec, reader.label_rules, reader.align, reader.orientation)
        return MaskedFrameReader(*plain, reader.depth_check, masks=self._masks)


def _validity(valid: str) -> str:
    pixels = {"raw": "valid where the sensor measured", "all": "valid wherever there is a value"}
    return pixels.get(valid, f"valid where the masks in {valid} are above 0")


def _published_file(root: Path) -> tuple[str | None, Path]:
    """Name of the published file, or None, and the folder that paths are relative to."""
    if root.is_file():
        return root.name, root.parent
    if (root / FILE_NAME).is_file():
        return FILE_NAME, root
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is neither a folder nor a file")
    return None, root


def _frames_of_file(path: Path, file: str, target: str, valid: str, labels: str) -> dict[int, Frame]:
    """Number (from 1, as in splits.mat) -> frame."""
    if labels not in ("none", "auto"):
        raise ConfigError(f"labels is {labels!r}; for {file} it must be auto or none")
    stream = "raw" if target == "rawDepths" else "measured" if valid == "raw" else "filled"
    streams = ["rgb", stream, *(["raw"] if stream == "measured" else []), *(["labels"] if labels == "auto" else [])]
    count = num_frames(path, tuple(streams))
    return {
        number + 1: Frame(
            f"{number + 1:04d}",
            packed_name(file, "rgb", number),
            packed_name(file, stream, number),
            packed_name(file, "labels", number) if labels == "auto" else None,
        )
        for number in range(count)
    }


def _frames_of_pictures(
    root: Path, wanted: Mapping[str, str], first_number: int | None, notes: list[str]
) -> tuple[dict[int, Frame], list[Unpaired]]:
    """Number (from 1) -> frame; found and paired as in the `folder` source.

    Raises:
        DataError: a name without a number, or a repeated number.
    """
    chosen = {name: how for name, how in wanted.items() if how != "none"}
    sequences, unpaired, said = find_frames(list_files(root), chosen, set(chosen), "none")
    notes += said
    numbered: dict[int, Frame] = {}
    for frame in (frame for sequence in sequences.values() for frame in sequence):
        number = _number_in(frame.key)
        if number is None:
            raise DataError(f"{root}: the frame {frame.key} has no number in its name, which the split requires")
        if number in numbered:
            raise DataError(f"{root}: {numbered[number].key} and {frame.key} have the same number {number}")
        numbered[number] = frame
    first = first_number if first_number is not None else 0 if 0 in numbered else 1
    notes.append(f"number {first} is assumed to be the first picture of the data set (--data.options.first_number)")
    return {number - first + 1: frame for number, frame in sorted(numbered.items())}, unpaired


def _number_in(name: str) -> int | None:
    digits = _NUMBER.findall(PurePosixPath(name).name)
    return int(digits[-1]) if digits else None


def _folder_split(frame: Frame) -> str | None:
    """The split that a folder of the frame is named after."""
    parts = {part.lower() for part in PurePosixPath(frame.rgb or frame.depth or "").parts[:-1]}
    return next((name for name, aliases in SPLIT_NAMES.items() if parts & set(aliases)), None)


def _rules(root: Path, frames: Mapping[int, Frame], ids: str, class_map: str | None, notes: list[str]) -> LabelRules:
    files = [root / frame.labels for frame in frames.values() if frame.labels is not None]
    sample = look_at_labels(evenly_spaced(files, _LOOKED_AT if ids == "auto" else 1))
    ids, how = settle_label_ids(ids, sorted(sample.counts))
    notes.append(how)
    table = read_class_map(find_table(root, CLASSES_NAME, class_map, "class_map")) if ids == "raw" else None
    return label_rules(ids, table)


def _masks(root: Path, folder: str, frames: Sequence[Frame]) -> dict[str, str]:
    """Depth file -> mask, by the number in its name.

    Raises:
        DataError: no such folder, one that cannot be read, or a frame without a mask.
    """
    base = root / folder
    if not base.is_dir():
        raise DataError(f"{base} is not a folder; --data.options.valid must be raw, all or a folder of masks")
    by_number = {
        number: file.relative_to(root).as_posix()
        for file in files_ending(base)
        if file.suffix.lower() in MAP_SUFFIXES and (number := _number_in(file.name)) is not None
    }
    masks: dict[str, str] = {}
    for frame in frames:
        number = _number_in(frame.key)
        if number not in by_number:
            raise DataError(f"{base} has no mask for the frame {frame.key}: no file with the number {number}")
        masks[str(frame.depth)] = by_number[number]
    return masks

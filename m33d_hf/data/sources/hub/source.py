"""The `hub` source: prepared data, Parquet files, folders of pictures and data sets on the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.options import choose
from m33d_hf.data.prepared.layout import Manifest
from m33d_hf.data.prepared.reading import ParquetRows
from m33d_hf.data.sample import IGNORE_INDEX, RGBDSample
from m33d_hf.data.source import Source
from m33d_hf.data.sources.hub.columns import Decoder, Rows, choose_columns
from m33d_hf.data.sources.hub.tables import open_table
from m33d_hf.errors import ConfigError, DataError, DepthUnitError
from m33d_hf.modeling.depth_m33d import DepthSpec

UNITS = ("frames", "clips")


class HubSource(Source):
    """Frames in tables, read at random by their row: nothing is streamed, so that every run can be resumed exactly.

    Data that `scripts/prepare_data.py` has written says by itself what its columns, its depth and its classes are.
    Other Parquet files, folders of pictures with their metadata, and repositories are what `datasets.load_dataset`
    reads; their columns are found by usual names.

    Args:
        root: folder, or the name of a data set on the Hub (`user/name`).
        split: `train`, `validation` (`val`), `test`, or None / `all`: a folder per split, or `datasets`' splits.
        unit: `frames` (each row an item) or `clips` (neighbouring rows of one sequence are an item).
        revision: of a repository on the Hub.
        rgb, depth, labels, label, key, sequence: names of columns, `auto` for usual ones, or `none`. `labels` are label
            maps, `label` is a class id of the whole row.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source, but never
            guessed; only for depth that was not prepared here.
        num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped: as in the `folder` source;
            only for label maps that were not prepared here.
        action_names: names of the classes of `label` where the data set does not say them.

    Raises:
        ConfigError: options that contradict each other, columns that are not there.
        DataError: nothing there, parts missing, a repository without a network. DepthUnitError: depth without a unit.
    """

    name = "hub"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "frames",
        revision: str | None = None,
        rgb: str | None = "auto",
        depth: str | None = "auto",
        labels: str | None = "auto",
        label: str | None = "auto",
        key: str | None = "auto",
        sequence: str | None = "auto",
        depth_unit: str | None = None,
        depth_scale: float | None = None,
        depth_kind: str | None = None,
        invalid_values: Iterable[float] | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
        num_classes: int | None = None,
        class_names: str | Sequence[str] | None = None,
        label_offset: int = 0,
        label_ignore: Iterable[int] | int = (),
        label_map: Mapping[Any, Any] | Sequence[int] | str | None = None,
        label_unmapped: str = "refuse",
        action_names: Sequence[str] | None = None,
    ) -> None:
        choose("unit", unit, UNITS)
        self.rows: Rows = open_table(root, split, revision)
        folder = Path(root).expanduser()
        self.root = folder if folder.is_dir() else None
        self.unit = unit
        manifest = getattr(self.rows, "manifest", None)
        depth_options = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        rules = build_label_rules(
            folder, num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped
        )
        stated = {"rgb": rgb, "depth": depth, "labels": labels, "label": label, "key": key, "sequence": sequence}
        labelled = rules is not None or (manifest is not None and manifest.class_names is not None)
        columns = choose_columns(stated, self.rows.column_names, labelled, str(root))
        if manifest is not None:
            _refuse_restating(depth_options, rules, root)
            self._as_prepared(manifest)
        else:
            if columns.labels is not None and rules is None:
                raise ConfigError(f"labels={labels!r} also needs one of num_classes, class_names and label_map")
            self.depth_spec = None if columns.depth is None else _stated_spec(depth_options, columns.depth, root)
            if rules is not None and columns.labels is not None:
                self.class_names = rules.names or [f"class {i}" for i in range(rules.num_classes)]
            if columns.label is not None:
                self.action_names = _action_names(self.rows, columns.label, action_names)
        if self.action_names is None and manifest is not None:
            columns = replace(columns, label=None)  # a column of nothing
        self.decoder = Decoder(columns, self.depth_spec, manifest is not None, rules)
        self._sequences = self._find_sequences() if unit == "clips" else None
        self.notes = [self._describe(manifest, root)]

    def _as_prepared(self, manifest: Manifest) -> None:
        self.depth_spec = None if manifest.depth_spec is None else DepthSpec.from_dict(manifest.depth_spec)
        self.class_names, self.action_names = manifest.class_names, manifest.action_names
        if manifest.class_table is not None:
            self.class_table = ClassTable.from_dict(manifest.class_table)

    def _describe(self, manifest: Manifest | None, root: str | Path) -> str:
        columns = self.decoder.columns
        used = ", ".join(f"{option} {name!r}" for option, name in vars(columns).items() if name is not None)
        made = "" if manifest is None else f", prepared from the source {manifest.source} (sizes: {manifest.sizes})"
        clips = "" if self._sequences is None else f" in {len(self._sequences)} sequences"
        return f"{len(self.rows)} rows{clips} of {root}{made}; columns: {used}"

    def _find_sequences(self) -> list[tuple[str, range]]:
        """(name, rows) of neighbouring rows with one name.

        Raises:
            ConfigError: no column of sequences. DataError: rows of a sequence that do not lie together.
        """
        column = self.decoder.columns.sequence
        if column is None:
            raise ConfigError(
                f"unit=clips needs a column that names the sequence of each row (--data.options.sequence COLUMN); the "
                f"columns are {', '.join(self.rows.column_names)}."
            )
        found: dict[str, range] = {}
        start = 0
        for name, members in groupby(self.rows.whole(column)):
            stop = start + sum(1 for _ in members)
            if str(name) in found:
                raise DataError(
                    f"the rows of the sequence {name!r} do not lie together (rows {found[str(name)].start} and {start} "
                    "each begin a stretch of it); sort the table by sequence and frame."
                )
            found[str(name)] = range(start, stop)
            start = stop
        return list(found.items())

    def __len__(self) -> int:
        return len(self.rows) if self._sequences is None else len(self._sequences)

    def __getitem__(self, index: int) -> HubHandle:
        """Handle number `index`; reads the name of its row.

        Raises:
            IndexError: `index` lies outside the source. CorruptFileError: the names are damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a source of {len(self)}")
        if self._sequences is not None:
            name, rows = self._sequences[index]
            return HubHandle(name, rows, self)
        column = self.decoder.columns.key
        name = f"row {index}" if column is None else str(self.rows.read([index], [column])[0][column])
        return HubHandle(name, range(index, index + 1), self)

    def labels(self) -> list[int] | None:
        """Class id of every item, 255 for none; None without a column of them."""
        column = self.decoder.columns.label
        if column is None or self.action_names is None:
            return None
        found = [IGNORE_INDEX if value is None else int(value) for value in self.rows.whole(column)]
        return found if self._sequences is None else [found[rows.start] for _, rows in self._sequences]

    def groups(self) -> list[str] | None:
        """Sequence of every item."""
        if self._sequences is not None:
            return [name for name, _ in self._sequences]
        column = self.decoder.columns.sequence
        return None if column is None else [str(name) for name in self.rows.whole(column)]

    def digest(self) -> str:
        """Digest of the names and sizes of the files (of a repository: what `datasets` calls its fingerprint) and of
        how they are read."""
        rules = self.decoder.label_rules
        state = {
            "source": self.name,
            "unit": self.unit,
            "columns": vars(self.decoder.columns),
            "depth": None if self.depth_spec is None else self.depth_spec.to_dict(),
            "labels": None if rules is None else rules.to_dict(),
        }
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
        if isinstance(self.rows, ParquetRows):
            made = self.rows.manifest
            digest.update(b"" if made is None else made.to_json().encode())
            for file in self.rows.files:
                digest.update(
                    f"\n{file.parent.name}/{file.name} {file.stat().st_size}".encode("utf-8", "surrogatepass")
                )
        else:
            digest.update(str(getattr(self.rows, "fingerprint", "")).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class HubHandle:
    """A `VideoHandle` over neighbouring rows; one row is an image."""

    key: str
    rows: range
    source: HubSource = field(repr=False)

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.rows)

    @property
    def fps(self) -> float | None:
        """As the first row says; None where there is no such column."""
        table = self.source.rows
        if self.length == 1 or "fps" not in table.column_names:
            return None
        value = table.read([self.rows.start], ["fps"])[0]["fps"]
        return None if value is None else float(value)

    def read(self, indices: Sequence[int]) -> RGBDSample:
        """Read the given frames.

        Raises:
            IndexError: a frame outside the item. CorruptFileError: a row that cannot be read or decoded.
            DataError: frames of several sizes, or some of which lack a map.
        """
        return self.read_maps(indices, None)

    def read_maps(self, indices: Sequence[int], maps: Collection[str] | None) -> RGBDSample:
        """As `read`, without the columns of maps that are not named; None for all."""
        for index in indices:
            if not 0 <= index < self.length:
                raise IndexError(f"{self.key}: frame {index} of an item of {self.length}")
        table, decoder = self.source.rows, self.source.decoder
        numbers = [self.rows[index] for index in indices]
        values = table.read(numbers, decoder.needed(maps))
        frames = [decoder.maps(row, self._where(number), maps) for row, number in zip(values, numbers, strict=True)]
        stacked = {name: self._stack(name, frames) for name, _ in decoder.columns.of_maps(maps)}
        label = values[0].get(decoder.columns.label) if decoder.columns.label is not None else None
        places = ",".join(str(int(index)) for index in indices)
        sample = RGBDSample(
            key=self.key if self.length == 1 else f"{self.key}[{places}]",
            rgb=stacked.get("rgb"),
            depth=stacked.get("depth"),
            segmentation=stacked.get("segmentation"),
            label=None if label is None else int(label),
            meta={"rows": numbers},
        )
        return self._one_size(sample)

    def _where(self, row: int) -> Path:
        file, place = self.source.rows.where(row)
        return Path(f"{file}, row {place}")

    def _stack(self, name: str, frames: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor | None:
        parts = [maps[name] for maps in frames if name in maps]
        if not parts:
            return None
        if len(parts) < len(frames):
            raise DataError(f"{self.key}: {len(frames) - len(parts)} of {len(frames)} frames have no {name}")
        if len({tuple(part.shape) for part in parts}) > 1:
            raise DataError(f"{self.key}: the {name} of its frames differ in size")
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)

    def _one_size(self, sample: RGBDSample) -> RGBDSample:
        held = {"rgb": sample.rgb, "depth": sample.depth, "labels": sample.segmentation}
        sizes = {name: tuple(map_.shape[-2:]) for name, map_ in held.items() if map_ is not None}
        if not sizes:
            raise DataError(f"{self._where(self.rows.start)}: the row has neither RGB nor depth")
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
            raise DataError(f"{self.key}: its maps differ in size (height x width): {listed}; resize them to one size.")
        return sample


def _refuse_restating(depth: DepthOptions, rules: Any, root: str | Path) -> None:
    """Raise a ConfigError for options whose answer stands in prepared data."""
    bounds = (depth.invalid_values, depth.min_depth, depth.max_depth)
    if depth.states_meaning or rules is not None or any(value is not None for value in bounds):
        raise ConfigError(
            f"{root} was prepared by scripts/prepare_data.py and says itself what its depth and its classes are; leave "
            "out the options of depth units and classes, or prepare it anew with them."
        )


def _stated_spec(options: DepthOptions, column: str, root: str | Path) -> DepthSpec:
    if not options.states_meaning:
        raise DepthUnitError(
            f"{root}: nothing says what the values of the column {column!r} mean. State it: --data.options.depth_unit "
            "mm (or depth_scale, or depth_kind inverse), or --data.options.depth none."
        )
    stated = {name: value for name, value in vars(options).items() if value is not None}
    return DepthSpec(**stated)


def _action_names(rows: Rows, column: str, stated: Sequence[str] | None) -> list[str] | None:
    """Names of the classes of a column: as stated, else as `datasets` keeps them."""
    if stated is not None:
        return [str(name) for name in stated]
    try:
        import datasets
    except ImportError:
        return None
    feature = datasets.Features.from_arrow_schema(rows.schema).get(column)  # type: ignore[attr-defined]
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None

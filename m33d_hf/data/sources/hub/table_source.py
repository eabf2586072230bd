"""Sources of frames in tables: what is common to prepared data, data sets of others, Parquet and shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.files.remote import AnyPath, RemotePath, file_size
from m33d_hf.data.labels.class_table import ClassTable
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.options import choose
from m33d_hf.data.plural import plural
from m33d_hf.data.prepared.layout import Manifest
from m33d_hf.data.sample import IGNORE_INDEX
from m33d_hf.data.source import Source
from m33d_hf.data.sources.hub.columns import USUAL, Decoder, Rows, choose_columns
from m33d_hf.data.sources.hub.row_labels import class_of, settle_label
from m33d_hf.data.sources.hub.table_items import TableHandle, TableLabels
from m33d_hf.errors import ConfigError, DataError, DepthUnitError
from m33d_hf.modeling.depth_m33d import DepthSpec

UNITS = ("frames", "clips")


class TableSource(Source):
    """Frames in a table with random access; each row is a frame.

    Args:
        rows: the table.
        root: folder, address or repository, for messages.
        unit: `frames` (each row an item) or `clips` (neighbouring rows of one sequence are an item).
        stated: option -> column, as `columns.choose_columns` takes it.
        depth: what stored depth means; refused where the table says it.
        rules: of label maps; likewise.
        action_names: names of the classes of whole rows.
        usual: option -> names that `auto` looks for.

    Raises:
        ConfigError: options that contradict each other, columns that are not there. DepthUnitError: depth without unit.
        DataError: rows of a sequence that do not lie together.
    """

    def __init__(
        self,
        rows: Rows,
        root: str | Path,
        unit: str,
        stated: Mapping[str, str | None],
        depth: DepthOptions,
        rules: LabelRules | None,
        action_names: Sequence[str] | None,
        usual: Mapping[str, Sequence[str]] = USUAL,
    ) -> None:
        choose("unit", unit, UNITS)
        self.rows = rows
        folder = Path(root).expanduser()
        self.root = folder if folder.is_dir() else None
        self.unit = unit
        manifest = getattr(rows, "manifest", None)
        told: list[str] = []
        labelled = rules is not None or (manifest is not None and manifest.class_names is not None)
        columns = choose_columns(stated, rows.column_names, labelled, str(root), usual)
        if manifest is not None:
            _refuse_restating(depth, rules, root)
            self._as_prepared(manifest)
        else:
            if columns.labels is not None and rules is None:
                raise ConfigError(
                    f"labels={stated['labels']!r} also needs one of num_classes, class_names and label_map"
                )
            self.depth_spec = None if columns.depth is None else _stated_spec(depth, columns.depth, root)
            if rules is not None and columns.labels is not None:
                self.class_names = rules.names or [f"class {i}" for i in range(rules.num_classes)]
            columns, told = settle_label(rows, columns, stated, action_names, root)
            if columns.label is not None:
                self.action_names = _action_names(rows, columns.label, action_names)
        if self.action_names is None and manifest is not None:
            columns = replace(columns, label=None)  # a column of nothing
        self.decoder = Decoder(columns, self.depth_spec, manifest is not None, rules)
        self._sequences = self._find_sequences() if unit == "clips" else None
        self.notes = [self._describe(manifest, root), *told]

    def _as_prepared(self, manifest: Manifest) -> None:
        self.depth_spec = None if manifest.depth_spec is None else DepthSpec.from_dict(manifest.depth_spec)
        self.class_names, self.action_names = manifest.class_names, manifest.action_names
        if manifest.class_table is not None:
            self.class_table = ClassTable.from_dict(manifest.class_table)

    def _describe(self, manifest: Manifest | None, root: str | Path) -> str:
        columns = self.decoder.columns
        used = ", ".join(f"{option} {name!r}" for option, name in vars(columns).items() if name is not None)
        made = "" if manifest is None else f", prepared from the source {manifest.source} (sizes: {manifest.sizes})"
        clips = "" if self._sequences is None else f" in {plural(len(self._sequences), 'sequence')}"
        return f"{plural(len(self.rows), 'row')}{clips} of {root}{made}; columns: {used}"

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

    def __getitem__(self, index: int) -> TableHandle:
        """Handle number `index`; reads the name of its row.

        Raises:
            IndexError: `index` lies outside the source. CorruptFileError: the names are damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a source of {len(self)}")
        if self._sequences is not None:
            name, rows = self._sequences[index]
            return TableHandle(name, rows, self)
        column = self.decoder.columns.key
        name = f"row {index}" if column is None else str(self.rows.read([index], [column])[0][column])
        return TableHandle(name, range(index, index + 1), self)

    def labels(self) -> list[int] | None:
        """Class id of every item, 255 for none; None without a column of them. Raises LabelError as `class_of`."""
        column = self.decoder.columns.label
        if column is None or self.action_names is None:
            return None
        known = [class_of(value, column, self.where, row) for row, value in enumerate(self.rows.whole(column))]
        found = [IGNORE_INDEX if number is None else number for number in known]
        return found if self._sequences is None else [found[rows.start] for _, rows in self._sequences]

    def groups(self) -> list[str] | None:
        """Sequence of every item."""
        if self._sequences is not None:
            return [name for name, _ in self._sequences]
        column = self.decoder.columns.sequence
        return None if column is None else [str(name) for name in self.rows.whole(column)]

    def prefetch(self, items: Sequence[int]) -> None:
        """Fetch frames side by side where each is a request; a clip is one already. Raises UnreachableError."""
        ask = getattr(self.rows, "prefetch", None)
        if ask is not None and self._sequences is None:
            ask(items)

    def keys(self) -> list[str] | None:
        """Name of every item, by the one column that holds them; None without one."""
        if self._sequences is not None:
            return [name for name, _ in self._sequences]
        column = self.decoder.columns.key
        return None if column is None else [str(name) for name in self.rows.whole(column)]

    def rows_of(self, items: Sequence[int]) -> np.ndarray:
        """(N,) int64 rows of some items, in order."""
        if self._sequences is None:
            return np.asarray(items, np.int64)
        parts = [np.arange(rows.start, rows.stop) for rows in (self._sequences[item][1] for item in items)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def label_maps(self, rows: Sequence[int]) -> TableLabels | None:
        """The label maps of some items; None without a column of them."""
        return None if self.decoder.columns.labels is None else TableLabels(self, self.rows_of(rows))

    def stored_bytes(self, row: int) -> int:
        """Bytes of the picture, or of the depth, of a row, as a file's size: it tells frames of one name apart."""
        column = cast("str", self.decoder.columns.rgb or self.decoder.columns.depth)
        return len(self.rows.read([row], [column])[0][column] or b"")

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request over a network."""
        return any(isinstance(file, RemotePath) for file in getattr(self.rows, "files", ())[:1])

    def where(self, row: int) -> Path:
        """A row, for messages: its file, and its number there."""
        file, place = self.rows.where(row)
        named = f"{file}, row {place}"
        return cast("Path", RemotePath(named)) if isinstance(file, RemotePath) else Path(named)

    def _identity(self) -> Iterable[str]:
        """What makes the table differ from others: its manifest, and names and sizes of its files."""
        made: Manifest | None = getattr(self.rows, "manifest", None)
        yield "" if made is None else made.to_json()
        file: AnyPath
        for file in self.rows.files:  # type: ignore[attr-defined]  # of those that lie in files
            size = file.size if isinstance(file, RemotePath) else file_size(file)  # without a request
            yield f"\n{file.parent.name}/{file.name} {size}"

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
        for text in self._identity():
            digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


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
    if options.unit is options.scale is None and options.kind == "metric":
        raise DepthUnitError(
            f"{root}: depth_kind metric does not say in which unit the column {column!r} is stored. Add "
            "--data.options.depth_unit (such as mm, or m for floats in metres) or depth_scale."
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
    schema = getattr(rows, "schema", None)
    if schema is None:  # shards name no classes
        return None
    feature = datasets.Features.from_arrow_schema(schema).get(column)
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None

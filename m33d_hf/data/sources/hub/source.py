"""The `hub` source: prepared data, Parquet files, folders of pictures and data sets on the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.prepared.reading import ParquetRows
from m33d_hf.data.prepared.remote_reading import RemoteParquetRows
from m33d_hf.data.sources.hub.table_source import TableSource
from m33d_hf.data.sources.hub.tables import open_table

_LARGE_GROUP = 16  # rows that are fetched for one, above which the source says so


class HubSource(TableSource):
    """Frames in tables, read at random by their row, so that every run can be resumed exactly.

    Data that `scripts/prepare_data.py` has written says by itself what its columns, its depth and its classes are.
    Other Parquet files, folders of pictures with their metadata, and repositories are what `datasets.load_dataset`
    reads; their columns are found by usual names.

    With `streaming`, Parquet files of a repository or an address are read where they lie: footers first, and then a row
    group, by its bytes, for each row that is asked for. It is not `datasets`' iteration, which deals out files or
    skips rows, and shuffles in a buffer: a row keeps its number, so that no process sees another order than a local
    copy gives, every row comes once an epoch on any number of processes, and a run resumes by an offset.

    Args:
        root: folder, the name of a data set on the Hub (`user/name`), or an address (s3://bucket/folder).
        split: `train`, `validation` (`val`), `test`, or None / `all`: a folder per split, or `datasets`' splits.
        unit: `frames` (each row an item) or `clips` (neighbouring rows of one sequence are an item).
        revision: of a repository on the Hub.
        streaming: download nothing but what is asked for; a folder is read where it lies in any case.
        rgb, depth, labels, label, key, sequence: names of columns, `auto` for usual ones, or `none`. `labels` are label
            maps, `label` is a class id of the whole row.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source, but never
            guessed; only for depth that was not prepared here.
        num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped: as in the `folder` source;
            only for label maps that were not prepared here.
        action_names: names of the classes of `label` where the data set does not say them.

    Raises:
        ConfigError: options that contradict each other, columns that are not there.
        DataError: nothing there, parts missing, a folder that cannot be read, a repository without a network.
        DepthUnitError: depth without a unit.
        UnreachableError: a storage that does not answer while it is streamed from.
    """

    name = "hub"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "frames",
        revision: str | None = None,
        streaming: bool = False,
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
        rows = open_table(root, split, revision, streaming)
        rules = build_label_rules(
            Path(root).expanduser(), num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped
        )
        stated = {"rgb": rgb, "depth": depth, "labels": labels, "label": label, "key": key, "sequence": sequence}
        options = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        super().__init__(rows, root, unit, stated, options, rules, action_names)
        if isinstance(rows, RemoteParquetRows):
            self.notes = [*self.notes, self._traffic(rows)]

    def _traffic(self, rows: RemoteParquetRows) -> str:
        """What a random row costs."""
        columns = [column for _, column in self.decoder.columns.of_maps(None)]
        told = (
            f"streamed: a row group of {rows.request_rows():.3g} rows, {rows.request_bytes(columns) / 1e6:.3g} MB of "
            "pictures, is fetched for each row"
        )
        if rows.request_rows() <= _LARGE_GROUP:
            return told
        return (
            f"{told}. WARNING: that is much for a random row; prepare the data once, which reads it in order "
            "(scripts/prepare_data.py --data.source hub --data.options.streaming true --format shards)"
        )

    def _identity(self) -> Iterable[str]:
        if isinstance(self.rows, ParquetRows):
            return super()._identity()
        return [str(getattr(self.rows, "fingerprint", ""))]

"""The source `shards`: frames in tar files as `scripts/prepare_data.py --format shards` or `webdataset` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m33d_hf.data.depth.options import DepthOptions
from m33d_hf.data.files.remote import is_remote
from m33d_hf.data.labels.labels import build_label_rules
from m33d_hf.data.prepared.layout import TAR
from m33d_hf.data.prepared.reading import parquet_files
from m33d_hf.data.prepared.tar_reading import TarRows
from m33d_hf.data.sources.hub.table_source import TableSource
from m33d_hf.data.sources.hub.tables import folder_of_split, of_split, remote_split
from m33d_hf.data.walking import files_ending
from m33d_hf.errors import ConfigError, DataError

# Ends of names that `webdataset` users give their files, by option; those of prepared shards come first.
_ENDS = {
    "rgb": ("rgb", "rgb.png", "rgb.jpg", "rgb.jpeg", "image.png", "image.jpg", "image.jpeg", "jpg", "jpeg", "png"),
    "depth": ("depth", "depth.png", "depth.tiff", "depth.tif"),
    "labels": ("segmentation", "segmentation.png", "seg.png", "label.png", "labels.png", "mask.png"),
    "label": ("label", "cls"),
    "key": ("key",),
    "sequence": ("sequence",),
}


class ShardsSource(TableSource):
    """Frames in tar files, on a disk or where they lie in object storage (`s3://`, `gs://`, `hf://`, `https://`).

    A frame is read by one read, or one request, of the bytes where the index of its shard says that it lies: not with
    the iteration of `webdataset`, which reads whole shards, deals them out to processes, and shuffles in a buffer. So a
    frame has a number, each comes once an epoch on any number of processes and workers, and a run resumes by an offset.
    The files themselves are `webdataset`'s: its users read prepared shards, and shards of others are read here (from a
    disk: their headers are read once, and the index is kept in the cache).

    Args:
        root: folder, or address.
        split: `train`, `validation` (`val`), `test`, or None / `all`: a folder per split, or the names of the files.
        unit: `frames` (each frame an item) or `clips` (neighbouring frames of one sequence are an item).
        rgb, depth, labels, label: ends of the names in shards that were not prepared here, such as `jpg`, `depth.png`,
            `cls`; `auto` for usual ones, or `none`.
        depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth: as in the `folder` source, but never
            guessed; only for depth that was not prepared here.
        num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped: as in the `folder` source;
            only for label maps that were not prepared here.
        action_names: names of the classes of `label`, for shards that were not prepared here.

    Raises:
        ConfigError: options that contradict each other, names that are not there, neither a folder nor an address.
        DataError: no shards, missing ones, an index that is missing, a folder that cannot be read.
        CorruptFileError: a shard that was cut short.
        DepthUnitError: depth without a unit. UnreachableError: an address that does not answer.
    """

    name = "shards"
    rows: TarRows

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        unit: str = "frames",
        rgb: str | None = "auto",
        depth: str | None = "auto",
        labels: str | None = "auto",
        label: str | None = "auto",
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
        rows = _open_shards(root, split)
        rules = build_label_rules(
            Path(root).expanduser(), num_classes, class_names, label_offset, label_ignore, label_map, label_unmapped
        )
        stated = {"rgb": rgb, "depth": depth, "labels": labels, "label": label, "key": "auto", "sequence": "auto"}
        options = DepthOptions(depth_unit, depth_scale, depth_kind, invalid_values, min_depth, max_depth)
        super().__init__(rows, root, unit, stated, options, rules, action_names, usual=_ENDS)

    def _identity(self) -> Iterable[str]:
        made = self.rows.manifest
        yield "" if made is None else made.to_json()
        yield from (f"\n{line}" for line in self.rows.contents())


def _open_shards(root: str | Path, split: str | None) -> TarRows:
    if is_remote(root):
        return TarRows(remote_split(str(root), split, TAR))
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{root} is neither a folder nor an address such as s3://bucket/folder.")
    chosen, left = folder_of_split(folder, split)
    files = files_ending(chosen, TAR)
    if not files:
        hint = " It holds Parquet files: --data.source hub." if parquet_files(chosen) else ""
        raise DataError(f"{chosen} holds no {TAR} files.{hint}")
    return TarRows(of_split(files, chosen, left))

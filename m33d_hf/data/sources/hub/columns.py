"""Which column of a table of frames holds what, and what its values mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from m33d_hf.data.files.remote import AnyPath
from m33d_hf.data.labels.labels import LabelRules
from m33d_hf.data.prepared.encoding import decode_stored_depth, decode_stored_map, decode_stored_picture
from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.depth_m33d import DepthSpec

# Names that data sets have for their columns, in order of preference; option -> names.
USUAL = {
    "rgb": ("rgb", "image", "color", "colour", "pixel_values", "img"),
    "depth": ("depth", "depth_map", "depth_image"),
    "labels": ("segmentation", "labels", "label_map", "semantic", "annotation", "mask"),
    "label": ("label", "action"),
    "key": ("key", "__key__", "file_name", "id"),
    "sequence": ("sequence", "scene", "video"),
}


class Rows(Protocol):
    """A table with random access: `prepared.reading.ParquetRows`, or a data set of `datasets`."""

    def __len__(self) -> int: ...

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""

    def where(self, row: int) -> tuple[AnyPath, int]:
        """The file of a row, for messages, and its number there."""

    def read(self, rows: Sequence[int], columns: Collection[str]) -> list[dict[str, Any]]:
        """Values of some rows, in order; a picture as its bytes."""

    def whole(self, column: str) -> list[Any]:
        """A column of small values, of all rows."""


@dataclass(frozen=True)
class Columns:
    """Option -> column, for those that there are."""

    rgb: str | None = None
    depth: str | None = None
    labels: str | None = None
    label: str | None = None
    key: str | None = None
    sequence: str | None = None

    def of_maps(self, maps: Collection[str] | None) -> list[tuple[str, str]]:
        """(map, column) of the named maps; None for all. All of them if nothing else would be left."""
        held = {"rgb": self.rgb, "depth": self.depth, "segmentation": self.labels}
        known = [(name, column) for name, column in held.items() if column is not None]
        chosen = [pair for pair in known if maps is None or pair[0] in maps]
        return chosen or known


def choose_columns(
    stated: Mapping[str, str | None],
    names: Sequence[str],
    labelled: bool,
    where: str,
    usual: Mapping[str, Sequence[str]] = USUAL,
) -> Columns:
    """The columns by the options: a name, `none`, or `auto` for the usual names.

    Args:
        stated: option -> what the user says.
        names: of the table.
        labelled: whether label maps can be read, so that `auto` looks for them.
        where: the data set, for messages.
        usual: option -> names that `auto` looks for.

    Raises:
        ConfigError: a column that is not there, or neither RGB nor depth.
    """
    found: dict[str, str | None] = {}
    for option, known_names in usual.items():
        how = stated.get(option) or "none"
        if how == "auto":
            known = [name for name in known_names if name in names]
            found[option] = known[0] if known and (option != "labels" or labelled) else None
        elif how == "none":
            found[option] = None
        elif how not in names:
            raise ConfigError(
                f"{where} has no column {how!r} ({option}={how}); its columns are {', '.join(names)}."
                f"{nearest_name_hint(how, names)}"
            )
        else:
            found[option] = how
    if found["rgb"] is None and found["depth"] is None:
        raise ConfigError(
            f"{where}: none of the columns {', '.join(names)} is known to hold pictures or depth; name them, such as "
            "--data.options.rgb COLUMN --data.options.depth COLUMN."
        )
    return Columns(**found)


@dataclass(frozen=True)
class Decoder:
    """What the bytes of a row mean.

    Attributes:
        columns: which is which.
        depth_spec: of stored depth; None without.
        row_scales: depth is stored as `prepared.encoding` does, with a scale in each row.
        label_rules: of label maps; None: they hold class ids.
    """

    columns: Columns
    depth_spec: DepthSpec | None
    row_scales: bool
    label_rules: LabelRules | None

    def needed(self, maps: Collection[str] | None) -> list[str]:
        """The columns to read for some maps."""
        names = [column for _, column in self.columns.of_maps(maps)]
        if self.row_scales and self.columns.depth in names:
            names.append("depth_scale")
        return names + ([self.columns.label] if self.columns.label is not None else [])

    def maps(self, row: Mapping[str, Any], where: Path, maps: Collection[str] | None) -> dict[str, torch.Tensor]:
        """Map -> (3, H, W) uint8, (1, H, W) float32 and (H, W) uint8, of those that the row has.

        Raises:
            CorruptFileError: of `where`: bytes that cannot be decoded. LabelError: labels outside the classes.
        """
        found = {}
        for name, column in self.columns.of_maps(maps):
            data = row.get(column)
            if data is not None:
                found[name] = self._decoded(name, data, row, where)
        return found

    def _decoded(self, name: str, data: bytes, row: Mapping[str, Any], where: Path) -> torch.Tensor:
        if name == "rgb":
            return decode_stored_picture(where, data)
        if name == "segmentation":
            stored = decode_stored_map(where, data)
            ids = stored if self.label_rules is None else self.label_rules.apply(stored, where)
            return torch.from_numpy(np.require(ids, np.uint8, ["C", "W"]))
        assert self.depth_spec is not None  # without one there is no column of depth
        if self.row_scales:
            return decode_stored_depth(where, data, self.depth_spec.kind, row.get("depth_scale"))
        return torch.from_numpy(self.depth_spec.decode(decode_stored_map(where, data)))[None]

"""Items of a table of frames, and the label maps of its rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from m33d_hf.data.prepared.encoding import decode_stored_map
from m33d_hf.data.sample import HOLES, Hole, RGBDSample
from m33d_hf.data.sources.hub.row_labels import class_of
from m33d_hf.errors import CorruptFileError, DataError

if TYPE_CHECKING:
    from m33d_hf.data.sources.hub.table_source import TableSource


class TableLabels:
    """Label maps of rows (a `data.source.LabelMaps`): the column of labels alone is read."""

    def __init__(self, source: TableSource, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, number: int) -> tuple[np.ndarray | None, np.ndarray, bool] | None:
        """Stored values, class ids and whether 255 is ignored silently; None of a row without labels.

        Raises:
            CorruptFileError: the row cannot be read or decoded. LabelError: labels outside the classes.
        """
        row, decoder = int(self.rows[number]), self.source.decoder
        column = cast("str", decoder.columns.labels)
        data = self.source.rows.read([row], [column])[0][column]
        if data is None:
            return None
        where = self.source.where(row)
        stored = decode_stored_map(where, data)
        if decoder.label_rules is None:
            return stored, stored, False  # prepared: 255 says that there is no class
        return stored, decoder.label_rules.apply(stored, where), decoder.label_rules.ignores_255_silently


@dataclass(frozen=True)
class TableHandle:
    """A `VideoHandle` over neighbouring rows; one row is an image."""

    key: str
    rows: range
    source: TableSource = field(repr=False)

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
            DataError: frames of several sizes, or some of which lack a map other than depth, which is a hole there;
                LabelError for a label that is no class number.
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
        frames: list[dict[str, torch.Tensor]] = []
        holes: list[Hole] = []
        for place, (row, number) in enumerate(zip(values, numbers, strict=True)):
            frames.append(self._maps(row, number, maps, place, holes))
        self._fill_depth(frames, holes)
        stacked = {name: self._stack(name, frames) for name, _ in decoder.columns.of_maps(maps)}
        label = values[0].get(decoder.columns.label) if decoder.columns.label is not None else None
        places = ",".join(str(int(index)) for index in indices)
        sample = RGBDSample(
            key=self.key if self.length == 1 else f"{self.key}[{places}]",
            rgb=stacked.get("rgb"),
            depth=stacked.get("depth"),
            segmentation=stacked.get("segmentation"),
            label=class_of(label, decoder.columns.label, self._where, numbers[0]),
            meta={"rows": numbers, **({HOLES: tuple(holes)} if holes else {})},
        )
        return self._one_size(sample)

    def _where(self, row: int) -> Path:
        return self.source.where(row)

    def _maps(
        self, row: Mapping[str, Any], number: int, maps: Collection[str] | None, place: int, holes: list[Hole]
    ) -> dict[str, torch.Tensor]:
        """The maps of a row; a frame of a clip whose depth cannot be decoded has none, and is added to `holes`."""
        decoder, where = self.source.decoder, self._where(number)
        names = [name for name, _ in decoder.columns.of_maps(maps)]
        if self.length == 1 or "depth" not in names:
            return decoder.maps(row, where, maps)
        others = [name for name in names if name != "depth"]
        found = decoder.maps(row, where, others) if others else {}
        try:
            depth = decoder.maps(row, where, ["depth"])
        except CorruptFileError as error:
            depth = {}
            holes.append(Hole(place, error.path, error.reason, True))
        else:
            if not depth:
                holes.append(Hole(place, self.key, f"no depth in row {where.name}", False))
        return found | depth

    def _fill_depth(self, frames: Sequence[dict[str, torch.Tensor]], holes: list[Hole]) -> None:
        """NaN where frames of a clip lack depth that others have.

        Raises:
            CorruptFileError: some is damaged, and none can be decoded.
        """
        depths = [maps["depth"] for maps in frames if "depth" in maps]
        damaged = [hole for hole in holes if hole.damaged]
        if not depths and damaged:
            raise CorruptFileError(damaged[0].path, damaged[0].reason)
        for hole in holes if depths else ():
            frames[hole.place]["depth"] = torch.full_like(depths[0], math.nan)

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

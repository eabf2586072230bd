"""What cannot be read from the weights (heads, input size, activation), and how it is known or assumed.

In this order: the user's statement, config.json beside the weights, the arguments that the original run saved with
them, and the released models where the encoder has exactly their shape. Anything else has several readings, so that
`config_for` refuses and names what to state; a model that the user has configured is taken at its word, in the report.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from torch import Tensor
from transformers.activations import ACT2FN

from m33d_hf.errors import ConfigError, ConversionError, nearest_name_hint
from m33d_hf.modeling.configuration_checks_m33d import CONFIG_RANGES
from m33d_hf.modeling.preprocessing_m33d import size_pair
from m33d_hf.weights.files import ForeignCheckpoint
from m33d_hf.weights.formats.layout import FormatTable, Neutral, Weight
from m33d_hf.weights.formats.positions import TableGrid, find_grid, split_class_row

STATEABLE: dict[str, tuple[type, ...]] = {
    "num_attention_heads": (int,),
    "decoder_num_attention_heads": (int,),
    "image_size": (int, list, tuple),
    "num_frames": (int,),
    "hidden_act": (str,),
    "layer_norm_eps": (float, int),
    "norm_pix_loss": (bool,),
}
"""Settings of a checkpoint that a user may pass, and their types."""

_RELEASED_SIZE, _RELEASED_FRAMES, _RELEASED_TUBELET = 224, 16, 2
# Names in the arguments that the original runs save.
_IN_ARGUMENTS = {
    "image_size": ("input_size",),
    "num_frames": ("num_frames",),
    "decoder_num_attention_heads": ("decoder_num_heads",),
}


@dataclass(frozen=True)
class Fact:
    """A value and where it is from; `assumed` where it is only that of the released model of the same shape."""

    value: Any
    source: str
    assumed: bool = False


class Facts:
    """The known facts about one translated checkpoint.

    Args:
        neutral: the checkpoint under our names.
        table: its format.
        checkpoint: where it came from, with config.json, the saved arguments and what the user states.
    """

    def __init__(self, neutral: Neutral, table: FormatTable, checkpoint: ForeignCheckpoint) -> None:
        check_statements(checkpoint.stated)
        self.neutral, self.table, self.checkpoint = neutral, table, checkpoint

    def get(self, name: str) -> Fact | None:
        """The fact called `name` (a key of `STATEABLE`), None where nothing tells it."""
        stated = self.checkpoint.stated.get(name)
        if name == "image_size" and (grid := self.grid()) is not None:
            told = self._size_of(grid)
            if stated is not None and plain_value(stated) != told:
                raise ConversionError(
                    f"{self.checkpoint.origin}: --image_size is {stated!r}, but the position table belongs to"
                    f" {told!r} pixels. Leave --image_size out; a model of another size interpolates the table."
                )
            return Fact(told, "the position table")
        if name == "num_frames" and "encoder.temporal" in self.neutral.tables:
            return Fact((self.slots() or 1) * self._tubelet(), "the position table")
        if stated is not None:
            return Fact(stated, "stated")
        named = self.checkpoint.config.get(name)
        if isinstance(named, STATEABLE[name]) and not isinstance(named, bool):
            return Fact(named, "config.json")
        for key in _IN_ARGUMENTS.get(name, ()):
            value, segments = self.checkpoint.arguments.get(key), self._segments(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return Fact(value * segments, f"the saved arguments ({key}{' * num_segments' if segments > 1 else ''})")
        if name in ("hidden_act", "layer_norm_eps"):
            value = "gelu" if name == "hidden_act" else self.table.released.layer_norm_eps
            return Fact(value, "all released models", assumed=True)
        released = self._released(name)
        return None if released is None else Fact(released, "the released model of this shape", assumed=True)

    def _tubelet(self) -> int:
        return self.neutral.weights["patch.weight"].tensor.shape[2] if self.is_clip() else 1

    def _segments(self, name: str) -> int:
        """VideoMAE's fine-tuning counts the frames of one of `num_segments` segments, which its positions span."""
        segments = self.checkpoint.arguments.get("num_segments") if name == "num_frames" else 1
        return segments if isinstance(segments, int) and segments > 1 else 1

    def normalised(self) -> Fact:
        """Whether a decoder predicts patches that are normalised one by one (`norm_pix_loss`)."""
        for key, entries, source in (
            ("norm_pix_loss", self.checkpoint.stated, "stated"),
            ("norm_pix_loss", self.checkpoint.config, "config.json"),
            ("norm_pix_loss", self.checkpoint.arguments, "the saved arguments"),
            ("normlize_target", self.checkpoint.arguments, "the saved arguments"),  # VideoMAE's spelling
        ):
            if isinstance(entries.get(key), bool):
                return Fact(entries[key], f"{source} ({key})")
        return Fact(True, "MAE's and VideoMAE's recipes", assumed=True)

    def value(self, name: str) -> Any:
        """The value of a fact, None where nothing tells it."""
        fact = self.get(name)
        return None if fact is None else fact.value

    def grid(self) -> TableGrid | None:
        """The grid of the encoder's position table; None where there is no table, or not the fixed one."""
        if self.table.position_kind == "learned":
            return self._learned_grid()
        positions = self.neutral.tables.get("encoder")
        if positions is None or positions.tensor.shape[-1] % 4:
            return None
        rows, _ = split_class_row(positions.tensor, self.table.cls_position_row)
        return find_grid(rows, self.table.position_kind, []) if rows.numel() else None

    def spatial(self) -> tuple[Weight, Tensor, Tensor | None] | None:
        """Learned positions of places: their entry, rows (h * w, D), and the row (D,) of the class token among them."""
        tables = self.neutral.tables
        if "encoder" in tables:
            rows, class_row = split_class_row(tables["encoder"].tensor, self.table.cls_position_row)
            return tables["encoder"], rows, class_row
        entry = tables.get("encoder.spatial")
        return None if entry is None else (entry, entry.tensor.reshape(-1, entry.tensor.shape[-1]), None)

    def slots(self) -> int | None:
        """Tubelets of the position grid where learned positions of moments tell them; 1 of images."""
        temporal = self.neutral.tables.get("encoder.temporal")
        if temporal is not None:
            return temporal.tensor.numel() // temporal.tensor.shape[-1]
        return None if self.is_clip() else 1

    def registers(self) -> int:
        """How many register tokens the encoder has."""
        tokens = self.neutral.weights.get("encoder.register_tokens")
        return 0 if tokens is None else tokens.tensor.shape[-2]

    def is_clip(self) -> bool:
        """Whether the patch kernel spans several frames."""
        return self.neutral.weights["patch.weight"].tensor.ndim == 5

    def _learned_grid(self) -> TableGrid | None:
        """The grid of a stated or saved input size, else the square; None where the rows are not as many."""
        found = self.spatial()
        if found is None:
            return None
        count, kernel = found[1].shape[0], self.neutral.weights["patch.weight"].tensor.shape
        for size in (self.checkpoint.stated.get("image_size"), self.checkpoint.config.get("image_size")):
            if isinstance(size, int | list | tuple) and not isinstance(size, bool):
                height, width = size_pair(size)
                sides = height // kernel[-2], width // kernel[-1]
                return TableGrid(sides, sides, 0.0) if sides[0] * sides[1] == count else None
        side = isqrt(count)
        return TableGrid((side, side), (side, side), 0.0) if side**2 == count else None

    def _size_of(self, grid: TableGrid) -> int | list[int]:
        kernel = self.neutral.weights["patch.weight"].tensor.shape
        height, width = grid.sides[0] * kernel[-2], grid.sides[1] * kernel[-1]
        return height if height == width else [height, width]

    def _is_released(self) -> bool:
        return self._released_heads() is not None

    def _released_heads(self) -> int | None:
        kernel = self.neutral.weights["patch.weight"].tensor.shape
        if kernel[-1] != kernel[-2] or (len(kernel) == 5 and kernel[2] != _RELEASED_TUBELET):
            return None
        key = (kernel[0], self.neutral.depth("encoder"), kernel[-1])
        return self.table.released.heads.get(key)

    def _released(self, name: str) -> Any:
        if name == "num_attention_heads":
            return self._released_heads()
        if name == "decoder_num_attention_heads":
            return self.table.released.decoder_heads.get(self.decoder_width()) if self._is_released() else None
        if name == "image_size":
            return _RELEASED_SIZE if self._is_released() else None
        return _RELEASED_FRAMES if self._is_released() else None

    def decoder_width(self) -> int:
        """Width of the decoders, 0 where there are none."""
        names = (n for n in self.neutral.weights if n.startswith("decoder.") and n.endswith("embed.weight"))
        shape = next((self.neutral.weights[name].tensor.shape for name in names), ())
        return shape[0] if shape else 0


def statements(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None; a list of one side means a square.

    Raises:
        ConfigError: see `check_statements`.
    """
    stated = {name: value for name, value in given.items() if value is not None}
    sides = stated.get("image_size")
    if isinstance(sides, list | tuple) and len(sides) == 1:
        stated["image_size"] = sides[0]
    check_statements(stated)
    return stated


def check_statements(stated: Mapping[str, Any]) -> None:
    """Refuse invalid settings of a checkpoint.

    Raises:
        ConfigError: an unknown name or a value of another type.
    """
    for name, value in stated.items():
        if name not in STATEABLE:
            raise ConfigError(
                f"{name!r} is not a setting of a checkpoint; the settings are: {', '.join(STATEABLE)}."
                f"{nearest_name_hint(name, STATEABLE)}"
            )
        if not isinstance(value, STATEABLE[name]) or isinstance(value, bool) != (STATEABLE[name] == (bool,)):
            expected = " or ".join(kind.__name__ for kind in STATEABLE[name])
            raise ConfigError(f"{name} is {value!r}, but must be {expected}.")
        if name == "hidden_act":
            if value not in ACT2FN:
                raise ConfigError(f"hidden_act is {value!r}, which is unknown.{nearest_name_hint(str(value), ACT2FN)}")
        elif name in CONFIG_RANGES and (problem := CONFIG_RANGES[name].problem(value)) is not None:
            raise ConfigError(f"{name}, as set for the checkpoint, {problem}.")


def needed(facts: Facts, clip: bool, decoder: bool, given: Collection[str]) -> dict[str, Fact]:
    """The facts that a configuration needs, by field.

    Args:
        facts: what is known.
        clip: whether it is a clip checkpoint.
        decoder: whether its decoder is taken too.
        given: fields that the configuration has from elsewhere.

    Raises:
        ConversionError: nothing tells some of them; all are named, with how to state them.
    """
    names = ["num_attention_heads", "image_size", "hidden_act", "layer_norm_eps"]
    names += ["num_frames"] if clip else []
    names += ["decoder_num_attention_heads"] if decoder else []
    found = {name: facts.get(name) for name in names if name not in given}
    unknown = [name for name, fact in found.items() if fact is None]
    if "image_size" in unknown:
        _refuse_other_positions(facts)
    if unknown:
        width, layers = facts.neutral.weights["patch.weight"].tensor.shape[0], facts.neutral.depth("encoder")
        decoded = facts.decoder_width()
        heads = f" Width {width} may be {_readings(width)}." if "num_attention_heads" in unknown else ""
        raise ConversionError(
            f"{facts.checkpoint.origin}: {', '.join(unknown)} cannot be read from the weights, and no released model "
            "has this shape"
            f" (width {width}, {layers} layers{f', decoder of width {decoded}' if decoded else ''}).{heads}"
            f" Pass the values it was trained with: {' '.join(f'--{name} ...' for name in unknown)}"
        )
    return {name: fact for name, fact in found.items() if fact is not None}


def _refuse_other_positions(facts: Facts) -> None:
    """A position table that nothing recognises is no reason to ask for a size first: most often it was learned."""
    entry = facts.neutral.tables.get("encoder")
    if facts.table.position_kind == "learned":
        raise ConversionError(no_square(facts))
    if entry is None:
        return
    sides_known = entry.tensor.ndim == 4
    raise ConversionError(
        f"{facts.checkpoint.origin}: {entry.sources[0]!r} is not the fixed {facts.table.position_kind} table"
        f"{'' if sides_known else ' of a square grid'}. Our models rebuild that table, so positions that were learned"
        " or fine-tuned would be lost: convert the checkpoint of a model with fixed ones."
        f"{'' if sides_known else ' If its input was not square, pass --image_size HEIGHT WIDTH.'}"
    )


def no_square(facts: Facts) -> str:
    """Why learned positions have no known grid, and what to state."""
    found = facts.spatial()
    if found is None:
        return f"{facts.table.name}: the checkpoint has no position table; the file is incomplete."
    return (
        f"{facts.table.name}: the {found[1].shape[0]} learned positions of {found[0].sources[0]!r} are not a square "
        "grid,"
        " or do not match the image_size of config.json or --image_size. Set the input size in pixels"
        " (config.json beside the weights, or convert_checkpoint.py --image_size HEIGHT WIDTH)."
    )


def _readings(width: int) -> str:
    readings = [f"{width // size} x {size}" for size in (32, 64, 80, 128) if width % size == 0]
    return (
        f"{' or '.join(readings)} (heads x channels)" if readings else "split among any number of heads that divides it"
    )


def plain_value(value: Any) -> Any:
    """Two equal sides as one number, other lists as lists."""
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else list(value)
    return value

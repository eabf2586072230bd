"""Options for the meaning of depth values, for all sequences or for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from m33d_hf.data.depth.units import reciprocal_hint
from m33d_hf.data.names import composed
from m33d_hf.errors import ConfigError, DepthUnitError
from m33d_hf.modeling.depth_spec_m33d import DepthSpec, check_spec_field, listed


class NoSuchSequenceError(ConfigError):
    """Something is stated of sequences that a folder does not have; another folder of the same options may have them.

    Attributes:
        unknown: each name or pattern that matches nothing, with the option that holds it.
        sequences: some of those that there are.
    """

    def __init__(self, unknown: Mapping[str, str], sequences: Sequence[str]) -> None:
        self.unknown, self.sequences = dict(unknown), tuple(sequences[:5])
        pattern, option = next(iter(self.unknown.items()))
        shown = ", ".join(self.sequences)
        super().__init__(f"{option} contains {pattern!r}, but there is no such sequence; the sequences are: {shown}")


@dataclass(frozen=True)
class DepthOptions:
    """The user's options for depth; None = to be guessed. Fields as in `DepthSpec`.

    `unit` and `scale` may be mappings from a sequence's name, or a pattern with `*`, to its value; the first match
    counts. Sequences without a match are treated as if nothing were given.

    Raises:
        ConfigError: a field of another type or outside its range.
        DepthUnitError: a scale in metres per unit, as cameras state it, instead of units per metre.
    """

    unit: str | Mapping[str, str] | None = None
    scale: float | Mapping[str, float] | None = None
    kind: str | None = None
    invalid_values: Iterable[float] | None = None
    min_depth: float | None = None
    max_depth: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "invalid_values", listed(self.invalid_values))
        for name in ("unit", "scale"):
            value = getattr(self, name)
            if isinstance(value, Mapping) and not value:
                object.__setattr__(self, name, None)
            for stated in value.values() if isinstance(value, Mapping) else ():
                DepthOptions(**{name: stated}, kind=self.kind)
        each = {field.name: getattr(self, field.name) for field in fields(self)}
        check_depth_options({name: value for name, value in each.items() if not isinstance(value, Mapping)})
        scale = self.scale if isinstance(self.scale, (int, float)) else None
        if self.kind in (None, "metric") and (hint := reciprocal_hint(scale)):
            raise DepthUnitError(hint)

    @property
    def states_meaning(self) -> bool:
        """Whether unit, scale or kind was given, so that nothing is guessed."""
        return self.unit is not None or self.scale is not None or self.kind is not None

    def of_sequence(self, sequence: str) -> tuple[str | None, DepthOptions]:
        """The name or pattern that states something for `sequence` (None: nothing does), and what is stated there.

        Raises:
            ConfigError: unit and scale name the sequence by different patterns.
        """
        found = {name: _entry(getattr(self, name), sequence) for name in ("unit", "scale")}
        patterns = {pattern for pattern, _ in found.values() if pattern is not None}
        if len(patterns) > 1:
            raise ConfigError(
                f"depth_unit and depth_scale are both given for the sequence {sequence!r}; give only one of them"
            )
        stated = replace(self, unit=found["unit"][1], scale=found["scale"][1])
        return (patterns.pop() if patterns else None), stated

    def require_known(self, sequences: Iterable[str]) -> None:
        """Refuse a name or pattern that matches no sequence.

        Raises:
            NoSuchSequenceError: naming it and some sequences.
        """
        names = list(sequences)
        unknown = {
            str(pattern): option
            for option, stated in (("depth_unit", self.unit), ("depth_scale", self.scale))
            for pattern in (stated if isinstance(stated, Mapping) else ())
            if not any(_matches(name, pattern) for name in names)
        }
        if unknown:
            raise NoSuchSequenceError(unknown, names)


def _matches(sequence: str, pattern: object) -> bool:
    """Whether a pattern means a sequence; its own name does, also where brackets in it are a pattern of another."""
    name, wanted = composed(sequence), composed(str(pattern))
    return name == wanted or fnmatchcase(name, wanted)


def _entry(stated: Any, sequence: str) -> tuple[str | None, Any]:
    if not isinstance(stated, Mapping):
        return None, stated
    for pattern, value in stated.items():
        if _matches(sequence, pattern):
            return str(pattern), value
    return None, None


def check_depth_options(stated: Mapping[str, Any]) -> None:
    """Compare the options of a source (by the names of `DepthSpec`'s fields) with what the fields say; None passes.

    Raises:
        ConfigError: naming the option as users write it.
    """
    for each in fields(DepthSpec):
        if stated.get(each.name) is not None:
            label = each.name if each.name in ("invalid_values", "min_depth", "max_depth") else f"depth_{each.name}"
            check_spec_field(each.name, stated[each.name], label)

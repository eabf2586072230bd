"""What became of every weight on both sides of a checkpoint's way into a model."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass
class ConversionReport:
    """What became of every weight of the checkpoint (`used`, `ignored`) and of the model (`filled`, `new`).

    Attributes:
        format: "m33d", or the foreign format.
        origin: what was asked for.
        used: weight of the checkpoint -> weights of the model.
        ignored: weight of the checkpoint -> why it was not used.
        filled: weight of the model -> how.
        new: weight of the model -> why it keeps its fresh initialisation.
        notes: remarks for the user.
        facts: a line per value of the model that no tensor tells, with how it is known or that it is assumed.
    """

    format: str
    origin: str
    used: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for people: counts, then ignored and new weights grouped by reason."""
        lines = [
            f"{self.origin}: {self.format}; {len(self.used)} keys used, {len(self.ignored)} ignored;"
            f" {len(self.filled)} weights filled, {len(self.new)} new"
        ]
        for title, entries in (("ignored", self.ignored), ("new", self.new)):
            for reason, keys in _groups((reason, key) for key, reason in entries.items()).items():
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                lines.append(f"  {title}: {', '.join(keys[:3])}{more}: {reason}")
        lines += [f"  {fact}" for fact in self.facts]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def summary_by_part(self) -> str:
        """The lines that a run prints: counts, then new and ignored weights grouped by part and reason."""
        lines = [
            f"{self.origin} ({self.format}): {len(self.filled)} weights loaded, {len(self.new)} new, "
            f"{len(self.ignored)} ignored"
        ]
        for title, entries in (("new", self.new), ("ignored", self.ignored)):
            groups = _groups(((_part(key), reason), key) for key, reason in entries.items())
            lines += [f"  {title}: {part}.* ({len(keys)}): {reason}" for (part, reason), keys in groups.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in (*self.facts, *self.notes))])

    def to_dict(self) -> dict[str, Any]:
        """What a run writes into initialisation.json."""
        told = {"origin": self.origin, "format": self.format, "loaded": self.filled}
        return {**told, "new": self.new, "ignored": self.ignored, "notes": [*self.facts, *self.notes]}


def _groups(pairs: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    groups: dict[Key, list[str]] = {}
    for group, key in pairs:
        groups.setdefault(group, []).append(key)
    return groups


def _part(key: str) -> str:
    return ".".join(key.split(".")[: 3 if key.startswith("m33d.") else 1])

"""What became of every weight on both sides of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ConversionReport:
    """What became of every foreign key (`used`, `ignored`) and of every weight of the model (`filled`,
    `new`).

    `used`: foreign key -> our keys. `ignored`: foreign key -> reason. `filled`: our key -> how. `new`: our
    key -> why it keeps its fresh initialisation. `facts`: a line per value of the model that no tensor tells, with how
    it is known or that it is assumed. `notes`: remarks for the user.
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
            groups: dict[str, list[str]] = {}
            for key, reason in entries.items():
                groups.setdefault(reason, []).append(key)
            for reason, keys in groups.items():
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                lines.append(f"  {title}: {', '.join(keys[:3])}{more}: {reason}")
        lines += [f"  {fact}" for fact in self.facts]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

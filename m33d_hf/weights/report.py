"""What became of every weight on both sides of a checkpoint's way into a model, and what the weights do not show."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from m33d_hf.data.plural import plural
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.weights.facts import Fact, Facts, plain_value
from m33d_hf.weights.normalisation import line_on_normalisation

Key = TypeVar("Key", bound=Hashable)


_UNREADABLE = "it cannot be read from the weights"


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
        facts: a line for each value of the model that the weights do not show: its source, or that it is assumed.
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
            f"{self.origin}: {self.format}; {plural(len(self.used), 'key')} used, {len(self.ignored)} ignored;"
            f" {plural(len(self.filled), 'weight')} filled, {len(self.new)} new"
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
            f"{self.origin} ({self.format}): {plural(len(self.filled), 'weight')} loaded, {len(self.new)} new, "
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


def lines_on(facts: Facts, config: M33DConfig, decoder_taken: bool) -> list[str]:
    """One line for every value of the model that cannot be read from the weights, with its source."""
    names = ["num_attention_heads", "hidden_act", "layer_norm_eps"]
    names += ["num_frames", "image_size"] if facts.is_clip() else ["image_size"]
    names += ["decoder_num_attention_heads"] if decoder_taken else []
    lines = []
    for name in names:
        fact, own = facts.get(name), plain_value(getattr(config, name))
        if fact is None:
            lines.append(f"assumed: {name} {own!r}, as in the model; {_UNREADABLE}; set it with --{name}")
        elif plain_value(fact.value) != own:
            lines.append(f"{name}: {fact.value!r} in the checkpoint ({fact.source}), {own!r} in this model")
        elif fact.assumed:
            lines.append(f"assumed: {name} {own!r}, that of {fact.source}; {_UNREADABLE}; set it with --{name}")
        elif fact.source != "the position table":
            lines.append(f"{name} {own!r}: {fact.source}; {_UNREADABLE}")
    pictures = line_on_normalisation(facts.checkpoint, config)
    lines += [] if pictures is None else [pictures]
    if decoder_taken and config.decoder_kind == "shared":  # MultiMAE names its normalised target
        lines.append(_line_on_patches(facts.normalised(), config))
    if decoder_taken and config.decoder_kind == "per_target":
        told = facts.checkpoint.arguments.get("decoder_use_task_queries") is True  # False: the decoders are not taken
        lines.append(
            f"decoder_use_task_queries True: the saved arguments; {_UNREADABLE}"
            if told
            else f"assumed: decoder_use_task_queries True, that of all released models; {_UNREADABLE};"
            " --no_decoder leaves the decoders out"
        )
    return lines


def _line_on_patches(theirs: Fact, config: M33DConfig) -> str:
    own = any(spec.target_norm != "none" for spec in config.specs if spec.name == "rgb")
    words = {True: "normalised", False: "plain"}
    if theirs.value != own:
        found = f"{words[theirs.value]} patches in the checkpoint ({theirs.source})"
        return f"target_norm: {found}, {words[own]} ones in this model"
    if theirs.assumed:
        known = f"those of {theirs.source}; {_UNREADABLE}; set it with --norm_pix_loss"
        return f"assumed: {words[own]} patches, {known}"
    return f"{words[own]} patches: {theirs.source}"

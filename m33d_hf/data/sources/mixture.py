"""Several sources in one run, each with its share of the samples.

The mixture has virtual items: every epoch holds each real item at least once, and members that are small for their
weight hold theirs several times. Which item a virtual one is depends on its number alone, so that whatever orders,
splits and resumes a source does so exactly with a mixture, too.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

from m33d_hf.data.plural import plural
from m33d_hf.data.source import Source, Unpaired
from m33d_hf.data.sources.mixed_items import JoinedLabels, MixedHandle
from m33d_hf.errors import ConfigError, DataError, nearest_name_hint

KEYS = ("source", "root", "options", "weight", "split", "name")
MOST_ITEMS = 1 << 31
_TRIED = 5


@dataclass(frozen=True)
class Member:
    """One entry of `--data.mixture`.

    Attributes:
        source: name of the reader, or MODULE:CLASS.
        weight: above 0; shares are weights over their sum.
        root: folder, if the reader has one.
        split: None takes that of the run.
        options: further options of the reader.
        name: in keys and messages.
    """

    source: str
    weight: float
    root: str | None = None
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def read_members(entries: Any) -> list[Member]:
    """The members that a list of mappings states.

    Raises:
        ConfigError: anything else, an unknown key, a weight that is not a number above 0, or two members of one name.
    """
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            "data.mixture must be a list of mappings such as {source: folder, root: FOLDER, weight: 2}, or a YAML or "
            "JSON file that holds one."
        )
    members = []
    for number, entry in enumerate(entries):
        key = f"data.mixture[{number}]"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{key} is {entry!r}; it must be a mapping such as {{source: folder, root: FOLDER}}.")
        for name in entry:
            if name not in KEYS:
                raise ConfigError(f"Unknown key {name!r} in {key}.{nearest_name_hint(str(name), KEYS)}")
        members.append(_member(key, entry))
    counts = [member.name for member in members]
    named = [
        replace(member, name=f"{member.name}-{counts[:place].count(member.name)}") if member.name in counts[:place]
        else member
        for place, member in enumerate(members)
    ]  # fmt: skip
    if len({member.name for member in named}) < len(named):
        raise ConfigError("data.mixture: two members have one name; give each its own.")
    return named


def _member(key: str, entry: Mapping[str, Any]) -> Member:
    for name, kind in {"source": str, "root": str, "split": str, "name": str, "options": Mapping}.items():
        value = entry.get(name)
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{key}.{name} is {value!r}; it must be {'text' if kind is str else 'a mapping'}.")
    if not entry.get("source"):
        raise ConfigError(f"{key} names no source.")
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ConfigError(f"{key}.weight is {weight!r}; it must be a number above 0.")
    source, root = str(entry["source"]), entry.get("root")
    name = entry.get("name") or (source if root is None else Path(root).name or source)
    return Member(source, float(weight), root, entry.get("split"), dict(entry.get("options") or {}), name)


def counts_of(lengths: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Virtual items of each member in an epoch: in the proportion of the weights, to within one, and no fewer than the
    member has.

    Raises:
        ConfigError: so small a weight beside so large a member that an epoch would have billions of items.
    """
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    items = max(math.ceil(length * total / weight) for length, weight in zip(lengths, exact, strict=True))
    if items > MOST_ITEMS:
        raise ConfigError(
            f"data.mixture: an epoch that holds every item once would have {items} items, because a large member has a "
            "small weight. Give it more weight, or fewer items."
        )
    shares = [items * weight / total for weight in exact]
    counts = [math.floor(share) for share in shares]  # no fewer than the member has, by the choice of `items`
    order = sorted(range(len(counts)), key=lambda place: (counts[place] - shares[place], place))
    for place in order[: items - sum(counts)]:
        counts[place] += 1
    return counts


class MixtureSource(Source):
    """Members in proportion to their weights; `--data.mixture` builds it.

    Keys are MEMBER/KEY, and MEMBER/KEY#N for the N-th repetition, which is augmented and masked in its own way.

    Args:
        members: their names and sources, in order.
        weights: of the members, above 0.

    Raises:
        ConfigError: a weight that is not above 0, or an epoch of billions of items.
        DataError: members whose depth, classes or maps differ.
    """

    name = "mixture"
    _pair = "the members {} and {} of the mixture"  # how messages call two of them

    def __init__(self, members: Mapping[str, Source], weights: Sequence[float]) -> None:
        if not members or len(members) != len(weights):
            raise ConfigError(f"a mixture of {len(members)} members has {plural(len(weights), 'weight')}")
        if not all(0 < weight < math.inf for weight in weights):
            raise ConfigError(f"the weights of a mixture must be above 0, not {list(weights)}")
        self.members = dict(members)
        self.weights = [float(weight) for weight in weights]
        sources = list(self.members.values())
        if empty := [name for name, source in self.members.items() if not len(source)]:
            raise DataError(f"the member {empty[0]} of the mixture has no items")
        _refuse_differences(self.members, self._pair)
        self.counts = counts_of([len(source) for source in sources], self.weights)
        self._ends = list(accumulate(self.counts))
        first = sources[0]
        self.class_names, self.action_names = first.class_names, first.action_names
        self.depth_spec, self.class_table = first.depth_spec, first.class_table
        self.items_have_labels = first.items_have_labels
        self.unpaired = [
            Unpaired(f"{name}/{entry.path}", entry.reason, entry.damaged)
            for name, source in self.members.items()
            for entry in source.unpaired
        ]
        self.notes = [*self._shares(), *_of_units(self.members)]
        self.notes += [f"{name}: {note}" for name, source in self.members.items() for note in source.notes]

    def _shares(self) -> list[str]:
        total = sum(self.counts)
        told = [
            f"{name} {count / total:.2%} ({plural(len(source), 'item')}, each {count / len(source):.4g} times)"
            for (name, source), count in zip(self.members.items(), self.counts, strict=True)
        ]
        return [f"a mixture of {total} items an epoch: {', '.join(told)}"]

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, index: int) -> tuple[int, int, int]:
        """(member, its item, repetition) of a virtual item.

        Raises:
            IndexError: `index` lies outside the mixture.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a mixture of {len(self)}")
        member = bisect_right(self._ends, index)
        slot = index - (self._ends[member] - self.counts[member])
        length = len(list(self.members.values())[member])
        repetition, item = divmod(slot, length)
        rest = self.counts[member] % length
        if rest and repetition == self.counts[member] // length:
            item = item * length // rest  # the last, incomplete repetition is spread over the member
        return member, item, repetition

    def __getitem__(self, index: int) -> MixedHandle:
        """Handle of a virtual item; raises as the member does, IndexError outside the mixture."""
        member, item, repetition = self.place(index)
        name = list(self.members)[member]
        return MixedHandle(self.members[name][item], name, repetition)

    def root_of(self, index: int) -> Path | None:
        """That of the item's member."""
        member, item, _ = self.place(index)
        return list(self.members.values())[member].root_of(item)

    def labels(self) -> list[int] | None:
        """Clip label of every virtual item; None if a member does not know its own."""
        return self._spread([source.labels() for source in self.members.values()])

    def groups(self) -> list[str] | None:
        """MEMBER/VIDEO of every virtual item; its key where the member has no videos."""
        named: list[list[Any] | None] = []
        for name, source in self.members.items():
            groups = source.groups() or source.keys()
            found = [source[item].key for item in range(len(source))] if groups is None else groups
            named.append([f"{name}/{group}" for group in found])
        return self._spread(named)

    def prefetch(self, items: Sequence[int]) -> None:
        """As the members do."""
        for name, chosen in self.items_of(items).items():
            if chosen:
                self.members[name].prefetch(chosen)

    def items_of(self, rows: Sequence[int]) -> dict[str, list[int]]:
        """Member -> its items behind some virtual items, each once, ascending."""
        found: list[set[int]] = [set() for _ in self.members]
        for row in rows:
            member, item, _ = self.place(row)
            found[member].add(item)
        return {name: sorted(items) for name, items in zip(self.members, found, strict=True)}

    def label_maps(self, rows: Sequence[int]) -> JoinedLabels | None:
        """The label maps of the members, those that stand behind several virtual items once; None without any."""
        items = self.items_of(rows)
        parts = [source.label_maps(items[name]) for name, source in self.members.items()]
        known = [part for part in parts if part is not None]
        return JoinedLabels(known) if known else None

    def _spread(self, values: Sequence[list[Any] | None]) -> list[Any] | None:
        """One value for each virtual item, of lists with one for each item of the members."""
        known = [each for each in values if each is not None]
        if len(known) < len(values):
            return None
        places = (self.place(index) for index in range(len(self)))
        return [known[member][item] for member, item, _ in places]

    def digest(self) -> str:
        """Digest of the members' digests, names and weights."""
        return self._digest_of({name: source.digest() for name, source in self.members.items()})

    def unlabelled_digest(self) -> str:
        """As `digest`, of the members' unlabelled digests."""
        return self._digest_of({name: source.unlabelled_digest() for name, source in self.members.items()})

    def _digest_of(self, members: Mapping[str, str]) -> str:
        state = [list(member) for member in members.items()]
        return hashlib.sha256(json.dumps(["mixture", state, self.weights]).encode()).hexdigest()


def _refuse_differences(members: Mapping[str, Source], pair: str) -> None:
    """Raise a DataError where members cannot share batches or classes; names both and what differs."""
    questions = {
        "kind of depth": lambda source: None if source.depth_spec is None else source.depth_spec.kind,
        "segmentation classes": lambda source: source.class_names,
        "clip classes": lambda source: source.action_names,
        "numbers of classes": lambda source: source.class_table,
        "labels of items": lambda source: source.items_have_labels,
        "maps": _maps_of,
    }
    (first, reference), *others = members.items()
    for what, ask in questions.items():
        expected = ask(reference)
        for name, source in others:
            found = ask(source)
            if found != expected and None not in ((found, expected) if what == "maps" else ()):
                raise DataError(
                    f"{pair.format(first, name)} differ in {what}: {_short(expected)} and {_short(found)}. Choose "
                    "options of the sources that make them agree, or train on one of them."
                )


def _maps_of(source: Source) -> list[str] | None:
    """The maps of the first item that can be read; None if none of the first few can."""
    for index in range(min(len(source), _TRIED)):
        try:
            sample = source[index].read([0])
        except (DataError, OSError):
            continue  # counted and listed where samples are read
        held = {"rgb": sample.rgb, "depth": sample.depth, "segmentation": sample.segmentation}
        return [name for name, map_ in {**held, **sample.meta.get("modalities", {})}.items() if map_ is not None]
    return None


def _of_units(members: Mapping[str, Source]) -> list[str]:
    specs = {name: source.depth_spec for name, source in members.items() if source.depth_spec is not None}
    if len({(spec.unit, spec.scale) for spec in specs.values()}) < 2:
        return []
    first = next(iter(specs))
    return [f"stored depth has several units, each read by its own; the saved processor has that of {first}"]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 200 else f"{text[:200]}.."

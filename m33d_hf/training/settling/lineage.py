"""Where weights come from, step by step, and the licence that they inherit.

A run writes it down when it begins, beside the weights that it starts from. Later the path in its `init_from` may hold
something else, or mean something else from another folder: what a run of an earlier version left is followed by its
path, which then can forbid, but permits nothing by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m33d_hf.data.files.sealed_json import read_sealed_json
from m33d_hf.errors import CorruptFileError
from m33d_hf.training.recipe.arguments import STORED, RunArguments
from m33d_hf.weights.known.released import licence_of
from m33d_hf.weights.own import file_of_repository

NON_COMMERCIAL = "cc-by-nc-4.0"
RANDOM = "random initialisation"
KEY = "lineage"  # in train_config.json
_RELEASED = "released weights "
_NO_RECORD = "weights without a record of how they were made"
_LONGEST = 16
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass
class Lineage:
    """A chain of trainings, newest first, without paths.

    Attributes:
        steps: sentences.
        licence: of released weights at its start, as cards have it; None where none, or not known.
        known: whether the start of the chain is known.
        sources: data that all of it was trained on.
    """

    steps: list[str] = field(default_factory=list)
    licence: str | None = None
    known: bool = False
    sources: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """For train_config.json."""
        return {**dataclasses.asdict(self), "sources": sorted(self.sources)}


def lineage_at_start(args: RunArguments, resumed_from: Path | None) -> Lineage:
    """Of a run that begins, by what lies at `init_from` at this moment; one that resumes keeps what it wrote down.

    Args:
        args: of the run.
        resumed_from: the checkpoint that it goes on from.
    """
    if resumed_from is not None:
        try:
            return lineage_of(_content(resumed_from.parent.parent / STORED) or {"args": args.to_dict()})
        except CorruptFileError:
            return Lineage([_describe(args.to_dict()), "a run whose record is damaged"])
    if args.init_from is None:
        return _extended(args.to_dict(), Lineage([RANDOM], known=True))
    try:
        before = _trained_behind(args.init_from, ask_hub=True)  # as the run itself does
        start = _by_name(args.init_from) if before is None else lineage_of(before)
    except CorruptFileError:
        start = Lineage(["weights whose record is damaged"])
    return _extended(args.to_dict(), start)


def lineage_of(trained: Mapping[str, Any] | None) -> Lineage:
    """Of weights, by the train_config.json of their run: as it was written down, or else followed by paths.

    Args:
        trained: its content; None or empty where there is none.

    Raises:
        CorruptFileError: a file on the way is damaged.
    """
    passed, firm = list[Mapping[str, Any]](), True
    for _ in range(_LONGEST):
        arguments = (trained or {}).get("args")
        if not trained or not isinstance(arguments, Mapping) or not arguments:
            return _joined(passed, Lineage([_NO_RECORD]), firm)
        if KEY in trained:
            return _joined(passed, _recorded(trained[KEY]), firm)
        passed.append(arguments)
        origin = arguments.get("init_from")
        if origin is None:
            return _joined(passed, Lineage([RANDOM], known=True), firm)
        before = _trained_behind(str(origin))
        if before is None:
            return _joined(passed, _by_name(str(origin)), firm)
        if not _fits(arguments, before):
            return _joined(passed, Lineage(["weights that are no longer where the run found them"]), firm)
        firm = firm and Path(str(origin)).expanduser().is_absolute()  # else another folder may have been meant
        trained = before
    return _joined(passed, Lineage([_NO_RECORD]), firm)


def _joined(passed: list[Mapping[str, Any]], start: Lineage, firm: bool) -> Lineage:
    """The steps that were passed, newest first, before their start; of a start that is not firm only a ban counts."""
    found = start
    if not firm and start.licence != NON_COMMERCIAL:
        found = Lineage([*start.steps[:-1], "weights of an origin that was not written down"], sources=start.sources)
    for arguments in reversed(passed):
        found = _extended(arguments, found)
    return found


def _extended(arguments: Mapping[str, Any], start: Lineage) -> Lineage:
    source = str((arguments.get("data") or {}).get("source"))
    return Lineage([_describe(arguments), *start.steps], start.licence, start.known, {source, *start.sources})


def _by_name(origin: str) -> Lineage:
    """Of weights that no run of ours made."""
    licence = licence_of(origin)
    if licence is None:
        return Lineage(["weights of unknown origin"])
    return Lineage([f"{_RELEASED}{Path(origin).name}"], licence, known=True)


def _recorded(record: object) -> Lineage:
    """What `Lineage.to_dict` wrote; published models of earlier versions have the sentences alone."""
    whole = isinstance(record, Mapping)
    content: Mapping[str, Any] = record if isinstance(record, Mapping) else {"steps": record, "sources": ["unknown"]}
    steps, sources = content.get("steps"), content.get("sources")
    if not steps or not all(isinstance(each, list) for each in (steps, sources)):
        return Lineage([_NO_RECORD])
    found = Lineage([str(step) for step in steps], sources={str(source) for source in sources or ()})
    if whole:
        found.licence, found.known = content.get("licence"), content.get("known") is True
    else:
        found.licence = licence_of(found.steps[-1].removeprefix(_RELEASED))
        found.known = found.licence is not None or found.steps[-1] == RANDOM
    return found


def _fits(arguments: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a run can have started from the weights of another one: its encoder is of the same sizes."""
    ours, theirs = arguments.get("model") or {}, (before.get("args") or {}).get("model") or {}
    return all(ours[name] == theirs[name] for name in _SIZES if name in ours and name in theirs)


def _describe(arguments: Mapping[str, Any]) -> str:
    recipe, method = arguments.get("recipe"), arguments.get("method")
    words = [str(arguments.get("task", "training")).replace("_", " ")]
    words += [f"recipe {recipe}"] if _public(recipe) else []
    words += [f"method {method}"] if _public(method) else []
    data = arguments.get("data") or {}
    words += [f"data {data['source']}"] if _public(data.get("source")) else []
    return ", ".join([*words, f"seed {arguments.get('seed')}"])


def _public(name: object) -> bool:
    """Whether a name is one of the package's own, not a file or module of the user."""
    return isinstance(name, str) and not name.endswith((".yaml", ".yml")) and ":" not in name and name[:1] not in "/.~"


def _trained_behind(origin: str, ask_hub: bool = False) -> dict[str, Any] | None:
    """The train_config.json of the run that left weights in a folder or was published; None where there is none.

    Args:
        origin: path or hub id.
        ask_hub: see `file_of_repository`.

    Raises:
        CorruptFileError: it is damaged.
        CheckpointError: as `file_of_repository`.
    """
    path = Path(origin).expanduser()
    folder = path.parent if path.is_file() else path
    for place in (folder, folder.parent.parent if folder.resolve().parent.name == "checkpoints" else folder):
        found = _content(place / STORED)
        if found is not None:
            return found if isinstance(found.get("args"), dict) else None
    published = file_of_repository(origin, STORED, ask_hub)
    found = None if published is None else _content(published)
    return found if found is not None and isinstance(found.get("args"), dict) else None


def _content(file: Path) -> dict[str, Any] | None:
    return read_sealed_json(file) if file.is_file() else None

"""What a run's own files say, without what is nobody's business: paths, names of files and machines.

Everything is left out that is not known to be harmless: numbers, truth values, versions, and words that are one of the
choices of an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from m33d_hf.training.recipe.arguments import RunArguments, fields_of
from m33d_hf.training.recipe.recipes import method_names, recipe_names
from m33d_hf.training.settling.lineage import KEY, Lineage

_DROPPED = {
    "output_dir", "init_from", "resume", "replay", "data.root", "data.eval_root", "data.cache_dir", "data.skip_list",
    "data.mixture", "features.dir",
}  # fmt: skip
_FACTS = {"samples", "samples_in_source", "depth", "videos", "videos_in_source", "rooms", "scenes"}
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,40}")
_NAMES = ("task", "data.train_split", "data.eval_split", "evaluation.metric", "train.compile_backend")


def scrub_training(trained: Mapping[str, Any], lineage: Lineage) -> dict[str, Any]:
    """train_config.json for everybody.

    Args:
        trained: its content.
        lineage: stands in for init_from; who trains on from these weights inherits it.

    Returns:
        the same layout; `left_out` lists the dotted keys whose values are not told.
    """
    left_out: list[str] = []
    arguments = _clean(trained["args"], "", left_out)
    facts = {name: value for name, value in dict(trained.get("data") or {}).items() if name in _FACTS}
    left_out += sorted(f"(data) {name}" for name in set(trained.get("data") or {}) - _FACTS)
    kept = {name: trained[name] for name in ("effective_batch", "world_size", "plan") if name in trained}
    kept |= {"data": _clean(facts, "facts.", left_out), "device": _device(trained.get("device"))}
    kept |= {name: trained.get(name) for name in ("versions", "commit")}
    sources = sorted({name if _harmless("data.source", name) else "other" for name in lineage.sources})
    kept[KEY] = {**lineage.to_dict(), "sources": sources}
    return {"args": arguments, **kept, "left_out": sorted(left_out)}


def scrub_initialisation(report: Mapping[str, Any], lineage: Lineage) -> dict[str, Any]:
    """initialisation.json for everybody: which parts of the model were loaded, and which were new."""
    kept: dict[str, Any] = {"origin": lineage.steps[1] if len(lineage.steps) > 1 else "unknown"}
    kept["format"] = report.get("format") if _WORD.fullmatch(str(report.get("format"))) else None
    for name in ("loaded", "new", "ignored"):
        kept[name] = sorted(str(key) for key in report.get(name) or ())
    return kept


def _clean(value: Any, key: str, left_out: list[str]) -> Any:
    """A tree without the strings that may tell something."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for name, entry in value.items():
            if not _WORD.fullmatch(str(name)):  # a file's name, as some options have for keys
                left_out.append(f"a key of {key}")
                continue
            inner = f"{key}.{name}" if key and not key.endswith(".") else f"{key}{name}"
            if inner in _DROPPED and entry not in (None, "auto"):
                left_out.append(inner)
                found[name] = None
            else:
                found[name] = _clean(entry, inner, left_out)
        return found
    if isinstance(value, list | tuple):
        return [_clean(entry, key, left_out) for entry in value]
    if isinstance(value, str) and not _harmless(key, value):
        if key not in left_out:
            left_out.append(key)
        return None
    return value


def _harmless(key: str, value: str) -> bool:
    if value in _choices().get(key, ()):
        return True
    if key.startswith(("model.", "facts.depth.", "logging.trackers", "train.attn")) or key in _NAMES:
        return bool(_WORD.fullmatch(value.replace("/", "_"))) and not value.startswith(("/", "~", "."))
    if key in ("recipe", "method"):
        return value in {*recipe_names(), *method_names()}
    return key == "data.source" and ":" not in value


def _choices() -> dict[str, tuple[str, ...]]:
    """Dotted key -> the words that an argument may be."""
    found: dict[str, tuple[str, ...]] = {}
    for key, entry, _ in fields_of(RunArguments()):
        words = re.findall(r"Literal\[([^\]]*)\]", str(entry.type))
        found[key] = tuple(word.strip().strip("'\"") for part in words for word in part.split(","))
    return found


def _device(device: object) -> str | None:
    return None if device is None else str(device).split(":")[0]

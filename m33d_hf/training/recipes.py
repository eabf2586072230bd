"""Recipes and methods: finding the YAML files, inheritance, merging.

A *recipe* holds the arguments of a run as a tree (`optim: {learning_rate: ...}`) and may build on others with
`extends: NAME`. A *method* says which modalities, losses and decoder a pre-training has; its sections are laid over
each other: `common`, then one of `image` (one stage), `stage_1`, `stage_2`, or `clips` (num_frames > 1).

Precedence, weakest first: defaults < base recipe < recipe < method < command line. The method is stronger than the
recipe because a recipe describes data and schedule (mask ratios, alpha, beta) and is shared by all methods, while
a method may only write what defines it: `mae` on a recipe of m33d must not keep a depth modality.

Modalities are a list in M33DConfig and a mapping here, `modalities: {rgb: {mask_ratio: 0.8}}`, so that every layer can
patch one by name. The method's mapping also says which modalities exist and in which order.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from m33d_hf.errors import ConfigError, nearest_name_hint

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
METHODS = RECIPES / "methods"
NOT_RECIPES = {"paper_results"}  # YAML files of the folder that hold something else
SECTIONS = ("common", "image", "stage_1", "stage_2", "clips")


class RecipeNumber(int):
    """A whole number that a recipe states and the user did not: it suits the recipe's own data, other may have less."""


class _Loader(yaml.SafeLoader):
    """YAML with the 1.2 booleans (`no` stays a word), `1e-4` as a number, and duplicate keys refused."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expr) for tag, expr in pairs if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{node.start_mark.name}, line {node.start_mark.line + 1}: the key {key!r} is given twice."
            )
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, where: str) -> Any:
    """Parse `text`; `where` names it in errors.

    Raises:
        ConfigError: not YAML, or a key given twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def recipe_names() -> list[str]:
    """Names of the recipes in the package, such as 'rooms/depth'."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return sorted(n for n in names if not n.startswith(("methods/", "bases/")) and n not in NOT_RECIPES)


def method_names() -> list[str]:
    """Names of the methods in the package."""
    return sorted(path.stem for path in METHODS.glob("*.yaml"))


def _find(name: str, folder: Path, names: Callable[[], list[str]], kind: str, beside: Path | None = None) -> Path:
    """The file of a recipe or method: a name in the package, a path, or a path beside the file that asks for it."""
    inside = folder / f"{name.removesuffix('.yaml')}.yaml"
    if inside.is_file() and not Path(name).is_absolute():
        return inside
    candidates = [Path(name)] if beside is None else [beside / name, beside / f"{name}.yaml", Path(name)]
    for path in candidates:
        if path.is_file():
            return path
    known = names()
    raise ConfigError(
        f"There is no {kind} {name!r}: neither a name nor a file."
        f"{nearest_name_hint(name, known)} Known: {', '.join(known)}."
    )


@functools.lru_cache(maxsize=64)
def _parsed(text: str, where: str) -> Any:
    return parse_yaml(text, where)


def _read_tree(path: Path) -> dict[str, Any]:
    # An experiment resolves hundreds of runs from a handful of files, and parsing them is most of the work.
    tree = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"), str(path)))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of arguments, not a {type(tree).__name__}.")
    return tree


def recipe_chain(name: str) -> list[tuple[str, dict[str, Any]]]:
    """(label, tree) of the recipe and all it extends, the most basic first.

    Raises:
        ConfigError: a recipe that does not exist, is no mapping, or extends itself.
    """
    chain: list[tuple[str, dict[str, Any]]] = []
    seen: list[Path] = []
    following: str | None = name
    beside: Path | None = None
    while following is not None:
        path = _find(following, RECIPES, recipe_names, "recipe", beside)
        if path in seen:
            raise ConfigError(f"The recipe {name!r} extends itself: {' -> '.join(p.name for p in [*seen, path])}.")
        seen.append(path)
        tree = _read_tree(path)
        chain.append((f"recipe {following}", tree))
        following, beside = tree.pop("extends", None), path.parent
        if following is not None and not isinstance(following, str):
            raise ConfigError(f"{path}: extends must name one recipe, not {following!r}.")
    return chain[::-1]


def method_layer(name: str, stage: int | None, num_frames: int) -> tuple[str, dict[str, Any]]:
    """(label, tree) of a method for images (`num_frames` 1; stage 1, 2 or None) or clips.

    A method without stages is its own stage 2 (the masked modelling of a two-stage recipe); it has no stage 1.

    Raises:
        ConfigError: no such method, an unknown section, or a method that lacks what was asked for.
    """
    path = _find(name, METHODS, method_names, "method")
    tree = _read_tree(path)
    label = tree.get("name", path.stem)
    for key in tree:
        if key not in (*SECTIONS, "name", "description"):
            raise ConfigError(f"{path}: unknown section {key!r}.{nearest_name_hint(key, SECTIONS)}")
    if num_frames > 1:
        section = "clips"
        if stage is not None:
            raise ConfigError(f"Clips are pre-trained in one stage (Eq. 5); set stage to null instead of {stage}.")
    elif stage == 1:
        section = "stage_1"
    elif stage == 2 and "stage_2" in tree:
        section = "stage_2"
    else:
        section = "image"
    if section not in tree:
        raise ConfigError(_lacking(label, section, tree))
    merged = merge(tree.get("common") or {}, tree[section] or {})
    return f"method {label} ({section})", merged


def _lacking(label: str, section: str, tree: dict[str, Any]) -> str:
    """Why a method cannot do what `section` stands for, and what to do instead."""
    if section == "image" and "stage_1" in tree:
        return (
            f"The method {label} pre-trains images in two stages (Eq. 6, then Eq. 7): choose a recipe of stage 1"
            " (scannet_stage1, rooms/pretrain_stage1), then one of stage 2 with --init_from the first output;"
            " or give --stage 1 or --stage 2."
        )
    if section == "stage_1":
        return f"The method {label} has no stage 1: it pre-trains in one stage. Use a stage 2 or single-stage recipe."
    what = "clips (model.num_frames > 1)" if section == "clips" else "images (model.num_frames 1)"
    return f"The method {label} does not pre-train {what}; it has: {', '.join(k for k in tree if k in SECTIONS)}."


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: mappings merge key by key, everything else is replaced. Neither input changes."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value of a nested mapping; an empty mapping counts as a value."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolve_modalities(layers: list[tuple[str, dict[str, Any]]], default: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The list for `M33DConfig.modalities` from the `modalities` mappings of all layers, weakest layer first.

    The strongest method layer decides which modalities exist; names of `default` (rgb, depth) that a recipe patches
    but the method leaves out are dropped; any other name that a layer describes is added (a third modality).

    Raises:
        ConfigError: a patch that is no mapping, or a new modality without the fields that describe it.
    """
    standard = {entry["name"]: entry for entry in default}
    patches: dict[str, dict[str, Any]] = {}
    chosen: list[str] | None = None
    for label, tree in layers:
        given = tree.get("modalities") or {}
        if not isinstance(given, dict) or not all(isinstance(v, dict) or v is None for v in given.values()):
            raise ConfigError(f"{label}: modalities must map names to fields, such as {{rgb: {{mask_ratio: 0.8}}}}.")
        for name, fields in given.items():
            patches[name] = merge(patches.get(name, {}), fields or {})
        if label.startswith("method ") and given:
            chosen = list(given)
    names = list(standard) if chosen is None else chosen
    for name in patches:
        if name in names or name in standard:
            continue
        if not {"channels", "input_name"} <= patches[name].keys():
            raise ConfigError(
                f"modalities.{name}: there is no such modality.{nearest_name_hint(name, [*names, *standard])} A new one"
                " needs at least channels and input_name."
            )
        names = [*names, name]
    return [merge({**standard.get(name, {}), "name": name}, patches.get(name, {})) for name in names]

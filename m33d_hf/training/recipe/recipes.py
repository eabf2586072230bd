"""Recipes and methods: finding the YAML files, inheritance, merging.

A *recipe* holds the arguments of a run as a tree (`optim: {learning_rate: ...}`) and may extend others with `extends:
NAME`. A *method* says which modalities, losses and decoder pre-training uses; its sections override each other in
order: `common`, then one of `image` (one stage), `stage_1`, `stage_2`, or `clips` (num_frames > 1).

Precedence, weakest first: defaults < base recipe < recipe < method < command line. The method is stronger than the
recipe because a recipe describes data and schedule (mask ratios, alpha, beta) and is shared by all methods, while a
method may only set what defines it: `mae` on a recipe of m33d must not keep a depth modality.

Modalities are a list in M33DConfig and a mapping here, `modalities: {rgb: {mask_ratio: 0.8}}`, so that every layer can
patch one by name. The method's mapping also says which modalities exist and in which order.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from m33d_hf.errors import ConfigError, nearest_name_hint
from m33d_hf.modeling.fields_m33d import shown
from m33d_hf.training.recipe.yaml_text import parse_yaml, read_recipe_text

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
METHODS = RECIPES / "methods"
NOT_RECIPES = {"paper_results"}  # YAML files of the folder that hold something else
_LONGEST_NAME = 300  # in messages
SECTIONS = ("common", "image", "stage_1", "stage_2", "clips")


class RecipeNumber(int):
    """An integer set by a recipe and not by the user: it suits the recipe's data; other data may have fewer samples."""


def recipe_names() -> list[str]:
    """Names of the recipes in the package, such as 'rooms/depth'."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return sorted(n for n in names if not n.startswith(("methods/", "bases/")) and n not in NOT_RECIPES)


def method_names() -> list[str]:
    """Names of the methods in the package."""
    return sorted(path.stem for path in METHODS.glob("*.yaml"))


def _find(name: str, folder: Path, names: Callable[[], list[str]], kind: str, beside: Path | None = None) -> Path:
    """The file of a recipe or method: a name in the package, a path, or a path relative to the file that refers to
    it."""
    inside = folder / f"{name.removesuffix('.yaml')}.yaml"
    if _is_file(inside) and not Path(name).is_absolute():
        return inside
    candidates = [Path(name)] if beside is None else [beside / name, beside / f"{name}.yaml", Path(name)]
    for path in candidates:
        if _is_file(path):
            return path
    known = names()
    raise ConfigError(
        f"There is no {kind} {shown(name, _LONGEST_NAME)}: it is neither a known name nor a "
        f"file.{nearest_name_hint(name, known)} Known: {', '.join(known)}."
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no file can have such a name: too long, a null character
        return False


@functools.lru_cache(maxsize=64)
def _parsed(text: str, where: str) -> Any:
    return parse_yaml(text, where)


def _read_tree(path: Path) -> dict[str, Any]:
    # An experiment resolves hundreds of runs from a handful of files, and parsing them is most of the work.
    tree = copy.deepcopy(_parsed(read_recipe_text(path), str(path)))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of arguments, not a {type(tree).__name__}.")
    return tree


def recipe_chain(name: str) -> list[tuple[str, dict[str, Any]]]:
    """(label, tree) of the recipe and of all recipes that it extends, base recipe first.

    Raises:
        ConfigError: a recipe that does not exist, is not a mapping, or extends itself.
    """
    chain: list[tuple[str, dict[str, Any]]] = []
    seen: list[Path] = []
    following: str | None = name
    beside: Path | None = None
    while following is not None:
        path = _find(following, RECIPES, recipe_names, "recipe", beside)
        if path.resolve() in seen:
            names = " -> ".join(p.name for p in [*seen, path])
            raise ConfigError(f"{path}: the recipe {name!r} extends itself: {names}.")
        seen.append(path.resolve())
        tree = _read_tree(path)
        chain.append((f"recipe {following if path.is_relative_to(RECIPES) else path}", tree))
        following, beside = tree.pop("extends", None), path.parent
        if following is not None and not isinstance(following, str):
            raise ConfigError(f"{path}: 'extends' must name one recipe, not {shown(following)}.")
    return chain[::-1]


def method_layer(name: str, stage: int | None, num_frames: int) -> tuple[str, dict[str, Any]]:
    """(label, tree) of a method for images (`num_frames` 1; stage 1, 2 or None) or clips.

    A method that trains images in one stage is its own stage 2 (the masked modelling of a two-stage recipe), whether it
    has a stage 1 or not.

    Raises:
        ConfigError: no such method, an unknown section, or a method that does not support the request.
    """
    path = _find(name, METHODS, method_names, "method")
    tree = _read_tree(path)
    label = tree.get("name", path.stem)
    for key in tree:
        if key not in (*SECTIONS, "name", "description"):
            raise ConfigError(f"{path}: unknown section {key!r}.{nearest_name_hint(str(key), SECTIONS)}")
        if key in SECTIONS and tree[key] is not None and not isinstance(tree[key], dict):
            raise ConfigError(f"{path}: the section {key} must be a mapping of arguments, not {shown(tree[key])}.")
    if num_frames > 1:
        section = "clips"
        if stage is not None:
            raise ConfigError(f"Clips are pre-trained in one stage (Eq. 5); set stage to null, not {stage}.")
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
    """Why a method does not support `section`, and what to do instead."""
    if section == "image" and "stage_1" in tree:
        return (
            f"The method {label} pre-trains images in two stages (Eq. 6, then Eq. 7): run a recipe of stage 1 "
            "(scannet_stage1, rooms/pretrain_stage1), then one of stage 2 with --init_from set to the first run's "
            "output; or pass --stage 1 or --stage 2."
        )
    if section == "stage_1":
        return f"The method {label} has no stage 1: it pre-trains in one stage. Use a stage 2 or single-stage recipe."
    what = "clips (model.num_frames > 1)" if section == "clips" else "images (model.num_frames 1)"
    return (
        f"The method {label} does not support {what}; it has the sections "
        f"{', '.join(k for k in tree if k in SECTIONS)}. Methods that do: {', '.join(_with_section(section))}."
    )


def _with_section(section: str) -> list[str]:
    """Names of the package's methods that have it."""
    return [name for name in method_names() if section in _read_tree(METHODS / f"{name}.yaml")]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`: mappings merge key by key, everything else is replaced. Neither input changes."""
    result = dict(base)
    spelt = {str(key): key for key in base}  # `{0: 1}` of a recipe and `--data.options.label_map.0 2` are one key
    for name, value in over.items():
        key = spelt.get(str(name), name)
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every value of a nested mapping; an empty mapping counts as a value."""
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
        ConfigError: a patch that is not a mapping, or a new modality without the fields that describe it.
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
                f"modalities.{name}: there is no such modality.{nearest_name_hint(name, [*names, *standard])} A new "
                "modality needs at least channels and input_name."
            )
        names = [*names, name]
    return [merge({**standard.get(name, {}), "name": name}, patches.get(name, {})) for name in names]

"""Who said it: the user (a flag, a recipe file of their own, a method) or one of the package's own recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from m33d_hf.training.recipe.arguments import origin_of
from m33d_hf.training.recipe.recipes import RECIPES

_RECIPE = "recipe "


def packaged(layer: str) -> bool:
    """Whether a layer is a recipe of this package: it suits many models, and gives way to the one that is there."""
    name = layer.removeprefix(_RECIPE)
    inside = RECIPES / f"{name.removesuffix('.yaml')}.yaml"
    return layer.startswith(_RECIPE) and not Path(name).is_absolute() and inside.is_file()


def explicit(key: str, origins: Mapping[str, str]) -> bool:
    """Whether the user has set a key, or part of it: by a flag, a recipe file of their own, or a method."""
    layer = origin_of(key, origins)
    return bool(layer) and not packaged(layer)

"""Every method on disk with every rooms recipe that it can run: a new method is tested without being named."""

from __future__ import annotations

from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.parsing import resolve

PRETRAINING_ROOMS = ("rooms/pretrain", "rooms/pretrain_stage1", "rooms/pretrain_stage2", "rooms/pretrain_clips")


def pretraining_config(recipe: str, method: str | None, *words: str) -> M33DConfig:
    """The configuration that a pre-training run would build."""
    chosen = ["--method", method] if method else []
    return M33DConfig(**resolve(["--recipe", recipe, *chosen, *words], "pretraining").args.model)


def task_of(recipe: str) -> str:
    """The task that a recipe is for."""
    tree: dict = {}
    for _, layer in recipes.recipe_chain(recipe):
        tree = recipes.merge(tree, layer)
    return str(tree["task"])


def recipes_for(task: str) -> list[str]:
    """Names of the recipes on disk for one task."""
    return [name for name in recipes.recipe_names() if task_of(name) == task]


def _runs(recipe: str, method: str) -> bool:
    try:
        pretraining_config(recipe, method)
    except ConfigError:
        return False
    return True


def methods_with_rooms() -> list[tuple[str, str]]:
    """(recipe, method) of all methods on disk; each method appears at least once."""
    pairs = [(recipe, method) for method in recipes.method_names() for recipe in PRETRAINING_ROOMS]
    return [pair for pair in pairs if _runs(*pair)]

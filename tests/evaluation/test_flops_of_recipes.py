"""T5: what `--dry_run` prints against a formula written by hand, for every method and recipe at its real size."""

from __future__ import annotations

import pytest

from helpers.flop_formulas import FlopCount as Formula
from helpers.flop_formulas import layers_of_head, pretraining_formula, task_formula
from helpers.pretraining_cases import methods_with_rooms, pretraining_config, recipes_for
from m33d_hf.evaluation import flops
from m33d_hf.evaluation.flops import FlopCount, count_pretraining, count_task
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.parsing import resolve

BATCH = 2
GIGA = 1e9
FINE_TUNING = [(task, recipe) for task in flops.TASKS if task != "pretraining" for recipe in recipes_for(task)]


def assert_equal(count: FlopCount, formula: Formula) -> None:
    assert (count.forward, count.training) == pytest.approx((formula.forward, formula.training), rel=1e-6)


def test_every_method_is_tested() -> None:
    assert {method for _, method in methods_with_rooms()} == set(recipes.method_names())


@pytest.mark.parametrize(("recipe", "method"), methods_with_rooms())
def test_every_method(recipe: str, method: str) -> None:
    config = pretraining_config(recipe, method)
    assert_equal(count_pretraining(config, BATCH), pretraining_formula(config, BATCH))


@pytest.mark.parametrize("recipe", recipes_for("pretraining"))
def test_every_pretraining_recipe_at_its_size(recipe: str) -> None:
    config = pretraining_config(recipe, None)
    assert_equal(count_pretraining(config, BATCH), pretraining_formula(config, BATCH))


@pytest.mark.parametrize(("task", "recipe"), FINE_TUNING)
def test_every_fine_tuning_recipe(task: str, recipe: str) -> None:
    arguments = resolve(["--recipe", recipe], task).args.model  # sizes that are auto: stand-ins
    config = M33DConfig(**{**arguments, "num_labels": arguments.get("num_labels") or 10})
    assert_equal(count_task(config, task), task_formula(config, task, config.task_inputs or ["rgb"]))


@pytest.mark.parametrize("task", ["semantic_segmentation", "depth_estimation"])
def test_the_layers_of_a_head_add_up_to_its_formula(task: str) -> None:
    """What stands for the formula of heads that have none is right for those that have one."""
    config = M33DConfig(image_size=[64, 96], num_labels=7, hidden_size=96, num_attention_heads=4, num_hidden_layers=4)
    assert layers_of_head(config, task) == pytest.approx(task_formula(config, task).parts["head"], rel=1e-9)


def test_every_task_has_recipes_that_are_tested() -> None:
    assert {name for task in flops.TASKS for name in recipes_for(task)} == set(recipes.recipe_names())


@pytest.mark.parametrize(
    ("recipe", "method", "words", "customary", "exact"),
    [
        ("scannet_stage2", "mae", ["--modalities.rgb.mask_ratio", "0.75"], 58.5, None),
        ("videomae_ucf101_090", "videomae", [], 208.9, 199.7),
    ],
)
def test_published_sizes(recipe: str, method: str, words: list[str], customary: float, exact: float | None) -> None:
    """The figures of MAE and VideoMAE, which project all patches; and what the model here really does."""
    size = ["--model.decoder_num_hidden_layers", "8", "--model.decoder_hidden_size", "512"]
    size += ["--model.decoder_num_attention_heads", "16", "--model.decoder_intermediate_size", "2048"]
    config = pretraining_config(recipe, method, *words, *(size if method == "mae" else []))
    assert pretraining_formula(config, customary=True).training / GIGA == pytest.approx(customary, abs=0.05)
    assert_equal(count_pretraining(config), pretraining_formula(config))
    if exact is not None:
        assert count_pretraining(config).training / GIGA == pytest.approx(exact, rel=0.001)

"""What may differ between a run and its continuation, and between evaluations that are compared."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.tiny_task import tiny_arguments
from m33d_hf.training.recipe.differences import (
    FREE,
    flatten,
    free_between_evaluations,
    recipe_differences,
)
from m33d_hf.training.recipe.recipes import merge
from m33d_hf.training.tasks.depth_protocols import PROTOCOLS


def judged_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return recipe_differences(before, now, free_between_evaluations(now))


def test_free_and_deciding_arguments() -> None:
    before, now = tiny_arguments("a").to_dict(), tiny_arguments("b").to_dict()
    now["logging"]["every_steps"], now["data"]["num_workers"], now["data"]["eval_root"] = 99, 7, "elsewhere"
    now["evaluation"]["every_steps"], now["num_processes"] = 3, 2
    assert recipe_differences(before, now) == []
    now["train"]["max_steps"], now["model"]["width"] = 24, 16
    assert recipe_differences(before, now) == [
        "model: {} -> (absent)",
        "model.width: (absent) -> 16",
        "train.max_steps: 12 -> 24",
    ]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "eval_root", "elsewhere"),
        ("data", "max_eval_samples", 3),
        ("evaluation", "num_segments", 2),
        ("evaluation", "num_crops", 3),
        ("evaluation", "depth_protocol", "eigen"),
    ],
)
def test_what_evaluations_find_is_told_of(section: str, key: str, value: object) -> None:
    before, now = tiny_arguments("a").to_dict(), tiny_arguments("b").to_dict()
    now[section][key] = value
    now["evaluation"].update(every_steps=3, at_end=False, floor=True, metric="loss", greater_is_better=False)
    now["evaluation"]["batch_size"], now["data"]["num_workers"] = 9, 7
    (line,) = judged_differences(before, now)
    assert line.startswith(f"{section}.{key}: ")
    assert line.endswith(f" -> {value}")


@pytest.mark.parametrize(
    ("given", "default"),
    [
        ({"task": "pretraining"}, 32),
        ({"task": "depth_estimation", "evaluation": {"depth_protocol": "exact_multimae"}}, 4),
        ({"task": "depth_estimation", "evaluation": {"metric": "loss"}}, 4),
        ({"task": "depth_estimation", "evaluation": {"metric": "eval/loss", "depth_protocol": "eigen"}}, 4),
        ({"task": "depth_estimation", "evaluation": {"metric": "loss"}, "model": {"depth_loss": "l1"}}, None),
        ({"task": "depth_estimation", "evaluation": {"depth_protocol": "eigen"}}, None),
        ({"task": "depth_estimation"}, None),
        ({"task": "semantic_segmentation"}, None),
    ],
)
def test_batches_are_compared_where_they_decide_the_metric_that_judges(given: dict[str, Any], default: int) -> None:
    """As many samples as an evaluation takes, whichever key says so."""
    before, stated, by_training, same = (merge(tiny_arguments("a").to_dict(), given) for _ in range(4))
    stated["evaluation"]["batch_size"], same["evaluation"]["batch_size"] = 9, default
    by_training["train"]["batch_size"] = 6
    told = [] if default is None else [f"evaluation.batch_size: {default} -> 9"]
    assert judged_differences(before, stated) == told
    assert judged_differences(before, same) == []
    told = ["evaluation.batch_size: 4 -> 6"] if default == 4 else []
    assert judged_differences(before, by_training) == told


def test_the_protocols_that_average_over_batches_are_known() -> None:
    args = {**tiny_arguments("a").to_dict(), "task": "depth_estimation"}
    for name, protocol in PROTOCOLS.items():
        free = free_between_evaluations({**args, "evaluation": {"depth_protocol": name}})
        assert ("evaluation.batch_size" in free) is (protocol.average != "batches")


def test_every_argument_that_says_how_to_evaluate_is_free_to_change_or_told_of() -> None:
    """A new key of `evaluation` is compared unless someone says that it does not decide the figures."""
    keys = [key for key in flatten(tiny_arguments("a").to_dict()) if key.startswith("evaluation.")]
    assert len(keys) > 8 and all("evaluation.".startswith(name) for name in FREE if name.startswith("evaluation"))
    free = free_between_evaluations({})
    told = {key for key in keys if not any(key == name or (key.startswith(name) and name[-1] in "._") for name in free)}
    assert told == {"evaluation.num_segments", "evaluation.num_crops", "evaluation.depth_protocol"}


def test_a_checkpoint_older_than_an_argument_continues_where_the_argument_has_its_default() -> None:
    before, now = tiny_arguments("a").to_dict(), tiny_arguments("b").to_dict()
    del before["init"]["num_attention_heads"], before["mixing"]
    assert recipe_differences(before, now) == []
    now["init"]["num_attention_heads"], now["mixing"]["mixup"] = 8, 0.2
    assert recipe_differences(before, now) == ["init.num_attention_heads: null -> 8", "mixing.mixup: 0.0 -> 0.2"]


def test_a_checkpoint_older_than_a_field_of_a_modality_continues() -> None:
    entry = {"name": "rgb", "channels": 3, "input_name": "pixel_values", "mask_ratio": 0.5}
    now = {"model": {"modalities": [{**entry, "denoising_weight": 0.0, "channel_mean": None}]}}
    assert recipe_differences({"model": {"modalities": [entry]}}, now) == []
    now["model"]["modalities"][0]["denoising_weight"] = 0.1
    (line,) = recipe_differences({"model": {"modalities": [entry]}}, now)
    assert line.startswith("model.modalities: ")

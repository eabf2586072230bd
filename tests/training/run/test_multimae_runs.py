"""The method multimae on its recipes, and from and to checkpoints of other methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.tiny import MULTIMAE, random_batch, tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.modeling.configuration_m33d import M33DConfig, rgb_modality
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.modeling.tasks_m33d import M33DForDepthEstimation, M33DForSemanticSegmentation
from m33d_hf.training.processes.optimization import layer_id, parameter_groups
from m33d_hf.training.recipe.parsing import parse_arguments
from m33d_hf.training.tasks.building import starting_config
from m33d_hf.weights.own import initialise

TINY = [
    "--train.max_steps=1",
    "--model.image_size=32",
    "--model.patch_size=8",
    "--model.hidden_size=32",
    "--model.num_hidden_layers=4",
    "--model.num_attention_heads=4",
    "--model.intermediate_size=64",
]


def config_of(recipe: str, *words: str) -> M33DConfig:
    return M33DConfig(**parse_arguments(["--recipe", recipe, "--method", "multimae", *words], "pretraining").model)


def saved(folder: Path, **fields: object) -> tuple[M33DForPreTraining, str]:
    torch.manual_seed(0)
    model = M33DForPreTraining(tiny_config(num_hidden_layers=4, **fields))
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.mark.parametrize(
    ("recipe", "budget", "decoder"),
    [("scannet_stage2", 98, (256, 2, 8, 1024)), ("rooms/pretrain", 18, (64, 2, 4, 256))],
)
def test_recipes_decide_the_size_and_the_method_what_is_multimae(
    recipe: str, budget: int, decoder: tuple[int, ...]
) -> None:
    config = config_of(recipe)
    assert config.budget_for(config.grid) == budget
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    assert tuple(getattr(config, f"decoder_{name}") for name in names) == decoder
    targets = {s.name: (s.loss, s.target_norm, s.weight, s.target_space) for s in config.target_specs}
    assert targets == {
        "rgb": ("mse", "none", 1.0, "input"),
        "depth": ("l1", "none", 1.0, "input"),
        "norm_rgb": ("mse", "pooled", 1.0, "input"),
    }
    assert (config.loss_reduction, config.depth_standardization) == ("sample", "trimmed")
    assert config.global_token and not config.use_cls_token and not config.encoder_norm


def test_the_second_rgb_target_is_a_switch() -> None:
    model = M33DForPreTraining(config_of("rooms/pretrain", "--modalities.norm_rgb.weight", "0"))
    assert list(model.decoder.targets) == ["rgb", "depth"]
    assert list(model(**random_batch(model.config)).losses) == ["rgb", "depth"]


def test_there_is_no_stage_1_and_no_clips() -> None:
    with pytest.raises(ConfigError, match="has no stage 1"):
        config_of("rooms/pretrain_stage1")
    with pytest.raises(ConfigError, match="does not support clips"):
        config_of("rooms/pretrain_clips")


@pytest.mark.parametrize("task", [M33DForSemanticSegmentation, M33DForDepthEstimation])
def test_fine_tuning_takes_the_rgb_encoder_and_the_global_token(task: type, tmp_path: Path) -> None:
    source, folder = saved(tmp_path, **MULTIMAE)
    args = parse_arguments([*TINY, "--init_from", folder], "semantic_segmentation")
    config = starting_config(args, num_labels=3)
    assert config.global_token and not config.use_cls_token
    model = task(config).eval()
    report = initialise(model, folder)
    assert all("head." in name for name in report.new)
    assert report.ignored["m33d.embeddings.depth.projection.weight"] == "this model has no embeddings of 'depth'"
    pixels = random_batch(source.config)["pixel_values"]
    ours, theirs = model.extract_features(pixels)["rgb"], source.eval().extract_features(pixels)["rgb"]
    torch.testing.assert_close(ours, theirs)


def test_a_class_token_asked_for_starts_from_the_global_token(tmp_path: Path) -> None:
    source, folder = saved(tmp_path, **MULTIMAE)
    args = parse_arguments([*TINY, "--init_from", folder, "--model.use_cls_token=true"], "semantic_segmentation")
    config = starting_config(args, num_labels=3)
    assert config.use_cls_token and not config.global_token
    model = M33DForSemanticSegmentation(config)
    initialise(model, folder)
    torch.testing.assert_close(model.m33d.embeddings["rgb"].cls_token, source.m33d.global_token)


def test_multimae_starts_from_our_mae(tmp_path: Path) -> None:
    source, folder = saved(tmp_path, modalities=[rgb_modality(weight=1.0)])
    model = M33DForPreTraining(tiny_config(num_hidden_layers=4, **MULTIMAE))
    report = initialise(model, folder)
    torch.testing.assert_close(model.m33d.global_token, source.m33d.embeddings["rgb"].cls_token)
    theirs = source.m33d.encoders["rgb"].layers[3].mlp.fc2.weight
    torch.testing.assert_close(model.m33d.encoders["shared"].layers[3].mlp.fc2.weight, theirs)
    assert {name.split(".")[0] for name in report.new} == {"decoder"}
    assert "decoder_kind is 'shared'" in next(iter(report.new.values()))


def test_decoders_are_taken_over_target_by_target(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, **MULTIMAE)
    fewer = {**MULTIMAE, "modalities": MULTIMAE["modalities"][:2]}
    model = M33DForPreTraining(tiny_config(num_hidden_layers=4, **fewer))
    report = initialise(model, folder)
    assert not report.new
    assert {name.split(".")[2] for name in report.ignored} == {"norm_rgb"}


def test_the_global_token_is_the_first_layer_and_does_not_decay() -> None:
    model = M33DForPreTraining(tiny_config(**MULTIMAE))
    assert layer_id("m33d.global_token", 2) == 0
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    (group,) = [g for g in groups if any(p is model.m33d.global_token for p in g["params"])]
    assert group["weight_decay"] == 0.0 and group["lr_scale"] == 0.5**3

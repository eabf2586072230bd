"""T5: what `--dry_run` prints against the counter of torch, for every method and every recipe on disk at its real size.

On the meta device nothing is computed, so the full ViT-B takes no longer than a toy. Attention is eager: the counter
does not see the fused kernels of the CPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.pretraining_cases import methods_with_rooms, pretraining_config, recipes_for
from m33d_hf.evaluation.flops import count_pretraining, count_task, flops_per_sample
from m33d_hf.modeling import tasks_m33d, video_tasks_m33d
from m33d_hf.modeling.configuration_m33d import M33DConfig
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.parsing import parse_arguments

BATCH = 2
COUNTED: dict[str, float] = {}  # of each configuration; recipes share many
GIGA = 1e9
MODELS = {
    "video_classification": video_tasks_m33d.M33DForVideoClassification,
    "action_detection": video_tasks_m33d.M33DForVideoActionDetection,
    "semantic_segmentation": tasks_m33d.M33DForSemanticSegmentation,
    "depth_estimation": tasks_m33d.M33DForDepthEstimation,
}


@pytest.fixture(autouse=True)
def autocast_for_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no autocast for the meta device; where it is used here it is switched off anyway."""
    monkeypatch.setattr(torch, "autocast", lambda *words, **options: nullcontext())


def pixels_of(config: M33DConfig, channels: int, device: str = "meta") -> torch.Tensor:
    frames = () if config.num_frames == 1 else (config.num_frames,)
    return torch.empty(BATCH, *frames, channels, *config.image_height_width, device=device)


def built(factory: Any, config: M33DConfig, device: str = "meta") -> torch.nn.Module:
    config._attn_implementation = "eager"
    with torch.device(device):
        return factory(config).to(device)


def counted_pretraining(config: M33DConfig) -> float:
    """What torch counts for one sample, forward and backward."""
    key = config.to_json_string()
    if key not in COUNTED:
        COUNTED[key] = _counted_once(config)
    return COUNTED[key]


def _counted_once(config: M33DConfig) -> float:
    model = built(M33DForPreTraining, config).train()
    inputs = {spec.input_name: pixels_of(config, spec.channels) for spec in config.specs}
    motion = torch.rand(BATCH, config.num_tokens)
    keep = {name: index.to("meta") for name, index in draw_keep(config, BATCH, motion=motion).items()}
    with FlopCounterMode(display=False) as counter:
        if config.distillation_weight > 0:
            inputs["teacher_features"] = model.embed_globally(None, **inputs)
        model(**inputs, keep=keep).loss.backward()
    return counter.get_total_flops() / BATCH


def task_config(recipe: str, task: str) -> M33DConfig:
    arguments = parse_arguments(["--recipe", recipe], task).model
    return M33DConfig(**{**arguments, "num_labels": arguments.get("num_labels") or 10})


def test_every_method_is_tested() -> None:
    assert {method for _, method in methods_with_rooms()} == set(recipes.method_names())


@pytest.mark.parametrize(("recipe", "method"), methods_with_rooms())
def test_every_method(recipe: str, method: str) -> None:
    config = pretraining_config(recipe, method)
    assert flops_per_sample(config, batch_size=BATCH) == pytest.approx(counted_pretraining(config), rel=0.01)


@pytest.mark.parametrize("recipe", recipes_for("pretraining"))
def test_every_pretraining_recipe_at_its_size(recipe: str) -> None:
    config = pretraining_config(recipe, None)
    assert flops_per_sample(config, batch_size=BATCH) == pytest.approx(counted_pretraining(config), rel=0.01)


@pytest.mark.parametrize("recipe", recipes_for("video_classification") + recipes_for("depth_estimation"))
def test_every_fine_tuning_recipe(recipe: str) -> None:
    task = "depth_estimation" if recipe in recipes_for("depth_estimation") else "video_classification"
    config = task_config(recipe, task)
    model = built(MODELS[task], config).train()
    with FlopCounterMode(display=False) as counter:
        output = model(pixel_values=pixels_of(config, 3))
        forward = counter.get_total_flops() / BATCH
        (output.logits if task == "video_classification" else output.predicted_depth).sum().backward()
    assert flops_per_sample(config, task, training=False) == pytest.approx(forward, rel=0.01)
    assert flops_per_sample(config, task) == pytest.approx(counter.get_total_flops() / BATCH, rel=0.01)


@pytest.mark.parametrize("recipe", recipes_for("semantic_segmentation"))
def test_every_segmentation_recipe(recipe: str) -> None:
    """The counter multiplies the weight gradient of a grouped convolution by its groups: those are put right here."""
    config = task_config(recipe, "semantic_segmentation")
    model = built(MODELS["semantic_segmentation"], config).train()
    with FlopCounterMode(display=False) as counter:
        output = model(pixel_values=pixels_of(config, 3))
        forward = counter.get_total_flops() / BATCH
        output.logits.sum().backward()
    t, h, w = config.grid
    pixels = t * h * w * config.segmentation_head_upscale**2
    true = 2.0 * pixels * config.segmentation_head_width * 7 * 7 * config.segmentation_head_depth
    excess = true * (config.segmentation_head_width - 1)
    assert flops_per_sample(config, "semantic_segmentation", training=False) == pytest.approx(forward, rel=0.01)
    expected = counter.get_total_flops() / BATCH - excess
    assert flops_per_sample(config, "semantic_segmentation") == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("recipe", recipes_for("action_detection"))
def test_every_recipe_of_action_detection(recipe: str) -> None:
    """Features are extracted once, by a forward pass; only the recurrent net and its classifier have gradients."""
    config = task_config(recipe, "action_detection")
    model = built(MODELS["action_detection"], config).train().freeze_encoder()
    clips = 32  # the state before the first clip needs no gradient, which a formula per clip leaves out
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.encode_clips(pixels_of(config, 3))
    extraction = counter.get_total_flops() / BATCH
    with FlopCounterMode(display=False) as counter:
        output = model(features=torch.empty(BATCH, clips, config.hidden_size, device="meta"))
        forward = counter.get_total_flops() / (BATCH * clips)
        output.logits.sum().backward()
    training = counter.get_total_flops() / (BATCH * clips)
    count = count_task(config, "action_detection")
    assert count.forward == pytest.approx(extraction + forward, rel=0.01)
    assert count.parts["temporal"] + count.parts["head"] == pytest.approx(forward, rel=0.01)
    assert count.training == pytest.approx(extraction + training, rel=0.01)
    assert count.training - extraction == pytest.approx(training, rel=0.01)


def test_every_task_has_recipes_that_are_tested() -> None:
    tested = {"pretraining", *MODELS}
    assert {name for task in tested for name in recipes_for(task)} == set(recipes.recipe_names())


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
    assert count_pretraining(config, customary=True).training / GIGA == pytest.approx(customary, abs=0.05)
    counted = counted_pretraining(config)
    assert count_pretraining(config).training == pytest.approx(counted, rel=0.01)
    if exact is not None:
        assert counted / GIGA == pytest.approx(exact, rel=0.001)

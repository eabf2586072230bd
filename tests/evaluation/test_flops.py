"""The analytic FLOP counts against the counter of torch, and against the figures of MAE and VideoMAE."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.tiny import tiny_config
from m33d_hf.errors import ConfigError
from m33d_hf.evaluation.flops import count_pretraining, count_task, flops_per_sample
from m33d_hf.modeling.configuration_m33d import M33DConfig, depth_modality, rgb_modality
from m33d_hf.modeling.masking_m33d import draw_keep
from m33d_hf.modeling.modeling_m33d import M33DModel
from m33d_hf.modeling.pretraining_m33d import M33DForPreTraining
from m33d_hf.training.recipe import recipes
from m33d_hf.training.recipe.parsing import parse_arguments

GIGA = 1e9
VIDEO = {
    "num_frames": 16,
    "tubelet_size": 2,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_num_attention_heads": 6,
    "decoder_intermediate_size": 1536,
}
COMBINATIONS = [
    ("rooms/pretrain", "mae"),
    ("rooms/pretrain", "rgbd_mae"),
    ("rooms/pretrain", "mask3d"),
    ("rooms/pretrain", "rgb_to_depth"),
    ("rooms/pretrain", "multimae"),
    ("rooms/pretrain_stage1", "m33d"),
    ("rooms/pretrain_stage1", "m33d_plus"),
    ("rooms/pretrain_stage2", "m33d"),
    ("rooms/pretrain_stage2", "m33d_plus"),
    ("rooms/pretrain_stage2", "m33d_followup"),
    ("rooms/pretrain_clips", "m33d"),
    ("rooms/pretrain_clips", "m33d_plus"),
    ("rooms/pretrain_clips", "videomae"),
    ("rooms/pretrain_clips", "rgbd_mae"),
    ("rooms/pretrain_clips", "mask3d"),
    ("scannet_stage1", "m33d"),
    ("scannet_stage2", "m33d"),
    ("scannet_stage2", "m33d_plus"),
    ("scannet_stage2", "mae"),
    ("scannet_stage2", "multimae"),
]


def config_of(recipe: str, method: str, *words: str) -> M33DConfig:
    return M33DConfig(**parse_arguments(["--recipe", recipe, "--method", method, *words], "pretraining").model)


def counted(config: M33DConfig, batch: int = 2) -> float:
    """What torch counts for one sample, forward and backward, with eager attention."""
    config._attn_implementation = "eager"
    model = M33DForPreTraining(config).train()
    shape = (
        (batch, 0, *config.image_height_width)
        if config.num_frames == 1
        else (batch, config.num_frames, 0, *config.image_height_width)
    )
    inputs = {}
    for spec in config.specs:
        inputs[spec.input_name] = torch.randn([spec.channels if side == 0 else side for side in shape])
    keep = draw_keep(config, batch, motion=torch.rand(batch, config.num_tokens))
    with FlopCounterMode(display=False) as counter:
        if config.distillation_weight > 0:
            seen = keep if config.distillation_tokens == "visible" else None
            inputs["teacher_features"] = model.embed_globally(seen, **inputs)
        model(**inputs, keep=keep).loss.backward()
    return counter.get_total_flops() / batch


def test_reference_models() -> None:
    mae = M33DConfig(modalities=[rgb_modality(mask_ratio=0.75)])
    assert count_pretraining(mae, customary=True).training / GIGA == pytest.approx(58.5, abs=0.05)
    tube = M33DConfig(modalities=[rgb_modality(mask_ratio=0.9, masking="tube")], **VIDEO)
    assert count_pretraining(tube, customary=True).training / GIGA == pytest.approx(208.9, abs=0.05)
    assert count_pretraining(tube).training / GIGA == pytest.approx(199.7, abs=0.05)


@pytest.mark.parametrize(
    ("attention", "fusion", "giga"),
    [("full", "joint", 106.2), ("cross", "joint", 83.6)],
)
def test_m33d_images_stage_2(attention: str, fusion: str, giga: float) -> None:
    config = M33DConfig(use_cls_token=False, decoder_attention=attention, decoder_fusion=fusion)
    assert count_pretraining(config).training / GIGA == pytest.approx(giga, rel=0.01)


def test_multimae_98_tokens() -> None:
    """Counted by hand before: encoder 51.5, decoders 6.2, in all 58.7 GF, without the second RGB target."""
    config = config_of("scannet_stage2", "multimae", "--modalities.norm_rgb.weight", "0")
    count = count_pretraining(config, customary=True)
    assert config.budget_for(config.grid) == 98
    assert 3 * count.parts["encoder"] / GIGA == pytest.approx(51.5, abs=0.05)
    assert 3 * count.parts["decoder"] / GIGA == pytest.approx(6.2, abs=0.05)
    assert count.training / GIGA == pytest.approx(58.7, abs=0.05)


def test_m33d_video() -> None:
    modalities = [rgb_modality(mask_ratio=0.9, masking="tube"), depth_modality(mask_ratio=0.9, masking="tube")]
    config = M33DConfig(modalities=modalities, contrastive_weight=0.2, matching_weight=0.1, **VIDEO)
    assert count_pretraining(config).training / GIGA == pytest.approx(484.1, rel=0.01)


@pytest.mark.parametrize(("recipe", "method"), COMBINATIONS)
def test_every_method_against_the_counter(recipe: str, method: str) -> None:
    if recipe.startswith("scannet"):
        config = config_of(recipe, method, "--model.num_hidden_layers", "1", "--model.decoder_num_hidden_layers", "1")
    else:
        config = config_of(recipe, method)
    assert flops_per_sample(config, batch_size=2) == pytest.approx(counted(config), rel=0.01)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.encoder_sharing", "shared"],
        ["--model.num_register_tokens", "7", "--model.position_embedding_type", "learned"],
        ["--model.joint_encoding", "true"],
        ["--model.decoder_attention", "cross"],
        ["--model.encoder_sharing", "shared", "--model.decoder_fusion", "separate"],
        ["--modalities.rgb.mask_ratio", "0.5", "--model.use_cls_token", "false"],
    ],
)
def test_switches_against_the_counter(words: list[str]) -> None:
    config = config_of("rooms/pretrain", "rgbd_mae", *words)
    assert flops_per_sample(config) == pytest.approx(counted(config), rel=0.01)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model.decoder_fusion", "joint"],
        ["--model.decoder_fusion", "joint", "--model.decoder_attention", "cross"],
        ["--model.distillation_tokens", "visible"],
        ["--modalities.rgb.role", "both", "--modalities.rgb.weight", "1", "--modalities.rgb.denoising_weight", "1"],
    ],
)
def test_denoising_and_a_teacher_against_the_counter(words: list[str]) -> None:
    config = config_of("rooms/pretrain_stage2", "m33d_followup", *words)
    assert flops_per_sample(config) == pytest.approx(counted(config), rel=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.contrastive_projection_dim", "32"],
        ["--model.contrastive_tokens", "full_forward"],
        ["--model.contrastive_symmetric", "true"],
        ["--model.matching_fusion", "sum"],
    ],
)
def test_pair_losses_against_the_counter(words: list[str]) -> None:
    config = config_of("rooms/pretrain_clips", "m33d", *words)
    assert flops_per_sample(config, batch_size=2) == pytest.approx(counted(config), rel=0.01)


def test_features_against_the_counter() -> None:
    config = config_of("rooms/pretrain", "mae")
    config._attn_implementation = "eager"
    model = M33DModel(config, modalities=["rgb"]).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(pixel_values=torch.randn(1, 3, 48, 48))
    assert flops_per_sample(config, "features", training=False) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("size", [48, [40, 56]])
@pytest.mark.parametrize("task", ["semantic_segmentation", "depth_estimation"])
def test_task_models_against_the_counter(task: str, size: int | list[int]) -> None:
    from m33d_hf.modeling import tasks_m33d

    recipe = {"semantic_segmentation": "rooms/semseg", "depth_estimation": "rooms/depth"}[task]
    args = parse_arguments(["--recipe", recipe], task)
    config = M33DConfig(**{**args.model, "image_size": size, "num_labels": 10})
    config._attn_implementation = "eager"
    name = {"semantic_segmentation": "M33DForSemanticSegmentation", "depth_estimation": "M33DForDepthEstimation"}[task]
    model = getattr(tasks_m33d, name)(config)
    pixels = torch.randn(1, 3, *config.image_height_width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(pixel_values=pixels)
    assert flops_per_sample(config, task, training=False) == pytest.approx(counter.get_total_flops(), rel=0.01)
    if task == "depth_estimation":  # grouped convolutions of the other head are counted wrongly in the backward pass
        with FlopCounterMode(display=False) as counter:
            model.train()(pixel_values=pixels).predicted_depth.sum().backward()
        assert flops_per_sample(config, task) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_stage_1_reads_everything_and_decodes_nothing() -> None:
    count = count_pretraining(M33DConfig(**parse_arguments(["--recipe", "scannet_stage1"], "pretraining").model))
    assert set(count.parts) == {"patch projection", "encoder", "pair losses"}
    assert count.training / GIGA == pytest.approx(209.1, rel=0.01)


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match="semantic_segmentation"):
        flops_per_sample(M33DConfig(), "semantic_segmentatio")
    with pytest.raises(ConfigError):
        count_task(M33DConfig(), "classify")


def test_every_pretraining_recipe_can_be_counted() -> None:
    for name in recipes.recipe_names():
        tree: dict = {}
        for _, layer in recipes.recipe_chain(name):
            tree = recipes.merge(tree, layer)
        if tree["task"] == "pretraining":
            config = M33DConfig(**parse_arguments(["--recipe", name], "pretraining").model)
            assert flops_per_sample(config) > flops_per_sample(config, training=False) > 0


def test_video_tasks_add_their_heads() -> None:
    config = tiny_config(num_frames=4, tubelet_size=2, num_labels=7, temporal_hidden_size=8)
    features = count_task(config, "features").forward
    assert count_task(config, "video_classification").forward - features == 2 * 32 * 7
    gates = 2 * 2 * (32 + 8) * 3 * 8
    assert count_task(config, "action_detection").parts["temporal"] == gates + 2 * 16 * 7
    config.temporal_causal, config.temporal_num_layers = True, 2
    gates = 2 * (32 + 8) * 3 * 8 + 2 * (8 + 8) * 3 * 8
    assert count_task(config, "action_detection").parts["temporal"] == gates + 2 * 8 * 7
